"""The count afterwards: queries of its own, written apart from the execution.

Periods are added to clocks in the pack's timezone instead of compared with a moment that was worked
out before; holds are read anew from the registry; what refers to a record is asked of the catalogue
as it is now. What both use: the forms of masked text, the types of columns, the list of foreign
keys and how each compares, how holds and requests are compared with keys, which holds the registry
has, and which records runs found for requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable

from include.erasure.masks import Mask, shapes, to_mask
from include.erasure.places import Place
from include.erasure.request_records import (
    NO_RECORDS,
    Key,
    RequestRecords,
)
from include.holds.records import RecordHolds
from include.holds.registry import HoldKind
from include.policy.datamap import MappedDatabase
from include.policy.fragments import fixed, literal, pack_sql, quoted
from include.policy.period import Period
from include.policy.retention import Minimum, RetentionRule, SqlClock
from include.retention import rings
from include.retention.key_types import KeyType, expressions, read_key_types
from include.retention.relations import ForeignKey, Relation, Relations, read_relations
from include.retention.typed_keys import TypedKeys
from include.retention.verify_records import Remembered, Subject

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Left:
    """What is left of a class although its periods are over.

    Attributes:
        held: under a hold, or suspended by the class's own condition.
        referred: that another record of a mapped table refers to.
        unexplained: all others.
        waiting: for the next plan, since they came after this one; not in ``unexplained``.
    """

    name: str
    held: int
    referred: int
    unexplained: int
    waiting: int = 0


@dataclass(frozen=True)
class Orphans:
    """Records whose foreign key leads nowhere.

    Attributes:
        validated: whether PostgreSQL has ever looked at all records of the key; those of one that
            is NOT VALID may be as old as the key.
    """

    constraint: str
    table: str
    records: int
    validated: bool = True


class Inspection:
    """Counts what is left in one database.

    Args:
        connection: of its own, as one who reads; inside of a transaction.
        database: of the data map.
        rules: its record classes.
        as_of: moment for which the plan was made.
        timezone: of the pack.
        holds: read after the execution.
        records: that runs found for open requests, by their keys.
    """

    def __init__(
        self,
        connection: Connection,
        database: MappedDatabase,
        rules: Sequence[RetentionRule],
        *,
        as_of: datetime,
        timezone: str,
        holds: RecordHolds,
        records: RequestRecords = NO_RECORDS,
    ) -> None:
        self.connection = connection
        self.rules = rules
        self.as_of = as_of
        self.holds = holds
        self.relations: Relations = read_relations(connection, database)
        self.remembered = Remembered(connection, self.relations, records)
        self._types: dict[str, dict[str, KeyType]] = {
            one.record_class: read_key_types(connection, one.keys, self._relation(one))
            for one in rules
        }
        self._keys = TypedKeys.of([one.keys for one in rules], self._types.values())
        connection.execute("SELECT set_config('TimeZone', %s, true)", [timezone])

    def left(self) -> list[Left]:
        """Count what is over and still there, class by class."""
        return [self._left(one) for one in self.rules if one.action != "keep"]

    def orphans(self) -> list[Orphans]:
        """Look for records that refer to nothing, in every foreign key to a class's table."""
        tables = {one.collection for one in self.rules if one.deletes}
        found = []
        for key in self.relations.keys:
            if self.relations.collection_of(key.parent) in tables:
                parent = self.relations.by_collection[self.relations.collections[key.parent]]
                if records := self._unmatched(key, parent):
                    found.append(Orphans(key.name, key.label, records, key.validated))
        return found

    def subject(self, key: str) -> Subject:
        """Count what is left of a data subject: found by the class's keys, or by its own key.

        What a run found once is looked for by primary key, since what led to it may be gone.
        """
        records = unexplained = taken_over = 0
        for rule in self.rules:
            if not rule.on_request:
                continue
            named = self._named(rule, key)
            query = SQL(
                "{prefix}SELECT count(*), count(*) FILTER (WHERE {lawful} AND {alone} "
                "AND NOT ({held}) AND NOT ({referred}) AND NOT ({elsewhere})), "
                "count(*) FILTER (WHERE {elsewhere}) FROM {table} AS t WHERE {left} AND {asked}"
            ).format(
                prefix=self._prefix(rule, key) if rule.deletes else SQL(""),
                lawful=self._after([self._minimum(rule, one) for one in rule.minimum]),
                alone=_all(self._let_go(rule, key)),
                held=self._held(rule),
                referred=self._referred(rule) if rule.deletes else _FALSE,
                elsewhere=self.remembered.taken_over(rule, key, self._linked(rule, key), named),
                table=self._relation(rule).identifier,
                left=self._left_to_do(rule),
                asked=self._asked(rule, key),
            )
            row = self._row(query)
            records, unexplained = records + row[0], unexplained + row[1]
            taken_over += row[2]
        return Subject(key, records, unexplained, taken_over)

    def still_there(self) -> set[tuple[str, Key]]:
        """Return which of the remembered records are still there: class and primary key."""
        return self.remembered.still_there(self.rules)

    def _asked(self, rule: RetentionRule, key: str) -> Composable:
        """Return the condition that a record is a data subject's: by its keys, or found once."""
        return _or([self._linked(rule, key), self.remembered.condition(rule, {key})])

    def _linked(self, rule: RetentionRule, key: str) -> Composable:
        """Return the condition that the class's keys name a data subject."""
        return _all([_member(rule), _or(list(self._named(rule, key).values()))])

    def _named(self, rule: RetentionRule, key: str) -> dict[str, Composable]:
        """Return by expression the condition that it names a data subject."""
        types = self._types[rule.record_class]
        return {
            text: self._keys.name_subjects(types[text], text, [key]) for text in rule.keys.subject
        }

    def _left(self, rule: RetentionRule) -> Left:
        over = [(self._clock(rule.clock), rule.period)]
        over += [self._minimum(rule, one) for one in rule.minimum]
        query = SQL(
            "{prefix}SELECT count(*) FILTER (WHERE held), "
            "count(*) FILTER (WHERE referred AND NOT held), "
            "count(*) FILTER (WHERE NOT referred AND NOT held) FROM (SELECT {held} AS held, "
            "{referred} AS referred FROM {table} AS t WHERE {of_class} AND {left} AND {over}) AS d"
        ).format(
            prefix=self._prefix(rule) if rule.deletes else SQL(""),
            held=self._held(rule),
            referred=self._referred(rule) if rule.deletes else _FALSE,
            table=self._relation(rule).identifier,
            of_class=self._of_class(rule),
            left=self._left_to_do(rule),
            over=self._after(over),
        )
        return Left(rule.record_class, *self._row(query))

    def _of_class(self, rule: RetentionRule) -> Composable:
        """Of the class, and of no other that keeps it longer."""
        return _all([_member(rule), *self._let_go(rule)])

    def _let_go(self, rule: RetentionRule, key: str | None = None) -> list[Composable]:
        """Each other class of the same records has let go of them, or its subject asked it to."""
        parts: list[Composable] = []
        for other in self.rules:
            if other is rule or other.collection != rule.collection or not rule.deletes:
                continue
            if other.action == "mask":
                continue
            stays: Composable = SQL("true")
            if other.action != "keep":
                over = [(self._clock(other.clock), other.period)]
                over += [self._minimum(other, one) for one in other.minimum]
                ended = self._after(over)
                if key is not None and other.on_request:
                    asked = self._asked(other, key)
                    lawful = self._after([self._minimum(other, one) for one in other.minimum])
                    ended = SQL("({} OR ({} AND {}))").format(ended, asked, lawful)
                stays = SQL("({}) IS NOT TRUE").format(ended)
                if other.suspended:
                    stays = SQL("({} OR {})").format(stays, _true(other.suspended.where))
            parts.append(SQL("NOT ({} AND {})").format(_member(other), stays))
        return parts

    def _left_to_do(self, rule: RetentionRule) -> Composable:
        if rule.action != "mask":
            return SQL("true")
        relation = self._relation(rule)
        columns = shapes(self.connection, Place(relation.schema, relation.name))
        return fixed(to_mask(Mask(rule.mask, rule.stamp), columns))

    def _after(self, periods: Sequence[tuple[Composable, Period]]) -> Composable:
        """Each clock plus its period lies before the plan's moment."""
        return _all(
            [
                # a clock at the end of what dates can be has no day after it
                SQL(
                    "(CASE WHEN {clock} < {at} THEN {clock} + make_interval(months => {m}, "
                    "days => {d}, secs => {s}) < {at} ELSE false END)"
                )
                .format(clock=clock, m=one.months, d=one.days, s=one.seconds, at=self._moment())
                for clock, one in periods
            ]
        )  # fmt: skip

    def _moment(self) -> Composable:
        return SQL("{}::timestamptz").format(literal(self.as_of))

    def _minimum(self, rule: RetentionRule, one: Minimum) -> tuple[Composable, Period]:
        return self._clock(one.clock or rule.clock), one.period

    def _clock(self, clock: tuple[str, ...] | SqlClock) -> Composable:
        """A clock as a moment: dates and times without a timezone are of the pack's."""
        if isinstance(clock, SqlClock):
            return SQL("({})::timestamptz").format(pack_sql(clock.sql))
        columns = [SQL("{}::timestamptz").format(quoted("t", one)) for one in clock]
        return SQL("greatest({})").format(SQL(", ").join(columns))

    def _held(self, rule: RetentionRule) -> Composable:
        suspended = _true(rule.suspended.where) if rule.suspended else _FALSE
        return _or([suspended, *self._on_hold(rule.collection)])

    def _on_hold(self, collection: str) -> list[Composable]:
        """Conditions of which one says that a hold is on a record of a collection."""
        parts: list[Composable] = [SQL("true")] if self.holds.everything else []
        for one in self.rules:
            if one.collection != collection:
                continue
            member = _member(one)
            if one.record_class in self.holds.classes:
                parts.append(member)
            types = self._types[one.record_class]
            for kind, texts in expressions(one.keys).items():
                values = self.holds.values.get(kind, {})
                if texts and values:
                    each = [
                        self._keys.are_on_hold(kind, types[text], text, values) for text in texts
                    ]
                    parts.append(_all([member, _or(each)]))
            held = self.holds.values.get(HoldKind.SUBJECT, {})
            subjects = self._keys.subjects_on_hold(self.remembered.subjects, held)
            parts.append(self.remembered.condition(one, subjects))
        return parts

    def _referred(self, rule: RetentionRule) -> Composable:
        """Another record refers to it and is not set to null with it.

        In a circle (`_prefix` stands before the query) only what is not over itself explains.
        """
        return rings.stays() if self._ring(rule.collection) else self._referring(rule)

    def _ring(self, collection: str) -> frozenset[str]:
        """The circle of a collection; empty where it belongs to none."""
        emptied = {one.collection for one in self.rules if one.deletes}
        referring = {
            name: {child for child, key in self._keys_to(name) if not self._nulled(key, name)}
            & emptied
            for name in emptied
        }
        return rings.ring_of(collection, referring)

    def _prefix(self, rule: RetentionRule, key: str | None = None) -> Composable:
        """What `_referred` needs before the query; ``key`` of a subject who asked."""
        ring = self._ring(rule.collection)
        members = []
        for name in sorted(ring):
            relation = self.relations.by_collection[name]
            rules = [one for one in self.rules if one.collection == name and one.deletes]
            over = [
                _all([self._over(one, key), SQL("NOT ({})").format(self._held(one))])
                for one in rules
            ]
            keys = [
                key
                for child, key in self._keys_to(name)
                if child in ring and not self._nulled(key, name)
            ]
            explained = self._referring(rules[0], ring)
            members.append(rings.Member(relation, _or(over), explained, keys))
        return rings.prefix(members) if members else SQL("")

    def _over(self, rule: RetentionRule, key: str | None) -> Composable:
        """Over by a class and kept by no other, or asked for where a subject's key is given."""
        minima = [self._minimum(rule, one) for one in rule.minimum]
        periods = self._after([(self._clock(rule.clock), rule.period), *minima])
        over = _all([self._of_class(rule), periods])
        if key is None or not rule.on_request:
            return over
        asked = self._asked(rule, key)
        return _or([over, _all([asked, self._after(minima), *self._let_go(rule, key)])])

    def _referring(self, rule: RetentionRule, ring: frozenset[str] = frozenset()) -> Composable:
        """A record of a mapped table refers to it; one of a circle, only where it is not over."""
        relation = self._relation(rule)
        parts: list[Composable] = [SQL("false")]
        for child, key in self._keys_to(rule.collection):
            which: Composable = SQL("true")
            if self._nulled(key, rule.collection):  # only what a hold forbids to change
                which = _or([_FALSE, *self._on_hold(child)])
            refers = key.joined("c", "t")
            if key.child_root == relation.oid:  # what refers to itself only is kept by nothing
                other = SQL("(c.tableoid, c.ctid) <> (t.tableoid, t.ctid)")
                refers = _all([refers, other])
            if child in ring:
                refers = _all([refers, rings.not_over("c")])
            columns = SQL(", ").join(quoted("t", one) for one in key.columns)
            records = SQL("(SELECT t.tableoid, t.ctid, {} FROM {} AS t WHERE {})").format(
                columns, key.identifier, which
            )
            parts.append(SQL("EXISTS (SELECT FROM {} AS c WHERE {})").format(records, refers))
        return _or(parts)

    def _keys_to(self, collection: str) -> list[tuple[str, ForeignKey]]:
        """Foreign keys that lead to a collection, each with the collection that has it."""
        keys = self.relations.keys_to(self.relations.by_collection[collection])
        found = [(self.relations.collection_of(key.child_root), key) for key in keys]
        return [(child, key) for child, key in found if child is not None]

    def _nulled(self, key: ForeignKey, collection: str) -> bool:
        """Whether a foreign key is set to null when a record of the collection goes."""
        child = self.relations.collection_of(key.child_root)
        detached = {
            text for one in self.rules if one.collection == collection for text in one.detach
        }
        return key.on_delete in ("set_null", "set_default") or any(
            f"{child}.{column}" in detached for column in key.columns
        )

    def _unmatched(self, key: ForeignKey, parent: Relation) -> int:
        filled = _all([SQL("{} IS NOT NULL").format(quoted("c", one)) for one in key.columns])
        query = SQL(
            "SELECT count(*) FROM {} AS c WHERE {} AND NOT EXISTS (SELECT FROM {} AS p WHERE {})"
        ).format(key.identifier, filled, parent.identifier, key.joined("c", "p"))
        return int(self._row(query)[0])

    def _relation(self, rule: RetentionRule) -> Relation:
        return self.relations.by_collection[rule.collection]

    def _row(self, query: SQL | psycopg.sql.Composed) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self.connection.execute(query, {}).fetchone()
        assert row is not None
        return row


def _member(rule: RetentionRule) -> Composable:
    return _true(rule.where) if rule.where else SQL("true")


_FALSE = SQL("false")


def _true(text: str) -> Composable:
    return SQL("(({}) IS TRUE)").format(pack_sql(text))


def _or(parts: Sequence[Composable]) -> Composable:
    return SQL("({})").format(SQL(" OR ").join(parts))


def _all(parts: Sequence[Composable]) -> Composable:
    return SQL("({})").format(SQL(" AND ").join(parts)) if parts else SQL("true")
