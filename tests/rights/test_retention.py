"""The grants that `config check --connect` prints for a disposition suffice, and are no wider."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from include.local.postgres import EmbeddedPostgres
from include.rights.missing import Login
from include.rights.retention import lacks_retention
from tests.retention.yard import OVER, Yard, rule, yard

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


@pytest.fixture
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    with yard(postgres) as made:
        made.run(TABLES)
        made.rules = [
            rule("parent", detach="child.parent"),
            rule(
                "letter",
                "mask",
                mask={"words": "erase"},
                on_request=True,
                keys={"subject": "t.Person"},
            ),
        ]
        yield made


@contextmanager
def login(place: Yard) -> Iterator[str]:
    """Make a login without rights for the disposition; yield its name."""
    name = f"{place.name}_disposition"
    place.run(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    try:
        yield name
    finally:
        place.run(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_printed_grants_suffice_and_are_least(place: Yard) -> None:
    """`detach` changes the columns that it names, and a mask on request deletes nothing."""
    with login(place) as role:
        conninfo = make_conninfo(place.conninfo, user=role, password="x")
        with psycopg.connect(conninfo) as connection:
            missing = list(lacks_retention(Login(connection), place.database, place.rules))
        for right in missing:
            place.run(right.grant)
        changes = {right.grant for right in missing if "SELECT" not in right.grant}
        schema = f'"{place.name}"'
        assert changes == {
            f'GRANT USAGE ON SCHEMA {schema} TO "{role}";',
            f'GRANT DELETE ON {schema}."parent" TO "{role}";',
            f'GRANT UPDATE ("tenant") ON {schema}."parent" TO "{role}";',
            f'GRANT UPDATE ("words") ON {schema}."letter" TO "{role}";',
            f'GRANT UPDATE ("parent") ON {schema}."child" TO "{role}";',
        }
        place.conninfo = conninfo
        assert place.enforced() == {"parent": 1, "letter": 1}
        assert place.keys("child", "id, tenant, parent") == {(1, 7, None)}
