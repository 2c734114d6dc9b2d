"""What others keep of the records that may go, looked for from those others' side.

Of old records nearly all of what refers to them is old too, so few stay: the numbers that those few
refer to are read, and only the records of these numbers are looked at. Where they are many, or keys
are no whole numbers, whole tables have to be compared instead (`Deletable.of`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable

from include.policy.fragments import both, either, literal, quoted
from include.retention.counting import Scan
from include.retention.deletable import Deletable
from include.retention.graph import Reference

FEW = 100_000  # referring records that are read of one foreign key


@dataclass(frozen=True)
class Keepers:
    """For each foreign key that keeps records of a collection, the numbers that it keeps.

    Numbers of a column of the parent; every record that is due and kept has one of them, and others
    may have one too.
    """

    numbers: Mapping[Reference, tuple[str, Sequence[int]]]

    @property
    def maybe(self) -> Composable | None:
        """The record ``t`` may be kept; None where none can be."""
        return either([self.by(one) for one in self.numbers]) if self.numbers else None

    def by(self, reference: Reference) -> Composable:
        """The record ``t`` may be kept by one foreign key."""
        if reference not in self.numbers:
            return SQL("false")
        column, numbers = self.numbers[reference]
        return SQL("({} = ANY ({}::bigint[]))").format(quoted("t", column), literal(list(numbers)))


def columns_to_bound(deletable: Deletable, collection: str) -> list[str] | None:
    """The columns of whole numbers by which `find` looks for what keeps records of a collection.

    None where it cannot: a foreign key has no such column, the records of a circle keep each other,
    and those of a partitioned table are planned partition by partition.
    """
    graph = deletable.graph
    relation = graph.relations.by_collection[collection]
    if relation.partitioned or graph.is_circle(graph.group_of(collection)):
        return None
    columns = []
    for reference in graph.references(collection):
        if deletable.keeps(reference) is not None:
            if reference.key.numbered is None:
                return None
            columns.append(reference.key.numbered[1])
    return list(dict.fromkeys(columns))


def find(
    connection: psycopg.Connection[Any],
    deletable: Deletable,
    collection: str,
    counted: Scan,
) -> Keepers | None:
    """Look for what keeps records of a collection; None where it is too much.

    Args:
        connection: inside of the plan's view of the database.
        deletable: of the graph.
        collection: of which.
        counted: its scan, with the bounds of `columns_to_bound`; without any, nothing is found.
    """
    if counted.bounds is None:
        return None
    found: dict[Reference, tuple[str, Sequence[int]]] = {}
    for reference in deletable.graph.references(collection):
        keeps = deletable.keeps(reference)
        if keeps is None or reference.key.numbered is None:
            continue
        mine, theirs = reference.key.numbered
        if (bounds := counted.bounds[theirs]) is None:
            continue
        least, most = (literal(one) for one in bounds)
        column = quoted("t", mine)
        query = SQL(
            "{circles} SELECT count(*), array_agg(DISTINCT number) FROM (SELECT {column} AS number "
            "FROM {child} AS t WHERE {within} LIMIT {most}) AS s"
        ).format(
            circles=deletable.circles,
            column=column,
            child=reference.key.identifier,
            within=both([SQL("({} BETWEEN {} AND {})").format(column, least, most), keeps]),
            most=literal(FEW + 1),
        )
        row = connection.execute(query, {}).fetchone()
        assert row is not None
        records, numbers = row
        if records > FEW:
            return None
        if records:
            found[reference] = (theirs, numbers)
    return Keepers(found)
