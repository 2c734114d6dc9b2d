"""Record classes as SQL conditions, and partitions whose records have all expired.

Conditions are over a record ``t``. `include.retention.postgres.session` sets up the sessions that
use them, in UTC, so that keys print the same everywhere. The moments in the conditions state the
timezone of dates and of times without one.

The text of the pack shows through which tables a class finds its records. A view or a function may
hide a table. The order of deletions then loses no link and no record, since a run remembers the
keys of a request's records before it erases anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg.sql import SQL, Composable

from include.erasure.masks import Mask, Shape, to_mask
from include.erasure.request_records import Key, RequestRecords, digest_of
from include.holds.records import RecordHolds
from include.holds.registry import Hold, HoldKind
from include.policy.fragments import all_of, any_of, fixed, literal, pack_sql
from include.policy.retention import RetentionRule, SqlClock
from include.retention.postgres.key_types import KeyType, TypedKeys, expressions
from include.retention.postgres.relations import Leaf, Relation
from include.services.database import scalar

Name = TypeVar("Name", bound=Hashable)
_OWN_COLUMN = re.compile(r'\s*t\s*\.\s*(?:"((?:[^"]|"")+)"|(\w+))\s*')


def own_column(expression: str) -> str | None:
    """Return the column of the record that an expression is; None where it is anything else."""
    matched = _OWN_COLUMN.fullmatch(expression)
    if matched is None:
        return None
    quoted, plain = matched.groups()
    return quoted.replace('""', '"') if quoted else plain.lower()


def finds_through(rule: RetentionRule, relation: Relation) -> bool:
    """Return whether a class finds its records through a table.

    Its keys and its condition count. A word that only looks like the table's name counts too.
    """
    texts = [*rule.keys.subject, *rule.keys.waybill, *rule.keys.case, rule.where or ""]
    text = "\n".join(texts)
    if not text.strip():  # each class is compared with each other one
        return False
    return re.search(rf"(?<!\w){re.escape(relation.name)}(?!\w)", text, re.IGNORECASE) is not None


def add_links(before: Mapping[Name, list[Name]], links: Sequence[tuple[Name, Name]]) -> None:
    """Add each link to an order, unless it would create a cycle.

    Args:
        before: predecessors of each name; changed in place.
        links: pairs; records of the first are found through records of the second, and go first.
    """
    for first, second in links:
        if (
            first != second
            and first not in before[second]
            and second not in reachable(first, before)
        ):
            before[second].append(first)


def reachable(start: Name, following: Mapping[Name, Iterable[Name]]) -> set[Name]:
    """Return all names that follow a name, directly or not."""
    names: set[Name] = set()
    waiting = list(following[start])
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting += following[name]
    return names


@dataclass(frozen=True)
class Cutoff:
    """The moments at which the period of a clock ends or begins to run again.

    The period is over before the first moment, and from the second to the third. Nearly always
    there is one moment.

    Attributes:
        zoned: for clocks with a timezone.
        local: for dates and times without one, in the pack's timezone.
    """

    zoned: tuple[datetime, ...]
    local: tuple[datetime, ...]


@dataclass(frozen=True)
class BoundClock:
    """A clock of a class, with the moment before which its period is over.

    Attributes:
        sql: the clock, over ``t``.
        zoned: whether it has a timezone.
        cutoff: of its period.
        now: the present moment, to find clocks in the future.
    """

    sql: Composable
    zoned: bool
    cutoff: Cutoff
    now: Cutoff

    @property
    def over(self) -> Composable:
        """The condition that the period is over; null while the clock has not started."""
        first, *more = self._moments(self.cutoff)
        parts = [SQL("({} < {})").format(self.sql, first)]
        for begins, ends in zip(more[::2], more[1::2], strict=True):
            parts.append(SQL("({0} >= {1} AND {0} < {2})").format(self.sql, begins, ends))
        return any_of(parts) if more else parts[0]

    @property
    def ahead(self) -> Composable:
        """The condition that the clock is in the future."""
        return SQL("({} > {})").format(self.sql, self._moments(self.now)[-1])

    @property
    def not_started(self) -> Composable:
        """The condition that the clock is null."""
        return SQL("(({}) IS NULL)").format(self.sql)

    def _moments(self, cutoff: Cutoff) -> list[Composable]:
        return [literal(moment) for moment in (cutoff.zoned if self.zoned else cutoff.local)]


@dataclass(frozen=True)
class RecordClass:
    """A record class of one database, bound to its table and to the moment of a plan.

    Attributes:
        rule: of retention.yaml.
        relation: its table.
        clock: of its period.
        minima: periods that laws require.
        shapes: types and sizes of the columns, for a class that masks.
        key_types: types of its key expressions, by expression.
        keys: compares values of holds and requests with keys of the database.
    """

    rule: RetentionRule
    relation: Relation
    clock: BoundClock
    minima: tuple[BoundClock, ...] = ()
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    key_types: Mapping[str, KeyType] = field(default_factory=dict)
    keys: TypedKeys = field(default_factory=TypedKeys)

    @property
    def name(self) -> str:
        """Name of the class."""
        return self.rule.record_class

    @property
    def belongs(self) -> Composable:
        """The condition that the record is of the class."""
        return SQL("(({}) IS TRUE)").format(pack_sql(self.rule.where)) if self.rule.where else _TRUE

    @property
    def expired(self) -> Composable:
        """The condition that every period is over, and the record is not masked yet."""
        return all_of([self.clock.over, *(minimum.over for minimum in self.minima), *self._undone])

    def requested(self, subjects: Collection[str], records: RequestRecords) -> Composable:
        """Return the condition that its data subject requested erasure, and no law keeps it.

        Args:
            subjects: keys of data subjects who asked to be erased.
            records: that are remembered for requests.
        """
        if not self.rule.on_request or not subjects:
            return _FALSE
        linked = all_of([self.belongs, self.linked(subjects)])
        found = any_of([linked, self._not_taken_over(subjects, records)])
        return all_of([found, *(minimum.over for minimum in self.minima), *self._undone])

    def linked(self, subjects: Collection[str]) -> Composable:
        """Return the condition that an expression of the class names one of some data subjects."""
        return any_of([self._named(text, subjects) for text in self.rule.keys.subject])

    def _named(self, text: str, subjects: Collection[str]) -> Composable:
        """Return the condition that an expression of the class names one of some data subjects."""
        return self.keys.name_subjects(self.key_types[text], text, subjects)

    def remembered(
        self, records: RequestRecords, subjects: Collection[str] | None = None
    ) -> Composable:
        """Return the condition that it is remembered for a request, of some subjects or of any."""
        keys = {key for group in records.of(self.name, subjects) for key in group.keys}
        return self._is_one_of(keys) if keys else _FALSE

    def on_hold_as_remembered(self, records: RequestRecords, values: Collection[str]) -> Composable:
        """Return the condition that the record is remembered for a data subject who is on hold.

        Args:
            records: the records that are remembered for requests.
            values: values of holds on data subjects.
        """
        return self.remembered(records, self.keys.subjects_on_hold(records.subjects, values))

    def _not_taken_over(self, subjects: Collection[str], records: RequestRecords) -> Composable:
        """Return the condition that it is remembered, and does not name another data subject."""
        expressions = {digest_of(text): text for text in self.rule.keys.subject}
        groups: dict[str, set[Key]] = {}
        for group in records.of(self.name, subjects):
            groups.setdefault(group.found_by, set()).update(group.keys)
        conditions = []
        for found_by, keys in sorted(groups.items()):
            condition = self._is_one_of(keys)
            if found_by in expressions:
                text = expressions[found_by]
                unlinked = SQL("(({})::text IS NULL)").format(pack_sql(text))
                condition = all_of([condition, any_of([unlinked, self._named(text, subjects)])])
            conditions.append(condition)
        return any_of(conditions)

    def _is_one_of(self, keys: Collection[Key]) -> Composable:
        """Return the condition that its primary key is one of some."""
        columns = list(zip(*sorted(keys), strict=True))
        if len(columns) == 1:
            return SQL("({} = ANY ({}::text[]))").format(
                self.relation.key_texts, literal(list(columns[0]))
            )
        return SQL("(({}) IN (SELECT * FROM unnest({})))").format(
            self.relation.key_texts,
            SQL(", ").join(SQL("{}::text[]").format(literal(list(column))) for column in columns),
        )

    @property
    def suspended(self) -> Composable:
        """The condition that it stays although its period is over."""
        suspended = self.rule.suspended
        return SQL("(({}) IS TRUE)").format(pack_sql(suspended.where)) if suspended else _FALSE

    def held(self, holds: RecordHolds) -> Composable:
        """Return the condition that a hold is on the record."""
        if holds.everything or self.name in holds.classes:
            return _TRUE
        return any_of(
            [
                self._on(kind, holds.values[kind])
                for kind, texts in expressions(self.rule.keys).items()
                if texts and holds.values.get(kind)
            ]
        )

    def held_by(self, hold: Hold, value: str) -> Composable:
        """Return the condition that a certain hold is on the record.

        Args:
            hold: of the registry.
            value: of the hold, without the database.
        """
        if hold.kind is HoldKind.DATABASE:
            return _TRUE
        if hold.kind is HoldKind.CLASS:
            return _TRUE if value == self.name else _FALSE
        return self._on(hold.kind, [value])

    def _on(self, kind: HoldKind, values: Collection[str]) -> Composable:
        """Return the condition that a key of the class is one of the values of holds."""
        texts = expressions(self.rule.keys).get(kind, ())
        return any_of(
            [self.keys.are_on_hold(kind, self.key_types[text], text, values) for text in texts]
        )

    @property
    def mask(self) -> Mask:
        """The masks of the class."""
        return Mask(self.rule.mask, self.rule.stamp)

    @property
    def _undone(self) -> list[Composable]:
        return [fixed(to_mask(self.mask, self.shapes))] if self.rule.action == "mask" else []


_TRUE, _FALSE = SQL("true"), SQL("false")


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
    return bool(scalar(connection, _ATTACHED, {"leaves": [leaf.oid], "root": relation.oid}))


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
