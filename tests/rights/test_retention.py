"""Tests that `config check --connect` prints exactly the grants that a disposition needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from include.local.postgres import EmbeddedPostgres
from include.rights.missing import Login, MissingRight
from include.rights.workflows import lacks_retention
from tests.retention.retention_schema import OVER, RetentionSchema, retention_schema, rule

TABLES = f"""
CREATE TABLE parent (tenant int, id int, at date, PRIMARY KEY (tenant, id));
CREATE TABLE child (id int PRIMARY KEY, tenant int NOT NULL, parent int,
  FOREIGN KEY (tenant, parent) REFERENCES parent);
CREATE TABLE keeper (id int PRIMARY KEY, tenant int, parent int,
  FOREIGN KEY (tenant, parent) REFERENCES parent);
CREATE TABLE letter (id int PRIMARY KEY, at date, person text, words text);
INSERT INTO parent VALUES (7, 1, '{OVER}'), (7, 2, '{OVER}');
INSERT INTO keeper VALUES (1, 7, 2);
INSERT INTO child VALUES (1, 7, 1);
INSERT INTO letter VALUES (1, '{OVER}', 'a', 'x');
"""
KEPT = f"""
CREATE TABLE item (id int PRIMARY KEY, at date);
CREATE TABLE bill (id int PRIMARY KEY, item int REFERENCES item, at date);
CREATE TABLE person (id int PRIMARY KEY, name text, at date);
CREATE TABLE receipt (no int PRIMARY KEY, item int REFERENCES item);
INSERT INTO item VALUES (1, '{OVER}'), (2, '{OVER}'), (3, '{OVER}');
INSERT INTO receipt VALUES (7, 3);
INSERT INTO bill VALUES (1, 2, '{OVER}');
INSERT INTO person VALUES (1, 'Ada', '{OVER}');
"""


@pytest.fixture
def courier_schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    with retention_schema(postgres) as courier_schema:
        courier_schema.run(TABLES)
        courier_schema.rules = [
            rule("parent", detach="child.parent"),
            rule(
                "letter",
                "mask",
                mask={"words": "erase"},
                on_request=True,
                keys={"subject": "t.Person"},
            ),
        ]
        yield courier_schema


@pytest.fixture
def kept(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    """Return a schema in which records that are kept refer to records that are to be deleted."""
    with retention_schema(postgres, KEPT) as courier_schema:
        courier_schema.rules = [
            rule("item"),
            rule("bill", "keep", period="P10Y"),
            rule("person", "mask", mask={"name": "erase"}),
        ]
        yield courier_schema


@contextmanager
def login(courier_schema: RetentionSchema) -> Iterator[str]:
    """Create a login that has no rights for the disposition, and yield its name."""
    name = f"{courier_schema.name}_disposition"
    courier_schema.run(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    try:
        yield name
    finally:
        courier_schema.run(f"DROP OWNED BY {name}; DROP ROLE {name}")


def conninfo_of(courier_schema: RetentionSchema, role: str) -> str:
    return make_conninfo(courier_schema.conninfo, user=role, password="x")


def missing_rights(courier_schema: RetentionSchema, role: str) -> list[MissingRight]:
    with psycopg.connect(conninfo_of(courier_schema, role)) as connection:
        return list(
            lacks_retention(Login(connection), courier_schema.database, courier_schema.rules)
        )


def test_printed_grants_for_disposition_are_sufficient_and_minimal(
    courier_schema: RetentionSchema,
) -> None:
    """`detach` changes only the named columns, and a mask on request deletes nothing."""
    with login(courier_schema) as role:
        missing = missing_rights(courier_schema, role)
        for right in missing:
            courier_schema.run(right.grant)
        changes = {right.grant for right in missing if "SELECT" not in right.grant}
        schema = f'"{courier_schema.name}"'
        assert changes == {
            f'GRANT USAGE ON SCHEMA {schema} TO "{role}";',
            f'GRANT DELETE ON {schema}."parent" TO "{role}";',
            f'GRANT UPDATE ("tenant") ON {schema}."parent" TO "{role}";',
            f'GRANT UPDATE ("words") ON {schema}."letter" TO "{role}";',
            f'GRANT UPDATE ("parent") ON {schema}."child" TO "{role}";',
        }
        courier_schema.conninfo = conninfo_of(courier_schema, role)
        assert courier_schema.enforced() == {"parent": 1, "letter": 1}
        assert courier_schema.keys("child", "id, tenant, parent") == {(1, 7, None)}


def test_printed_grants_are_sufficient_if_expired_records_are_kept_by_references(
    kept: RetentionSchema,
) -> None:
    """The login has to read the foreign keys of tables whose records are not deleted."""
    with login(kept) as role:
        for right in missing_rights(kept, role):
            kept.run(right.grant)
        assert missing_rights(kept, role) == []
        plan = kept.plan()
        owner, kept.conninfo = kept.conninfo, conninfo_of(kept, role)
        assert not kept.execute(plan).refused
        kept.conninfo = owner
        assert kept.keys("item") == {2, 3}
        assert kept.run("SELECT name FROM person") == [(None,)]


def test_masking_needs_update_right_only_on_masked_columns(kept: RetentionSchema) -> None:
    """SELECT ... FOR UPDATE needs UPDATE on at least one column, and the masked columns suffice."""
    with login(kept) as role:
        grants = [right.grant for right in missing_rights(kept, role)]
        updates = [grant for grant in grants if '"person"' in grant and "UPDATE" in grant]
        assert updates == [f'GRANT UPDATE ("name") ON "{kept.name}"."person" TO "{role}";']
