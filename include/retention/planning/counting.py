"""Count the records of every class of a table in one scan, apart from references."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable, Identifier, Literal

from include.erasure.ledger import ErasureKeys
from include.holds.records import RecordHolds
from include.holds.registry import Hold
from include.policy.fragments import all_of, any_of, negated, quoted
from include.retention.planning.classes import RecordClass
from include.retention.planning.graph import FALSE, Graph
from include.retention.postgres.relations import Relation

_TRUE = SQL("true")
_FIGURES = ("records", "expired", "due", "held", "suspended", "ready", "not_started", "ahead")
MOST_HOLDS = 50  # that are counted one by one in a plan


@dataclass(frozen=True)
class Counted:
    """Counts of a class; the attributes are as in `plan.PlannedClass`.

    Attributes:
        due: expired or requested.
        ready: records that can be deleted or masked, apart from references.
        held_by: of ``held``, by the hold's number; several holds may keep a record.
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
class Records:
    """Records of a table, or of one of its partitions.

    Attributes:
        digest: XOR of the hashes of their keys, so that some can be removed from it.
        by_class: numbers of deletable records, for the deleting classes in their order.
    """

    records: int
    digest: int
    by_class: Sequence[int] = ()

    def without(self, others: Records) -> Records:
        """Return the figures without some of these records."""
        return Records(
            self.records - others.records,
            self.digest ^ others.digest,
            [mine - theirs for mine, theirs in zip(self.by_class, others.by_class, strict=True)],
        )


@dataclass(frozen=True)
class Scan:
    """The result of one scan of a table.

    Attributes:
        classes: by name.
        ready: records that any of its classes may delete.
        to_mask: records to mask.
    """

    classes: dict[str, Counted]
    ready: Records
    to_mask: Records


def key_seed(keys: ErasureKeys, key_id: str) -> int:
    """Return the seed of the hashes in a plan, derived from the secret erasure key."""
    made = hmac.digest(keys.keys[key_id], b"parcelseal retention plan", "sha256")
    return int.from_bytes(made[:8], "big", signed=True)


def key_hash(relation: Relation, seed: int, which: Composable = _TRUE) -> Composable:
    """Return the XOR of the hashes of primary keys, as text; ``0`` without a record.

    Args:
        relation: the table, whose record is ``t``.
        seed: of `key_seed`.
        which: of the records of the query.
    """
    return SQL("coalesce(bit_xor({}) FILTER (WHERE {}), 0)::text").format(
        hashed_key(relation, seed), which
    )


def hashed_key(relation: Relation, seed: int) -> Composable:
    """Return the hash of the primary key of the record ``t``.

    Args:
        relation: the table.
        seed: of `key_seed`.
    """
    columns = [
        quoted("t", column)
        if column in relation.hashable
        else SQL("{}::text").format(quoted("t", column))
        for column in relation.key
    ]
    return SQL("hash_record_extended(ROW({}), {})").format(SQL(", ").join(columns), Literal(seed))


def count(which: Composable) -> Composable:
    """Return the number of records of a query that meet a condition."""
    return SQL("count(*) FILTER (WHERE {})").format(which)


def scan(connection: psycopg.Connection[Any], graph: Graph, collection: str, *, seed: int) -> Scan:
    """Count every class of a collection.

    Args:
        connection: inside of the plan's view of the database.
        graph: classes and holds.
        collection: its name.
        seed: of `key_seed`.
    """
    relation = graph.relations.by_collection[collection]
    classes = graph.classes[collection]
    may_go = graph.may_go(collection)
    masked = any_of(
        [
            graph.ready(record_class)
            for record_class in classes
            if record_class.rule.action == "mask"
        ]
    )
    parts = {"ready records": count(may_go), "masked records": count(masked)}
    parts["ready digest"] = key_hash(relation, seed, may_go)
    parts["masked digest"] = key_hash(relation, seed, masked)
    for at, record_class in enumerate(classes):
        figures = _figures(graph, record_class)
        parts |= {f"{figure} {at}": count(which) for figure, which in figures.items()}
    query = SQL("SELECT {} FROM {} AS t").format(
        SQL(", ").join(
            SQL("{} AS {}").format(part, Identifier(name)) for name, part in parts.items()
        ),
        relation.identifier,
    )
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query, {}).fetchone()
    assert row is not None
    counted = {}
    for at, record_class in enumerate(classes):
        figures_of_class = {figure: row[f"{figure} {at}"] for figure in _FIGURES}
        by_hold = _held_by(connection, graph, record_class) if figures_of_class["held"] else {}
        counted[record_class.name] = Counted(**figures_of_class, held_by=by_hold)
    by_class = [counted[it.name].ready for it in classes if it.rule.deletes]
    return Scan(
        counted,
        Records(row["ready records"], int(row["ready digest"]), by_class),
        Records(row["masked records"], int(row["masked digest"])),
    )


def each_hold(holds: RecordHolds) -> list[tuple[Hold, str]]:
    """Return each hold with each of its values, by hold number and value."""
    pairs = [(hold, "") for hold in holds.everything]
    for by_key in (holds.classes, *holds.values.values()):
        pairs += [(hold, value) for value, those in by_key.items() for hold in those]
    return sorted(pairs, key=lambda pair: (pair[0].id, pair[1]))


def _held_by(
    connection: psycopg.Connection[Any], graph: Graph, record_class: RecordClass
) -> dict[int, int]:
    """Return how many due records of a class each of the first holds keeps, by its number.

    Holds of other databases come last: ``x/1`` keeps the record whose key is all of it.
    """
    collection = record_class.rule.collection
    by_hold: dict[Hold, list[Composable]] = {}
    holds = each_hold(graph.holds)
    for hold, value in sorted(holds, key=lambda pair: "/" in pair[1] and pair[1] == pair[0].value):
        for other in graph.classes[collection]:
            if (held := graph.held_by(other, hold, value)) != FALSE:
                by_hold.setdefault(hold, []).append(held)
    first = list(by_hold)[:MOST_HOLDS]
    query = SQL("SELECT {} FROM {} AS t WHERE {}").format(
        SQL(", ").join(count(any_of(by_hold[hold])) for hold in first),
        record_class.relation.identifier,
        all_of([graph.due(record_class), graph.held(collection)]),
    )
    row = connection.execute(query, {}).fetchone()
    assert row is not None
    return {hold.id: records for hold, records in zip(first, row, strict=True) if records}


def _figures(graph: Graph, record_class: RecordClass) -> dict[str, Composable]:
    """Return the conditions of the figures of a class; PostgreSQL evaluates equal ones once."""
    due, held = (
        graph.due(record_class),
        all_of([graph.due(record_class), graph.held(record_class.rule.collection)]),
    )
    return {
        "records": record_class.belongs,
        "expired": SQL("({} IS TRUE)").format(all_of([record_class.belongs, record_class.expired])),
        "due": due,
        "held": held,
        "suspended": all_of([due, negated(held), record_class.suspended]),
        "ready": graph.ready(record_class),
        "not_started": all_of([record_class.belongs, record_class.clock.not_started]),
        "ahead": all_of([record_class.belongs, record_class.clock.ahead]),
    }
