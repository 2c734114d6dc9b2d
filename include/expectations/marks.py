"""How far the records of a collection were checked, by PostgreSQL's own transaction numbers.

A column such as ``updated_at`` misses records that were written late with an old time, or by a
program that forgot it. The number of the transaction that wrote a row misses none: whatever was
not finished when the mark was taken has a greater number.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.sql import SQL, Identifier

from include.expectations.conditions import Records
from include.policy.datamap import MappedCollection
from include.policy.expectations import Expectation
from include.policy.kwargs import ExistsIn, Related

_MARK = re.compile(r"([0-9a-f]{12})/([0-9a-f]{32})/(\d+)/(?:(\d+)-(\d+))?/(\d+)@(.+)")
_FARTHEST = 2**31 - 2**24  # transactions; PostgreSQL compares no further, and a reserve
_FROZEN = 2  # PostgreSQL's own number for rows that are older than all others

_NOW = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint
"""
# A restored, rebuilt or repartitioned table, a promoted replica, and a table whose columns changed
# have another identity: their rows have new numbers, or old ones that tell nothing. So has one
# whose file is another: it was emptied, or rewritten. Lists are loaded anew by emptying them, and
# are told from their rows.
_IDENTITY = """
WITH RECURSIVE named AS (
    SELECT c.oid, c.relkind, NOT t.list AS with_file, t.at = 1 AS own,
        t.at = 1 AND c.relhassubclass AND c.relkind = 'r' AS inherited
    FROM unnest(%(schemas)s::text[], %(tables)s::text[], %(lists)s::boolean[])
        WITH ORDINALITY AS t(s, n, list, at)
    JOIN pg_namespace ns ON ns.nspname = t.s
    JOIN pg_class c ON c.relnamespace = ns.oid AND c.relname = t.n
), parts AS (
    SELECT oid, relkind, with_file, own, inherited FROM named
    UNION SELECT c.oid, c.relkind, parts.with_file, parts.own, parts.inherited FROM parts
    JOIN pg_inherits i ON i.inhparent = parts.oid JOIN pg_class c ON c.oid = i.inhrelid
)
SELECT concat_ws(' ', (SELECT system_identifier FROM pg_control_system()), current_database(),
           (SELECT timeline_id FROM pg_control_checkpoint()),
           string_agg(concat(oid, '.', file, columns), ' ' ORDER BY oid, own, with_file)),
       bool_and(relkind IN ('r', 'p') AND NOT inherited), (SELECT count(DISTINCT oid) FROM named),
       array_agg(oid::bigint) FILTER (WHERE own)
FROM parts, LATERAL (
    SELECT coalesce(
        string_agg(format('%%s.%%s.%%s', attname, attnum, atttypid), ',' ORDER BY attnum), ''
    )
    FROM pg_attribute WHERE attrelid = parts.oid AND attnum > 0 AND NOT attisdropped
) AS a(columns), LATERAL (SELECT CASE WHEN with_file THEN pg_relation_filenode(oid) END) AS f(file)
"""
# Counted as sessions report, so late by up to a minute; a replica and a server that is told not to
# count know nothing. After a crash a database counts from 0 and does not say that it was reset: the
# server's other statistics, lost with it, do.
_STATISTICS = """
SELECT c.oid::bigint, pg_stat_get_tuples_deleted(c.oid),
       coalesce(extract(epoch FROM greatest(pg_stat_get_db_stat_reset_time(d.oid),
                                            pg_stat_get_bgwriter_stat_reset_time())) * 1000000,
                0)::bigint
FROM pg_class c, pg_database d
WHERE c.relkind = 'r' AND d.datname = current_database()
  AND NOT pg_is_in_recovery() AND current_setting('track_counts') = 'on'
"""


def version_of(files: Iterable[Path], *others: str) -> str:
    """Digest of the code that judges a record: another version may judge it otherwise."""
    content = b"".join(one.read_bytes() for one in files)
    return hashlib.sha256(content + "".join(others).encode()).hexdigest()[:12]


VERSION = version_of(
    (Path(__file__).parent / f"{one}.py" for one in ("conditions", "formats", "gx")),
    version("great-expectations"),
)


@dataclass(frozen=True)
class Statistics:
    """What PostgreSQL's statistics say of a database.

    Attributes:
        begun: since when they count, in microseconds since 1970; 0 where they never began again.
        deleted: rows, by the table's oid.
    """

    begun: int
    deleted: Mapping[int, int]

    @classmethod
    def read(cls, connection: psycopg.Connection[Any]) -> Statistics | None:
        """Read them, outside of a transaction; None where the server does not know.

        Before the snapshot is taken: what they count must be gone from it.
        """
        try:
            rows = connection.execute(_STATISTICS).fetchall()
        except psycopg.errors.InsufficientPrivilege:
            return None
        return cls(rows[0][2], {row[0]: row[1] for row in rows}) if rows else None


@dataclass(frozen=True)
class Mark:
    """Up to where the records of a collection were checked.

    Attributes:
        version: of what judges a record, `VERSION`.
        identity: digest of server, timeline, database, tables with partitions, columns and files,
            the primary key, and of how many values each list has that records are held against.
        transaction: 64-bit number below which every transaction had ended.
        at: when it was taken.
        deleted: rows of the table that `Statistics` count as deleted, and since when they count.
            None where the server does not know.
        uncounted: records that were written or deleted since they were last counted one by one.
    """

    version: str
    identity: str
    transaction: int
    at: datetime
    deleted: tuple[int, int] | None = None
    uncounted: int = 0

    def __str__(self) -> str:
        known = "" if self.deleted is None else "{}-{}".format(*self.deleted)
        told = f"{self.transaction}/{known}/{self.uncounted}"
        return f"{self.version}/{self.identity}/{told}@{self.at.isoformat()}"

    @classmethod
    def parse(cls, text: str | None) -> Mark | None:
        """Read a mark; None where there is none."""
        found = _MARK.fullmatch(text or "")
        if found is None:
            return None
        version, identity, transaction, deleted, begun, uncounted, at = found.groups()
        known = (int(deleted), int(begun)) if deleted else None
        moment = datetime.fromisoformat(at)
        return cls(version, identity, int(transaction), moment, known, int(uncounted))

    def deleted_since(self, last: Mark) -> int | None:
        """How many rows of the table were deleted since a mark; None where nobody knows.

        The statistics begin again when somebody resets them, and after a crash.
        """
        if self.deleted is None or last.deleted is None or self.deleted[1] != last.deleted[1]:
            return None
        since = self.deleted[0] - last.deleted[0]
        return since if since >= 0 else None


def take(
    connection: psycopg.Connection[Any],
    records: Records,
    expectations: Sequence[Expectation],
    now: datetime,
    statistics: Statistics | None = None,
) -> Mark | None:
    """Take the mark of the open snapshot.

    Args:
        connection: of the snapshot.
        records: of the collection.
        expectations: of it.
        now: the present moment.
        statistics: as they were before the snapshot.

    Returns:
        None where rows do not tell who wrote them (views, foreign tables), where a key may stand in
        several tables (which inherit from one), or the server does not tell who it is, or not in
        time.

    Raises:
        psycopg.Error: the connection is gone.
    """
    related, lists = (_asked(records, expectations, kind) for kind in (Related, ExistsIn))
    wanted = [records.collection, *related, *lists]
    given = {
        "schemas": [one.schema_name for one in wanted],
        "tables": [one.table for one in wanted],
        "lists": [False] * (1 + len(related)) + [True] * len(lists),
    }
    try:
        with connection.transaction():
            row = connection.execute(_IDENTITY, given).fetchone()
            numbers = connection.execute(_NOW).fetchone()
            amounts = [_rows(connection, one) for one in lists]
    except psycopg.Error:  # no right to ask, a list that is gone or locked: its rule will say so
        if connection.broken or connection.closed:
            raise
        return None
    assert row is not None
    assert numbers is not None
    if not row[1] or row[2] < len({(one.schema_name, one.table) for one in wanted}):
        return None
    identity = hashlib.sha256(f"{row[0]} {amounts} {records.key}".encode()).hexdigest()[:32]
    deleted = None
    if statistics is not None:
        deleted = sum(statistics.deleted.get(oid, 0) for oid in row[3]), statistics.begun
    return Mark(VERSION, identity, numbers[0], now, deleted)


def _rows(connection: psycopg.Connection[Any], listed: MappedCollection) -> int:
    """How many values a list has: one that was deleted leaves no other trace."""
    query = SQL("SELECT count(*) FROM {}").format(Identifier(listed.schema_name, listed.table))
    row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def usable(last: Mark | None, present: Mark | None) -> bool:
    """Whether the records written since one mark can be told at another."""
    return (
        last is not None
        and present is not None
        and last.identity == present.identity
        and 0 <= present.transaction - last.transaction < _FARTHEST
        and last.at <= present.at
    )


def written_since(alias: str, last: Mark) -> sa.ColumnElement[bool]:
    """Rows of an alias that were written since a mark.

    Transaction numbers go round a circle of 2^32, and what is less than half of it ahead is later.
    PostgreSQL's own ``age()`` says the same, but not in its parallel workers; as four bytes they
    compare in half the time that it takes to make a number of them.
    """
    number = f"xidsend({alias}.xmin)"
    first, end = (
        f"'\\x{at % 2**32:08x}'::bytea" for at in (last.transaction, last.transaction + 2**31)
    )
    joint = "AND" if first < end else "OR"
    later = f"({number} >= {first} {joint} {number} < {end})"
    return sa.literal_column(f"({later} AND {alias}.xmin <> '{_FROZEN}'::xid)", sa.Boolean)


def _asked(
    records: Records, expectations: Sequence[Expectation], kind: type[Related] | type[ExistsIn]
) -> list[MappedCollection]:
    names = {one.kwargs.collection for one in expectations if isinstance(one.kwargs, kind)}
    return [records.database.collections[name] for name in sorted(names)]
