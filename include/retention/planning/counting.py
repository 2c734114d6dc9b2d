"""Count the records of all record classes of a table in one scan.

The counts include records that cannot be deleted because other records refer to them.
"""

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
from include.policy.fragments import all_of, any_of, is_not_true, quoted
from include.retention.planning.classes import RecordClass
from include.retention.planning.graph import FALSE, Graph
from include.retention.postgres.relations import Relation

_TRUE = SQL("true")
_FIGURES = ("records", "expired", "due", "held", "suspended", "ready", "not_started", "ahead")
MOST_HOLDS = 50  # holds whose records a plan counts one by one


@dataclass(frozen=True)
class ClassCounts:
    """The numbers of records of a record class, counted in one scan of its table.

    The attributes that are not listed here have the same meaning as in `plan.PlannedClass`.

    Attributes:
        due: number of records that expired or whose erasure was requested.
        ready: number of these records that have no reason of their own to be kept. Other records
            may still refer to them and prevent their deletion.
        held_by: number of a legal hold in the register -> number of records that it keeps. A record
            may be kept by several holds.
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
class RecordFigures:
    """The size and the digest of a set of records of a table or partition.

    Attributes:
        records: number of records.
        digest: XOR of the hashes of the records' primary keys.
        by_class: numbers of those records in the set that a record class can delete. There is one
            number for each record class of the collection whose disposition is deletion, in the
            order of retention.yaml.
    """

    records: int
    digest: int
    by_class: Sequence[int] = ()

    def minus(self, others: RecordFigures) -> RecordFigures:
        """Return the figures of the records that remain if a subset is removed from this set.

        Args:
            others: figures of the subset.
        """
        return RecordFigures(
            self.records - others.records,
            self.digest ^ others.digest,
            [own - other for own, other in zip(self.by_class, others.by_class, strict=True)],
        )


@dataclass(frozen=True)
class Scan:
    """The result of one scan of a table.

    Attributes:
        classes: name of a record class -> numbers of its records.
        ready: size and digest of the set of records to delete. Other records may still refer to
            some of them and prevent their deletion.
        to_mask: size and digest of the set of records to mask.
    """

    classes: dict[str, ClassCounts]
    ready: RecordFigures
    to_mask: RecordFigures


def key_seed(keys: ErasureKeys, key_id: str) -> int:
    """Return the seed for the hashes of primary keys in a plan.

    The seed is derived from an HMAC key of the erasure ledger.

    Args:
        keys: HMAC keys of the erasure ledger.
        key_id: id of the HMAC key to use.
    """
    digest = hmac.digest(keys.keys[key_id], b"parcelseal retention plan", "sha256")
    return int.from_bytes(digest[:8], "big", signed=True)


def key_hash(relation: Relation, seed: int, which: Composable = _TRUE) -> Composable:
    """Return an SQL expression for the XOR of the hashes of primary keys, as text.

    The expression returns ``0`` if there are no records.

    Args:
        relation: the table, with the alias ``t``.
        seed: seed of the hashes, from `key_seed`.
        which: SQL condition that selects the records to include; it refers to the table as ``t``.
    """
    return SQL("coalesce(bit_xor({}) FILTER (WHERE {}), 0)::text").format(
        hashed_key(relation, seed), which
    )


def hashed_key(relation: Relation, seed: int) -> Composable:
    """Return an SQL expression for the hash of the primary key of a record ``t``.

    Args:
        relation: table of the record.
        seed: seed of the hash, from `key_seed`.
    """
    columns = [
        quoted("t", column)
        if column in relation.hashable
        else SQL("{}::text").format(quoted("t", column))
        for column in relation.key
    ]
    return SQL("hash_record_extended(ROW({}), {})").format(SQL(", ").join(columns), Literal(seed))


def count_where(which: Composable) -> Composable:
    """Return an SQL aggregate that counts the records that meet a condition.

    Args:
        which: SQL condition over a record ``t``.
    """
    return SQL("count(*) FILTER (WHERE {})").format(which)


def scan_collection(
    connection: psycopg.Connection[Any], graph: Graph, collection: str, *, seed: int
) -> Scan:
    """Count the records of all record classes of a collection.

    The function also counts how many records each legal hold keeps.

    Args:
        connection: connection with the open snapshot of the plan.
        graph: record classes and legal holds.
        collection: name of the collection.
        seed: seed of the hashes of primary keys, from `key_seed`.
    """
    relation = graph.relations.by_collection[collection]
    classes = graph.classes[collection]
    deletable = graph.deletable(collection)
    masked = any_of(
        [
            graph.ready(record_class)
            for record_class in classes
            if record_class.rule.action == "mask"
        ]
    )
    parts = {"ready records": count_where(deletable), "masked records": count_where(masked)}
    parts["ready digest"] = key_hash(relation, seed, deletable)
    parts["masked digest"] = key_hash(relation, seed, masked)
    for at, record_class in enumerate(classes):
        figures = _figure_conditions(graph, record_class)
        parts |= {f"{figure} {at}": count_where(which) for figure, which in figures.items()}
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
        by_hold = (
            _count_by_hold(connection, graph, record_class) if figures_of_class["held"] else {}
        )
        counted[record_class.name] = ClassCounts(**figures_of_class, held_by=by_hold)
    by_class = [
        counted[record_class.name].ready for record_class in classes if record_class.rule.deletes
    ]
    return Scan(
        counted,
        RecordFigures(row["ready records"], int(row["ready digest"]), by_class),
        RecordFigures(row["masked records"], int(row["masked digest"])),
    )


def holds_by_value(holds: RecordHolds) -> list[tuple[Hold, str]]:
    """Return all pairs of a legal hold and one of its values, sorted by hold number and value.

    For a legal hold on the whole database, the value is an empty text.

    Args:
        holds: the active legal holds on records of a database.
    """
    pairs = [(hold, "") for hold in holds.everything]
    for by_key in (holds.classes, *holds.values.values()):
        pairs += [(hold, value) for value, group in by_key.items() for hold in group]
    return sorted(pairs, key=lambda pair: (pair[0].id, pair[1]))


def _count_by_hold(
    connection: psycopg.Connection[Any], graph: Graph, record_class: RecordClass
) -> dict[int, int]:
    """Count, for each legal hold, the records of a record class that it keeps.

    Only records that expired or whose erasure was requested are counted. At most `MOST_HOLDS` holds
    are counted. Holds whose value has a prefix such as ``x/`` come last in this selection, because
    the prefix may name another database.

    Args:
        connection: connection with the open snapshot of the plan.
        graph: record classes and legal holds.
        record_class: the record class.

    Returns:
        Number of the hold in the register -> number of records. Holds that keep no records are left
        out.
    """
    collection = record_class.rule.collection
    by_hold: dict[Hold, list[Composable]] = {}
    holds = holds_by_value(graph.holds)
    for hold, value in sorted(holds, key=lambda pair: "/" in pair[1] and pair[1] == pair[0].value):
        for other in graph.classes[collection]:
            if (held := graph.held_by(other, hold, value)) != FALSE:
                by_hold.setdefault(hold, []).append(held)
    first = list(by_hold)[:MOST_HOLDS]
    query = SQL("SELECT {} FROM {} AS t WHERE {}").format(
        SQL(", ").join(count_where(any_of(by_hold[hold])) for hold in first),
        record_class.relation.identifier,
        all_of([graph.due(record_class), graph.held(collection)]),
    )
    row = connection.execute(query, {}).fetchone()
    assert row is not None
    return {hold.id: records for hold, records in zip(first, row, strict=True) if records}


def _figure_conditions(graph: Graph, record_class: RecordClass) -> dict[str, Composable]:
    """Return the SQL conditions for counting the records of a record class.

    PostgreSQL evaluates a condition only once in a statement, even if it occurs several times.

    Args:
        graph: record classes and legal holds.
        record_class: the record class.

    Returns:
        Name of an attribute of `ClassCounts` -> condition.
    """
    due, held = (
        graph.due(record_class),
        all_of([graph.due(record_class), graph.held(record_class.rule.collection)]),
    )
    return {
        "records": record_class.belongs,
        "expired": SQL("({} IS TRUE)").format(all_of([record_class.belongs, record_class.expired])),
        "due": due,
        "held": held,
        "suspended": all_of([due, is_not_true(held), record_class.suspended]),
        "ready": graph.ready(record_class),
        "not_started": all_of([record_class.belongs, record_class.clock.not_started]),
        "ahead": all_of([record_class.belongs, record_class.clock.starts_in_future]),
    }
