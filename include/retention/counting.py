"""Counting every class of a table in one scan, as far as the records themselves decide."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Literal

from include.erasure.ledger import ErasureKeys
from include.holds.records import RecordHolds
from include.holds.registry import Hold
from include.policy.fragments import both, either, negated, quoted
from include.policy.retention import SqlClock
from include.retention.classes import RecordClass
from include.retention.graph import FALSE, Graph
from include.retention.relations import Relation

_TRUE, _NONE = SQL("true"), SQL("0::bigint")


_FIGURES = ("records", "expired", "due", "held", "suspended", "ready", "not_started", "ahead")
MOST_HOLDS = 50  # that are counted one by one in a plan
DIGITS = 15  # of each count in a number that has several; more than a table has records


@dataclass(frozen=True)
class Counted:
    """What was counted of one class; the attributes are those of `plan.PlannedClass`.

    Attributes:
        due: expired or requested.
        ready: that may go or be masked, as far as the record itself is concerned.
        held_by: of ``held``, by the hold's number; one record may be kept by several.
    """

    records: int
    expired: int
    due: int
    held: int
    suspended: int
    ready: int
    not_started: int
    ahead: int
    held_by: Mapping[int, int] = field(default_factory=dict)


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
        bounds: of columns that were asked for, the least and the greatest number among the records
            that are due; None where there is none. Nothing where nothing was asked.
    """

    classes: dict[str, Counted]
    ready: Which
    to_mask: Which
    bounds: Mapping[str, tuple[int, int] | None] | None


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
        return _NONE
    return SQL("count(*)" if which == _TRUE else "count(*) FILTER (WHERE {})").format(which)


def scan(
    connection: psycopg.Connection[Any],
    graph: Graph,
    collection: str,
    *,
    seed: int,
    numbers: Sequence[str] | None,
) -> Scan:
    """Count every class of a collection.

    Args:
        connection: inside of the plan's view of the database.
        graph: classes and holds.
        collection: of which.
        seed: of `key_seed`.
        numbers: columns of whole numbers whose bounds are wanted. None where what goes is counted
            by another query; its digest is left out then.
    """
    relation = graph.relations.by_collection[collection]
    classes = graph.classes[collection]
    keeping = [] if graph.held(collection) == FALSE else _keeping(classes, each_hold(graph.holds))
    wanted: list[Composable] = []
    for one in classes:
        wanted += _figures(graph, one, [condition for _, condition in keeping])
    may_go = FALSE if numbers is None else graph.may_go(collection)
    masked = either([graph.ready(one) for one in classes if one.rule.action == "mask"])
    for which in (may_go, masked):
        digest = SQL("'0'") if which == FALSE else key_hash(relation, seed, which)
        wanted += [_NONE if len(classes) == 1 else count(which), digest]
    due = either([graph.due(one) for one in classes if one.rule.deletes])
    for column in numbers or ():
        wanted += [
            SQL("{}({}) FILTER (WHERE {})").format(SQL(edge), quoted("t", column), due)
            for edge in ("min", "max")
        ]
    query = SQL("SELECT {} FROM {} AS t").format(SQL(", ").join(wanted), relation.identifier)
    row = connection.execute(query, {}).fetchone()
    assert row is not None
    width = len(_FIGURES)
    at = width * len(classes)
    found = {
        one.name: _counted(
            graph, one, row[k * width : (k + 1) * width], [hold for hold, _ in keeping]
        )
        for k, one in enumerate(classes)
    }
    edges = zip(row[at + 4 :: 2], row[at + 5 :: 2], strict=True)
    bounds = {
        column: None if least is None else (least, most)
        for column, (least, most) in zip(numbers or (), edges, strict=True)
    }
    ready, to_mask = Which(*row[at : at + 2]), Which(*row[at + 2 : at + 4])
    if len(classes) == 1:  # its records are counted already
        records = found[classes[0].name].ready
        ready = replace(ready, records=0 if may_go == FALSE else records)
        to_mask = replace(to_mask, records=0 if masked == FALSE else records)
    return Scan(found, ready, to_mask, None if numbers is None else bounds)


def each_hold(holds: RecordHolds) -> list[tuple[Hold, str]]:
    """Every hold with what it is on, one that is on several things several times."""
    found = [(hold, "") for hold in holds.everything]
    for by_key in (holds.classes, *holds.values.values()):
        found += [(hold, value) for value, those in by_key.items() for hold in those]
    return sorted(found, key=lambda one: (one[0].id, one[1]))


def _keeping(
    classes: Sequence[RecordClass], holds: Sequence[tuple[Hold, str]]
) -> list[tuple[Hold, Composable]]:
    """What each of the first holds keeps, by whichever class of a collection.

    Holds of other databases come last: ``x/1`` keeps the record whose key is all of it.
    """
    found: dict[Hold, list[Composable]] = {}
    for hold, value in sorted(holds, key=lambda one: "/" in one[1] and one[1] == one[0].value):
        each = [(one.belongs, one.held_by(hold, value)) for one in classes]
        if known := [both([belongs, held]) for belongs, held in each if held != FALSE]:
            found.setdefault(hold, []).extend(known)
    return [(hold, either(known)) for hold, known in list(found.items())[:MOST_HOLDS]]


def _counted(
    graph: Graph, one: RecordClass, figures: Sequence[Any], holds: Sequence[Hold]
) -> Counted:
    given = dict(zip(_FIGURES, figures, strict=True))
    given["held"], held_by = _unpacked(int(given["held"]), holds)
    if not _others_keep(graph, one):
        given["ready"] = given["due"] - given["held"] - given["suspended"]
    return Counted(**given, held_by=held_by)


def _unpacked(packed: int, holds: Sequence[Hold]) -> tuple[int, dict[int, int]]:
    """The counts that `_packed` put into one number: of all records, and by hold."""
    rest, held = divmod(packed, 10**DIGITS)
    found: dict[int, int] = {}
    for hold in holds:
        rest, records = divmod(rest, 10**DIGITS)
        if records:
            found[hold.id] = records
    return held, found


def _packed(which: Composable, conditions: Sequence[Composable]) -> Composable:
    """How many records a condition holds of, and each of others of these, in one number, as text.

    Each count has its own digits. PostgreSQL looks a record up once for each aggregate, and of 50
    holds that would be slower than the whole of the scan.
    """
    each = [SQL("1")] + [
        SQL("CASE WHEN {} THEN 1e{} ELSE 0 END").format(one, at * DIGITS)
        for at, one in enumerate(conditions, start=1)
    ]
    return SQL("coalesce(sum({}) FILTER (WHERE {}), 0)::text").format(SQL(" + ").join(each), which)


def _others_keep(graph: Graph, one: RecordClass) -> bool:
    """Whether more than holds and the suspension may keep a record of a class that is due."""
    return len(graph.classes[one.rule.collection]) > 1


def _may_be_null(one: RecordClass) -> bool:
    """Whether the clock may be null: of several columns the latest counts that is none."""
    clock = one.rule.clock
    return isinstance(clock, SqlClock) or one.relation.nullable >= set(clock)


def _figures(graph: Graph, one: RecordClass, holds: Sequence[Composable]) -> list[Composable]:
    """What is counted of a class; what is the same twice, PostgreSQL works out once."""
    due, held = graph.due(one), graph.held(one.rule.collection)
    asked = one.requested(graph.subjects) != FALSE
    conditions = {
        "records": one.belongs,
        "expired": SQL("({} IS TRUE)").format(both([one.belongs, one.expired])) if asked else due,
        "due": due,
        "suspended": both([due, negated(held), one.suspended]) if one.rule.suspended else FALSE,
        "ready": graph.ready(one) if _others_keep(graph, one) else FALSE,
        "not_started": both([one.belongs, one.clock.not_started]) if _may_be_null(one) else FALSE,
        "ahead": both([one.belongs, one.clock.ahead]),
    }
    counts = {name: count(which) for name, which in conditions.items()}
    counts["held"] = SQL("'0'") if held == FALSE else _packed(both([due, held]), holds)
    return [counts[name] for name in _FIGURES]
