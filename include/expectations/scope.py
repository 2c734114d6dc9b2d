"""Which records changed since a mark, by PostgreSQL's own transaction numbers.

A column such as ``updated_at`` misses records that were written late with an old time, or by a
program that forgot it. The number of the transaction that wrote a row misses none: whatever was
not finished when the mark was taken has a greater number.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.sql import SQL, Identifier
from sqlalchemy.dialects import postgresql

from include.expectations.broken import Key
from include.expectations.conditions import OTHER, SOURCE, Records, before, quoted, table_of
from include.policy.expectations import Expectation
from include.policy.kwargs import NOW, Distinct, ExistsIn, Recent, Related, Satisfy

_MARK = re.compile(r"([0-9a-f]{32})/(\d+)@(.+)")
_FARTHEST = 2**31 - 2**24  # transactions; PostgreSQL compares no further, and a reserve
_FIRST_NORMAL = 3  # transaction numbers below are PostgreSQL's own

# Great Expectations compares the records of a batch with each other only.
_AMONG_ALL = {
    "expect_column_values_to_be_unique",
    "expect_compound_columns_to_be_unique",
    "expect_table_row_count_to_be_between",
}

MOST_CHANGED = 0.2  # share of the records above which all are looked at
MOST_KEYS = 200_000  # that are named one by one; above, all records are looked at

_NOW = """
SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint
FROM pg_current_snapshot() AS s
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
        identity: digest of server, timeline, database, tables with partitions and columns, and of
            how many values each list has that records are held against.
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
    identity = hashlib.sha256(f"{row[0]} {amounts}".encode()).hexdigest()[:32]
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


def looks_at_all(one: Expectation) -> bool:
    """Whether an expectation has to look at all records, whatever changed."""
    kwargs = one.kwargs
    return (
        one.type in _AMONG_ALL
        or one.depends_on_time
        or (isinstance(kwargs, Satisfy | Related) and kwargs.scope == "all")
    )


def may_mend_unchanged(one: Expectation) -> bool:
    """Whether a broken record may become good without a trace in it or in what it relates to.

    Its twin was changed; time went on.
    """
    written = getattr(one.kwargs, "where", None), getattr(one.kwargs, "condition", None)
    return isinstance(one.kwargs, Distinct) or any(sql and NOW.search(sql) for sql in written)


def lists_changed(
    engine: sa.Engine, records: Records, expectations: Sequence[Expectation], last: Mark
) -> set[str]:
    """The expectations whose list of values was written to since a mark, by id.

    They have to look at all records. That the list has as many values as then, the mark says.
    """
    lists = {one.id: one.kwargs for one in expectations if isinstance(one.kwargs, ExistsIn)}
    found = set()
    with engine.connect() as conn:
        for rule, kwargs in lists.items():
            listed = table_of(records.database.collections[kwargs.collection], ()).alias(OTHER)
            written = sa.exists().select_from(listed).where(_written_since(OTHER, last))
            if conn.scalar(sa.select(written)):
                found.add(rule)
    return found


def changed(
    records: Records,
    expectations: Sequence[Expectation],
    last: Mark,
    now: datetime,
) -> list[sa.ColumnElement[bool]]:
    """The conditions, any of them, for records that may have become broken since a mark.

    Each is for a query of its own: under one OR, PostgreSQL searches what was written to another
    table again for every record as soon as it expects more of it than its working memory holds.

    Args:
        records: the collection.
        expectations: its expectations.
        last: the mark.
        now: the present moment.
    """
    conditions = [_written_since(SOURCE, last)]
    touched = [_touched(one, records, last, now) for one in expectations]
    different = {str(one): one for one in touched if one is not None}
    return [*conditions, *different.values()]


@dataclass(frozen=True)
class Narrow:
    """The records that a usual run looks at.

    Attributes:
        records: they.
        keys: of them.
        gone: keys of records that were broken and are no longer there.
    """

    records: Records
    keys: Sequence[Key]
    gone: Sequence[Key]


def narrowed(
    engine: sa.Engine,
    records: Records,
    conditions: Sequence[sa.ColumnElement[bool]],
    key_types: Sequence[str],
    again: Iterable[Key],
    known: Sequence[Key],
    most: int,
) -> Narrow | None:
    """The records for which one of the conditions holds, and others, named by key.

    Args:
        engine: on the open snapshot.
        records: the collection.
        conditions: of `changed`.
        key_types: PostgreSQL types of the key's columns.
        again: keys of broken records that may have become good.
        known: keys of all broken records.
        most: records.

    Returns:
        None when there are more than ``most``: then one scan of all costs less.
    """
    source = records.table.alias(SOURCE)
    columns = [sa.cast(source.c[one], sa.Text) for one in records.key]
    keys: set[Key] = set()
    with engine.connect() as conn:
        for condition in conditions:
            query = sa.select(*columns).select_from(source).where(condition).limit(most + 1)
            keys.update(tuple(row) for row in conn.execute(query))
            if len(keys) > most:
                return None
        keys.update(again)
        if len(keys) > most:
            return None
        gone = [tuple(row) for row in conn.execute(_gone(records, known, key_types))]
    chosen = sorted(keys)
    return Narrow(replace(records, where=_among(records, chosen, key_types)), chosen, gone)


def _asked(records: Records, expectations: Sequence[Expectation]) -> list[Any]:
    names = {
        one.kwargs.collection for one in expectations if isinstance(one.kwargs, Related | ExistsIn)
    }
    return [records.database.collections[name] for name in sorted(names)]


def _written_since(alias: str, last: Mark) -> sa.ColumnElement[bool]:
    number = max(last.transaction % 2**32, _FIRST_NORMAL)
    return sa.literal_column(f"age({alias}.xmin) <= age('{number}'::xid)", sa.Boolean)


def _among(records: Records, keys: Sequence[Key], types: Sequence[str]) -> sa.ColumnElement[bool]:
    columns: list[sa.ColumnElement[Any]] = [
        sa.literal_column(quoted(SOURCE, one)) for one in records.key
    ]
    if len(columns) == 1:
        # PostgreSQL knows how many there are, and takes the index for few of them.
        listed = sa.type_coerce(_arrays(keys, 1)[0], postgresql.ARRAY(sa.Text)).op("::")
        return columns[0] == sa.func.any(listed(sa.literal_column(f"{types[0]}[]")))
    rows = _rows_of(keys, len(columns))
    wanted: list[sa.ColumnElement[Any]] = [
        sa.literal_column(f"given.k{at}::{one}") for at, one in enumerate(types)
    ]
    return sa.tuple_(*columns).in_(sa.select(*wanted).select_from(rows))


def _gone(records: Records, keys: Sequence[Key], types: Sequence[str]) -> sa.Select[Any]:
    """Which of the keys no record has."""
    source = records.table.alias(SOURCE)
    same = [
        sa.literal_column(quoted(SOURCE, name)) == sa.literal_column(f"given.k{at}::{kind}")
        for at, (name, kind) in enumerate(zip(records.key, types, strict=True))
    ]
    rows = _rows_of(keys, len(types))
    return sa.select(*rows.c).where(~sa.exists().select_from(source).where(*same))


def _rows_of(keys: Sequence[Key], width: int) -> sa.TableValuedAlias:
    names = [f"k{at}" for at in range(width)]
    return sa.func.unnest(*_arrays(keys, width)).table_valued(*names).render_derived(name="given")


def _arrays(keys: Sequence[Key], width: int) -> list[sa.ColumnElement[Any]]:
    text = sa.ARRAY(sa.Text)
    return [
        sa.cast(sa.bindparam(None, [key[at] for key in keys], text), text) for at in range(width)
    ]


def _touched(
    one: Expectation, records: Records, last: Mark, now: datetime
) -> sa.ColumnElement[bool] | None:
    """Records whose answer may have changed although they did not."""
    kwargs = one.kwargs
    if isinstance(kwargs, Related):
        other = table_of(records.database.collections[kwargs.collection], (kwargs.field,))
        writer = other.alias("writer")
        related = sa.select(*writer.columns).where(_written_since("writer", last))
        return sa.literal_column(quoted(SOURCE, kwargs.key)).in_(related)
    if isinstance(kwargs, Distinct):
        twin = table_of(records.collection, kwargs.columns).alias("twin")
        alike = sa.select(*twin.columns).where(_written_since("twin", last))
        mine: list[sa.ColumnElement[Any]] = [
            sa.literal_column(quoted(SOURCE, name)) for name in kwargs.columns
        ]
        return sa.tuple_(*mine).in_(alike)
    if isinstance(kwargs, Recent):
        column: sa.ColumnElement[Any] = sa.literal_column(quoted(SOURCE, kwargs.column))
        was, is_now = (before(at, kwargs.period) for at in (last.at, now))
        return sa.and_(column >= was, column < is_now)
    return None
