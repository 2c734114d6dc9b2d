"""Counting every class of a table in one scan, as far as the records themselves decide."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable, Identifier, Literal

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
    """Records that were counted, and the digest of their keys, an XOR."""

    records: int = 0
    digest: int = 0


@dataclass(frozen=True)
class Scan:
    """What one scan of a table found.

    Attributes:
        classes: by name.
        ready: records that may go, by whichever class.
        to_mask: records to mask.
        bounds: of columns that were asked for, the least and the greatest number among the records
            that are due; None where there is none.
    """

    classes: dict[str, Counted]
    ready: Which
    to_mask: Which
    bounds: Mapping[str, tuple[int, int] | None]


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
    return SQL("coalesce(bit_xor({}){}, 0)::text").format(hashed_key(relation, seed), only)


def hashed_key(relation: Relation, seed: int) -> Composable:
    """The hash of the primary key of the record ``t``.

    Args:
        relation: the table.
        seed: of `key_seed`.
    """
    columns = [
        quoted("t", one) if one in relation.hashable else SQL("{}::text").format(quoted("t", one))
        for one in relation.key
    ]
    return SQL("hash_record_extended(ROW({}), {})").format(SQL(", ").join(columns), Literal(seed))


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
    numbers: Sequence[str],
) -> Scan:
    """Count every class of a collection.

    Args:
        connection: inside of the plan's view of the database.
        graph: classes and holds.
        collection: of which.
        seed: of `key_seed`.
        numbers: columns of whole numbers whose bounds are wanted.
    """
    relation = graph.relations.by_collection[collection]
    classes = graph.classes[collection]
    keeping = (
        [] if graph.held(collection) == FALSE else _keeping(graph, classes, each_hold(graph.holds))
    )
    may_go = graph.may_go(collection)
    masked = either([graph.ready(one) for one in classes if one.rule.action == "mask"])
    due = either([graph.due(one) for one in classes if one.rule.deletes])
    wanted = _digested("ready", relation, seed, may_go, len(classes))
    wanted |= _digested("masked", relation, seed, masked, len(classes))
    for place, one in enumerate(classes):
        figures = _figures(graph, one, [condition for _, condition in keeping])
        wanted |= {f"{figure} {place}": part for figure, part in figures.items()}
    for place, column in enumerate(numbers):
        for edge in ("min", "max"):
            wanted[f"{edge} {place}"] = SQL("{}({}) FILTER (WHERE {})").format(
                SQL(edge), quoted("t", column), due
            )
    query = SQL("SELECT {} FROM {} AS t").format(
        SQL(", ").join(
            SQL("{} AS {}").format(part, Identifier(name)) for name, part in wanted.items()
        ),
        relation.identifier,
    )
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query, {}).fetchone()
    assert row is not None
    holds = [hold for hold, _ in keeping]
    found = {
        one.name: _counted(graph, one, {name: row[f"{name} {place}"] for name in _FIGURES}, holds)
        for place, one in enumerate(classes)
    }
    ready = Which(row["ready records"], int(row["ready digest"]))
    to_mask = Which(row["masked records"], int(row["masked digest"]))
    if len(classes) == 1:  # its records are counted already
        records = found[classes[0].name].ready
        ready = replace(ready, records=0 if may_go == FALSE else records)
        to_mask = replace(to_mask, records=0 if masked == FALSE else records)
    edges = [(row[f"min {place}"], row[f"max {place}"]) for place in range(len(numbers))]
    bounds = [None if least is None else (least, most) for least, most in edges]
    return Scan(found, ready, to_mask, dict(zip(numbers, bounds, strict=True)))


def _digested(
    name: str, relation: Relation, seed: int, which: Composable, classes: int
) -> dict[str, Composable]:
    """Count and digest of some records; of an only class they are counted by its figures."""
    return {
        f"{name} records": _NONE if classes == 1 else count(which),
        f"{name} digest": SQL("'0'") if which == FALSE else key_hash(relation, seed, which),
    }


def each_hold(holds: RecordHolds) -> list[tuple[Hold, str]]:
    """Every hold with what it is on, one that is on several things several times."""
    found = [(hold, "") for hold in holds.everything]
    for by_key in (holds.classes, *holds.values.values()):
        found += [(hold, value) for value, those in by_key.items() for hold in those]
    return sorted(found, key=lambda one: (one[0].id, one[1]))


def _keeping(
    graph: Graph, classes: Sequence[RecordClass], holds: Sequence[tuple[Hold, str]]
) -> list[tuple[Hold, Composable]]:
    """What each of the first holds keeps, by whichever class of a collection.

    Holds of other databases come last: ``x/1`` keeps the record whose key is all of it.
    """
    found: dict[Hold, list[Composable]] = {}
    for hold, value in sorted(holds, key=lambda one: "/" in one[1] and one[1] == one[0].value):
        each = [graph.held_by(one, hold, value) for one in classes]
        if known := [held for held in each if held != FALSE]:
            found.setdefault(hold, []).extend(known)
    return [(hold, either(known)) for hold, known in list(found.items())[:MOST_HOLDS]]


def _counted(
    graph: Graph, one: RecordClass, figures: Mapping[str, Any], holds: Sequence[Hold]
) -> Counted:
    held, held_by = _unpacked(int(figures["held"]), holds)
    given = {**figures, "held": held}
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


def _figures(graph: Graph, one: RecordClass, holds: Sequence[Composable]) -> dict[str, Composable]:
    """What is counted of a class; what is the same twice, PostgreSQL works out once."""
    due, held = graph.due(one), graph.held(one.rule.collection)
    asked = graph.requested(one) != FALSE
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
    return counts
