"""Which rows of a log of accesses or of sharing are copied, in SQL."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.sql import SQL, Composable, Composed, Placeholder

from include.incident.counting.named import among, column, table
from include.incident.scope_rules import AccessLog, Named, ShareLog
from include.policy.datamap import MappedDatabase
from include.policy.fragments import both, quoted

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
            window = [SQL("({} OR {} IS NULL)").format(both(window), self.at)]
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
            columns, table(self.database, self.log.collection), quoted(self.row), both(wanted)
        )

    @property
    def _whose(self) -> tuple[Named, tuple[str, ...]]:
        """Whose a row is, in SQL, and whose are wanted."""
        if isinstance(self.log, AccessLog):
            return self.log.account, self.accounts
        return self.log.partner, self.partners
