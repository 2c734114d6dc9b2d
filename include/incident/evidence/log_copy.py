"""Copy rows of an access log or sharing log as CSV with psql, from one database snapshot.

psql writes its messages (``COPY 42``) to stderr, separate from the rows. It reads its commands from
standard input, so that its command line contains no password and no account. Log rows are kept only
in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal, Placeholder

from include.incident.counting.snapshot import column, name_condition, table_name
from include.incident.rules import AccessLog, Named, ShareLog
from include.policy.datamap import MappedDatabase
from include.policy.fragments import all_of, quoted
from include.services.database import (
    PRINTING,
    DatabaseAddress,
    DatabaseUnavailable,
    connected,
    lost,
)
from include.services.errors import ServiceError, UsageError
from include.services.programs import ClientProgram

DATE, WITHOUT_ZONE = 1082, (1082, 1114)  # type OIDs of PostgreSQL
# Range of Python's datetime in any timezone. Infinity and years BC are outside.
REPRESENTABLE = SQL("{} BETWEEN timestamptz '0001-01-03Z' AND timestamptz '9999-12-29Z'")


@dataclass(frozen=True)
class LogQuery:
    """A query for the rows to copy from a database's access log or sharing log.

    A row without a time may belong to any time window, so it is always copied.

    Attributes:
        database: database of the data map.
        log: rule of the log in incident.yaml.
        since: start of the time window, timezone-aware; None if unlimited.
        until: end of the time window, exclusive; None if unlimited.
        accounts: accounts whose rows of an access log are copied; empty means all.
        partners: partners whose rows of a sharing log are copied; empty means all.
        timezone: timezone of the policy pack, for times without a timezone.
    """

    database: MappedDatabase
    log: AccessLog | ShareLog
    since: datetime | None = None
    until: datetime | None = None
    accounts: tuple[str, ...] = ()
    partners: tuple[str, ...] = ()
    timezone: str = "UTC"

    @property
    def location(self) -> str:
        """The location of the log's rule in incident.yaml, for error messages."""
        return f"incident.yaml, scope of {self.database.name}, {self.name}"

    @property
    def name(self) -> str:
        """The key of the log in incident.yaml: ``access`` or ``shares``."""
        return "access" if isinstance(self.log, AccessLog) else "shares"

    @property
    def row(self) -> str:
        """The SQL alias that the policy pack uses for a row of the log."""
        return "a" if isinstance(self.log, AccessLog) else "g"

    @property
    def at(self) -> Composable:
        """The SQL expression for the time of a row."""
        return column(self.row, self.log.at)

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of the parameters in the SQL statements of this query."""
        return {
            "since": self.since,
            "until": self.until,
            "whose": list(self._whose[1]),
            "timezone": self.timezone,
        }

    def moment_statement(self) -> Composed:
        """Return an SQL statement that selects only the time of each row.

        The statement is used to find out the data type of the time.
        """
        return self._rows(self.at, [])

    def copy_statement(self, kind: int) -> Composed:
        """Return the SQL statement that selects the rows to copy.

        Args:
            kind: OID of the data type of the column that contains each row's time.
        """
        columns = SQL(", ").join(column(self.row, name) for name in self.log.columns)
        window = self._window(kind)
        if window:
            window = [SQL("({} OR {} IS NULL)").format(all_of(window), self.at)]
        return self._rows(columns, window)

    def time_range_statement(self, kind: int) -> Composed:
        """Return the SQL statement that selects the earliest and the latest time of the rows.

        The statement has no FILTER clause, because PostgreSQL could then not use an index on the
        time.

        Args:
            kind: OID of the data type of the column that contains each row's time.
        """
        edge = SQL("{}({})::timestamptz")
        if kind in WITHOUT_ZONE:
            edge = SQL("{}({})::timestamp AT TIME ZONE %(timezone)s::text")
        columns = SQL(", ").join(edge.format(SQL(function), self.at) for function in ("min", "max"))
        return self._rows(columns, [*self._window(kind), REPRESENTABLE.format(self.at)])

    def _window(self, kind: int) -> list[Composable]:
        """Return the SQL conditions that restrict the rows to the time window.

        If the column contains dates without a time, a date is in the window if the window includes
        any part of the day.

        Args:
            kind: OID of the data type of the column that contains each row's time.
        """
        limit = SQL("{}::timestamptz")
        if kind in WITHOUT_ZONE:
            limit = SQL("({}::timestamptz AT TIME ZONE %(timezone)s::text)")
        conditions: list[Composable] = []
        if self.since is not None:
            since = limit.format(Placeholder("since"))
            since = SQL("{}::date").format(since) if kind == DATE else since
            conditions.append(SQL("{} >= {}").format(self.at, since))
        if self.until is not None:
            conditions.append(SQL("{} < {}").format(self.at, limit.format(Placeholder("until"))))
        return conditions

    def _rows(self, columns: Composable, conditions: list[Composable]) -> Composed:
        all_conditions = list(conditions)
        owner, names = self._whose
        if names:
            names_parameter = SQL("{}::text[]").format(Placeholder("whose"))
            all_conditions.append(name_condition(self.database, self.row, owner, names_parameter))
        return SQL("SELECT {} FROM {} AS {} WHERE {}").format(
            columns,
            table_name(self.database, self.log.collection),
            quoted(self.row),
            all_of(all_conditions),
        )

    @property
    def _whose(self) -> tuple[Named, tuple[str, ...]]:
        """The SQL for the account or partner of a log row, and the accounts or partners to copy."""
        if isinstance(self.log, AccessLog):
            return self.log.account, self.accounts
        return self.log.partner, self.partners


SETTINGS = {**PRINTING, "lock_timeout": "60s", "client_min_messages": "error"}
NO_TIMEOUT = "SET statement_timeout = 0"  # before anything that may take long
APPLY_SETTINGS = SQL(
    "SELECT set_config(name, '0', false) FROM pg_settings"
    " WHERE name IN ('transaction_timeout', 'idle_in_transaction_session_timeout')"
    " UNION ALL SELECT set_config(name, value, false)"
    " FROM unnest({}::text[], {}::text[]) AS u(name, value)"
)
CONNECTION_ERRORS = ("08", "57P")  # SQLSTATE: connection lost; server or session was shut down
VALUE_ERRORS = ("21", "22")  # SQLSTATE: an expression fails for a row


@dataclass
class LogSnapshot:
    """An open read-only transaction whose snapshot psql can use.

    Attributes:
        source: address of the database.
        connection: connection on which the transaction is open.
        query: query for the rows to copy.
        kind: OID of the data type of the column that contains each row's time.
        name: name of the snapshot for ``SET TRANSACTION SNAPSHOT``.
        taken_at: server time of the snapshot.
    """

    source: DatabaseAddress
    connection: psycopg.Connection
    query: LogQuery
    kind: int
    name: str
    taken_at: datetime

    def time_range(self) -> tuple[datetime | None, datetime | None]:
        """Return the earliest and latest time of the rows to copy.

        Both values are None if there are no such rows, or if no row has a time that Python can
        represent.

        Raises:
            UsageError: the policy pack's SQL fails for a row.
        """
        statement = self.query.time_range_statement(self.kind)
        try:
            row = self.connection.execute(statement, self.query.parameters).fetchone()
        except (psycopg.ProgrammingError, psycopg.DataError) as error:
            raise _row_error(self.query, self.source, error.sqlstate) from None
        assert row is not None
        return row[0], row[1]

    def script(self) -> bytes:
        """Return the psql commands that copy the rows to stdout and write messages to stderr.

        psql prints only the SQLSTATE of a server error, because an error message may quote a value.
        """
        cursor = psycopg.ClientCursor(self.connection)
        query = cursor.mogrify(self.query.copy_statement(self.kind), self.query.parameters)
        lines = [
            r"\o /dev/fd/2",
            r"\set ON_ERROR_STOP 1",
            r"\set VERBOSITY sqlstate",
            f"{NO_TIMEOUT};",
            f"{_settings_statement(self.query).as_string(self.connection)};",
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;",
            f"SET TRANSACTION SNAPSHOT {Literal(self.name).as_string(self.connection)};",
            f"COPY ({query}",
            r") TO STDOUT (FORMAT csv, HEADER true, ENCODING 'UTF8') \g /dev/fd/1",
            "COMMIT;",
        ]
        return "\n".join(lines).encode() + b"\n"


@contextmanager
def log_snapshot(source: DatabaseAddress, query: LogQuery) -> Iterator[LogSnapshot]:
    """Open a snapshot of the database, and check that the log exists and may be read.

    Args:
        source: address of the database.
        query: query for the rows to copy.

    Raises:
        UsageError: the policy pack names a missing column, its SQL is wrong, or the database role
            may read only some of the rows of the log.
        ServiceError: the server cannot be reached, the connection was lost, or the statements
            cannot be executed.
    """
    with connected(source) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute(NO_TIMEOUT)
        connection.execute(_settings_statement(query))
        try:
            kind = _check_statement(connection, query, query.moment_statement())
            for statement in (query.copy_statement(kind), query.time_range_statement(kind)):
                _check_statement(connection, query, statement)
            row = connection.execute(
                "SELECT pg_export_snapshot(), transaction_timestamp()"
            ).fetchone()
        except errors.InsufficientPrivilege as error:
            raise UsageError(
                f"{query.location}: the role may not read all of the log in {source.display_name}: "
                f"{error.diag.message_primary}.",
                "Grant SELECT on its columns; if row-level security hides rows, also BYPASSRLS.",
            ) from None
        except (psycopg.ProgrammingError, psycopg.DataError) as error:
            raise UsageError(
                f"{query.location}: the log cannot be read in {source.display_name}: "
                f"{_reason(error)}.",
                "Correct the collection, columns and expressions there.",
            ) from None
        assert row is not None
        yield LogSnapshot(source, connection, query, kind, row[0], row[1])


def _check_statement(connection: psycopg.Connection, query: LogQuery, statement: Composed) -> int:
    """Let the server check an SQL statement without reading rows.

    Args:
        connection: connection to the database.
        query: query whose parameters the statement uses.
        statement: SQL statement to check.

    Returns:
        The OID of the data type of the statement's first column.
    """
    cursor = connection.execute(SQL("{} LIMIT 0").format(statement), query.parameters)
    assert cursor.description is not None
    return cursor.description[0].type_code


def _reason(error: psycopg.Error) -> str:
    # The server's message for a data error may quote the value.
    if isinstance(error, psycopg.DataError):
        return f"a value does not fit ({error.sqlstate or 'it holds a NUL byte'})"
    return error.diag.message_primary or " ".join(str(error).split()).rstrip(".")


def _row_error(query: LogQuery, source: DatabaseAddress, sqlstate: str | None) -> UsageError:
    return UsageError(
        f"{query.location}: an expression cannot be evaluated for a row of {source.display_name} "
        f"(SQLSTATE {sqlstate}).",
        "Correct the expressions there.",
    )


def _settings_statement(query: LogQuery) -> Composed:
    schema = Identifier(query.database.schema_name).as_string(None)
    settings = {**SETTINGS, "search_path": f"{schema}, pg_catalog"}
    return APPLY_SETTINGS.format(Literal(list(settings)), Literal(list(settings.values())))


class RowCounter:
    """A counter of the records in a CSV stream. A line break inside quotes does not end a record.

    Attributes:
        records: number of complete records, including the header.
    """

    def __init__(self) -> None:
        self.records = 0
        self._quoted = False

    def feed(self, piece: bytes) -> None:
        """Count the records that end in the next bytes of the stream.

        CSV writes a quote inside a value as two quotes. The first of them ends the quoted text and
        the second begins it again, so no special case is needed.

        Args:
            piece: next bytes of the stream.
        """
        if not self._quoted and b'"' not in piece:
            self.records += piece.count(b"\n")
            return
        parts = piece.split(b'"')
        for part in parts[int(self._quoted) :: 2]:
            self.records += part.count(b"\n")
        self._quoted ^= len(parts) % 2 == 0


class LogCopy(ClientProgram):
    """A running psql process that copies the rows of a log."""

    def __init__(self, snapshot: LogSnapshot) -> None:
        self._snapshot = snapshot
        self._source = snapshot.source
        self._counter = RowCounter()
        options = ["--no-psqlrc", "--no-align", "--tuples-only"]
        super().__init__("psql", options, self._source, takes_input=True)
        self.feed([snapshot.script()])

    def pieces(self) -> Iterator[bytes]:
        """Yield the bytes of the CSV, which begins with the header."""
        for piece in super().pieces():
            self._counter.feed(piece)
            yield piece

    def finish(self) -> int:
        """Wait for psql, and return the number of copied rows.

        Raises:
            UsageError: the policy pack's SQL fails for a row.
            ServiceError: the server or psql failed, or rows are missing.
        """
        code = self.wait()
        replies = "\n".join(self.lines)
        sent = re.search(r"^COPY (\d+)$", replies, re.MULTILINE)
        if code or sent is None:
            raise self._failure(replies, code)
        rows, arrived = int(sent.group(1)), max(self._counter.records - 1, 0)
        if rows != arrived:
            raise ServiceError(
                f"The server of {self._source.display_name} sent {rows} rows, {arrived} of "
                f"them arrived.",
                "The extract was not recorded. The next attempt creates it again.",
            )
        return rows

    def _failure(self, replies: str, code: int) -> UsageError | ServiceError:
        try:
            self._snapshot.connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            return lost(self._source, error)
        sqlstate, database = self.sqlstate, self._source.display_name
        next_step = "Nothing was recorded as done. The run is repeated."
        if sqlstate.startswith(VALUE_ERRORS):
            return _row_error(self._snapshot.query, self._source, sqlstate)
        if sqlstate.startswith(CONNECTION_ERRORS) or "server closed the connection" in replies:
            return DatabaseUnavailable(f"The connection to {database} was cut.", next_step)
        reason = f"SQLSTATE {sqlstate}" if sqlstate else f"psql ended with exit code {code}"
        return ServiceError(f"The log of {database} could not be copied: {reason}.", next_step)
