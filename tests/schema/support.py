"""Helpers that create temporary databases and small data maps."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import sql

from include.local.postgres import EmbeddedPostgres
from include.messages import verbatim
from include.policy.datamap import MappedCollection, MappedDatabase, MappedField, Reference


@contextmanager
def scratch(postgres: EmbeddedPostgres, script: str = "") -> Iterator[psycopg.Connection[Any]]:
    """Create a database from a psql script, and drop it afterwards."""
    name = f"schema_{uuid.uuid4().hex[:10]}"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            if script:
                subprocess.run(
                    ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", postgres.conninfo(name)],
                    input=script, text=True, check=True, capture_output=True,
                )  # fmt: skip
            with psycopg.connect(postgres.conninfo(name)) as connection:
                yield connection
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def make_data_map(
    tables: dict[str, dict[str, MappedField]], *, name: str = "shop", schema: str = "public"
) -> MappedDatabase:
    """Create a data map from the fields of each table.

    A table that is called ``schema/table`` is in another schema.
    """
    collections = {}
    for key, fields in tables.items():
        schema_name, _, table = key.rpartition("/")
        collections[table] = MappedCollection(
            name=table, schema_name=schema_name or schema, table=table, fields=fields
        )
    return MappedDatabase(
        name=name, title=verbatim(name), connection="customer_db", schema_name=schema,
        rto=timedelta(hours=1), rpo=timedelta(hours=1), collections=collections,
    )  # fmt: skip


def field(name: str, to: str = "", *, key: bool = False, kind: str | None = None) -> MappedField:
    """Create a field of a data map.

    Args:
        name: name of the field.
        to: ``collection.field`` of the same data map to which the field refers; empty for none.
        key: whether the field belongs to the primary key.
        kind: data type of the field; None if the data map states none.
    """
    collection, _, target = to.rpartition(".")
    references = (
        (Reference(database="shop", collection=collection, field=target, direction="to"),)
        if to
        else ()
    )
    return MappedField(name=name, primary_key=key, data_type=kind, references=references)


def fields(*some: MappedField) -> dict[str, MappedField]:
    """Return fields by name."""
    return {mapped_field.name: mapped_field for mapped_field in some}
