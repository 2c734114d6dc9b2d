"""Databases to read, and maps made of a few lines."""

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
from include.policy.datamap import MappedCollection, MappedDatabase, MappedField, Reference


@contextmanager
def scratch(postgres: EmbeddedPostgres, script: str = "") -> Iterator[psycopg.Connection[Any]]:
    """A database made by a script of psql, dropped afterwards."""
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


def mapped(
    tables: dict[str, dict[str, MappedField]], *, name: str = "shop", schema: str = "public"
) -> MappedDatabase:
    """A data map; ``schema.table`` is a table of another schema."""
    collections = {}
    for key, fields in tables.items():
        where, _, table = key.rpartition("/")
        collections[table] = MappedCollection(
            name=table, schema_name=where or schema, table=table, fields=fields
        )
    return MappedDatabase(
        name=name, title=name, connection="customer_db", schema_name=schema,
        rto=timedelta(hours=1), rpo=timedelta(hours=1), collections=collections,
    )  # fmt: skip


def field(name: str, to: str = "", *, key: bool = False, kind: str | None = None) -> MappedField:
    """A field; ``to`` is ``collection.field`` of the same map."""
    collection, _, target = to.rpartition(".")
    references = (
        (Reference(database="shop", collection=collection, field=target, direction="to"),)
        if to
        else ()
    )
    return MappedField(name=name, primary_key=key, data_type=kind, references=references)


def fields(*some: MappedField) -> dict[str, MappedField]:
    """Fields by name."""
    return {one.name: one for one in some}
