"""Build and run the SQL statement that counts the records that remain after a disposition.

One statement counts the records of all record classes of a collection. If the collection belongs to
a foreign-key cycle, the statement counts all collections of the cycle. It reads the table of each
collection once, and once more for each foreign key that refers to this table. Planning and
execution select records with other queries (`include.retention.planning.graph`,
`include.retention.planning.kept_records`), so an error in those queries does not affect the count.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

from include.policy.fragments import any_of, literal, quoted
from include.policy.retention import RetentionRule
from include.retention.postgres.relations import ForeignKey, Relation, Relations
from include.retention.postgres.session import set_up_joins


class ReferencingKeys:
    """The foreign keys of mapped tables that refer to collections with record classes.

    Attributes:
        groups: tuples of collections. A single statement counts all collections of a tuple. A tuple
            contains the collections of a foreign-key cycle, or a single collection that is in no
            cycle.
    """

    def __init__(self, rules: Sequence[RetentionRule], relations: Relations) -> None:
        self._rules: dict[str, list[RetentionRule]] = {}
        for rule in rules:
            self._rules.setdefault(rule.collection, []).append(rule)
        self._keys = {name: _keys_to(name, relations) for name in self._rules}
        self._cycles = self._find_cycles()
        self.groups = list(
            dict.fromkeys(tuple(sorted(self.cycle(name) or {name})) for name in self._rules)
        )

    def keys_to(self, collection: str) -> list[tuple[str, ForeignKey]]:
        """Return the foreign keys that refer to a collection.

        Returns:
            For each foreign key: the name of the collection that has it, and the foreign key.
        """
        return self._keys[collection]

    def cycle(self, collection: str) -> frozenset[str]:
        """Return the collections of the foreign-key cycle to which a collection belongs.

        The set is empty if the collection belongs to no cycle. A collection with a foreign key to
        itself is a cycle of one collection.
        """
        return self._cycles.get(collection, frozenset())

    def sets_null(self, child: str, key: ForeignKey, collection: str) -> bool:
        """Return whether a foreign key becomes null if the record to which it refers is deleted.

        This is the case if the database sets the foreign key to null or to its default (ON DELETE
        SET NULL or SET DEFAULT). It is also the case if a record class of the referenced collection
        lists a column of the foreign key under `detach` in retention.yaml.

        Args:
            child: name of the collection that has the foreign key.
            key: the foreign key.
            collection: name of the collection to which the foreign key refers.
        """
        detached = {text for rule in self._rules[collection] for text in rule.detach}
        return key.on_delete in ("set_null", "set_default") or any(
            f"{child}.{column}" in detached for column in key.columns
        )

    def _find_cycles(self) -> dict[str, frozenset[str]]:
        deleting = {
            name for name, rules in self._rules.items() if any(rule.deletes for rule in rules)
        }
        children: dict[str, set[str]] = {name: set() for name in deleting}
        parents: dict[str, set[str]] = {name: set() for name in deleting}
        for name in deleting:
            for child, key in self._keys[name]:
                if child in deleting and not self.sets_null(child, key, name):
                    children[name].add(child)
                    parents[child].add(name)
        return {name: _reachable(name, children) & _reachable(name, parents) for name in deleting}


def _keys_to(collection: str, relations: Relations) -> list[tuple[str, ForeignKey]]:
    keys = []
    for key in relations.keys_to(relations.by_collection[collection]):
        child = relations.collection_of(key.child_root)
        if child is not None:
            keys.append((child, key))
    return keys


def _reachable(start: str, following: Mapping[str, Collection[str]]) -> frozenset[str]:
    reached: set[str] = set()
    waiting = list(following[start])
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += following[name]
    return frozenset(reached)


class RemainingState(IntEnum):
    """A code that states whether a remaining record has a reason of its own to remain.

    The codes describe records that still exist after a disposition. A record has one code for each
    record class for which it is counted.

    Attributes:
        WITHOUT_REASON: the record has no reason of its own to remain. Another record that refers to
            it may still have prevented its deletion.
        WITH_REASON: the record has a reason of its own to remain, such as a legal hold.
        OTHER: the record is counted, but is in neither of the two other states. For example, when
            the records of a data subject are counted, a record that a law keeps is in this state.
    """

    WITHOUT_REASON = 1
    WITH_REASON = 2
    OTHER = 3


@dataclass(frozen=True)
class ReferringKey:
    """A foreign key whose referring records can prevent the deletion of the referenced records.

    Attributes:
        key: the foreign key.
        keeps_record: SQL condition that a referring record ``t`` prevents the deletion of the
            record to which it refers.
        to_itself: whether the foreign key refers to the table that has it. A record that refers to
            itself does not prevent its own deletion.
        member: index, in the counting statement, of the collection that has the foreign key; None
            if this collection is not in the same foreign-key cycle as the referenced collection.
            Within a cycle, a referring record that should have been deleted itself prevents no
            deletion.
        passes_on: whether a referring record also prevents a deletion if it remains only because
            other records refer to it.
    """

    key: ForeignKey
    keeps_record: Composable
    to_itself: bool
    member: int | None
    passes_on: bool


@dataclass(frozen=True)
class Member:
    """A collection whose remaining records are counted by a `Statement`.

    Attributes:
        relation: table of the collection.
        states: SQL expressions over the record ``t``. Each expression returns a `RemainingState`,
            or null if the record is not counted. Most expressions belong to one record class each.
        deletable_states: indexes in ``states``. A record should have been deleted if at least one
            of these expressions returns WITHOUT_REASON.
        referring: foreign keys that refer to the table.
    """

    relation: Relation
    states: Sequence[Composable]
    deletable_states: Sequence[int]
    referring: Sequence[ReferringKey]


@dataclass(frozen=True)
class StateCounts:
    """The numbers of records of a collection for which a state expression returns each state.

    A state expression is an item of `Member.states`. It returns the state of a record in one record
    class.

    Attributes:
        without_reason: number of records in the state WITHOUT_REASON.
        referred: number of the WITHOUT_REASON records whose deletion a referring record prevents.
        with_reason: number of records in the state WITH_REASON.
        other: number of records in the state OTHER.
    """

    without_reason: int = 0
    referred: int = 0
    with_reason: int = 0
    other: int = 0


def count_remaining(
    connection: psycopg.Connection[Any], members: Sequence[Member]
) -> list[list[StateCounts]]:
    """Count the remaining records of collections by state, in one statement.

    Args:
        connection: connection with an open transaction. The function changes the planner settings
            for joins in this transaction.
        members: one collection, or all collections of a foreign-key cycle.

    Returns:
        A list for each member, with one `StateCounts` for each expression of `Member.states`.
    """
    statement = Statement(members)
    if statement.joins:
        set_up_joins(connection, statement.joins)
    counts = [[StateCounts() for _ in member.states] for member in members]
    for at, is_referred, counted in connection.execute(statement.query(), {}):
        for state, state_counts in enumerate(counts[at]):
            if is_referred:
                counts[at][state] = replace(state_counts, referred=counted[state])
            else:
                without_reason, with_reason, other = counted[3 * state : 3 * state + 3]
                counts[at][state] = replace(
                    state_counts,
                    without_reason=without_reason,
                    with_reason=with_reason,
                    other=other,
                )
    return counts


class Statement:
    """Builds the SQL statement that counts the remaining records of collections.

    Attributes:
        joins: number of joins in the statement that PostgreSQL may execute as hash joins.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._states = [
            SQL(SQL("ARRAY[{}]::int[]").format(SQL(", ").join(member.states)).as_string(None))
            for member in members
        ]
        self._explained = [
            self._explained_by(at, number)
            for at, member in enumerate(members)
            for number in range(len(member.referring))
        ]
        self.joins = 2 * len(self._explained)

    def query(self) -> Composed:
        """Return the SQL statement that counts the remaining records of all collections.

        Each row of the result contains the index of a collection, a boolean, and an array of
        numbers of records. If the boolean is false, the array contains three numbers for each state
        expression of the collection: the numbers of WITHOUT_REASON, WITH_REASON and OTHER records.
        If the boolean is true, the array contains one number for each state expression: the number
        of WITHOUT_REASON records whose deletion a referring record prevents.
        """
        parts = [self._remaining_records(at) for at in range(len(self._members))]
        counts = [
            SQL("SELECT {}, false, {} FROM {}").format(
                literal(at), _counts_by_state(len(member.states), RemainingState), _name(at)
            )
            for at, member in enumerate(self._members)
        ]
        if self._explained:
            parts.append(self._stays())
            most = max(len(member.states) for member in self._members)
            counts.append(
                SQL("SELECT member, true, {} FROM stays GROUP BY member").format(
                    _counts_by_state(most, [RemainingState.WITHOUT_REASON])
                )
            )
        return SQL("WITH RECURSIVE {} {}").format(
            SQL(", ").join(parts), SQL(" UNION ALL ").join(counts)
        )

    def _remaining_records(self, at: int) -> Composable:
        """Return the common table expression that selects the counted records of a collection.

        A record is counted if at least one state expression of the collection returns a state for
        it.

        Args:
            at: index of the collection in the statement.
        """
        # OFFSET 0 makes PostgreSQL compute the states only once for each record.
        columns = [SQL("t.tableoid"), SQL("t.ctid"), SQL("{} AS states").format(self._states[at])]
        for number, column in enumerate(self._targets(at)):
            columns.append(
                SQL("{} AS {}").format(quoted("t", column), Identifier(f"target {number}"))
            )
        return SQL(
            "{} AS {}(SELECT * FROM (SELECT {} FROM {} AS t OFFSET 0) AS d "
            "WHERE num_nonnulls(VARIADIC states) > 0)"
        ).format(
            _name(at),
            SQL("MATERIALIZED ") if self._explained else SQL(""),
            SQL(", ").join(columns),
            self._members[at].relation.identifier,
        )

    def _explained_by(self, at: int, number: int) -> Composable:
        """Return a query for the records whose deletion one foreign key prevents.

        The query selects the records of one collection that should have been deleted, but to which
        a remaining record refers by this foreign key. A referring record of the same foreign-key
        cycle that should have been deleted itself does not count.

        Args:
            at: index of the collection in the statement.
            number: index of the foreign key in `Member.referring`.
        """
        referring = self._members[at].referring[number]
        targets = self._targets(at)
        key = replace(
            referring.key,
            targets=tuple(f"target {targets.index(column)}" for column in referring.key.targets),
        )
        conditions = [referring.keeps_record]
        if referring.member is not None:
            conditions.append(
                SQL(
                    "NOT EXISTS (SELECT FROM {} AS o WHERE {} "
                    "AND (o.tableoid, o.ctid) = (t.tableoid, t.ctid))"
                ).format(_name(referring.member), self._should_be_deleted(referring.member, "o"))
            )
        refers = [key.joined("c", "t")]
        if referring.to_itself:
            refers.append(SQL("(c.tableoid, c.ctid) <> (t.tableoid, t.ctid)"))
        return SQL(
            "SELECT {} AS member, t.tableoid, t.ctid, t.states FROM {} AS t WHERE {} AND EXISTS "
            "(SELECT FROM (SELECT t.tableoid, t.ctid, {} FROM {} AS t WHERE {}) AS c WHERE {})"
        ).format(
            literal(at),
            _name(at),
            self._should_be_deleted(at, "t"),
            SQL(", ").join(quoted("t", column) for column in key.columns),
            key.identifier,
            SQL(" AND ").join(conditions),
            SQL(" AND ").join(refers),
        )

    def _stays(self) -> Composable:
        """Return the common table expression ``stays``.

        It contains the records that should have been deleted, but whose deletion a referring record
        prevents directly or through a chain of references.
        """
        steps = self._steps()
        if not steps:
            explained = SQL(" UNION ").join(self._explained)
            return SQL("stays AS ({})").format(explained)
        return SQL(
            "stays AS (SELECT * FROM ({}) AS x UNION "
            "SELECT e.* FROM stays AS s CROSS JOIN LATERAL ({}) AS e)"
        ).format(SQL(" UNION ALL ").join(self._explained), SQL(" UNION ALL ").join(steps))

    def _steps(self) -> list[Composable]:
        """Return queries that follow foreign keys one step from the records in ``stays``.

        ``stays`` is the common table expression that `_stays` returns; the alias of its records is
        ``s``. Each query returns the records to which a record ``s`` refers, if they should have
        been deleted. There is one query for each collection that has foreign keys to follow. It
        follows all of these foreign keys.
        """
        by_child: dict[int, list[Composable]] = {}
        for at, member in enumerate(self._members):
            for referring in member.referring:
                if referring.member is not None and referring.passes_on:
                    step = self._step(at, referring.key)
                    by_child.setdefault(referring.member, []).append(step)
        # The inner OFFSET 0 lets PostgreSQL skip all keys of another member at once. The outer
        # OFFSET 0 prevents PostgreSQL from merging the queries of the members.
        return [
            SQL("(SELECT * FROM ({} OFFSET 0) AS u WHERE s.member = {} OFFSET 0)").format(
                SQL(" UNION ALL ").join(SQL("({})").format(step) for step in steps), literal(child)
            )
            for child, steps in by_child.items()
        ]

    def _step(self, at: int, key: ForeignKey) -> Composable:
        """Return a query that follows one foreign key from the records in ``stays``.

        The query returns the record to which a record ``s`` of ``stays`` refers, if it should have
        been deleted.

        Args:
            at: index, in the statement, of the collection to which the foreign key refers.
            key: foreign key of ``s``.
        """
        return SQL(
            "SELECT {} AS member, p.* FROM {} AS c CROSS JOIN LATERAL "
            "(SELECT t.tableoid, t.ctid, {} AS states FROM {} AS t WHERE {} OFFSET 0) AS p "
            "WHERE c.tableoid = s.tableoid AND c.ctid = s.ctid AND {}"
        ).format(
            literal(at),
            key.identifier,
            self._states[at],
            self._members[at].relation.identifier,
            key.joined("c", "t"),
            self._should_be_deleted(at, "p"),
        )

    def _should_be_deleted(self, at: int, alias: str) -> Composable:
        """Return the SQL condition that a record should have been deleted.

        Args:
            at: index, in the statement, of the collection that contains the record.
            alias: SQL alias of the row whose column ``states`` contains the states of the record.
        """
        states = SQL("{}.states").format(SQL(alias))
        return any_of(
            [
                SQL("{}[{}] = {}").format(
                    states, literal(number + 1), literal(int(RemainingState.WITHOUT_REASON))
                )
                for number in self._members[at].deletable_states
            ]
        )

    def _targets(self, at: int) -> list[str]:
        """Return those columns of a collection's table that foreign keys reference.

        Args:
            at: index of the collection in the statement.
        """
        return list(
            dict.fromkeys(
                column
                for referring in self._members[at].referring
                for column in referring.key.targets
            )
        )


def _name(at: int) -> Composable:
    return quoted(f"left {at}")


def _counts_by_state(
    states: int, values: Sequence[RemainingState] | type[RemainingState]
) -> Composable:
    """Return an SQL array of record counts, with an item for each state expression and state.

    An item is the number of records for which the state expression returns the state. The items are
    sorted by state expression, then by state.

    Args:
        states: number of state expressions; see `Member.states`.
        values: the states to count.
    """
    counts = [
        SQL("count(*) FILTER (WHERE states[{}] = {})").format(literal(at + 1), literal(int(value)))
        for at in range(states)
        for value in values
    ]
    return SQL("ARRAY[{}]::bigint[]").format(SQL(", ").join(counts))
