"""Record classes as SQL conditions, and partitions whose records have all expired.

The conditions apply to a record ``t``. They need a session that
`include.retention.postgres.session` set up with the timezone UTC. In such a session, keys are
always printed in the same format. Conditions on columns without a timezone contain times in the
policy pack's timezone.

The key expressions or the condition of a record class may mention a table other than its own. The
module then assumes that records of the record class are found through that table. It does not
notice tables behind a view or function. The records of erasure requests are found even then,
because a run stores their keys before it erases anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg.sql import SQL, Composable

from include.erasure.masks import ColumnShape, Mask, needs_masking
from include.erasure.request_records import Key, RequestRecords, digest_of
from include.holds.records import RecordHolds
from include.holds.registry import Hold, HoldKind
from include.policy.fragments import all_of, any_of, escape_percent, literal, pack_sql
from include.policy.retention import RetentionRule, SqlClock
from include.retention.postgres.key_types import KeyType, TypedKeys, expressions_by_kind
from include.retention.postgres.relations import Leaf, Relation
from include.services.database import scalar

Name = TypeVar("Name", bound=Hashable)
_OWN_COLUMN = re.compile(r'\s*t\s*\.\s*(?:"((?:[^"]|"")+)"|(\w+))\s*')


def single_column(expression: str) -> str | None:
    """Return the column name if an SQL expression is only a column, such as ``t.column``.

    Return None for any other expression.

    Args:
        expression: SQL expression of retention.yaml. It refers to the record by the alias ``t``.
    """
    matched = _OWN_COLUMN.fullmatch(expression)
    if matched is None:
        return None
    quoted, plain = matched.groups()
    return quoted.replace('""', '"') if quoted else plain.lower()


def is_found_through(rule: RetentionRule, relation: Relation) -> bool:
    """Return whether the SQL of a record class mentions a table.

    The SQL consists of the key expressions and the condition of the record class. If it mentions
    the table, records of the record class may be found through this table. The function may also
    return True if a word merely equals the name of the table.

    Args:
        rule: definition of the record class.
        relation: the table.
    """
    texts = [*rule.keys.subject, *rule.keys.waybill, *rule.keys.case, rule.where or ""]
    text = "\n".join(texts)
    if not text.strip():  # avoid the search, since all pairs of classes are compared
        return False
    return re.search(rf"(?<!\w){re.escape(relation.name)}(?!\w)", text, re.IGNORECASE) is not None


def add_acyclic_links(
    before: Mapping[Name, list[Name]], links: Sequence[tuple[Name, Name]]
) -> None:
    """Add pairs of names to an order of processing, except pairs that would create a cycle.

    The names are names of record classes or collections, for example.

    Args:
        before: name -> names that are processed earlier than this name. The function changes this
            mapping.
        links: pairs of names. The first name has to be processed before the second name, since the
            records of the first name are found through records of the second name.
    """
    for first, second in links:
        if (
            first != second
            and first not in before[second]
            and second not in reachable(first, before)
        ):
            before[second].append(first)


def reachable(start: Name, following: Mapping[Name, Iterable[Name]]) -> set[Name]:
    """Return all names that can be reached from a name, directly or through other names.

    Args:
        start: the name.
        following: name -> names that can be reached from it directly.
    """
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
    """The times that decide whether a retention period has ended at the time of a plan.

    Usually each tuple has one time, and a period has ended if it started before this time. But a
    later start can have an earlier end: one month after 29 January 23:00 is 28 February 23:00, and
    one month after 30 January 01:00 is 28 February 01:00. A tuple then has three or more times, and
    a period has also ended if it started between the second and the third time, and so on.

    Attributes:
        zoned: times to compare with a start that has a timezone.
        local: times to compare with a start without a timezone, in the policy pack's timezone.
    """

    zoned: tuple[datetime, ...]
    local: tuple[datetime, ...]


@dataclass(frozen=True)
class BoundClock:
    """The start of a retention period in a record, as SQL, and the times to compare it with.

    Attributes:
        sql: SQL expression for the start of the period, over the record ``t``.
        zoned: whether the expression has a timezone.
        cutoff: times with which the start is compared to decide whether the period has ended.
        now: the current time, with which the start is compared to find a start in the future.
    """

    sql: Composable
    zoned: bool
    cutoff: Cutoff
    now: Cutoff

    @property
    def ended(self) -> Composable:
        """The SQL condition that the retention period has ended.

        The condition is null if the record has no start of the period.
        """
        first, *more = self._moments(self.cutoff)
        parts = [SQL("({} < {})").format(self.sql, first)]
        for begins, ends in zip(more[::2], more[1::2], strict=True):
            parts.append(SQL("({0} >= {1} AND {0} < {2})").format(self.sql, begins, ends))
        return any_of(parts) if more else parts[0]

    @property
    def starts_in_future(self) -> Composable:
        """The SQL condition that the start of the retention period is in the future."""
        return SQL("({} > {})").format(self.sql, self._moments(self.now)[-1])

    @property
    def not_started(self) -> Composable:
        """The SQL condition that the record has no start of the retention period."""
        return SQL("(({}) IS NULL)").format(self.sql)

    def _moments(self, cutoff: Cutoff) -> list[Composable]:
        return [literal(moment) for moment in (cutoff.zoned if self.zoned else cutoff.local)]


@dataclass(frozen=True)
class RecordClass:
    """A record class with its table and the ends of its retention periods at the time of a plan.

    Methods that return conditions return SQL over a record ``t`` of the table.

    Attributes:
        rule: definition of the record class in retention.yaml.
        relation: table of the record class.
        clock: start and end of the retention period.
        minima: starts and ends of the minimum periods that laws require.
        shapes: column -> its type and size; empty for a record class that does not mask.
        key_types: key expression of the record class -> type of its value.
        keys: types of all keys of the database, to compare the keys with legal holds and requests.
    """

    rule: RetentionRule
    relation: Relation
    clock: BoundClock
    minima: tuple[BoundClock, ...] = ()
    shapes: Mapping[str, ColumnShape] = field(default_factory=dict)
    key_types: Mapping[str, KeyType] = field(default_factory=dict)
    keys: TypedKeys = field(default_factory=TypedKeys)

    @property
    def name(self) -> str:
        """The name of the record class in retention.yaml."""
        return self.rule.record_class

    @property
    def belongs(self) -> Composable:
        """The SQL condition that a record belongs to the record class."""
        return SQL("(({}) IS TRUE)").format(pack_sql(self.rule.where)) if self.rule.where else _TRUE

    @property
    def expired(self) -> Composable:
        """The SQL condition that all retention periods of a record have ended.

        If the record class masks records, the condition also requires that the record is not masked
        yet.
        """
        return all_of(
            [self.clock.ended, *(minimum.ended for minimum in self.minima), *self._undone]
        )

    def requested(self, subjects: Collection[str], records: RequestRecords) -> Composable:
        """Return the SQL condition that a record may be erased on request of its data subject.

        The condition is false until all minimum periods that laws require have ended.

        Args:
            subjects: keys of the data subjects who requested erasure.
            records: records that runs found for open erasure requests and stored in the state
                database.
        """
        if not self.rule.on_request or not subjects:
            return _FALSE
        linked = all_of([self.belongs, self.linked(subjects)])
        of_subject = any_of([linked, self._not_taken_over(subjects, records)])
        return all_of([of_subject, *(minimum.ended for minimum in self.minima), *self._undone])

    def linked(self, subjects: Collection[str]) -> Composable:
        """Return the SQL condition that a record names one of the data subjects.

        A record names a data subject if a key expression of the record class returns the data
        subject's key.

        Args:
            subjects: keys of the data subjects.
        """
        return any_of([self._named(text, subjects) for text in self.rule.keys.subject])

    def _named(self, text: str, subjects: Collection[str]) -> Composable:
        """Return the SQL condition that a key expression returns the key of a data subject.

        The condition is true if the key expression returns any key in `subjects`.

        Args:
            text: the key expression.
            subjects: keys of the data subjects.
        """
        return self.keys.name_subjects(self.key_types[text], text, subjects)

    def stored_for_request(
        self, records: RequestRecords, subjects: Collection[str] | None = None
    ) -> Composable:
        """Return the SQL condition that a record is one of the records in `records`.

        Args:
            records: records that runs found for open erasure requests and stored in the state
                database.
            subjects: keys of data subjects, to match only records that were found for their
                requests; None for all data subjects.
        """
        keys = {key for group in records.of(self.name, subjects) for key in group.keys}
        return self._is_one_of(keys) if keys else _FALSE

    def on_hold_as_stored(self, records: RequestRecords, values: Collection[str]) -> Composable:
        """Return the SQL condition that a record was found for a data subject on legal hold.

        The condition is true if `records` contains the record for the erasure request of a data
        subject to whom a legal hold applies.

        Args:
            records: records that runs found for open erasure requests and stored in the state
                database.
            values: keys of data subjects that legal holds name, as people typed them.
        """
        return self.stored_for_request(
            records, self.keys.subjects_on_hold(records.subjects, values)
        )

    def _not_taken_over(self, subjects: Collection[str], records: RequestRecords) -> Composable:
        """Return the SQL condition that a stored record still belongs to its data subject.

        The condition is true if `records` contains the record for the erasure request of a data
        subject in `subjects`, and the record does not belong to another data subject now.

        Args:
            subjects: keys of the data subjects who requested erasure.
            records: records that runs found for open erasure requests and stored in the state
                database.
        """
        expressions_by_digest = {digest_of(text): text for text in self.rule.keys.subject}
        groups: dict[str, set[Key]] = {}
        for group in records.of(self.name, subjects):
            groups.setdefault(group.found_by, set()).update(group.keys)
        conditions = []
        for found_by, keys in sorted(groups.items()):
            condition = self._is_one_of(keys)
            if found_by in expressions_by_digest:
                text = expressions_by_digest[found_by]
                unlinked = SQL("(({})::text IS NULL)").format(pack_sql(text))
                condition = all_of([condition, any_of([unlinked, self._named(text, subjects)])])
            conditions.append(condition)
        return any_of(conditions)

    def _is_one_of(self, keys: Collection[Key]) -> Composable:
        """Return the SQL condition that the primary key of a record is one of `keys`."""
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
        """The SQL condition that the disposition of a record is suspended by retention.yaml."""
        suspended = self.rule.suspended
        return SQL("(({}) IS TRUE)").format(pack_sql(suspended.where)) if suspended else _FALSE

    def held(self, holds: RecordHolds) -> Composable:
        """Return the SQL condition that a legal hold applies to a record of this record class.

        A legal hold applies if it names the database, this record class, or a key that a key
        expression of this record class returns.

        Args:
            holds: the active legal holds on records of the database.
        """
        if holds.everything or self.name in holds.classes:
            return _TRUE
        return any_of(
            [
                self._matches_hold(kind, holds.values[kind])
                for kind, texts in expressions_by_kind(self.rule.keys).items()
                if texts and holds.values.get(kind)
            ]
        )

    def held_by(self, hold: Hold, value: str) -> Composable:
        """Return the SQL condition that a legal hold with a certain value applies to a record.

        Args:
            hold: the legal hold.
            value: a value of the hold, without the prefix that names a database.
        """
        if hold.kind is HoldKind.DATABASE:
            return _TRUE
        if hold.kind is HoldKind.CLASS:
            return _TRUE if value == self.name else _FALSE
        return self._matches_hold(hold.kind, [value])

    def _matches_hold(self, kind: HoldKind, values: Collection[str]) -> Composable:
        """Return the SQL condition that a key of a record equals one of the values of legal holds.

        Args:
            kind: type of object that the holds name, such as a waybill.
            values: values of the holds.
        """
        texts = expressions_by_kind(self.rule.keys).get(kind, ())
        return any_of(
            [self.keys.are_on_hold(kind, self.key_types[text], text, values) for text in texts]
        )

    @property
    def mask(self) -> Mask:
        """The columns that the record class masks and how it masks them."""
        return Mask(self.rule.mask, self.rule.stamp)

    @property
    def _undone(self) -> list[Composable]:
        return (
            [escape_percent(needs_masking(self.mask, self.shapes))]
            if self.rule.action == "mask"
            else []
        )


_TRUE, _FALSE = SQL("true"), SQL("false")


# The path from each partition up to its table, since the bounds of each level apply. A partition
# that an application is detaching has no bounds any more.
_PATH_TO_TABLE = """
WITH RECURSIVE path (leaf, part, parent) AS (
    SELECT l.oid, i.inhrelid, i.inhparent FROM unnest(%(leaves)s::oid[]) AS l (oid)
    JOIN pg_inherits AS i ON i.inhrelid = l.oid AND NOT i.inhdetachpending
    UNION ALL
    SELECT p.leaf, i.inhrelid, i.inhparent FROM path AS p
    JOIN pg_inherits AS i ON i.inhrelid = p.parent AND NOT i.inhdetachpending
)
"""
# CASE prevents PostgreSQL from casting the bound of another column, which may not be a time.
_PAST = f"""
{_PATH_TO_TABLE}, upper AS (
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
_ATTACHED = f"{_PATH_TO_TABLE} SELECT EXISTS (SELECT FROM path WHERE parent = %(root)s::oid)"  # noqa: S608 - fixed text


def is_attached(connection: psycopg.Connection[Any], relation: Relation, leaf: Leaf) -> bool:
    """Return whether a partition is still attached to its table.

    The function also returns False while another session is detaching the partition.
    """
    if leaf.oid == relation.oid:
        return True
    return bool(scalar(connection, _ATTACHED, {"leaves": [leaf.oid], "root": relation.oid}))


def expired_partitions(
    connection: psycopg.Connection[Any],
    record_class: RecordClass,
    leaves: Sequence[Leaf] | None = None,
) -> list[int]:
    """Return the oids of the partitions whose records are all past their retention period.

    These are partitions by ranges of the column from which the retention period counts. The period
    has ended for every value below the upper bound of the range. Applications write no new records
    into such partitions. If a partition belongs to a table that is itself a partition, the range of
    that table counts, too. The following partitions are not returned:

    - LIST, HASH and DEFAULT partitions,
    - partitions by an expression, by another column or by several columns,
    - partitions to which a foreign key refers directly, since PostgreSQL does not drop them.

    Args:
        connection: connection to the mapped database, set up by
            `include.retention.postgres.session`.
        record_class: record class of the table.
        leaves: partitions to check; None for all partitions of the table.
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
    """Return the column from which the retention period of a record class counts.

    Return None if the period counts from several columns or from an SQL expression.
    """
    clock = record_class.rule.clock
    if isinstance(clock, SqlClock):
        return single_column(clock.sql)
    return clock[0] if len(clock) == 1 else None
