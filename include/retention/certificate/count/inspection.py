"""Count the remaining records after an execution, with queries that share little with it.

The count adds periods to clocks in the pack's timezone, while the execution compares clocks with a
computed moment. It reads holds from the registry and foreign keys from the catalogue again. Both
share the forms of masked text, the types of columns, the list of foreign keys and their operators,
the comparison of holds and requests with keys, and the records that runs found for requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable

from include.erasure.masks import Mask, shapes, to_mask
from include.erasure.places import Place
from include.erasure.request_records import NO_RECORDS, Key, RequestRecords
from include.holds.records import RecordHolds
from include.holds.registry import HoldKind
from include.policy.datamap import MappedDatabase
from include.policy.fragments import fixed, literal, pack_sql, quoted
from include.policy.period import Period
from include.policy.retention import Minimum, RetentionRule, SqlClock
from include.retention.certificate.count.counting import (
    LeadingKeys,
    Member,
    Referring,
    State,
    StateCounts,
    count_left,
)
from include.retention.certificate.count.remembered import Remembered, Subject
from include.retention.postgres.key_types import KeyType, TypedKeys, expressions, read_key_types
from include.retention.postgres.relations import ForeignKey, Relation, Relations, read_relations
from include.services.database import scalar

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Left:
    """The remaining expired records of a class.

    Attributes:
        held: records under a hold, or suspended by the class's own condition.
        referred: records to which a record of a mapped table refers.
        unexplained: all others.
        waiting: records that expired after the plan; not in ``unexplained``.
    """

    name: str
    held: int
    referred: int
    unexplained: int
    waiting: int = 0


@dataclass(frozen=True)
class Orphans:
    """Records whose foreign key refers to no record.

    Attributes:
        validated: whether PostgreSQL has checked all records of the key. Records of a key that is
            NOT VALID may be older than the key.
    """

    constraint: str
    table: str
    records: int
    validated: bool = True


class Inspection:
    """Counts the remaining records of one database.

    Args:
        connection: with the login that reads, inside of a transaction.
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
            rule.record_class: read_key_types(connection, rule.keys, self._relation(rule))
            for rule in rules
        }
        self._keys = TypedKeys.of([rule.keys for rule in rules], self._types.values())
        self._leading = LeadingKeys(rules, self.relations)
        connection.execute("SELECT set_config('TimeZone', %s, true)", [timezone])

    def left(self) -> list[Left]:
        """Count the records of each class that are expired and still there."""
        left = {}
        for collections in self._leading.units:
            for rule, counts in self._counted(collections):
                referred = counts.referred if rule.deletes else 0
                left[rule.record_class] = Left(
                    rule.record_class, counts.aside, referred, counts.free - referred
                )
        return [left[rule.record_class] for rule in self.rules if rule.action != "keep"]

    def orphans(self) -> list[Orphans]:
        """Count the records that refer to nothing, for each foreign key to a class's table."""
        tables = {rule.collection for rule in self.rules if rule.deletes}
        orphans = []
        for key in self.relations.keys:
            if self.relations.collection_of(key.parent) in tables:
                parent = self.relations.by_collection[self.relations.collections[key.parent]]
                if records := self._unmatched(key, parent):
                    orphans.append(Orphans(key.name, key.label, records, key.validated))
        return orphans

    def subject(self, key: str) -> Subject:
        """Count the remaining records of a data subject, linked or remembered for its request.

        Remembered records are found by primary key, since the records that led to them may be gone.
        """
        records = unexplained = taken_over = 0
        for collections in self._leading.units:
            for rule, counts in self._counted(collections, key):
                referred = counts.referred if rule.deletes else 0
                records += counts.free + counts.aside + counts.other
                unexplained += counts.free - referred
                taken_over += counts.aside
        return Subject(key, records, unexplained, taken_over)

    def still_there(self) -> set[tuple[str, Key]]:
        """Return which of the remembered records are still there: class and primary key."""
        return self.remembered.still_there(self.rules)

    def _asked(self, rule: RetentionRule, key: str) -> Composable:
        """Return the condition that a record is a data subject's, by its keys or remembered."""
        return _any_of([self._linked(rule, key), self.remembered.condition(rule, {key})])

    def _linked(self, rule: RetentionRule, key: str) -> Composable:
        """Return the condition that the class's keys name a data subject."""
        return _all_of([_member(rule), _any_of(list(self._named(rule, key).values()))])

    def _named(self, rule: RetentionRule, key: str) -> dict[str, Composable]:
        """Return for each key expression the condition that it names a data subject."""
        types = self._types[rule.record_class]
        return {
            text: self._keys.name_subjects(types[text], text, [key]) for text in rule.keys.subject
        }

    def _counted(
        self, collections: Sequence[str], key: str | None = None
    ) -> Iterator[tuple[RetentionRule, StateCounts]]:
        """Count the remaining records of collections by class, or those of a data subject.

        Args:
            collections: one collection, or all collections of a cycle.
            key: key of a data subject; counts only this person's records.
        """
        rules = [self._counted_rules(name, key) for name in collections]
        if not any(rules):
            return
        members = [
            self._member(collections, name, counted, key)
            for name, counted in zip(collections, rules, strict=True)
        ]
        counts = count_left(self.connection, members)
        for counted, by_state in zip(rules, counts, strict=True):
            yield from zip(counted, by_state, strict=False)

    def _rules_of(self, collection: str) -> list[RetentionRule]:
        return [rule for rule in self.rules if rule.collection == collection]

    def _counted_rules(self, collection: str, key: str | None) -> list[RetentionRule]:
        """Return the classes of a collection that are counted; only those on request for a key."""
        return [
            rule
            for rule in self._rules_of(collection)
            if (rule.on_request if key is not None else rule.action != "keep")
        ]

    def _member(
        self,
        collections: Sequence[str],
        collection: str,
        rules: Sequence[RetentionRule],
        key: str | None,
    ) -> Member:
        """Return a collection as a member of the counting statement."""
        if key is None:
            states = [self._state(rule) for rule in rules]
        else:
            states = [self._state_of_subject(rule, key) for rule in rules]
        going = [at for at, rule in enumerate(rules) if rule.deletes]
        is_in_circle = bool(self._leading.circle(collection))
        if is_in_circle and key is not None:  # expired records of others are to be deleted too
            deleting = [other for other in self._rules_of(collection) if other.deletes]
            going = [len(states) + at for at in range(len(deleting))]
            states += [self._going(rule, key) for rule in deleting]
        referring = self._referring(collections, collection) if going else []
        return Member(self.relations.by_collection[collection], states, going, referring)

    def _state(self, rule: RetentionRule) -> Composable:
        """Return SQL for the state of an expired record in a class; null if it is not expired."""
        over = [(self._clock(rule.clock), rule.period)]
        over += [self._minimum(rule, minimum) for minimum in rule.minimum]
        left = _all_of([self._of_class(rule), self._left_to_do(rule), self._after(over)])
        return SQL("CASE WHEN {} THEN CASE {} {} END").format(left, self._held(rule), _BY_HOLD)

    def _state_of_subject(self, rule: RetentionRule, key: str) -> Composable:
        """Return SQL for the state of a data subject's record in a class; null for others."""
        lawful = self._after([self._minimum(rule, minimum) for minimum in rule.minimum])
        free = _all_of([lawful, *self._let_go(rule, key), SQL("NOT ({})").format(self._held(rule))])
        return SQL(
            "CASE WHEN {left} AND {asked} THEN CASE WHEN {elsewhere} THEN {aside} "
            "WHEN {free} THEN {is_free} ELSE {other} END END"
        ).format(
            left=self._left_to_do(rule),
            asked=self._asked(rule, key),
            elsewhere=self.remembered.taken_over(
                rule, key, self._linked(rule, key), self._named(rule, key)
            ),
            free=free,
            aside=literal(int(State.ASIDE)),
            is_free=literal(int(State.FREE)),
            other=literal(int(State.OTHER)),
        )

    def _going(self, rule: RetentionRule, key: str) -> Composable:
        """Return SQL for the state of a record to be deleted, expired or on request."""
        return SQL("CASE WHEN {} AND NOT ({}) THEN {} END").format(
            self._over(rule, key), self._held(rule), literal(int(State.FREE))
        )

    def _of_class(self, rule: RetentionRule) -> Composable:
        """Return the condition that a record is of the class, and no other class keeps it."""
        return _all_of([_member(rule), *self._let_go(rule)])

    def _let_go(self, rule: RetentionRule, key: str | None = None) -> list[Composable]:
        """Return conditions that no other class keeps the record, unless its subject asked."""
        parts: list[Composable] = []
        for other in self.rules:
            if other is rule or other.collection != rule.collection or not rule.deletes:
                continue
            if other.action == "mask":
                continue
            stays: Composable = SQL("true")
            if other.action != "keep":
                over = [(self._clock(other.clock), other.period)]
                over += [self._minimum(other, minimum) for minimum in other.minimum]
                ended = self._after(over)
                if key is not None and other.on_request:
                    asked = self._asked(other, key)
                    lawful = self._after(
                        [self._minimum(other, minimum) for minimum in other.minimum]
                    )
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
        """Return the condition that each clock plus its period is before the plan's moment."""
        # PostgreSQL cannot add a period to a clock at the end of the range of dates.
        query = "(CASE WHEN {clock} < {at} THEN {clock} + {period} < {at} ELSE false END)"
        at = self._moment()
        return _all_of(
            [SQL(query).format(clock=it, period=_interval(period), at=at) for it, period in periods]
        )

    def _moment(self) -> Composable:
        return SQL("{}::timestamptz").format(literal(self.as_of))

    def _minimum(self, rule: RetentionRule, minimum: Minimum) -> tuple[Composable, Period]:
        return self._clock(minimum.clock or rule.clock), minimum.period

    def _clock(self, clock: tuple[str, ...] | SqlClock) -> Composable:
        """Return a clock as a moment; dates and times without a timezone are in the pack's."""
        if isinstance(clock, SqlClock):
            return SQL("({})::timestamptz").format(pack_sql(clock.sql))
        columns = [SQL("{}::timestamptz").format(quoted("t", column)) for column in clock]
        return SQL("greatest({})").format(SQL(", ").join(columns))

    def _held(self, rule: RetentionRule) -> Composable:
        suspended = _true(rule.suspended.where) if rule.suspended else _FALSE
        return _any_of([suspended, *self._on_hold(rule.collection)])

    def _on_hold(self, collection: str) -> list[Composable]:
        """Return conditions; if one is true, a record of the collection is on hold."""
        parts: list[Composable] = [SQL("true")] if self.holds.everything else []
        for rule in self.rules:
            if rule.collection != collection:
                continue
            member = _member(rule)
            if rule.record_class in self.holds.classes:
                parts.append(member)
            types = self._types[rule.record_class]
            for kind, texts in expressions(rule.keys).items():
                values = self.holds.values.get(kind, {})
                if texts and values:
                    each = [
                        self._keys.are_on_hold(kind, types[text], text, values) for text in texts
                    ]
                    parts.append(_all_of([member, _any_of(each)]))
            held = self.holds.values.get(HoldKind.SUBJECT, {})
            subjects = self._keys.subjects_on_hold(self.remembered.subjects, held)
            parts.append(self.remembered.condition(rule, subjects))
        return [part for part in parts if part != _FALSE]

    def _over(self, rule: RetentionRule, key: str) -> Composable:
        """Return the condition that a record is expired in all classes, or was requested."""
        minima = [self._minimum(rule, minimum) for minimum in rule.minimum]
        periods = self._after([(self._clock(rule.clock), rule.period), *minima])
        over = _all_of([self._of_class(rule), periods])
        if not rule.on_request:
            return over
        asked = self._asked(rule, key)
        return _any_of([over, _all_of([asked, self._after(minima), *self._let_go(rule, key)])])

    def _referring(self, collections: Sequence[str], collection: str) -> list[Referring]:
        """Return the foreign keys whose records explain why records of a collection remain.

        A key of a mapped table counts unless it is set to null when the record is deleted. A record
        on hold keeps its key, so it counts in any case.
        """
        relation, referring = self.relations.by_collection[collection], []
        for child, key in self._leading.to(collection):
            nulled = self._leading.sets_null(child, key, collection)
            # the key of a record on hold is not set to null
            if which := self._on_hold(child) if nulled else [SQL("true")]:
                is_in_circle = child in self._leading.circle(collection)
                member = collections.index(child) if is_in_circle else None
                to_itself = key.child_root == relation.oid
                referring.append(Referring(key, _any_of(which), to_itself, member, not nulled))
        return referring

    def _unmatched(self, key: ForeignKey, parent: Relation) -> int:
        filled = _all_of(
            [SQL("{} IS NOT NULL").format(quoted("c", column)) for column in key.columns]
        )
        query = SQL(
            "SELECT count(*) FROM {} AS c WHERE {} AND NOT EXISTS (SELECT FROM {} AS p WHERE {})"
        ).format(key.identifier, filled, parent.identifier, key.joined("c", "p"))
        return int(scalar(self.connection, query, {}))

    def _relation(self, rule: RetentionRule) -> Relation:
        return self.relations.by_collection[rule.collection]


def _interval(period: Period) -> Composable:
    query = SQL("make_interval(months => {}, days => {}, secs => {})")
    return query.format(period.months, period.days, period.seconds)


def _member(rule: RetentionRule) -> Composable:
    return _true(rule.where) if rule.where else SQL("true")


_FALSE = SQL("false")
_BY_HOLD = SQL("WHEN true THEN {} WHEN false THEN {} ELSE {} END").format(
    *(literal(int(state)) for state in (State.ASIDE, State.FREE, State.OTHER))
)


def _true(text: str) -> Composable:
    return SQL("(({}) IS TRUE)").format(pack_sql(text))


def _any_of(conditions: Sequence[Composable]) -> Composable:
    # Not that of `include.policy.fragments`: the plan uses it, and an error there must show here.
    return SQL("({})").format(SQL(" OR ").join(conditions)) if conditions else _FALSE


def _all_of(conditions: Sequence[Composable]) -> Composable:
    return SQL("({})").format(SQL(" AND ").join(conditions)) if conditions else SQL("true")
