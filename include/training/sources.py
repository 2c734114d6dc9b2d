"""Provide people, courses and completions as relations of one PostgreSQL session.

Where all three are queries on one mapped database, they are read there. Otherwise they are brought
together in the state database, where uploaded files are: for the length of a transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import psycopg
from psycopg.sql import SQL, Composable, Identifier
from sqlalchemy import Engine

from include.policy.fragments import pack_sql
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from include.training.rules import TrainingRules, TrainingSource
from include.training.tables import training_completion, training_course, training_roster
from include.workflow.run_context import RunContext

_UPLOADED = {
    "people": training_roster,
    "courses": training_course,
    "completions": training_completion,
}
COLUMNS: Mapping[str, Mapping[str, str]] = {
    name: {
        column.name: str(column.type).lower() for column in table.c if column.name != "upload_id"
    }
    for name, table in _UPLOADED.items()
}
"""The columns of each source and their types: those of uploaded files."""

_OF_THE_SQL = "42"  # SQLSTATE class: syntax, unknown names, missing rights; says no value
_OF_THE_DATA = "22"


@dataclass(frozen=True)
class Sources:
    """What the queries of this room read.

    Attributes:
        connection: in a transaction that sees one moment.
        relations: people, courses and completions, each in brackets.
    """

    connection: psycopg.Connection[Any]
    relations: Mapping[str, Composable]

    def __getitem__(self, name: str) -> Composable:
        """The relation of that name."""
        return self.relations[name]


@contextmanager
def open_sources(
    run: RunContext[TrainingRules], people: Sequence[str] | None = None
) -> Iterator[Sources]:
    """Open the sources of training.yaml in one snapshot.

    Args:
        run: the context.
        people: staff numbers whose rows are needed; by default everyone's.

    Raises:
        UsageError: a query cannot be read or lacks a column.
        ServiceError: a database is not there.
    """
    rules, state = run.rules, run.state
    queried = {source.database for source in rules.sources.values()}
    readers = {name: run.reader(name) for name in queried if name is not None}
    with ExitStack() as stack:
        if len(queried) == 1 and None not in queried:
            connection = stack.enter_context(_reading(readers[str(queried.pop())]))
            relations = {name: _queried(one) for name, one in rules.sources.items()}
        else:
            connection = stack.enter_context(_gathering(state))
            relations = {
                name: _gathered(stack, connection, name, one, readers, people)
                for name, one in rules.sources.items()
            }
        yield Sources(
            connection,
            {name: _typed(connection, name, one) for name, one in relations.items()},
        )


@contextmanager
def _reading(address: DatabaseAddress) -> Iterator[psycopg.Connection[Any]]:
    with address.connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        yield connection


@contextmanager
def _gathering(state: Engine) -> Iterator[psycopg.Connection[Any]]:
    with state.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
        connection = cast("psycopg.Connection[Any]", conn.connection.driver_connection)
        yield connection
        if not connection.closed:
            connection.rollback()  # SQLAlchemy does not know that a transaction began


def _queried(source: TrainingSource) -> Composable:
    assert source.sql is not None
    return SQL("({})").format(pack_sql(source.sql))


def _gathered(
    stack: ExitStack,
    connection: psycopg.Connection[Any],
    name: str,
    source: TrainingSource,
    readers: Mapping[str, DatabaseAddress],
    people: Sequence[str] | None,
) -> Composable:
    """Uploaded rows where they are; those of a query brought to the state database."""
    if source.upload:
        return Identifier(_UPLOADED[name].name)
    assert source.database is not None
    reader = stack.enter_context(_reading(readers[source.database]))
    temporary = Identifier(f"gathered_{name}")
    columns = SQL(", ").join(
        SQL("{} {}").format(Identifier(column), SQL(kind)) for column, kind in COLUMNS[name].items()
    )
    connection.execute(
        SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP").format(temporary, columns)
    )
    some = people is not None and "person" in COLUMNS[name]
    rows = SQL("COPY (SELECT * FROM {} AS one {}) TO STDOUT").format(
        _typed(reader, name, _queried(source)),
        SQL("WHERE person = ANY(%(people)s)") if some else SQL(""),
    )
    with (
        telling(name),
        reader.cursor() as there,
        connection.cursor() as here,
        there.copy(rows, {"people": list(people or ())} if some else {}) as taken,
        here.copy(SQL("COPY {} FROM STDIN").format(temporary)) as given,
    ):
        for block in taken:
            given.write(block)
    connection.execute(SQL("ANALYZE {}").format(temporary))
    return temporary


def _typed(connection: psycopg.Connection[Any], name: str, relation: Composable) -> Composable:
    """The relation with its columns in order and in their types; a missing one is said here."""
    with telling(name):
        rows = connection.execute(SQL("SELECT * FROM {} AS one LIMIT 0").format(relation), {})
        have = {column.name for column in rows.description or []}
    wanted = COLUMNS[name]
    if absent := [one for one in wanted if one not in have]:
        raise UsageError(
            f"training.yaml: {name} lacks the columns {', '.join(absent)}.",
            f"Its query should have: {', '.join(wanted)}.",
        )
    columns = SQL(", ").join(
        SQL("{}::{}").format(Identifier(column), SQL(kind)) for column, kind in wanted.items()
    )
    return SQL("(SELECT {} FROM {} AS one)").format(columns, relation)


@contextmanager
def telling(name: str) -> Iterator[None]:
    """Report a faulty query of the pack without quoting a value of a row."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise ServiceError(
            f"The database of training.yaml's {name} was lost ({error.sqlstate or 'no answer'}).",
            "Check that the database runs, then retry.",
        ) from None
    except psycopg.Error as error:
        state = error.sqlstate or ""
        said = error.diag.message_primary if state.startswith(_OF_THE_SQL) else None
        if state.startswith(_OF_THE_DATA):
            said = "a value has another form than its column should have"
        raise UsageError(
            f"training.yaml: {name} cannot be read: {said or f'SQLSTATE {state}'}.",
            "Correct the query, or the rights of its connection.",
        ) from None
