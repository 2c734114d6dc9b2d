"""The watermark of a collection: the value of the change column up to which records are checked."""

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
from include.expectations.check import Activity, Snapshot, fault_of
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
# rewritten table gets another identity, and so does a table with changed columns: its records may
# differ although their change column does not. The identity ignores files of partitions, so that a
# new monthly partition causes no full check. A partition that was emptied and reloaded is not
# detected.
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
    """Return a digest of files and texts, such as the code that checks records.

    If an earlier check has another digest, another version of the code made that check and may have
    decided differently.

    Args:
        files: files of the code.
        others: further texts that the digest covers, such as the version of a library.
    """
    content = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(content + "".join(others).encode()).hexdigest()[:12]


# The modules of include.expectations that judge a record, with all modules they import there.
JUDGING = ("broken", "conditions", "core", "fit", "formats", "gx", "types")
VERSION = version_of(
    (Path(conditions.__file__).parent / f"{name}.py" for name in JUDGING),
    version("great-expectations"),
)


@dataclass(frozen=True)
class Watermark:
    """The value of the change column up to which the records of a collection were checked.

    Attributes:
        version: digest of the code that checks records.
        identity: digest of server, database, table, columns, primary key and change column, and of
            the pack's timezone.
        value: the value of the change column, as text.
    """

    version: str
    identity: str
    value: str

    @property
    def definition(self) -> str:
        """Return version and identity as one text.

        The values of two watermarks can be compared only if their definitions are the same.
        """
        return f"{self.version} {self.identity}"

    @classmethod
    def parse(cls, definition: str, value: str) -> Watermark:
        """Create a watermark from the definition and the value that the state database stores."""
        code_version, _space, identity = definition.partition(" ")
        return cls(code_version, identity, value)


@dataclass(frozen=True)
class ChangeTracking:
    """Reads the change column of one collection in one snapshot.

    Args:
        view: the snapshot of the database.
        collection: the collection in the data map.
        table: the table in the database. It must have a primary key.
        changed: the change column, from the policy pack.
        type: type of the change column, as named in ``pg_type``.
        activity: the server's time and the start of its oldest transaction, read before the
            snapshot was taken.
        identity: digest of server, database, table and columns, as in `Watermark`.
    """

    view: Snapshot
    collection: MappedCollection
    table: LiveTable
    changed: ChangeColumn
    type: str
    activity: Activity
    identity: str

    def watermark(self) -> Watermark | Message:
        """Return the watermark of the snapshot, or the reason why the snapshot has none.

        The watermark is the greatest value of the change column that is not in the future. If the
        column contains times, the watermark is not later than the start of the oldest open
        transaction. This transaction may still commit records with values after its start, and the
        next check has to read them.
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
                "the column {column} has no values, or only values in the future",
                column=self.changed.column,
            )
        return Watermark(VERSION, self.identity, rows[0])

    def is_behind(self, last: Watermark) -> bool | Message:
        """Return whether all values of the change column are lower than an earlier watermark.

        If so, an older backup was probably restored. Values in the future are ignored. If the
        values cannot be read, the reason is returned instead.

        Args:
            last: watermark of an earlier check.
        """
        query = SQL("SELECT coalesce(max({column}) < {last}, true) FROM {table} WHERE {past}")
        rows = self._read(
            query.format(
                column=self._column, last=self._cast(last), table=self._table, past=self._past()
            )
        )
        return rows if isinstance(rows, Message) else bool(rows[0])

    def lowest_value_to_read(self, last: Watermark) -> str | Message:
        """Return the lowest value of the change column that the next check has to read.

        This value is the watermark `last` minus the margin for late arrivals. If PostgreSQL cannot
        compute it, the reason is returned instead.

        Args:
            last: watermark of the newest sealed check.
        """
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
        """Return the SQL condition that selects the records for an incremental check.

        It selects the records whose change column is at least `bound`. It also selects those whose
        change column is null, because it is unknown whether they changed.

        Args:
            bound: lowest value of the change column to read, as `lowest_value_to_read` returned it.
            alias: alias of the table in the query.
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
        """Return whether the watermark is limited to the start of the oldest open transaction.

        It is not limited if the start of this transaction cannot be read, or if the change column
        contains numbers.
        """
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
        """Return the SQL condition that a value of the change column is not in the future.

        A value can be in the future if a program whose clock was wrong wrote it.
        """
        present = self._moment(self.activity.now)
        return SQL("TRUE") if present is None else SQL("{} <= {}").format(self._column, present)

    def _moment(self, moment: str | None) -> Composable | None:
        """Return a time as an SQL expression that has the type of the change column.

        Return None if the time is None or if the change column contains numbers.

        Args:
            moment: time as text that PostgreSQL can read.
        """
        if moment is None or self.type in _NUMBERS:
            return None
        at = SQL("{}::timestamptz").format(Literal(moment))
        if self.type == "timestamptz":
            return at
        # A value without a timezone may be in the server's timezone or in UTC: use the earlier one.
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
    """Return a reader of a collection's change column, or the reason why there can be none.

    With a reason, the collection cannot be checked incrementally.

    Args:
        view: the snapshot.
        collection: the collection in the data map.
        table: the collection's table in the database.
        live: all tables in the database.
        changed: the change column, from the policy pack; None if the pack names none.
        timezone: IANA name of the pack's timezone, which decides to which day a time belongs.
    """
    if changed is None:
        return _("the policy pack names no change column")
    column = table.columns.get(changed.column)
    if column is None:
        return _("the table has no column {column}", column=changed.column)
    if not table.primary_key:  # a key that only the data map states may be null or occur twice
        return _("the table has no primary key in PostgreSQL")
    if table.kind not in {"table", "partitioned"} or any(
        (table.schema, table.name) in other.parents for other in live.tables.values()
    ):
        return _("the table is a view or foreign table, or other tables inherit from it")
    if column.is_array or column.base not in _MOMENTS | _NUMBERS:
        return _(
            "the column {column} is not a timestamp, date or whole number", column=changed.column
        )
    if isinstance(changed.late_arrivals, Period) is (column.base in _NUMBERS):
        return _(
            "the margin for late arrivals does not suit the column {column}: a column of times "
            "needs a period, and a column of numbers needs a number",
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
        return _("no index of the table starts with the column {column}", column=changed.column)
    text = f"{row[1]} {table.primary_key} {changed!r} {timezone}"
    identity = hashlib.sha256(text.encode()).hexdigest()[:32]
    assert view.activity is not None
    return ChangeTracking(view, collection, table, changed, column.base, view.activity, identity)


def _read(
    view: Snapshot, query: Composed | SQL, parameters: dict[str, str] | None = None
) -> Any | Message:
    """Return the first row of a query's result, or the reason why PostgreSQL refused the query.

    Args:
        view: the snapshot.
        query: the SQL query.
        parameters: parameters of the query, by name; None if it has none.
    """
    try:
        with view.savepoint():
            return view.connection.execute(query, parameters).fetchone()
    except psycopg.Error as error:
        view.require_alive()
        return fault_of(error.sqlstate or "").with_detail
