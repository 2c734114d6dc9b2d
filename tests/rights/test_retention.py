"""The grants that `config check --connect` prints for a disposition suffice, and are minimal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from include.local.postgres import EmbeddedPostgres
from include.rights.missing import Login, MissingRight
from include.rights.workflows import lacks_retention
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


@pytest.fixture
def kept(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    """A yard in which a class and a table without a class keep records."""
    with yard(postgres, KEPT) as made:
        made.rules = [
            rule("item"),
            rule("bill", "keep", period="P10Y"),
            rule("person", "mask", mask={"name": "erase"}),
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


def conninfo_of(place: Yard, role: str) -> str:
    return make_conninfo(place.conninfo, user=role, password="x")


def missing_rights(place: Yard, role: str) -> list[MissingRight]:
    with psycopg.connect(conninfo_of(place, role)) as connection:
        return list(lacks_retention(Login(connection), place.database, place.rules))


def test_printed_grants_suffice_and_are_least(place: Yard) -> None:
    """`detach` changes the columns that it names, and a mask on request deletes nothing."""
    with login(place) as role:
        missing = missing_rights(place, role)
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
        place.conninfo = conninfo_of(place, role)
        assert place.enforced() == {"parent": 1, "letter": 1}
        assert place.keys("child", "id, tenant, parent") == {(1, 7, None)}


def test_printed_grants_suffice_if_other_records_keep_some(kept: Yard) -> None:
    """A class with `keep` and a table without a class refer to them: their keys are read too."""
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


def test_mask_needs_update_on_masked_columns_only(kept: Yard) -> None:
    """SELECT ... FOR UPDATE needs UPDATE on at least one column, and these suffice."""
    with login(kept) as role:
        grants = [right.grant for right in missing_rights(kept, role)]
        updates = [grant for grant in grants if '"person"' in grant and "UPDATE" in grant]
        assert updates == [f'GRANT UPDATE ("name") ON "{kept.name}"."person" TO "{role}";']
