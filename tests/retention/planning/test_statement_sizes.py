"""Tests that statements grow with the number of foreign keys, not with the paths between tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.sql import Composable

from include.holds.records import load_record_holds
from include.local.postgres import EmbeddedPostgres
from include.retention.certificate.count.inspection import Inspection
from include.retention.planning.planner import make_plan
from include.retention.postgres.session import open_snapshot
from tests.retention.retention_schema import OVER, YOUNG, RetentionSchema, retention_schema, rule

TABLES, MORE_TABLES = 12, 24
KEYS = (1, 2, 3)  # foreign keys of each table, by their distance to the referenced table


class RecordingCursor(psycopg.Cursor[Any]):
    """A cursor that adds up the lengths of the statements that it executes."""

    characters = 0

    def execute(self, query: Any, *args: Any, **more: Any) -> Any:
        text = query.as_string(self) if isinstance(query, Composable) else query
        RecordingCursor.characters += len(text)
        return super().execute(query, *args, **more)


@contextmanager
def related_tables(
    postgres: EmbeddedPostgres, tables: int, *, is_circle: bool
) -> Iterator[RetentionSchema]:
    """Create tables with three foreign keys each.

    An unexpired record leads by its foreign keys to expired records, which are therefore kept.
    """
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
    with retention_schema(postgres, "".join(statements)) as schema:
        schema.rules = [rule(name) for name in names]
        yield schema


def plan(schema: RetentionSchema, connection: psycopg.Connection[Any]) -> None:
    make_plan(connection, schema.schedule())


def count_afterwards(schema: RetentionSchema, connection: psycopg.Connection[Any]) -> None:
    with schema.state.connect() as conn:
        holds = load_record_holds(conn, schema.name)
    with open_snapshot(connection, schema.database):
        Inspection(
            connection,
            schema.database,
            schema.rules,
            as_of=schema.as_of,
            timezone=schema.timezone,
            holds=holds,
        ).count_remaining_expired()


@pytest.mark.parametrize("is_circle", [True, False])
@pytest.mark.parametrize("step", [plan, count_afterwards])
def test_length_of_retention_statements_grows_linearly_with_number_of_tables(
    postgres: EmbeddedPostgres,
    step: Callable[[RetentionSchema, psycopg.Connection[Any]], None],
    is_circle: bool,
) -> None:
    characters = []
    for tables in (TABLES, MORE_TABLES):
        with (
            related_tables(postgres, tables, is_circle=is_circle) as schema,
            schema.session() as connection,
        ):
            RecordingCursor.characters = 0
            connection.cursor_factory = RecordingCursor
            step(schema, connection)
            characters.append(RecordingCursor.characters)
    fewer, more = characters
    assert 10_000 < fewer < more <= 1.15 * fewer * MORE_TABLES / TABLES
