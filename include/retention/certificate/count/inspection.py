"""Count the expired records that remain after an execution, with independent queries.

The queries of the count add the retention period to the column from which it counts, in the policy
pack's timezone. The queries of the execution instead compare this column with a time that was
computed beforehand. The count reads legal holds and foreign keys again. Count and execution share
only this code and data:

- the patterns of masked text and the types of columns,
- the list of foreign keys and their operators,
- the comparison of legal holds and erasure requests with the keys of records,
- the keys of the records that runs found for erasure requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable

from include.erasure.masks import Mask, needs_masking, read_column_shapes
from include.erasure.request_records import NO_RECORDS, Key, RequestRecords
from include.erasure.tables import TableName
from include.holds.records import RecordHolds
from include.holds.registry import HoldKind
from include.policy.datamap import MappedDatabase
from include.policy.fragments import escape_percent, literal, pack_sql, quoted
from include.policy.period import Period
from include.policy.retention import Minimum, RetentionRule, SqlClock
from include.retention.certificate.count.counting import (
    Member,
    ReferencingKeys,
    ReferringKey,
    RemainingState,
    StateCounts,
    count_remaining,
)
from include.retention.certificate.count.request_conditions import (
    RemainingOfSubject,
    RequestConditions,
)
from include.retention.postgres.key_types import (
    KeyType,
    TypedKeys,
    expressions_by_kind,
    read_key_types,
)
from include.retention.postgres.relations import ForeignKey, Relation, Relations, read_relations
from include.services.database import scalar

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class RemainingRecords:
    """The numbers of expired records of a record class that remain, by the reason why they remain.

    Attributes:
        name: name of the record class.
        held: number of records that are on legal hold, or that a condition of the record class
            exempts from disposition for now (the key `suspended` of retention.yaml).
        referred: number of records that remain because records of mapped tables refer to them.
        unexplained: number of records without a reason to remain.
        waiting: number of records that could be erased but were not planned, for example because a
            legal hold was released after the plan was made. They wait for the next plan. They are
            not counted in ``unexplained``.
    """

    name: str
    held: int
    referred: int
    unexplained: int
    waiting: int = 0


@dataclass(frozen=True)
class Orphans:
    """The number of records of a table that refer to a record that does not exist.

    Attributes:
        constraint: name of the foreign key with which the records refer to the missing records.
        table: table that has the foreign key.
        records: number of records of this table whose referenced record does not exist.
        validated: whether PostgreSQL has checked the foreign key for all records. For a foreign key
            that is NOT VALID, it has not checked records that are older than the foreign key.
    """

    constraint: str
    table: str
    records: int
    validated: bool = True


class Inspection:
    """The independent count of the records that remain in one database.

    Args:
        connection: connection of the read-only login, with an open transaction.
        database: the database in the data map.
        rules: record classes of the database.
        as_of: time for which the plan was made.
        timezone: timezone of the policy pack.
        holds: legal holds, read after the execution.
        records: keys of the records that runs found for open erasure requests.
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
        self.request_conditions = RequestConditions(connection, self.relations, records)
        self._types: dict[str, dict[str, KeyType]] = {
            rule.record_class: read_key_types(connection, rule.keys, self._relation(rule))
            for rule in rules
        }
        self._keys = TypedKeys.of([rule.keys for rule in rules], self._types.values())
        self._leading = ReferencingKeys(rules, self.relations)
        connection.execute("SELECT set_config('TimeZone', %s, true)", [timezone])

    def count_remaining_expired(self) -> list[RemainingRecords]:
        """Count the remaining expired records of each record class that has a disposition."""
        left = {}
        for collections in self._leading.groups:
            for rule, counts in self._counted(collections):
                referred = counts.referred if rule.deletes else 0
                left[rule.record_class] = RemainingRecords(
                    rule.record_class,
                    counts.with_reason,
                    referred,
                    counts.without_reason - referred,
                )
        return [left[rule.record_class] for rule in self.rules if rule.action != "keep"]

    def count_orphans(self) -> list[Orphans]:
        """Count the records whose foreign key refers to a record that does not exist.

        Only foreign keys to collections whose records are deleted are checked.

        Returns:
            One item for each foreign key with at least one such record.
        """
        tables = {rule.collection for rule in self.rules if rule.deletes}
        orphans = []
        for key in self.relations.keys:
            if self.relations.collection_of(key.parent) in tables:
                parent = self.relations.by_collection[self.relations.collections[key.parent]]
                if records := self._unmatched(key, parent):
                    orphans.append(Orphans(key.name, key.label, records, key.validated))
        return orphans

    def count_records_of_subject(self, key: str) -> RemainingOfSubject:
        """Count the remaining records of a data subject who requested erasure.

        A record belongs to the data subject if one of the key expressions of its record class
        returns the key of the data subject. It also belongs to the data subject if a run found it
        for the erasure request of this data subject, and stored its primary key in the state
        database.

        Args:
            key: key of the data subject.
        """
        records = unexplained = taken_over = 0
        for collections in self._leading.groups:
            for rule, counts in self._counted(collections, key):
                referred = counts.referred if rule.deletes else 0
                records += counts.without_reason + counts.with_reason + counts.other
                unexplained += counts.without_reason - referred
                taken_over += counts.with_reason
        return RemainingOfSubject(key, records, unexplained, taken_over)

    def existing_records(self) -> set[tuple[str, Key]]:
        """Return those records of erasure requests that still exist in the mapped database.

        The records of erasure requests are the records that runs found, and whose primary keys they
        stored in the state database.

        Returns:
            Record class and primary key of each record.
        """
        return self.request_conditions.existing_records(self.rules)

    def _belongs_to_subject(self, rule: RetentionRule, key: str) -> Composable:
        """Return the SQL condition that a record belongs to a data subject.

        A record belongs to the data subject if one of the key expressions of its record class
        returns the key of the data subject. It also belongs to the data subject if a run found it
        for the erasure request of this data subject, and stored its primary key in the state
        database.

        Args:
            rule: record class of the record.
            key: key of the data subject.
        """
        return _any_of([self._linked(rule, key), self.request_conditions.condition(rule, {key})])

    def _linked(self, rule: RetentionRule, key: str) -> Composable:
        """Return the SQL condition that a record is in a record class and names a data subject.

        A record names a data subject if a key expression of the record class returns the data
        subject's key.

        Args:
            rule: the record class.
            key: key of the data subject, as written in the erasure request.
        """
        return _all_of([_member(rule), _any_of(list(self._named(rule, key).values()))])

    def _named(self, rule: RetentionRule, key: str) -> dict[str, Composable]:
        """Return an SQL condition for each key expression of a record class.

        A condition is true for records for which the key expression returns the data subject's key.

        Args:
            rule: record class with the key expressions.
            key: key of the data subject, as written in the erasure request.

        Returns:
            Key expression -> condition.
        """
        types = self._types[rule.record_class]
        return {
            text: self._keys.name_subjects(types[text], text, [key]) for text in rule.keys.subject
        }

    def _counted(
        self, collections: Sequence[str], key: str | None = None
    ) -> Iterator[tuple[RetentionRule, StateCounts]]:
        """Count the remaining records of collections, and yield the counts of each record class.

        Args:
            collections: one collection, or all collections of a foreign-key cycle.
            key: key of a data subject, to count only the records of this data subject; None to
                count all expired records.
        """
        rules = [self._counted_rules(name, key) for name in collections]
        if not any(rules):
            return
        members = [
            self._member(collections, name, counted, key)
            for name, counted in zip(collections, rules, strict=True)
        ]
        counts = count_remaining(self.connection, members)
        for counted, by_state in zip(rules, counts, strict=True):
            yield from zip(counted, by_state, strict=False)

    def _rules_of(self, collection: str) -> list[RetentionRule]:
        return [rule for rule in self.rules if rule.collection == collection]

    def _counted_rules(self, collection: str, key: str | None) -> list[RetentionRule]:
        """Return the record classes of a collection whose records are counted.

        Args:
            collection: name of the collection.
            key: key of a data subject, to return only record classes that are erased on request;
                None to return all record classes with a disposition.
        """
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
        """Return the `Member` with which the statement counts the records of a collection.

        Args:
            collections: names of all collections that the statement counts.
            collection: name of the collection.
            rules: record classes to count.
            key: key of a data subject, to count only the records of this data subject; None to
                count all expired records.
        """
        if key is None:
            states = [self._state(rule) for rule in rules]
        else:
            states = [self._state_of_subject(rule, key) for rule in rules]
        deletable = [at for at, rule in enumerate(rules) if rule.deletes]
        is_in_cycle = bool(self._leading.cycle(collection))
        if is_in_cycle and key is not None:  # expired records of other data subjects too
            deleting = [other for other in self._rules_of(collection) if other.deletes]
            deletable = [len(states) + at for at in range(len(deleting))]
            states += [self._deletable_state(rule, key) for rule in deleting]
        referring = self._referring(collections, collection) if deletable else []
        return Member(self.relations.by_collection[collection], states, deletable, referring)

    def _state(self, rule: RetentionRule) -> Composable:
        """Return an SQL expression for the `RemainingState` of a record in a record class.

        The expression returns null if the record is not expired, is masked already, or is not in
        the record class. It also returns null if another record class keeps the record.

        Args:
            rule: the record class.
        """
        periods = [(self._clock(rule.clock), rule.period)]
        periods += [self._minimum(rule, minimum) for minimum in rule.minimum]
        left = _all_of([self._of_class(rule), self._left_to_do(rule), self._periods_ended(periods)])
        return SQL("CASE WHEN {} THEN CASE {} {} END").format(left, self._held(rule), _BY_HOLD)

    def _state_of_subject(self, rule: RetentionRule, key: str) -> Composable:
        """Return an SQL expression for the `RemainingState` of a data subject's record.

        The first rule that applies determines the result:

        1. null, if the record is masked already, or if it does not belong to the data subject (see
           `_belongs_to_subject`).
        2. WITH_REASON, if a run found the record for the erasure request of the data subject, but
           the record now belongs to another data subject.
        3. OTHER, if a minimum period has not ended, another record class keeps the record, the
           record is on legal hold, or its disposition is suspended.
        4. WITHOUT_REASON in all other cases.

        Args:
            rule: record class of the record.
            key: key of the data subject who requested erasure.
        """
        lawful = self._periods_ended([self._minimum(rule, minimum) for minimum in rule.minimum])
        without_reason = _all_of(
            [lawful, *self._not_kept_by_class(rule, key), SQL("NOT ({})").format(self._held(rule))]
        )
        return SQL(
            "CASE WHEN {left} AND {of_subject} THEN CASE WHEN {elsewhere} THEN {with_reason} "
            "WHEN {without_reason} THEN {is_without_reason} ELSE {other} END END"
        ).format(
            left=self._left_to_do(rule),
            of_subject=self._belongs_to_subject(rule, key),
            elsewhere=self.request_conditions.taken_over(
                rule, key, self._linked(rule, key), self._named(rule, key)
            ),
            without_reason=without_reason,
            with_reason=literal(int(RemainingState.WITH_REASON)),
            is_without_reason=literal(int(RemainingState.WITHOUT_REASON)),
            other=literal(int(RemainingState.OTHER)),
        )

    def _deletable_state(self, rule: RetentionRule, key: str) -> Composable:
        """Return an SQL expression that marks the records that should have been deleted.

        The expression returns `RemainingState.WITHOUT_REASON` for a record that should have been
        deleted, and null for any other record. A record should have been deleted if both of these
        conditions are true:

        - The record is expired, or its data subject requested erasure.
        - The record is not on legal hold, and its disposition is not suspended.

        Args:
            rule: record class of the record.
            key: key of the data subject who requested erasure, as written in the erasure request.
        """
        return SQL("CASE WHEN {} AND NOT ({}) THEN {} END").format(
            self._is_due(rule, key), self._held(rule), literal(int(RemainingState.WITHOUT_REASON))
        )

    def _of_class(self, rule: RetentionRule) -> Composable:
        """Return the SQL condition that a record is in a record class that may dispose of it.

        A record class may not dispose of a record that another record class of the collection
        keeps.

        Args:
            rule: the record class.
        """
        return _all_of([_member(rule), *self._not_kept_by_class(rule)])

    def _not_kept_by_class(self, rule: RetentionRule, key: str | None = None) -> list[Composable]:
        """Return the SQL conditions under which the other record classes do not keep a record.

        There is one condition for each other record class of the collection that can keep records.
        It is true for records that this record class does not keep. A record class that masks keeps
        no records. `rule` may delete a record if all conditions are true. The list is empty if
        `rule` does not delete.

        Args:
            rule: record class that deletes the record.
            key: key of a data subject who requested erasure; None without such a request. A record
                class that is erased on request keeps records of this data subject only until its
                statutory minimum periods have ended.
        """
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
                ended = self._periods_ended(over)
                if key is not None and other.on_request:
                    of_subject = self._belongs_to_subject(other, key)
                    lawful = self._periods_ended(
                        [self._minimum(other, minimum) for minimum in other.minimum]
                    )
                    ended = SQL("({} OR ({} AND {}))").format(ended, of_subject, lawful)
                stays = SQL("({}) IS NOT TRUE").format(ended)
                if other.suspended:
                    stays = SQL("({} OR {})").format(stays, _true(other.suspended.where))
            parts.append(SQL("NOT ({} AND {})").format(_member(other), stays))
        return parts

    def _left_to_do(self, rule: RetentionRule) -> Composable:
        """Return an SQL condition that is true if a record still has to be deleted or masked.

        If the record class masks records, the condition is true for records that are not masked
        yet. If the record class deletes records, every record that still exists has to be deleted,
        so the condition is always true.

        Args:
            rule: record class of the record.
        """
        if rule.action != "mask":
            return SQL("true")
        relation = self._relation(rule)
        columns = read_column_shapes(self.connection, TableName(relation.schema, relation.name))
        return escape_percent(needs_masking(Mask(rule.mask, rule.stamp), columns))

    def _periods_ended(self, periods: Sequence[tuple[Composable, Period]]) -> Composable:
        """Return the SQL condition that all of several periods ended before the time of the plan.

        Args:
            periods: for each period: an SQL expression for its start, and its length.
        """
        # PostgreSQL cannot add a period to a clock near the end of the range of dates.
        query = "(CASE WHEN {clock} < {at} THEN {clock} + {period} < {at} ELSE false END)"
        at = self._moment()
        return _all_of(
            [
                SQL(query).format(clock=clock, period=_interval(period), at=at)
                for clock, period in periods
            ]
        )

    def _moment(self) -> Composable:
        return SQL("{}::timestamptz").format(literal(self.as_of))

    def _minimum(self, rule: RetentionRule, minimum: Minimum) -> tuple[Composable, Period]:
        return self._clock(minimum.clock or rule.clock), minimum.period

    def _clock(self, clock: tuple[str, ...] | SqlClock) -> Composable:
        """Return an SQL expression for the time from which a retention period counts.

        The expression is of the type timestamptz. Values without a timezone are read in the policy
        pack's timezone.

        Args:
            clock: columns with times, or an SQL expression for the time. With several columns, the
                latest time counts.
        """
        if isinstance(clock, SqlClock):
            return SQL("({})::timestamptz").format(pack_sql(clock.sql))
        columns = [SQL("{}::timestamptz").format(quoted("t", column)) for column in clock]
        return SQL("greatest({})").format(SQL(", ").join(columns))

    def _held(self, rule: RetentionRule) -> Composable:
        suspended = _true(rule.suspended.where) if rule.suspended else _FALSE
        return _any_of([suspended, *self._on_hold(rule.collection)])

    def _on_hold(self, collection: str) -> list[Composable]:
        """Return SQL conditions, one for each way in which a legal hold can apply to a record.

        A record is on legal hold if at least one of the conditions is true.

        Args:
            collection: name of the record's collection.
        """
        parts: list[Composable] = [SQL("true")] if self.holds.everything else []
        for rule in self.rules:
            if rule.collection != collection:
                continue
            member = _member(rule)
            if rule.record_class in self.holds.classes:
                parts.append(member)
            types = self._types[rule.record_class]
            for kind, texts in expressions_by_kind(rule.keys).items():
                values = self.holds.values.get(kind, {})
                if texts and values:
                    conditions = [
                        self._keys.are_on_hold(kind, types[text], text, values) for text in texts
                    ]
                    parts.append(_all_of([member, _any_of(conditions)]))
            held = self.holds.values.get(HoldKind.SUBJECT, {})
            subjects = self._keys.subjects_on_hold(self.request_conditions.subjects, held)
            parts.append(self.request_conditions.condition(rule, subjects))
        return [part for part in parts if part != _FALSE]

    def _is_due(self, rule: RetentionRule, key: str) -> Composable:
        """Return the SQL condition that a record is expired or may be erased on request.

        The condition is false if another record class keeps the record.

        Args:
            rule: record class of the record.
            key: key of the data subject who requested erasure.
        """
        minima = [self._minimum(rule, minimum) for minimum in rule.minimum]
        periods = self._periods_ended([(self._clock(rule.clock), rule.period), *minima])
        over = _all_of([self._of_class(rule), periods])
        if not rule.on_request:
            return over
        requested = [self._belongs_to_subject(rule, key), self._periods_ended(minima)]
        return _any_of([over, _all_of([*requested, *self._not_kept_by_class(rule, key)])])

    def _referring(self, collections: Sequence[str], collection: str) -> list[ReferringKey]:
        """Return the foreign keys whose referring records can prevent deletions in a collection.

        If a foreign key is set to null when the referenced record is deleted, a referring record
        normally prevents no deletion. But it does if it is on legal hold, because a record on legal
        hold is not changed.

        Args:
            collections: names of all collections that the statement counts.
            collection: name of the collection to which the foreign keys refer.
        """
        relation, referring = self.relations.by_collection[collection], []
        for child, key in self._leading.keys_to(collection):
            nulled = self._leading.sets_null(child, key, collection)
            # The foreign key of a record on hold is not set to null.
            if keeping := self._on_hold(child) if nulled else [SQL("true")]:
                is_in_cycle = child in self._leading.cycle(collection)
                member = collections.index(child) if is_in_cycle else None
                to_itself = key.child_root == relation.oid
                referring.append(ReferringKey(key, _any_of(keeping), to_itself, member, not nulled))
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
    *(
        literal(int(state))
        for state in (
            RemainingState.WITH_REASON,
            RemainingState.WITHOUT_REASON,
            RemainingState.OTHER,
        )
    )
)


def _true(text: str) -> Composable:
    return SQL("(({}) IS TRUE)").format(pack_sql(text))


def _any_of(conditions: Sequence[Composable]) -> Composable:
    # Not the function of `include.policy.fragments`, which the plan uses: the count must detect an
    # error in it.
    return SQL("({})").format(SQL(" OR ").join(conditions)) if conditions else _FALSE


def _all_of(conditions: Sequence[Composable]) -> Composable:
    return SQL("({})").format(SQL(" AND ").join(conditions)) if conditions else SQL("true")
