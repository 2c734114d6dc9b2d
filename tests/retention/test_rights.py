"""The rights that `config check --connect` asks for suffice, and are no more than needed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from include.local.postgres import EmbeddedPostgres
from include.rights.missing import Login
from include.rights.retention import lacks_retention
from tests.retention.yard import OVER, Yard, rule, yard

TABLES = f"""
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
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    with yard(postgres, TABLES) as made:
        made.rules = [
            rule("item"),
            rule("bill", "keep", period="P10Y"),
            rule("person", "mask", mask={"name": "erase"}),
        ]
        yield made


@pytest.fixture
def role(place: Yard) -> Iterator[str]:
    name = f"r_{uuid.uuid4().hex[:12]}"
    place.run(f"CREATE ROLE {name}")
    yield name
    place.run(f"DROP OWNED BY {name}; DROP ROLE {name}")


def grants(place: Yard, role: str) -> list[str]:
    """Return the statements of what the role lacks."""
    with psycopg.connect(place.conninfo) as connection:
        connection.execute(SQL("SET ROLE {}").format(Identifier(role)))
        return [
            one.grant for one in lacks_retention(Login(connection), place.database, place.rules)
        ]


def test_the_grants_suffice_where_others_keep_records(place: Yard, role: str) -> None:
    """A kept class and a table without a class refer to them: their keys are read too."""
    for statement in grants(place, role):
        place.run(statement)
    assert grants(place, role) == []
    plan = place.plan()
    place.conninfo += f" options='-c role={role} -c search_path={place.name}'"
    assert not place.execute(plan).refused
    assert place.keys("item") == {2, 3}
    assert place.run("SELECT name FROM person") == [(None,)]


def test_masked_columns_are_the_only_ones_that_may_be_updated(place: Yard, role: str) -> None:
    """SELECT ... FOR UPDATE asks for some column, and these are some."""
    updates = [one for one in grants(place, role) if '"person"' in one and "UPDATE" in one]
    assert updates == [f'GRANT UPDATE ("name") ON "{place.name}"."person" TO "{role}";']
