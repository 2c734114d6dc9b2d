"""Find the partitions whose bounds prove that all their records are past the retention period."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL

from include.policy.retention import SqlClock
from include.retention.planning.classes import RecordClass
from include.retention.planning.links import own_column
from include.retention.postgres.relations import Leaf, Relation

# The bounds of each level between the table and the partition count. A partition that an
# application is detaching has no bounds any more.
_UP = """
WITH RECURSIVE path (leaf, part, parent) AS (
    SELECT l.oid, i.inhrelid, i.inhparent FROM unnest(%(leaves)s::oid[]) AS l (oid)
    JOIN pg_inherits AS i ON i.inhrelid = l.oid AND NOT i.inhdetachpending
    UNION ALL
    SELECT p.leaf, i.inhrelid, i.inhparent FROM path AS p
    JOIN pg_inherits AS i ON i.inhrelid = p.parent AND NOT i.inhdetachpending
)
"""
# CASE, since a bound of another column may be no time, and PostgreSQL may cast it first.
_PAST = f"""
{_UP}, upper AS (
    SELECT p.leaf, CASE WHEN k.partstrat = 'r' AND k.partnatts = 1 AND a.attname = %(clock)s
        THEN substring(pg_get_expr(c.relpartbound, c.oid) FROM ' TO [(]''([^'']*)''[)]$')
        END AS bound
    FROM path AS p JOIN pg_class AS c ON c.oid = p.part
    JOIN pg_partitioned_table AS k ON k.partrelid = p.parent
    JOIN pg_attribute AS a ON a.attrelid = k.partrelid AND a.attnum = k.partattrs[0]
)
SELECT DISTINCT leaf::bigint FROM upper WHERE bound::{{type}} <= %(cutoff)s::{{type}}
AND EXISTS (SELECT FROM path AS p WHERE p.leaf = upper.leaf AND p.parent = %(root)s::oid)
AND NOT EXISTS (SELECT FROM pg_constraint AS f WHERE f.contype = 'f' AND f.confrelid = leaf
                AND f.conparentid = 0)
"""  # noqa: S608 - fixed text
_ATTACHED = f"{_UP} SELECT EXISTS (SELECT FROM path WHERE parent = %(root)s::oid)"  # noqa: S608 - fixed text


def is_attached(connection: psycopg.Connection[Any], relation: Relation, leaf: Leaf) -> bool:
    """Return whether a partition belongs to its table, and no application is detaching it."""
    if leaf.oid == relation.oid:
        return True
    row = connection.execute(_ATTACHED, {"leaves": [leaf.oid], "root": relation.oid}).fetchone()
    return row is not None and bool(row[0])


def past_partitions(
    connection: psycopg.Connection[Any],
    record_class: RecordClass,
    leaves: Sequence[Leaf] | None = None,
) -> list[int]:
    """Return the oids of the partitions whose upper bound is not after the cutoff of a class.

    A partition counts if it, or a table between it and the class's table, is a range partition by
    the clock column alone, and its upper bound is not after the cutoff. No application writes new
    records into such a partition. LIST, HASH and DEFAULT partitions do not count, nor partitions by
    an expression, by another column or by several columns. A partition that a foreign key
    references directly does not count either, since PostgreSQL does not drop it.

    Args:
        connection: to the mapped database, set up by `include.retention.postgres.session`.
        record_class: a class that is bound to the moment of a plan.
        leaves: partitions to judge; by default, all partitions of the table.
    """
    column = _clock_column(record_class)
    if column is None or not record_class.relation.partitioned:
        return []
    clock = record_class.clock
    query = SQL(_PAST).format(type=SQL("timestamptz" if clock.zoned else "timestamp"))
    values = {
        "root": record_class.relation.oid,
        "leaves": [
            leaf.oid for leaf in (record_class.relation.leaves if leaves is None else leaves)
        ],
        "clock": column,
        "cutoff": (clock.cutoff.zoned if clock.zoned else clock.cutoff.local)[0],
    }
    return [row[0] for row in connection.execute(query, values)]


def _clock_column(record_class: RecordClass) -> str | None:
    """Return the clock column of a class, or None if the clock is not a single column."""
    clock = record_class.rule.clock
    if isinstance(clock, SqlClock):
        return own_column(clock.sql)
    return clock[0] if len(clock) == 1 else None
