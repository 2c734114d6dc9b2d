"""What is done to the records of a class: deleting and masking, in statements of few records.

Statements are short since a server's cores are few: while one works on a thousand records, whoever
else wants that core waits for its end (docs/performance.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from psycopg.sql import SQL, Composable, Composed, Literal

from include.erasure.ledger import STRIDE
from include.erasure.masks import assignments
from include.erasure.places import key_texts
from include.policy.fragments import both, fixed, negated, quoted
from include.retention.execution.state import ExecutionState, Key
from include.retention.planning.classes import RecordClass
from include.retention.planning.column_checks import detached_columns, to_null
from include.retention.planning.graph import Graph, Reference
from include.retention.postgres.relations import Leaf
from include.retention.postgres.transaction_counters import TransactionCounters

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

    def apply(
        self,
        work: ExecutionState,
        counters: TransactionCounters,
        leaf: Leaf,
        rows: Sequence[str],
        which: Composable,
    ) -> list[Key]:
        """Change the locked rows that still fit, record all changes, and return the rows' keys."""
        ...


@dataclass(frozen=True)
class Deleting:
    """Deletes the records of a class that nothing refers to any more.

    Attributes:
        unapproved: classes whose records stay, see `ExecutionState.unapproved`.
    """

    one: RecordClass
    unapproved: tuple[RecordClass, ...] = ()

    def condition(self, graph: Graph) -> Composable:
        """The records to which it is done, over ``t``."""
        stays = [negated(graph.belongs(other)) for other in self.unapproved]
        return both([graph.ready(self.one), *stays, graph.unreferred(self.one.rule.collection)])

    def apply(
        self,
        work: ExecutionState,
        counters: TransactionCounters,
        leaf: Leaf,
        rows: Sequence[str],
        which: Composable,
    ) -> list[Key]:
        """Change the locked rows that still fit, record all changes, and return the rows' keys."""
        collection = self.one.rule.collection
        for reference in work.graph.detached(collection):  # before any of them is gone
            columns = detached_columns(work.graph, collection, reference)
            detach(work.connection, counters, reference, columns, [Going(leaf, rows, which)])
        nulled = [
            one for one in work.graph.references(collection) if one.sets_null and not one.by_us
        ]

        def count_nulled(some: Sequence[str]) -> None:
            for reference in nulled:
                record_nulled(work.connection, counters, reference, [Going(leaf, some, which)])

        query = SQL(
            "DELETE FROM {leaf} AS t WHERE t.ctid = ANY (%(rows)s::tid[]) AND {which} "
            "RETURNING {keys}"
        ).format(leaf=leaf.identifier, which=which, keys=fixed(key_texts(self.one.relation.key)))
        gone = _done(work, query, rows, count_nulled)
        counters.deleted[self.one.relation.oid] += len(gone)
        return gone


@dataclass(frozen=True)
class Masking:
    """Masks the records of a class."""

    one: RecordClass

    def condition(self, graph: Graph) -> Composable:
        """The records to which it is done, over ``t``."""
        return graph.ready(self.one)

    def apply(
        self,
        work: ExecutionState,
        counters: TransactionCounters,
        leaf: Leaf,
        rows: Sequence[str],
        which: Composable,
    ) -> list[Key]:
        """Change the locked rows that still fit, record all changes, and return the rows' keys."""
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
        changed = _done(work, query, rows)
        counters.updated[self.one.relation.oid] += len(changed)
        return changed


@dataclass(frozen=True)
class Going:
    """Locked records that one statement deletes.

    Attributes:
        leaf: the table or partition that has them.
        rows: their ctids.
        which: condition over ``t`` that they must still meet.
    """

    leaf: Leaf
    rows: Sequence[str]
    which: Composable


def detach(
    connection: psycopg.Connection[Any],
    counters: TransactionCounters,
    reference: Reference,
    columns: Sequence[str],
    going: Sequence[Going],
) -> None:
    """Set columns of a foreign key to null where it refers to records to be deleted.

    Args:
        connection: to the mapped database.
        counters: record the changed rows.
        reference: the foreign key.
        columns: columns of the key to set to null.
        going: the records to delete: first those of the referenced table, then others that the same
            statement deletes.
    """
    query = SQL("UPDATE {child} AS c SET {changes} FROM {referred}").format(
        child=reference.key.identifier,
        changes=to_null(columns),
        referred=_referred(reference, going),
    )
    changed = connection.execute(query, _places(going)).rowcount
    counters.updated[reference.key.child_root] += changed


def record_nulled(
    connection: psycopg.Connection[Any],
    counters: TransactionCounters,
    reference: Reference,
    going: Sequence[Going],
) -> None:
    """Record the rows whose key the database sets to null or to its default (ON DELETE).

    The referenced records are locked, so no new references can appear before the deletion.

    Args:
        connection: to the mapped database.
        counters: record the rows.
        reference: the foreign key.
        going: the records to delete, as for `detach`.
    """
    query = SQL("SELECT count(*) FROM {child} AS c, {referred}").format(
        child=reference.key.constrained, referred=_referred(reference, going)
    )
    row = connection.execute(query, _places(going)).fetchone()
    assert row is not None
    counters.updated[reference.key.child_root] += int(row[0])


def _referred(reference: Reference, going: Sequence[Going]) -> Composable:
    """Return FROM and WHERE for remaining records ``c`` that refer to records to be deleted."""
    first = going[0]
    others = [
        SQL(" AND NOT (c.tableoid = {}::oid AND c.ctid = ANY ({}::tid[]))").format(
            one.leaf.oid, SQL(f"%(rows{at})s")
        )
        for at, one in enumerate(going)
    ]
    return SQL(
        "(SELECT t.tableoid, {targets} FROM {leaf} AS t WHERE t.ctid = ANY (%(rows0)s::tid[]) "
        "AND {which}) AS p WHERE {joined}{others}"
    ).format(
        targets=SQL(", ").join(quoted("t", one) for one in reference.key.targets),
        leaf=first.leaf.identifier,
        which=first.which,
        joined=reference.joined("c", "p"),
        # A record that is deleted too is not changed: an update would give it another ctid.
        others=SQL("").join(others),
    )


def _places(going: Sequence[Going]) -> dict[str, str]:
    return {f"rows{at}": as_array(one.rows) for at, one in enumerate(going)}


def _done(
    work: ExecutionState,
    query: Composed,
    rows: Sequence[str],
    before: Callable[[Sequence[str]], None] = lambda _rows: None,
) -> list[Key]:
    """Execute a statement on `STRIDE` rows after the other; returns the keys of all."""
    text = query.as_bytes(work.connection)
    found: list[Key] = []
    took = 0.0
    for at in range(0, len(rows), STRIDE):
        # Ahead of the ledger it would wait at the end: better now, where others get the core.
        work.await_ledger(min(LONGEST_REST, REST * took))
        some = rows[at : at + STRIDE]
        before(some)
        given = {"rows": as_array(some)}
        begun = time.monotonic()
        found += work.connection.execute(text, given).fetchall()
        took = time.monotonic() - begun
    return found


def as_array(places: Sequence[str]) -> str:
    """Places of rows on disk as an array, as text: psycopg would write it element by element."""
    return "{" + ",".join(f'"{one}"' for one in places) + "}"
