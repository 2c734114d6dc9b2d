"""How far the records of a collection were checked, by PostgreSQL's own transaction numbers.

A column such as ``updated_at`` misses records that were written late with an old time, or by a
program that forgot it. The number of the transaction that wrote a row misses none: whatever was
not finished when the mark was taken has a greater number.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.sql import SQL, Identifier

from include.expectations.conditions import Records
from include.policy.datamap import MappedCollection
from include.policy.expectations import Expectation
from include.policy.kwargs import ExistsIn, Related

_MARK = re.compile(r"([0-9a-f]{32})/(\d+)/(\d*)/(\d+)@(.+)")
_FARTHEST = 2**31 - 2**24  # transactions; PostgreSQL compares no further, and a reserve
_FROZEN = 2  # PostgreSQL's own number for rows that are older than all others

_NOW = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint
"""
# A restored, rebuilt or repartitioned table, a promoted replica, and a table whose columns changed
# have another identity: their rows have new numbers, or old ones that tell nothing. So has the
# first of the tables, that of the records, when it was emptied.
_IDENTITY = """
WITH RECURSIVE named AS (
    SELECT c.oid, c.relkind, t.at = 1 AS own
    FROM unnest(%(schemas)s::text[], %(tables)s::text[]) WITH ORDINALITY AS t(s, n, at)
    JOIN pg_namespace ns ON ns.nspname = t.s
    JOIN pg_class c ON c.relnamespace = ns.oid AND c.relname = t.n
), parts AS (
    SELECT oid, relkind, own FROM named
    UNION SELECT c.oid, c.relkind, parts.own FROM parts
    JOIN pg_inherits i ON i.inhparent = parts.oid JOIN pg_class c ON c.oid = i.inhrelid
)
SELECT md5((SELECT system_identifier FROM pg_control_system())::text || ' ' || current_database()
           || ' ' || (SELECT timeline_id FROM pg_control_checkpoint())
           || ' ' || string_agg(concat(oid, '.', file, columns), ' ' ORDER BY oid, own)),
       bool_and(relkind IN ('r', 'p')), (SELECT count(DISTINCT oid) FROM named)
FROM parts, LATERAL (
    SELECT coalesce(
        string_agg(format('%%s.%%s.%%s', attname, attnum, atttypid), ',' ORDER BY attnum), ''
    )
    FROM pg_attribute WHERE attrelid = parts.oid AND attnum > 0 AND NOT attisdropped
) AS a(columns), LATERAL (SELECT CASE WHEN own THEN pg_relation_filenode(oid) END) AS f(file)
"""
# Counted by the server as sessions report, so late by seconds; a replica and a server that is told
# not to count know nothing.
_DELETED = """
WITH RECURSIVE parts AS (
    SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %(schema)s AND c.relname = %(table)s
    UNION SELECT inhrelid FROM parts JOIN pg_inherits i ON i.inhparent = parts.oid
)
SELECT sum(pg_stat_get_tuples_deleted(oid))::bigint
FROM parts WHERE NOT pg_is_in_recovery() AND current_setting('track_counts') = 'on'
"""


@dataclass(frozen=True)
class Mark:
    """Up to where the records of a collection were checked.

    Attributes:
        identity: digest of server, timeline, database, tables with partitions and columns, the
            primary key, and of how many values each list has that records are held against.
        transaction: 64-bit number below which every transaction had ended.
        at: when it was taken.
        deleted: rows of the table that PostgreSQL's statistics count as deleted; they may be late.
            None where the server does not know.
        uncounted: records that were written or deleted since they were last counted one by one.
    """

    identity: str
    transaction: int
    at: datetime
    deleted: int | None = None
    uncounted: int = 0

    def __str__(self) -> str:
        known = "" if self.deleted is None else self.deleted
        told = f"{self.transaction}/{known}/{self.uncounted}"
        return f"{self.identity}/{told}@{self.at.isoformat()}"

    @classmethod
    def parse(cls, text: str | None) -> Mark | None:
        """Read a mark; None where there is none."""
        found = _MARK.fullmatch(text or "")
        if found is None:
            return None
        identity, transaction, deleted, uncounted, at = found.groups()
        known = int(deleted) if deleted else None
        moment = datetime.fromisoformat(at)
        return cls(identity, int(transaction), moment, known, int(uncounted))

    def deleted_since(self, last: Mark) -> int | None:
        """How many rows of the table were deleted since a mark; None where nobody knows.

        The statistics begin again after a crash: then nobody does.
        """
        if self.deleted is None or last.deleted is None or self.deleted < last.deleted:
            return None
        return self.deleted - last.deleted


def take(
    connection: psycopg.Connection[Any],
    records: Records,
    expectations: Sequence[Expectation],
    now: datetime,
) -> Mark | None:
    """Take the mark of the open snapshot.

    Returns:
        None where rows do not tell who wrote them (views, foreign tables), or the server does not
        tell who it is.
    """
    wanted = [records.collection, *_asked(records, expectations)]
    lists = {one.kwargs.collection for one in expectations if isinstance(one.kwargs, ExistsIn)}
    given = {
        "schemas": [one.schema_name for one in wanted],
        "tables": [one.table for one in wanted],
    }
    try:
        with connection.transaction():
            row = connection.execute(_IDENTITY, given).fetchone()
            numbers = connection.execute(_NOW).fetchone()
            amounts = [_rows(connection, records, one) for one in sorted(lists)]
            deleted = connection.execute(_DELETED, _named(records.collection)).fetchone()
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable):
        return None
    assert row is not None
    assert numbers is not None
    if not row[1] or row[2] < len({(one.schema_name, one.table) for one in wanted}):
        return None
    identity = hashlib.sha256(f"{row[0]} {amounts} {records.key}".encode()).hexdigest()[:32]
    return Mark(identity, numbers[0], now, deleted[0] if deleted else None)


def _named(collection: MappedCollection) -> dict[str, str]:
    return {"schema": collection.schema_name, "table": collection.table}


def _rows(connection: psycopg.Connection[Any], records: Records, collection: str) -> int:
    """How many values a list has: one that was deleted leaves no other trace."""
    listed = records.database.collections[collection]
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


def _asked(records: Records, expectations: Sequence[Expectation]) -> list[MappedCollection]:
    names = {
        one.kwargs.collection for one in expectations if isinstance(one.kwargs, Related | ExistsIn)
    }
    return [records.database.collections[name] for name in sorted(names)]
