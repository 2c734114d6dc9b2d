"""Provide people, courses and completions as relations in one PostgreSQL session.

If all three sources are queries on the same mapped database, the session is in that database.
Otherwise it is in the state database, which contains the uploaded files, and the rows of queries
are copied to temporary tables.
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

_SYNTAX_ERROR_CLASS = "42"  # SQLSTATE class: its messages quote no values
_DATA_ERROR_CLASS = "22"


@dataclass(frozen=True)
class Sources:
    """The relations with people, courses and completions, in one database session.

    Attributes:
        connection: connection on which a transaction is open. All queries in the transaction see
            the same data.
        relations: name (``people``, ``courses`` or ``completions``) -> SQL of the relation for use
            after FROM.
    """

    connection: psycopg.Connection[Any]
    relations: Mapping[str, Composable]

    def __getitem__(self, name: str) -> Composable:
        """Return the SQL of a relation for use after FROM.

        Args:
            name: ``people``, ``courses`` or ``completions``.
        """
        return self.relations[name]


@contextmanager
def open_sources(
    run: RunContext[TrainingRules], people: Sequence[str] | None = None
) -> Iterator[Sources]:
    """Open the sources of training.yaml in one transaction, so that all queries see the same data.

    The context manager yields the relations with people, courses and completions.

    Args:
        run: context of the run.
        people: staff numbers of the people whose rows are needed; None for all people. This avoids
            copying other rows, but the relations may still contain rows of other people.

    Raises:
        UsageError: a query fails, or its result lacks a column.
        ServiceError: a database cannot be reached.
    """
    rules, state = run.rules, run.state
    queried = {source.database for source in rules.sources.values()}
    readers = {name: run.reader(name) for name in queried if name is not None}
    with ExitStack() as stack:
        if len(queried) == 1 and None not in queried:
            connection = stack.enter_context(_read_database(readers[str(queried.pop())]))
            relations = {name: _query_relation(rule) for name, rule in rules.sources.items()}
        else:
            connection = stack.enter_context(_read_state(state))
            relations = {
                name: _copy_to_state(stack, connection, name, rule, readers, people)
                for name, rule in rules.sources.items()
            }
        yield Sources(
            connection,
            {name: _cast_columns(connection, name, sql) for name, sql in relations.items()},
        )


@contextmanager
def _read_database(address: DatabaseAddress) -> Iterator[psycopg.Connection[Any]]:
    with address.connect() as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        yield connection


@contextmanager
def _read_state(state: Engine) -> Iterator[psycopg.Connection[Any]]:
    with state.connect().execution_options(isolation_level="REPEATABLE READ") as conn:
        connection = cast("psycopg.Connection[Any]", conn.connection.driver_connection)
        yield connection
        if not connection.closed:
            connection.rollback()  # SQLAlchemy does not know psycopg's transaction


def _query_relation(source: TrainingSource) -> Composable:
    assert source.sql is not None
    return SQL("({})").format(pack_sql(source.sql))


def _copy_to_state(
    stack: ExitStack,
    connection: psycopg.Connection[Any],
    name: str,
    source: TrainingSource,
    readers: Mapping[str, DatabaseAddress],
    people: Sequence[str] | None,
) -> Composable:
    """Make the rows of a source available in the state database, and return the table's name.

    For uploaded files, this is the table that stores their rows. For a query, it is a temporary
    table to which the rows of the query are copied.

    Args:
        stack: exit stack that closes the connection to the source database.
        connection: session in the state database.
        name: ``people``, ``courses`` or ``completions``.
        source: source in training.yaml.
        readers: name of a mapped database -> address.
        people: staff numbers of the people whose rows are copied; None for all people. Uploaded
            rows are not limited.
    """
    if source.upload:
        return Identifier(_UPLOADED[name].name)
    assert source.database is not None
    reader = stack.enter_context(_read_database(readers[source.database]))
    temporary = Identifier(f"gathered_{name}")
    columns = SQL(", ").join(
        SQL("{} {}").format(Identifier(column), SQL(kind)) for column, kind in COLUMNS[name].items()
    )
    connection.execute(
        SQL("CREATE TEMPORARY TABLE {} ({}) ON COMMIT DROP").format(temporary, columns)
    )
    only_people = people is not None and "person" in COLUMNS[name]
    rows = SQL("COPY (SELECT * FROM {} AS source {}) TO STDOUT").format(
        _cast_columns(reader, name, _query_relation(source)),
        SQL("WHERE person = ANY(%(people)s)") if only_people else SQL(""),
    )
    with (
        report_query_faults(name),
        reader.cursor() as source_cursor,
        connection.cursor() as target_cursor,
        source_cursor.copy(
            rows, {"people": list(people or ())} if only_people else {}
        ) as copied_out,
        target_cursor.copy(SQL("COPY {} FROM STDIN").format(temporary)) as copied_in,
    ):
        for block in copied_out:
            copied_in.write(block)
    connection.execute(SQL("ANALYZE {}").format(temporary))
    return temporary


def _cast_columns(
    connection: psycopg.Connection[Any], name: str, relation: Composable
) -> Composable:
    """Return the SQL that selects the required columns of a relation, cast to the required types.

    Args:
        connection: connection to the database of the relation.
        name: ``people``, ``courses`` or ``completions``.
        relation: SQL of the relation.

    Raises:
        UsageError: a column is missing.
    """
    with report_query_faults(name):
        rows = connection.execute(SQL("SELECT * FROM {} AS source LIMIT 0").format(relation), {})
        columns_returned = {column.name for column in rows.description or []}
    expected = COLUMNS[name]
    if absent := [name for name in expected if name not in columns_returned]:
        raise UsageError(
            f"training.yaml: {name} lacks the columns {', '.join(absent)}.",
            f"Let the query return the columns {', '.join(expected)}.",
        )
    columns = SQL(", ").join(
        SQL("{}::{}").format(Identifier(column), SQL(kind)) for column, kind in expected.items()
    )
    return SQL("(SELECT {} FROM {} AS source)").format(columns, relation)


@contextmanager
def report_query_faults(name: str) -> Iterator[None]:
    """Convert database errors of a query in training.yaml to errors that quote no records.

    Args:
        name: source whose query is executed: ``people``, ``courses`` or ``completions``;
            ``sources`` if the query reads all of them.

    Raises:
        UsageError: the query fails.
        ServiceError: the connection to the database was lost.
    """
    try:
        yield
    except psycopg.OperationalError as error:
        raise ServiceError(
            f"The connection to the database of {name} in training.yaml was lost "
            f"({error.sqlstate or 'no answer'}).",
            "Check that the database runs, then retry.",
        ) from None
    except psycopg.Error as error:
        state = error.sqlstate or ""
        detail = error.diag.message_primary if state.startswith(_SYNTAX_ERROR_CLASS) else None
        if state.startswith(_DATA_ERROR_CLASS):
            detail = "a value does not have the type of its column"
        raise UsageError(
            f"training.yaml: {name} cannot be read: {detail or f'SQLSTATE {state}'}.",
            "Correct the query, or the rights of its connection.",
        ) from None
