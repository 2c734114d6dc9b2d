"""What is done to the records of a class: deleting and masking, in statements of few records.

Statements are short since a server's cores are few: while one works on a thousand records, whoever
else wants that core waits for its end (docs/performance.md).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from psycopg.sql import SQL, Composable, Composed, Literal

from include.erasure.ledger import STRIDE
from include.erasure.masks import assignments
from include.erasure.places import key_texts
from include.policy.fragments import both, fixed, negated, quoted
from include.retention.classes import RecordClass
from include.retention.graph import Graph, Reference
from include.retention.relations import Leaf
from include.retention.work import Key, Work

REST = 0.5  # of a statement's time, as long as the ledger is being written
LONGEST_REST = 0.005  # seconds; locks are kept meanwhile


class Kept(psycopg.DataError):
    """A locked record that fits was not changed: a trigger said nothing and kept it.

    One of psycopg's errors since it is met as if the trigger had raised one.
    """

    sqlstate = "kept"


class Act(Protocol):
    """What is done to the records of a class."""

    def condition(self, graph: Graph) -> Composable:
        """The records to which it is done, over ``t``."""
        ...

    def apply(self, work: Work, leaf: Leaf, rows: Sequence[str], which: Composable) -> list[Key]:
        """Do it to locked rows that still fit, and return their keys."""
        ...


@dataclass(frozen=True)
class Deleting:
    """Deletes the records of a class that nothing refers to any more.

    Attributes:
        unapproved: classes whose records stay, see `Work.unapproved`.
    """

    one: RecordClass
    unapproved: tuple[RecordClass, ...] = ()

    def condition(self, graph: Graph) -> Composable:
        """The records to which it is done, over ``t``."""
        stays = [negated(graph.belongs(other)) for other in self.unapproved]
        return both([graph.ready(self.one), *stays, graph.unreferred(self.one.rule.collection)])

    def apply(self, work: Work, leaf: Leaf, rows: Sequence[str], which: Composable) -> list[Key]:
        """Do it to locked rows that still fit, and return their keys."""
        for reference in work.graph.detached(self.one.rule.collection):
            detach(work.connection, reference, leaf, rows, which)  # before any of them is gone
        query = SQL(
            "DELETE FROM {leaf} AS t WHERE t.ctid = ANY (%(rows)s::tid[]) AND {which} "
            "RETURNING {keys}"
        ).format(leaf=leaf.identifier, which=which, keys=fixed(key_texts(self.one.relation.key)))
        return _done(work, query, rows)


@dataclass(frozen=True)
class Masking:
    """Masks the records of a class."""

    one: RecordClass

    def condition(self, graph: Graph) -> Composable:
        """The records to which it is done, over ``t``."""
        return graph.ready(self.one)

    def apply(self, work: Work, leaf: Leaf, rows: Sequence[str], which: Composable) -> list[Key]:
        """Do it to locked rows that still fit, and return their keys."""
        at = Literal(work.limits.clock.now())
        query = SQL(
            "UPDATE {leaf} AS t SET {changes} WHERE t.ctid = ANY (%(rows)s::tid[]) AND {which} "
            "RETURNING {keys}"
        ).format(
            leaf=leaf.identifier,
            changes=fixed(assignments(self.one.mask, self.one.shapes, at)),
            which=which,
            keys=fixed(key_texts(self.one.relation.key)),
        )
        return _done(work, query, rows)


def detach(
    connection: psycopg.Connection[Any],
    reference: Reference,
    leaf: Leaf,
    rows: Sequence[str],
    which: Composable,
    also: Sequence[tuple[Leaf, Sequence[str]]] = (),
) -> None:
    """Set a foreign key to null where it leads to records that are about to go.

    Args:
        connection: to the mapped database.
        reference: the key.
        leaf: the table that the records lie in.
        rows: their places.
        which: they have to fit still.
        also: places of others that go in the same statement.
    """
    going = [(leaf, rows), *also]
    given = {f"rows{at}": as_array(places) for at, (_leaf, places) in enumerate(going)}
    changes = [SQL("{} = NULL").format(quoted(one)) for one in reference.key.columns]
    query = SQL(
        "UPDATE {child} AS c SET {changes} FROM (SELECT t.tableoid, {targets} FROM {leaf} AS t "
        "WHERE t.ctid = ANY (%(rows0)s::tid[]) AND {which}) AS p WHERE {joined}{others}"
    ).format(
        # A record that goes too is left as it is: changed, it would lie elsewhere on disk.
        others=SQL("").join(
            SQL(" AND NOT (c.tableoid = {}::oid AND c.ctid = ANY ({}::tid[]))").format(
                one.oid, SQL(f"%(rows{at})s")
            )
            for at, (one, _places) in enumerate(going)
        ),
        targets=SQL(", ").join(quoted("t", one) for one in reference.key.targets),
        child=reference.key.identifier,
        changes=SQL(", ").join(changes),
        leaf=leaf.identifier,
        which=which,
        joined=reference.joined("c", "p"),
    )
    connection.execute(query, given)


def _done(work: Work, query: Composed, rows: Sequence[str]) -> list[Key]:
    """Execute a statement on `STRIDE` rows after the other; returns the keys of all."""
    text = query.as_bytes(work.connection)
    found: list[Key] = []
    took = 0.0
    for at in range(0, len(rows), STRIDE):
        # Ahead of the ledger it would wait at the end: better now, where others get the core.
        work.await_ledger(min(LONGEST_REST, REST * took))
        given = {"rows": as_array(rows[at : at + STRIDE])}
        begun = time.monotonic()
        found += work.connection.execute(text, given).fetchall()
        took = time.monotonic() - begun
    return found


def as_array(places: Sequence[str]) -> str:
    """Places of rows on disk as an array, as text: psycopg would write it element by element."""
    return "{" + ",".join(f'"{one}"' for one in places) + "}"
