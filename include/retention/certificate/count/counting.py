"""Count the remaining records of some collections in one statement, to verify an execution.

One statement counts a collection, or all collections of a cycle of foreign keys, with all of their
classes. It reads each table once for its own records, and once for each foreign key. Only the
verification uses it: the execution selects records with other queries
(`include.retention.planning.graph`, `include.retention.planning.deletable`).
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


class LeadingKeys:
    """The foreign keys of mapped tables that refer to the collections of some record classes.

    Attributes:
        units: groups of collections that are counted together: a cycle, or a single collection.
    """

    def __init__(self, rules: Sequence[RetentionRule], relations: Relations) -> None:
        self._rules: dict[str, list[RetentionRule]] = {}
        for rule in rules:
            self._rules.setdefault(rule.collection, []).append(rule)
        self._keys = {name: _keys_to(name, relations) for name in self._rules}
        self._circles = self._find_circles()
        self.units = list(
            dict.fromkeys(tuple(sorted(self.circle(name) or {name})) for name in self._rules)
        )

    def to(self, collection: str) -> list[tuple[str, ForeignKey]]:
        """Return the foreign keys to a collection, each with the collection that has it."""
        return self._keys[collection]

    def circle(self, collection: str) -> frozenset[str]:
        """Return the collections of the cycle that contains a collection; empty without a cycle.

        A collection that refers to itself is a cycle too.
        """
        return self._circles.get(collection, frozenset())

    def sets_null(self, child: str, key: ForeignKey, collection: str) -> bool:
        """Return whether a foreign key is set to null when the referenced record is deleted.

        Args:
            child: the collection that has the key.
            key: the foreign key.
            collection: the collection that the key references.
        """
        detached = {text for rule in self._rules[collection] for text in rule.detach}
        return key.on_delete in ("set_null", "set_default") or any(
            f"{child}.{column}" in detached for column in key.columns
        )

    def _find_circles(self) -> dict[str, frozenset[str]]:
        emptied = {
            name for name, rules in self._rules.items() if any(rule.deletes for rule in rules)
        }
        children: dict[str, set[str]] = {name: set() for name in emptied}
        parents: dict[str, set[str]] = {name: set() for name in emptied}
        for name in emptied:
            for child, key in self._keys[name]:
                if child in emptied and not self.sets_null(child, key, name):
                    children[name].add(child)
                    parents[child].add(name)
        return {name: _reached(name, children) & _reached(name, parents) for name in emptied}


def _keys_to(collection: str, relations: Relations) -> list[tuple[str, ForeignKey]]:
    keys = []
    for key in relations.keys_to(relations.by_collection[collection]):
        child = relations.collection_of(key.child_root)
        if child is not None:
            keys.append((child, key))
    return keys


def _reached(start: str, following: Mapping[str, Collection[str]]) -> frozenset[str]:
    reached: set[str] = set()
    waiting = list(following[start])
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += following[name]
    return frozenset(reached)


class State(IntEnum):
    """The state of a remaining record in one class.

    Attributes:
        FREE: only a referring record may explain why it remains.
        ASIDE: a reason of its own explains why it remains.
        OTHER: neither of these.
    """

    FREE = 1
    ASIDE = 2
    OTHER = 3


@dataclass(frozen=True)
class Referring:
    """A foreign key whose records may explain why the records that they refer to remain.

    Attributes:
        key: the foreign key.
        which: condition over ``t``, a record of the key's table, that the record explains others.
        to_itself: whether the key refers to its own table; a record does not explain itself.
        member: index of the member that has the key; None outside of the cycle. A record that
            should have been deleted explains nothing.
        passes_on: whether the explanation of a record also explains the record it refers to.
    """

    key: ForeignKey
    which: Composable
    to_itself: bool
    member: int | None
    passes_on: bool


@dataclass(frozen=True)
class Member:
    """A collection whose records are counted.

    Attributes:
        relation: its table.
        states: expressions over ``t`` for a `State`; null for a record that does not count.
        going: indexes of the states that are FREE for a record that should have been deleted.
        referring: foreign keys that refer to it.
    """

    relation: Relation
    states: Sequence[Composable]
    going: Sequence[int]
    referring: Sequence[Referring]


@dataclass(frozen=True)
class StateCounts:
    """Numbers of records of a member by the values of one of its states.

    Attributes:
        free: records in state FREE.
        referred: records among ``free`` that another record explains.
        aside: records in state ASIDE.
        other: records in state OTHER.
    """

    free: int = 0
    referred: int = 0
    aside: int = 0
    other: int = 0


def count_left(
    connection: psycopg.Connection[Any], members: Sequence[Member]
) -> list[list[StateCounts]]:
    """Count the records of each member by each of its states.

    Args:
        connection: inside of a transaction, whose settings for joins this function changes.
        members: one collection, or all collections of a cycle.
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
                free, aside, other = counted[3 * state : 3 * state + 3]
                counts[at][state] = replace(state_counts, free=free, aside=aside, other=other)
    return counts


class Statement:
    """The statement that counts the members.

    Attributes:
        joins: number of joins for which PostgreSQL may use hashes.
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
        """Return the statement.

        Its columns: index of the member; whether the row counts explained records; and the counts,
        by state for explained records, otherwise by state and value (FREE, ASIDE, OTHER).
        """
        parts = [self._left(at) for at in range(len(self._members))]
        counts = [
            SQL("SELECT {}, false, {} FROM {}").format(
                literal(at), _counted(len(member.states), State), _name(at)
            )
            for at, member in enumerate(self._members)
        ]
        if self._explained:
            parts.append(self._stays())
            most = max(len(member.states) for member in self._members)
            counts.append(
                SQL("SELECT member, true, {} FROM stays GROUP BY member").format(
                    _counted(most, [State.FREE])
                )
            )
        return SQL("WITH RECURSIVE {} {}").format(
            SQL(", ").join(parts), SQL(" UNION ALL ").join(counts)
        )

    def _left(self, at: int) -> Composable:
        """Return the expression of a member's remaining records."""
        # OFFSET 0 makes PostgreSQL compute the states once for each record.
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
        """Return a member's records to delete that the records of a key explain."""
        referring = self._members[at].referring[number]
        targets = self._targets(at)
        key = replace(
            referring.key,
            targets=tuple(f"target {targets.index(column)}" for column in referring.key.targets),
        )
        which = [referring.which]
        if referring.member is not None:
            which.append(
                SQL(
                    "NOT EXISTS (SELECT FROM {} AS o WHERE {} "
                    "AND (o.tableoid, o.ctid) = (t.tableoid, t.ctid))"
                ).format(_name(referring.member), self._is_going(referring.member, "o"))
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
            self._is_going(at, "t"),
            SQL(", ").join(quoted("t", column) for column in key.columns),
            key.identifier,
            SQL(" AND ").join(which),
            SQL(" AND ").join(refers),
        )

    def _stays(self) -> Composable:
        """Return the expression of the explained records to delete, each once."""
        steps = self._steps()
        if not steps:
            explained = SQL(" UNION ").join(self._explained)
            return SQL("stays AS ({})").format(explained)
        return SQL(
            "stays AS (SELECT * FROM ({}) AS x UNION "
            "SELECT e.* FROM stays AS s CROSS JOIN LATERAL ({}) AS e)"
        ).format(SQL(" UNION ALL ").join(self._explained), SQL(" UNION ALL ").join(steps))

    def _steps(self) -> list[Composable]:
        """Return the records to delete to which a record ``s`` refers, a query for each member."""
        by_child: dict[int, list[Composable]] = {}
        for at, member in enumerate(self._members):
            for referring in member.referring:
                if referring.member is not None and referring.passes_on:
                    step = self._step(at, referring.key)
                    by_child.setdefault(referring.member, []).append(step)
        # The inner OFFSET 0 lets PostgreSQL skip all keys of another member at once; the outer one
        # keeps the queries of the members apart.
        return [
            SQL("(SELECT * FROM ({} OFFSET 0) AS u WHERE s.member = {} OFFSET 0)").format(
                SQL(" UNION ALL ").join(SQL("({})").format(step) for step in steps), literal(child)
            )
            for child, steps in by_child.items()
        ]

    def _step(self, at: int, key: ForeignKey) -> Composable:
        """Return a member's record to delete to which the record ``s`` refers by a key."""
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
            self._is_going(at, "p"),
        )

    def _is_going(self, at: int, alias: str) -> Composable:
        """Return the condition that a member's record is to be deleted, by its own states."""
        states = SQL("{}.states").format(SQL(alias))
        return any_of(
            [
                SQL("{}[{}] = {}").format(states, literal(number + 1), literal(int(State.FREE)))
                for number in self._members[at].going
            ]
        )

    def _targets(self, at: int) -> list[str]:
        """Return the columns of a member that foreign keys reference."""
        return list(
            dict.fromkeys(
                column
                for referring in self._members[at].referring
                for column in referring.key.targets
            )
        )


def _name(at: int) -> Composable:
    return quoted(f"left {at}")


def _counted(states: int, values: Sequence[State] | type[State]) -> Composable:
    """Return an array with the numbers of records by state and value."""
    each = [
        SQL("count(*) FILTER (WHERE states[{}] = {})").format(literal(at + 1), literal(int(value)))
        for at in range(states)
        for value in values
    ]
    return SQL("ARRAY[{}]::bigint[]").format(SQL(", ").join(each))
