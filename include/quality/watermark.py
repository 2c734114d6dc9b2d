"""The watermark of a collection: the value up to which a check has read its change column."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from include.expectations import conditions
from include.expectations.check import Activity, Snapshot, reason_of
from include.messages import Message, _
from include.policy.datamap import MappedCollection
from include.policy.expectations import ChangeColumn
from include.policy.period import Period
from include.schema.live import LiveSchema, LiveTable

# Types of PostgreSQL in whose order later changes have greater values.
_MOMENTS = {"timestamptz", "timestamp", "date"}
_NUMBERS = {"int2", "int4", "int8"}
_LEAST = -(2**63)

# Each partition needs an index of its own or its parent's. A restored, promoted, emptied or
# rewritten table has another identity, and so has one whose columns changed: its records may differ
# although their change column does not. Files of partitions do not count, so that a new partition
# of each month causes no full check: one that was emptied and loaded again is not recognized.
_CATALOG = SQL("""
WITH RECURSIVE parts AS (
    SELECT c.oid, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = %(table)s
    UNION ALL
    SELECT c.oid, c.relkind FROM parts JOIN pg_inherits i ON i.inhparent = parts.oid
    JOIN pg_class c ON c.oid = i.inhrelid
)
SELECT (
    SELECT bool_and(EXISTS (
        SELECT FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        JOIN pg_am m ON m.oid = x.relam
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
        WHERE i.indrelid = parts.oid AND i.indisvalid AND i.indpred IS NULL
          AND m.amname = 'btree' AND a.attname = %(column)s
    )) FROM parts WHERE relkind <> 'p'
), (
    SELECT concat_ws(' ', s.system_identifier, k.timeline_id, d.oid, c.oid,
        pg_relation_filenode(c.oid), (
            SELECT string_agg(concat_ws('.', attname, attnum, atttypid), ' ' ORDER BY attnum)
            FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
        ))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, pg_database d,
        pg_control_system() s, pg_control_checkpoint() k
    WHERE n.nspname = %(schema)s AND c.relname = %(table)s AND d.datname = current_database()
)
""")


def version_of(files: Iterable[Path], *others: str) -> str:
    """Return a digest of the code that judges records; another version may judge differently."""
    content = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(content + "".join(others).encode()).hexdigest()[:12]


# The modules of include.expectations that judge a record, with all that they import of it.
JUDGING = ("broken", "conditions", "core", "fit", "formats", "gx", "types")
VERSION = version_of(
    (Path(conditions.__file__).parent / f"{name}.py" for name in JUDGING),
    version("great-expectations"),
)


@dataclass(frozen=True)
class Watermark:
    """The value of the change column up to which the records of a collection were checked.

    Attributes:
        version: digest of the code that judges records.
        identity: digest of server, database, table, columns, key and change column, and of the
            pack's timezone.
        value: value of the change column; the next check reads records with a greater value.
    """

    version: str
    identity: str
    value: str

    @property
    def definition(self) -> str:
        """Return version and identity in one text; the value belongs to these only."""
        return f"{self.version} {self.identity}"

    @classmethod
    def parse(cls, definition: str, value: str) -> Watermark:
        """Read a watermark from the state database."""
        code_version, _space, identity = definition.partition(" ")
        return cls(code_version, identity, value)


@dataclass(frozen=True)
class ChangeTracking:
    """Reads the change column of one collection on one snapshot.

    Args:
        view: the snapshot.
        collection: of the data map.
        table: the live table, which has a primary key.
        changed: the change column, from the policy pack.
        type: type of the column, a name in ``pg_type``.
        activity: clock and open transactions of the server, read before the snapshot.
        identity: as in `Watermark`.
    """

    view: Snapshot
    collection: MappedCollection
    table: LiveTable
    changed: ChangeColumn
    type: str
    activity: Activity
    identity: str

    def watermark(self) -> Watermark | Message:
        """Return the watermark of the snapshot.

        The watermark is the greatest value that is not in the future, but at most the start of the
        oldest open transaction, which may still commit records with older moments.
        """
        cap = self._moment(self.activity.oldest)
        query = SQL(
            "SELECT CASE WHEN max({column}) IS NOT NULL THEN least(max({column}), {cap}) END::text"
            " FROM {table} WHERE {past}"
        ).format(column=self._column, cap=cap or SQL("NULL"), table=self._table, past=self._past())
        rows = self._read(query)
        if isinstance(rows, Message):
            return rows
        if rows[0] is None:
            return _(
                "no record has a value in its column {column}, or all of them lie in the future",
                column=self.changed.column,
            )
        return Watermark(VERSION, self.identity, rows[0])

    def is_behind(self, last: Watermark) -> bool | Message:
        """Return whether all values are older than a watermark, as after a restore."""
        query = SQL("SELECT coalesce(max({column}) < {last}, true) FROM {table} WHERE {past}")
        rows = self._read(
            query.format(
                column=self._column, last=self._cast(last), table=self._table, past=self._past()
            )
        )
        return rows if isinstance(rows, Message) else bool(rows[0])

    def bound(self, last: Watermark) -> str | Message:
        """Return the lowest value to read: the watermark less the margin for late arrivals."""
        margin = self.changed.late_arrivals
        if isinstance(margin, int):
            least = SQL("{last}::numeric - {margin}").format(
                last=self._cast(last), margin=Literal(margin)
            )
        else:
            least = SQL("({last} - make_interval(months => {m}, days => {d}, secs => {s}))").format(
                last=self._cast(last),
                m=Literal(margin.months),
                d=Literal(margin.days),
                s=Literal(margin.seconds),
            )
            least += SQL("::") + Identifier(self.type)
        rows = self._read(SQL("SELECT ({})::text").format(least))
        return rows if isinstance(rows, Message) else str(rows[0])

    def condition(self, bound: str, alias: str) -> str:
        """Return SQL over an alias that selects the records to examine.

        Records without a value are examined by every check.
        """
        column = conditions.quoted(alias, self.changed.column)
        kind = self.type
        if kind in _NUMBERS:  # PostgreSQL would not use the index for a numeric constant
            bound, kind = str(max(int(bound), _LEAST)), "bigint"
        literal = f"'{bound}'::{kind}"
        nullable = self.table.columns[self.changed.column].nullable
        return f"({column} >= {literal}{f' OR {column} IS NULL' if nullable else ''})"

    @property
    def sees_open_transactions(self) -> bool:
        """Whether the start of the oldest open transaction limits the watermark."""
        return self.activity.oldest is not None and self.type not in _NUMBERS

    @property
    def _column(self) -> Composable:
        return Identifier(self.changed.column)

    @property
    def _table(self) -> Composable:
        return Identifier(self.collection.schema_name, self.collection.table)

    def _cast(self, watermark: Watermark) -> Composable:
        return SQL("{}::{}").format(Literal(watermark.value), Identifier(self.type))

    def _past(self) -> Composable:
        """Return the condition that a value is not in the future, as by a wrong clock."""
        present = self._moment(self.activity.now)
        return SQL("TRUE") if present is None else SQL("{} <= {}").format(self._column, present)

    def _moment(self, moment: str | None) -> Composable | None:
        """Return a moment in the type of the column; None for a column of numbers."""
        if moment is None or self.type in _NUMBERS:
            return None
        at = SQL("{}::timestamptz").format(Literal(moment))
        if self.type == "timestamptz":
            return at
        # Without a timezone: in the timezone of the server's sessions, or in UTC; the earlier.
        local = SQL("least({at} AT TIME ZONE {zone}, {at} AT TIME ZONE 'UTC')::{type}")
        return local.format(at=at, zone=Literal(self.activity.timezone), type=Identifier(self.type))

    def _read(self, query: Composed) -> Any | Message:
        return _read(self.view, query)


def tracking(
    view: Snapshot,
    collection: MappedCollection,
    table: LiveTable,
    live: LiveSchema,
    changed: ChangeColumn | None,
    timezone: str,
) -> ChangeTracking | Message:
    """Return the change tracking of a collection, or the reason for full checks only.

    Args:
        view: the snapshot.
        collection: the collection in the data map.
        table: its live table.
        live: all live tables.
        changed: the change column, from the policy pack; None if the pack names none.
        timezone: of the policy pack; rules take the day of a moment in it.
    """
    if changed is None:
        return _("the policy pack names no change column")
    column = table.columns.get(changed.column)
    if column is None:
        return _("the table has no column {column}", column=changed.column)
    if not table.primary_key:  # the key of the data map alone may be null, or repeat
        return _("the table has no primary key in PostgreSQL")
    if table.kind not in {"table", "partitioned"} or any(
        (table.schema, table.name) in other.parents for other in live.tables.values()
    ):
        return _("it is a view or foreign table, or other tables inherit from it")
    if column.is_array or column.base not in _MOMENTS | _NUMBERS:
        return _(
            "its column {column} is not a timestamp, date or whole number", column=changed.column
        )
    if isinstance(changed.late_arrivals, Period) is (column.base in _NUMBERS):
        return _(
            "the margin for late arrivals does not fit its column {column}: it must be a period "
            "for a column of times, and a number for a column of numbers",
            column=changed.column,
        )
    parameters = {
        "schema": collection.schema_name,
        "table": collection.table,
        "column": changed.column,
    }
    row = _read(view, _CATALOG, parameters)
    if isinstance(row, Message):
        return row
    if not row[0]:
        return _("no index begins with its column {column}", column=changed.column)
    text = f"{row[1]} {table.primary_key} {changed!r} {timezone}"
    identity = hashlib.sha256(text.encode()).hexdigest()[:32]
    assert view.activity is not None
    return ChangeTracking(view, collection, table, changed, column.base, view.activity, identity)


def _read(
    view: Snapshot, query: Composed | SQL, parameters: dict[str, str] | None = None
) -> Any | Message:
    """Return the only row of a query, or the reason why PostgreSQL refused the query."""
    try:
        with view.savepoint():
            return view.connection.execute(query, parameters).fetchone()
    except psycopg.Error as error:
        view.require_alive()
        return reason_of(error.sqlstate or "")
