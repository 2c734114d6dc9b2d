"""Counting every class of a table in one scan, as far as the records themselves decide."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Literal

from include.erasure.ledger import ErasureKeys
from include.holds.registry import Hold
from include.policy.fragments import both, either, negated, quoted
from include.policy.retention import SqlClock
from include.retention.classes import RecordClass
from include.retention.graph import FALSE, Graph
from include.retention.relations import Relation

_TRUE = SQL("true")


_FIGURES = ("records", "expired", "due", "held", "suspended", "ready", "not_started", "ahead")


@dataclass(frozen=True)
class Counted:
    """What was counted of one class; the attributes are those of `plan.PlannedClass`.

    Attributes:
        due: expired or requested.
        ready: that may go or be masked, as far as the record itself is concerned.
    """

    records: int
    expired: int
    due: int
    held: int
    suspended: int
    ready: int
    not_started: int
    ahead: int


@dataclass(frozen=True)
class Which:
    """Records that were counted, and the digest of their keys."""

    records: int = 0
    digest: str = "0"


@dataclass(frozen=True)
class Scan:
    """What one scan of a table found.

    Attributes:
        classes: by name.
        ready: records that may go, by whichever class.
        to_mask: records to mask.
    """

    classes: dict[str, Counted]
    ready: Which
    to_mask: Which


def key_seed(keys: ErasureKeys, key_id: str) -> int:
    """Seed of the hashes in a plan: from the erasure key, so that nobody else can try keys."""
    made = hmac.digest(keys.keys[key_id], b"parcelseal retention plan", "sha256")
    return int.from_bytes(made[:8], "big", signed=True)


def key_hash(relation: Relation, seed: int, which: Composable = _TRUE) -> Composable:
    """The XOR of the hashes of primary keys, as text; ``0`` of no record.

    Args:
        relation: the table, whose record is ``t``.
        seed: of `key_seed`.
        which: of the records of the query.
    """
    only = SQL("") if which == _TRUE else SQL(" FILTER (WHERE {})").format(which)
    columns = [
        quoted("t", one) if one in relation.hashable else SQL("{}::text").format(quoted("t", one))
        for one in relation.key
    ]
    return SQL("coalesce(bit_xor(hash_record_extended(ROW({}), {})){}, 0)::text").format(
        SQL(", ").join(columns), Literal(seed), only
    )


def count(which: Composable) -> Composable:
    """The number of records of a query that a condition holds of."""
    if which == FALSE:
        return SQL("0::bigint")
    return SQL("count(*)" if which == _TRUE else "count(*) FILTER (WHERE {})").format(which)


def scan(
    connection: psycopg.Connection[Any],
    graph: Graph,
    collection: str,
    *,
    seed: int,
    digests: bool,
) -> Scan:
    """Count every class of a collection.

    Args:
        connection: inside of the plan's view of the database.
        graph: classes and holds.
        collection: of which.
        seed: of `key_seed`.
        digests: whether the digest of what may go is wanted; another query has it otherwise.
    """
    relation = graph.relations.by_collection[collection]
    classes = graph.classes[collection]
    wanted: list[Composable] = []
    for one in classes:
        wanted += _figures(graph, one)
    may_go = graph.may_go(collection) if digests else FALSE
    masked = either([graph.ready(one) for one in classes if one.rule.action == "mask"])
    for which in (may_go, masked):
        digest = SQL("'0'") if which == FALSE else key_hash(relation, seed, which)
        wanted += [count(which), digest]
    query = SQL("SELECT {} FROM {} AS t").format(SQL(", ").join(wanted), relation.identifier)
    row = connection.execute(query, {}).fetchone()
    assert row is not None
    width = (len(row) - 4) // len(classes)
    found = {
        one.name: _counted(graph, one, row[at * width : (at + 1) * width])
        for at, one in enumerate(classes)
    }
    return Scan(found, Which(*row[-4:-2]), Which(*row[-2:]))


def _counted(graph: Graph, one: RecordClass, figures: Sequence[int]) -> Counted:
    given = dict(zip(_FIGURES, figures, strict=True))
    if not _others_keep(graph, one):
        given["ready"] = given["due"] - given["held"] - given["suspended"]
    return Counted(**given)


def _others_keep(graph: Graph, one: RecordClass) -> bool:
    """Whether more than holds and the suspension may keep a record of a class that is due."""
    return len(graph.classes[one.rule.collection]) > 1


def _may_be_null(one: RecordClass) -> bool:
    """Whether the clock may be null: of several columns the latest counts that is none."""
    clock = one.rule.clock
    return isinstance(clock, SqlClock) or one.relation.nullable >= set(clock)


def _figures(graph: Graph, one: RecordClass) -> list[Composable]:
    """What is counted of a class; what is the same twice, PostgreSQL works out once."""
    due, held = graph.due(one), graph.held(one.rule.collection)
    asked = one.requested(graph.subjects) != FALSE
    conditions = {
        "records": one.belongs,
        "expired": SQL("({} IS TRUE)").format(both([one.belongs, one.expired])) if asked else due,
        "due": due,
        "held": both([due, held]) if held != FALSE else FALSE,
        "suspended": both([due, negated(held), one.suspended]) if one.rule.suspended else FALSE,
        "ready": graph.ready(one) if _others_keep(graph, one) else FALSE,
        "not_started": both([one.belongs, one.clock.not_started]) if _may_be_null(one) else FALSE,
        "ahead": both([one.belongs, one.clock.ahead]),
    }
    return [count(conditions[name]) for name in _FIGURES]


def by_hold(
    connection: psycopg.Connection[Any],
    graph: Graph,
    one: RecordClass,
    holds: Sequence[tuple[Hold, str]],
) -> dict[int, int]:
    """Count what each hold keeps of a class: number of the hold -> records that are due.

    Args:
        connection: inside of the plan's view of the database.
        graph: classes and holds.
        one: the class; holds that another class of its collection knows keep it too.
        holds: each with what it is on; one may stand there under two names.
    """
    siblings = graph.classes[one.rule.collection]
    each = [
        count(either([both([it.belongs, it.held_by(hold, value)]) for it in siblings]))
        for hold, value in holds
    ]
    query = SQL("SELECT {} FROM {} AS t WHERE {}").format(
        SQL(", ").join(each),
        one.relation.identifier,
        both([graph.due(one), graph.held(one.rule.collection)]),
    )
    row = connection.execute(query, {}).fetchone()
    assert row is not None
    found: dict[int, int] = {}
    for (hold, _value), records in zip(holds, row, strict=True):
        if records:
            found[hold.id] = found.get(hold.id, 0) + records
    return found
