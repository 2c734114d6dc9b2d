"""Statements for tables with many foreign keys grow with the keys, not with the paths of keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.sql import Composable

from include.holds.records import on_records
from include.local.postgres import EmbeddedPostgres
from include.retention.certificate.count.inspection import Inspection
from include.retention.planning.planner import make_plan
from include.retention.postgres.session import one_view
from tests.retention.yard import OVER, YOUNG, Yard, rule, yard

TABLES, MORE_TABLES = 12, 24
KEYS = (1, 2, 3)  # foreign keys of each table, by their distance to the referenced table


class RecordingCursor(psycopg.Cursor[Any]):
    """A cursor that adds the length of each statement to a sum on its connection."""

    characters = 0

    def execute(self, query: Any, *args: Any, **more: Any) -> Any:
        text = query.as_string(self) if isinstance(query, Composable) else query
        RecordingCursor.characters += len(text)
        return super().execute(query, *args, **more)


@contextmanager
def related_tables(postgres: EmbeddedPostgres, tables: int, *, is_circle: bool) -> Iterator[Yard]:
    """Create tables with three foreign keys each; a young record keeps old ones of the first."""
    names = [f"t{at}" for at in range(tables)]
    statements = [
        f"CREATE TABLE {name} (id int PRIMARY KEY, at date, k1 int, k2 int, k3 int);"
        f"INSERT INTO {name} VALUES (1, '{OVER}'), (2, '{YOUNG}');"
        for name in names
    ]
    for at, name in enumerate(names):
        statements += [
            f"ALTER TABLE {name} ADD FOREIGN KEY (k{far}) REFERENCES {names[at - far]};"
            for far in KEYS
            if is_circle or at >= far
        ]
    with yard(postgres, "".join(statements)) as place:
        place.rules = [rule(name) for name in names]
        yield place


def plan(place: Yard, connection: psycopg.Connection[Any]) -> None:
    make_plan(connection, place.schedule())


def count_afterwards(place: Yard, connection: psycopg.Connection[Any]) -> None:
    with place.state.connect() as conn:
        holds = on_records(conn, place.name)
    with one_view(connection, place.database):
        Inspection(
            connection,
            place.database,
            place.rules,
            as_of=place.as_of,
            timezone=place.timezone,
            holds=holds,
        ).left()


@pytest.mark.parametrize("is_circle", [True, False])
@pytest.mark.parametrize("step", [plan, count_afterwards])
def test_statements_of_twice_the_tables_are_twice_as_long(
    postgres: EmbeddedPostgres,
    step: Callable[[Yard, psycopg.Connection[Any]], None],
    is_circle: bool,
) -> None:
    characters = []
    for tables in (TABLES, MORE_TABLES):
        with (
            related_tables(postgres, tables, is_circle=is_circle) as place,
            place.session() as connection,
        ):
            RecordingCursor.characters = 0
            connection.cursor_factory = RecordingCursor
            step(place, connection)
            characters.append(RecordingCursor.characters)
    fewer, more = characters
    assert 10_000 < fewer < more <= 1.15 * fewer * MORE_TABLES / TABLES
