"""Copy rows of an access or sharing log as CSV, from one snapshot, by psql.

psql writes its messages (``COPY 42``) to stderr, apart from the rows. It reads its commands from
standard input, so that no password and no account is in a command line. Rows of the log are only
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

from include.incident.counting.reading import among, column, table
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

DATE, WITHOUT_ZONE = 1082, (1082, 1114)  # type oids of PostgreSQL
# What Python's datetime holds in any timezone; infinity and BC are no moments of a report.
HELD = SQL("{} BETWEEN timestamptz '0001-01-03Z' AND timestamptz '9999-12-29Z'")


@dataclass(frozen=True)
class LogQuery:
    """Which rows of a database's log of accesses, or of its log of sharing.

    A row whose moment nobody knows may be in any window, and is copied with it.

    Attributes:
        database: of the data map.
        log: of incident.yaml.
        since: rows from then on, timezone-aware; None for all before ``until``.
        until: rows before then.
        accounts: only the rows of these in a log of accesses; empty means all.
        partners: likewise in a log of sharing.
        timezone: of the pack; moments of the log without one are meant in it.
    """

    database: MappedDatabase
    log: AccessLog | ShareLog
    since: datetime | None = None
    until: datetime | None = None
    accounts: tuple[str, ...] = ()
    partners: tuple[str, ...] = ()
    timezone: str = "UTC"

    @property
    def place(self) -> str:
        """Where the pack says so, for errors."""
        return f"incident.yaml, scope of {self.database.name}, {self.name}"

    @property
    def name(self) -> str:
        """The log's in incident.yaml."""
        return "access" if isinstance(self.log, AccessLog) else "shares"

    @property
    def row(self) -> str:
        """Alias of a row, as the pack's SQL has it."""
        return "a" if isinstance(self.log, AccessLog) else "g"

    @property
    def at(self) -> Composable:
        """The moment of a row."""
        return column(self.row, self.log.at)

    @property
    def parameters(self) -> dict[str, Any]:
        """Values of the statements."""
        return {
            "since": self.since,
            "until": self.until,
            "whose": list(self._whose[1]),
            "timezone": self.timezone,
        }

    def moment(self) -> Composed:
        """The statement whose one column has the type of the moment."""
        return self._rows(self.at, [])

    def copied(self, kind: int) -> Composed:
        """The statement that selects what is copied.

        Args:
            kind: oid of the moment's type.
        """
        columns = SQL(", ").join(column(self.row, one) for one in self.log.columns)
        window = self._window(kind)
        if window:
            window = [SQL("({} OR {} IS NULL)").format(all_of(window), self.at)]
        return self._rows(columns, window)

    def edges(self, kind: int) -> Composed:
        """The statement that selects the earliest and the latest moment.

        Without FILTER, so that an index on the moment answers it.

        Args:
            kind: oid of the moment's type.
        """
        edge = SQL("{}({})::timestamptz")
        if kind in WITHOUT_ZONE:
            edge = SQL("{}({})::timestamp AT TIME ZONE %(timezone)s::text")
        columns = SQL(", ").join(edge.format(SQL(one), self.at) for one in ("min", "max"))
        return self._rows(columns, [*self._window(kind), HELD.format(self.at)])

    def _window(self, kind: int) -> list[Composable]:
        """From ``since`` on and before ``until``; a day is in it where a part of it is."""
        limit = SQL("{}::timestamptz")
        if kind in WITHOUT_ZONE:
            limit = SQL("({}::timestamptz AT TIME ZONE %(timezone)s::text)")
        found: list[Composable] = []
        if self.since is not None:
            since = limit.format(Placeholder("since"))
            since = SQL("{}::date").format(since) if kind == DATE else since
            found.append(SQL("{} >= {}").format(self.at, since))
        if self.until is not None:
            found.append(SQL("{} < {}").format(self.at, limit.format(Placeholder("until"))))
        return found

    def _rows(self, columns: Composable, conditions: list[Composable]) -> Composed:
        wanted = list(conditions)
        by, names = self._whose
        if names:
            listed = SQL("{}::text[]").format(Placeholder("whose"))
            wanted.append(among(self.database, self.row, by, listed))
        return SQL("SELECT {} FROM {} AS {} WHERE {}").format(
            columns, table(self.database, self.log.collection), quoted(self.row), all_of(wanted)
        )

    @property
    def _whose(self) -> tuple[Named, tuple[str, ...]]:
        """Whose a row is, in SQL, and whose are wanted."""
        if isinstance(self.log, AccessLog):
            return self.log.account, self.accounts
        return self.log.partner, self.partners


SETTINGS = {**PRINTING, "lock_timeout": "60s", "client_min_messages": "error"}
NO_END = "SET statement_timeout = 0"  # first of all, and quick
SETTLED = SQL(
    "SELECT set_config(name, '0', false) FROM pg_settings"
    " WHERE name IN ('transaction_timeout', 'idle_in_transaction_session_timeout')"
    " UNION ALL SELECT set_config(name, value, false)"
    " FROM unnest({}::text[], {}::text[]) AS u(name, value)"
)
LOST = ("08", "57P")  # SQLSTATE: connection lost; server or session was shut down
OF_A_VALUE = ("21", "22")  # SQLSTATE: an expression that cannot be worked out for a row


@dataclass
class LogSnapshot:
    """An open read-only transaction whose view of a log psql joins.

    Attributes:
        source: the database.
        connection: in that transaction.
        query: which rows.
        kind: oid of the moment's type.
        name: for ``SET TRANSACTION SNAPSHOT``.
        taken_at: the server's time of the snapshot.
    """

    source: DatabaseAddress
    connection: psycopg.Connection
    query: LogQuery
    kind: int
    name: str
    taken_at: datetime

    def edges(self) -> tuple[datetime | None, datetime | None]:
        """The earliest and the latest moment of the rows; None where there is no row.

        Raises:
            UsageError: the pack's SQL cannot be worked out for a row.
        """
        statement = self.query.edges(self.kind)
        try:
            row = self.connection.execute(statement, self.query.parameters).fetchone()
        except (psycopg.ProgrammingError, psycopg.DataError) as error:
            raise _of_a_row(self.query, self.source, error.sqlstate) from None
        assert row is not None
        return row[0], row[1]

    def script(self) -> bytes:
        """Return psql's commands that copy the rows to its stdout, and its answers to its stderr.

        Server errors come as their SQLSTATE only: a message may quote a value.
        """
        cursor = psycopg.ClientCursor(self.connection)
        query = cursor.mogrify(self.query.copied(self.kind), self.query.parameters)
        lines = [
            r"\o /dev/fd/2",
            r"\set ON_ERROR_STOP 1",
            r"\set VERBOSITY sqlstate",
            f"{NO_END};",
            f"{_settled(self.query).as_string(self.connection)};",
            "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY;",
            f"SET TRANSACTION SNAPSHOT {Literal(self.name).as_string(self.connection)};",
            f"COPY ({query}",
            r") TO STDOUT (FORMAT csv, HEADER true, ENCODING 'UTF8') \g /dev/fd/1",
            "COMMIT;",
        ]
        return "\n".join(lines).encode() + b"\n"


@contextmanager
def log_snapshot(source: DatabaseAddress, query: LogQuery) -> Iterator[LogSnapshot]:
    """Open a snapshot in which the log is there and can be read.

    Raises:
        UsageError: the pack names a column that is not there, its SQL is wrong, or the role may not
            read the log or sees only some of its rows.
        ServiceError: the server cannot be reached, goes away or cannot do what it is asked.
    """
    with connected(source) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute(NO_END)
        connection.execute(_settled(query))
        try:
            kind = _try(connection, query, query.moment())
            for statement in (query.copied(kind), query.edges(kind)):
                _try(connection, query, statement)
            row = connection.execute(
                "SELECT pg_export_snapshot(), transaction_timestamp()"
            ).fetchone()
        except errors.InsufficientPrivilege as error:
            raise UsageError(
                f"{query.place}: the role may not read all of the log in {source.place}: "
                f"{error.diag.message_primary}.",
                "Grant SELECT on its columns; where row-level security hides rows, BYPASSRLS.",
            ) from None
        except (psycopg.ProgrammingError, psycopg.DataError) as error:
            raise UsageError(
                f"{query.place}: the log cannot be read in {source.place}: {_reason(error)}.",
                "Correct the collection, columns and expressions there.",
            ) from None
        assert row is not None
        yield LogSnapshot(source, connection, query, kind, row[0], row[1])


def _try(connection: psycopg.Connection, query: LogQuery, statement: Composed) -> int:
    """Let the server look at a statement without a row; returns the first column's type oid."""
    done = connection.execute(SQL("{} LIMIT 0").format(statement), query.parameters)
    assert done.description is not None
    return done.description[0].type_code


def _reason(error: psycopg.Error) -> str:
    # Of a data error the server's text may repeat the value.
    if isinstance(error, psycopg.DataError):
        return f"a value does not fit ({error.sqlstate or 'it holds a NUL byte'})"
    return error.diag.message_primary or " ".join(str(error).split()).rstrip(".")


def _of_a_row(query: LogQuery, source: DatabaseAddress, sqlstate: str | None) -> UsageError:
    return UsageError(
        f"{query.place}: an expression cannot be worked out for a row of {source.place} "
        f"(SQLSTATE {sqlstate}).",
        "Correct the expressions there.",
    )


def _settled(query: LogQuery) -> Composed:
    schema = Identifier(query.database.schema_name).as_string(None)
    settings = {**SETTINGS, "search_path": f"{schema}, pg_catalog"}
    return SETTLED.format(Literal(list(settings)), Literal(list(settings.values())))


class RowCounter:
    """Counts the records of CSV as it flows by; a line break inside quotes ends none.

    Attributes:
        records: that ended so far, the header among them.
    """

    def __init__(self) -> None:
        self.records = 0
        self._quoted = False

    def feed(self, piece: bytes) -> None:
        """Take the next bytes. A quote inside a value is written twice, so quotes come in pairs."""
        if not self._quoted and b'"' not in piece:
            self.records += piece.count(b"\n")
            return
        parts = piece.split(b'"')
        for part in parts[int(self._quoted) :: 2]:
            self.records += part.count(b"\n")
        self._quoted ^= len(parts) % 2 == 0


class Copying(ClientProgram):
    """The running psql: the log's rows in pieces, its end as their number or an error."""

    def __init__(self, snapshot: LogSnapshot) -> None:
        self._snapshot = snapshot
        self._source = snapshot.source
        self._counter = RowCounter()
        words = ["--no-psqlrc", "--no-align", "--tuples-only"]
        super().__init__("psql", words, self._source, takes_input=True)
        self.feed([snapshot.script()])

    def pieces(self) -> Iterator[bytes]:
        """Yield the CSV, header first."""
        for piece in super().pieces():
            self._counter.feed(piece)
            yield piece

    def finish(self) -> int:
        """Return how many rows were copied, when psql ended well and all of them came through.

        Raises:
            UsageError: the pack's SQL cannot be worked out for a row.
            ServiceError: the server or psql failed, or rows are missing.
        """
        code = self.wait()
        answers = "\n".join(self.lines)
        sent = re.search(r"^COPY (\d+)$", answers, re.MULTILINE)
        if code or sent is None:
            raise self._failure(answers, code)
        rows, came = int(sent.group(1)), max(self._counter.records - 1, 0)
        if rows != came:
            raise ServiceError(
                f"The server of {self._source.place} sent {rows} rows, {came} of them arrived.",
                "Nothing was recorded as done. The extract is made anew.",
            )
        return rows

    def _failure(self, answers: str, code: int) -> UsageError | ServiceError:
        try:
            self._snapshot.connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            return lost(self._source, error)
        sqlstate, place = self.sqlstate, self._source.place
        again = "Nothing was recorded as done. The run is repeated."
        if sqlstate.startswith(OF_A_VALUE):
            return _of_a_row(self._snapshot.query, self._source, sqlstate)
        if sqlstate.startswith(LOST) or "server closed the connection" in answers:
            return DatabaseUnavailable(f"The connection to {place} was cut.", again)
        reason = f"SQLSTATE {sqlstate}" if sqlstate else f"psql ended with exit code {code}"
        return ServiceError(f"The log of {place} could not be copied: {reason}.", again)
