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

_MARK = re.compile(r"([0-9a-f]{32})/(\d+)@(.+)")
_FARTHEST = 2**31 - 2**24  # transactions; PostgreSQL compares no further, and a reserve
_FROZEN = 2  # PostgreSQL's own number for rows that are older than all others

_NOW = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint
"""
# A restored, rebuilt or repartitioned table, a promoted replica, and a table whose columns changed
# have another identity: their rows have new numbers, or old ones that tell nothing.
_IDENTITY = """
WITH RECURSIVE named AS (
    SELECT c.oid, c.relkind FROM unnest(%(schemas)s::text[], %(tables)s::text[]) AS t(s, n)
    JOIN pg_namespace ns ON ns.nspname = t.s
    JOIN pg_class c ON c.relnamespace = ns.oid AND c.relname = t.n
), parts AS (
    SELECT oid, relkind FROM named
    UNION SELECT c.oid, c.relkind FROM parts
    JOIN pg_inherits i ON i.inhparent = parts.oid JOIN pg_class c ON c.oid = i.inhrelid
)
SELECT md5((SELECT system_identifier FROM pg_control_system())::text || ' ' || current_database()
           || ' ' || (SELECT timeline_id FROM pg_control_checkpoint())
           || ' ' || string_agg(oid || columns, ' ' ORDER BY oid)),
       bool_and(relkind IN ('r', 'p')), (SELECT count(*) FROM named)
FROM parts, LATERAL (
    SELECT coalesce(
        string_agg(format('%%s.%%s.%%s', attname, attnum, atttypid), ',' ORDER BY attnum), ''
    )
    FROM pg_attribute WHERE attrelid = parts.oid AND attnum > 0 AND NOT attisdropped
) AS a(columns)
"""


@dataclass(frozen=True)
class Mark:
    """Up to where the records of a collection were checked.

    Attributes:
        identity: digest of server, timeline, database, tables with partitions and columns, the
            primary key, and of how many values each list has that records are held against.
        transaction: 64-bit number below which every transaction had ended.
        at: when it was taken.
    """

    identity: str
    transaction: int
    at: datetime

    def __str__(self) -> str:
        return f"{self.identity}/{self.transaction}@{self.at.isoformat()}"

    @classmethod
    def parse(cls, text: str | None) -> Mark | None:
        """Read a mark; None where there is none."""
        found = _MARK.fullmatch(text or "")
        return found and cls(found[1], int(found[2]), datetime.fromisoformat(found[3]))


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
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable):
        return None
    assert row is not None
    assert numbers is not None
    if not row[1] or row[2] < len({(one.schema_name, one.table) for one in wanted}):
        return None
    identity = hashlib.sha256(f"{row[0]} {amounts} {records.key}".encode()).hexdigest()[:32]
    return Mark(identity, numbers[0], now)


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
    PostgreSQL's own ``age()`` says the same, but not in its parallel workers.
    """
    ahead = f"({alias}.xmin::text::bigint - {last.transaction % 2**32}) & {2**32 - 1}"
    later = f"{alias}.xmin <> '{_FROZEN}'::xid AND ({ahead}) < {2**31}"
    return sa.literal_column(f"({later})", sa.Boolean)


def _asked(records: Records, expectations: Sequence[Expectation]) -> list[MappedCollection]:
    names = {
        one.kwargs.collection for one in expectations if isinstance(one.kwargs, Related | ExistsIn)
    }
    return [records.database.collections[name] for name in sorted(names)]
