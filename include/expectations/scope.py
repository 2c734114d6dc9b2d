"""Which records changed since a mark, by PostgreSQL's own transaction numbers.

A column such as ``updated_at`` misses records that were written late with an old time, or by a
program that forgot it. The number of the transaction that wrote a row misses none: whatever was
not finished when the mark was taken has a greater number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from include.expectations.conditions import SOURCE, Records, quoted, table_of
from include.policy.expectations import Expectation
from include.policy.kwargs import Distinct, ExistsIn, Recent, Related, Satisfy

_MARK = re.compile(r"([0-9a-f]{32})/(\d+)@(.+)")
_FARTHEST = 2**31 - 2**24  # transactions; PostgreSQL compares no further, and a reserve
_FIRST_NORMAL = 3  # transaction numbers below are PostgreSQL's own

# Great Expectations compares the records of a batch with each other only.
_AMONG_ALL = {
    "expect_column_values_to_be_unique",
    "expect_compound_columns_to_be_unique",
    "expect_table_row_count_to_be_between",
}

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
        identity: digest of server, timeline, database and tables with partitions and columns.
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
    given = {
        "schemas": [one.schema_name for one in wanted],
        "tables": [one.table for one in wanted],
    }
    try:
        with connection.transaction():
            row = connection.execute(_IDENTITY, given).fetchone()
            numbers = connection.execute(_NOW).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return None
    assert row is not None
    assert numbers is not None
    if not row[1] or row[2] < len({(one.schema_name, one.table) for one in wanted}):
        return None
    return Mark(row[0], numbers[0], now)


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
    if one.type in _AMONG_ALL or isinstance(one.kwargs, ExistsIn):
        return True  # what left the other collection cannot be told
    return isinstance(one.kwargs, Satisfy | Related) and one.kwargs.scope == "all"


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


def narrowed(
    engine: sa.Engine,
    records: Records,
    conditions: Sequence[sa.ColumnElement[bool]],
    key_types: Sequence[str],
    open_keys: Iterable[Sequence[str]],
    most: int,
) -> Records | None:
    """The records for which one of the conditions holds, and others, named by key.

    Args:
        engine: on the open snapshot.
        records: the collection.
        conditions: of `changed`.
        key_types: PostgreSQL types of the key's columns.
        open_keys: keys of records that were broken, as text: they may have become good.
        most: records.

    Returns:
        None when there are more than ``most``: then one scan of all costs less.
    """
    source = records.table.alias(SOURCE)
    columns = [sa.cast(source.c[one], sa.Text) for one in records.key]
    keys: set[tuple[str, ...]] = set()
    with engine.connect() as conn:
        for condition in conditions:
            query = sa.select(*columns).select_from(source).where(condition).limit(most + 1)
            keys.update(tuple(row) for row in conn.execute(query))
            if len(keys) > most:
                return None
    keys.update(tuple(one) for one in open_keys)
    if len(keys) > most:
        return None
    return replace(records, where=_among(records, sorted(keys), key_types))


def _asked(records: Records, expectations: Sequence[Expectation]) -> list[Any]:
    names = {one.kwargs.collection for one in expectations if isinstance(one.kwargs, Related)}
    return [records.database.collections[name] for name in sorted(names)]


def _written_since(alias: str, last: Mark) -> sa.ColumnElement[bool]:
    number = max(last.transaction % 2**32, _FIRST_NORMAL)
    return sa.literal_column(f"age({alias}.xmin) <= age('{number}'::xid)", sa.Boolean)


def _among(
    records: Records, keys: Sequence[Sequence[str]], types: Sequence[str]
) -> sa.ColumnElement[bool]:
    columns: list[sa.ColumnElement[Any]] = [
        sa.literal_column(quoted(SOURCE, one)) for one in records.key
    ]
    arrays = [
        sa.cast(sa.bindparam(None, [key[at] for key in keys], sa.ARRAY(sa.Text)), sa.ARRAY(sa.Text))
        for at in range(len(columns))
    ]
    if len(columns) == 1:
        # PostgreSQL knows how many there are, and takes the index for few of them.
        listed = sa.type_coerce(arrays[0], postgresql.ARRAY(sa.Text)).op("::")
        return columns[0] == sa.func.any(listed(sa.literal_column(f"{types[0]}[]")))
    names = [f"k{at}" for at in range(len(columns))]
    rows = sa.func.unnest(*arrays).table_valued(*names).render_derived(name="open_keys")
    wanted: list[sa.ColumnElement[Any]] = [
        sa.literal_column(f"open_keys.k{at}::{one}") for at, one in enumerate(types)
    ]
    return sa.tuple_(*columns).in_(sa.select(*wanted).select_from(rows))


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
        period = kwargs.period
        ago = sa.func.make_interval(0, period.months, 0, period.days, 0, 0, period.seconds)
        moments = [sa.cast(at, sa.DateTime(timezone=True)) - ago for at in (last.at, now)]
        return sa.and_(column >= moments[0], column < moments[1])
    return None
