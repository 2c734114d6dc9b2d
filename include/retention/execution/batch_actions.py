"""Delete and mask the records of a class, in statements of few records.

Statements are short since a server has few cores: a session that needs the core of a statement on a
thousand records waits for its end (docs/performance.md).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import psycopg
from psycopg.sql import SQL, Composable, Composed, Literal

from include.erasure.ledger import STRIDE
from include.erasure.masks import assignments
from include.policy.fragments import all_of, fixed, negated, quoted
from include.retention.execution.state import ExecutionState, Key
from include.retention.planning.classes import RecordClass
from include.retention.planning.column_checks import to_null
from include.retention.planning.graph import Graph, Reference
from include.retention.postgres.relations import Leaf
from include.retention.postgres.transaction_counters import TransactionCounters
from include.services.database import scalar

REST = 0.5  # of a statement's time, while the ledger is being written
LONGEST_REST = 0.005  # seconds; locks are kept meanwhile


class Kept(psycopg.DataError):
    """A trigger kept a locked record that meets the condition, and raised no error.

    It is a psycopg error, so that it is handled like an error that a trigger raises.
    """

    sqlstate = "kept"


@dataclass(frozen=True)
class LockedRecords:
    """Locked records that one statement deletes or masks.

    Attributes:
        leaf: the table or partition that has them.
        rows: their ctids.
        which: condition over ``t`` that they must still meet.
    """

    leaf: Leaf
    rows: Sequence[str]
    which: Composable


@dataclass(frozen=True)
class BatchAction(ABC):
    """The disposition of the records of a class.

    Attributes:
        record_class: the class.
    """

    record_class: RecordClass

    @abstractmethod
    def condition(self, graph: Graph) -> Composable:
        """Return the condition over ``t`` for the records to dispose of."""

    @abstractmethod
    def apply(
        self, state: ExecutionState, counters: TransactionCounters, locked: LockedRecords
    ) -> list[Key]:
        """Change locked records that still fit, record each change, and return their keys."""


@dataclass(frozen=True)
class Deleting(BatchAction):
    """Deletes the records of a class that no remaining record refers to.

    Attributes:
        unapproved: classes whose records stay, see `ExecutionState.unapproved`.
    """

    unapproved: tuple[RecordClass, ...] = ()

    def condition(self, graph: Graph) -> Composable:
        """Return the condition over ``t`` for the records to dispose of."""
        stays = [negated(graph.belongs(other)) for other in self.unapproved]
        unreferred = graph.unreferred(self.record_class.rule.collection)
        return all_of([graph.ready(self.record_class), *stays, unreferred])

    def apply(
        self, state: ExecutionState, counters: TransactionCounters, locked: LockedRecords
    ) -> list[Key]:
        """Change locked records that still fit, record each change, and return their keys."""
        references = state.graph.references(self.record_class.rule.collection)
        for reference in references:  # before any of the records is deleted
            if reference.detached:
                detach(counters, reference, [locked])

        def count_nulled(rows: Sequence[str]) -> None:
            for reference in references:
                if reference.sets_null and not reference.detached:
                    record_nulled(counters, reference, [replace(locked, rows=rows)])

        relation = self.record_class.relation
        query = SQL(
            "DELETE FROM {leaf} AS t WHERE t.ctid = ANY (%(rows)s::tid[]) AND {which} "
            "RETURNING {keys}"
        ).format(leaf=locked.leaf.identifier, which=locked.which, keys=relation.key_texts)
        deleted = _execute_in_strides(state, query, locked.rows, count_nulled)
        counters.deleted[relation.oid] += len(deleted)
        return deleted


@dataclass(frozen=True)
class Masking(BatchAction):
    """Masks the records of a class."""

    def condition(self, graph: Graph) -> Composable:
        """Return the condition over ``t`` for the records to dispose of."""
        return graph.ready(self.record_class)

    def apply(
        self, state: ExecutionState, counters: TransactionCounters, locked: LockedRecords
    ) -> list[Key]:
        """Change locked records that still fit, record each change, and return their keys."""
        mask, relation = self.record_class.mask, self.record_class.relation
        at = Literal(state.clock.now())
        query = SQL(
            "UPDATE {leaf} AS t SET {changes} WHERE t.ctid = ANY (%(rows)s::tid[]) AND {which} "
            "RETURNING {keys}"
        ).format(
            leaf=locked.leaf.identifier,
            changes=fixed(assignments(mask, self.record_class.shapes, at)),
            which=locked.which,
            keys=relation.key_texts,
        )
        masked = _execute_in_strides(state, query, locked.rows)
        counters.updated[relation.oid] += len(masked)
        return masked


def detach(
    counters: TransactionCounters, reference: Reference, deleted: Sequence[LockedRecords]
) -> None:
    """Set the detached columns of a foreign key to null where it refers to records to be deleted.

    Args:
        counters: record the changed rows.
        reference: the foreign key.
        deleted: the records to delete: first those of the referenced table, then others that the
            same statement deletes.
    """
    query = SQL("UPDATE {child} AS c SET {changes} FROM {referred}").format(
        child=reference.key.identifier,
        changes=to_null(reference.detached),
        referred=_referring(reference, deleted),
    )
    changed = counters.connection.execute(query, _row_parameters(deleted)).rowcount
    counters.updated[reference.key.child_root] += changed


def record_nulled(
    counters: TransactionCounters, reference: Reference, deleted: Sequence[LockedRecords]
) -> None:
    """Record the rows whose key the database sets to null or to its default (ON DELETE).

    The referenced records are locked, so no new references can appear before the deletion.

    Args:
        counters: record the rows.
        reference: the foreign key.
        deleted: the records to delete, as for `detach`.
    """
    query = SQL("SELECT count(*) FROM {child} AS c, {referred}").format(
        child=reference.key.constrained, referred=_referring(reference, deleted)
    )
    nulled = scalar(counters.connection, query, _row_parameters(deleted))
    counters.updated[reference.key.child_root] += nulled


def _referring(reference: Reference, deleted: Sequence[LockedRecords]) -> Composable:
    """Return FROM and WHERE for remaining records ``c`` that refer to records to be deleted."""
    first = deleted[0]
    others = [
        SQL(" AND NOT (c.tableoid = {}::oid AND c.ctid = ANY ({}::tid[]))").format(
            records.leaf.oid, SQL(f"%(rows{at})s")
        )
        for at, records in enumerate(deleted)
    ]
    return SQL(
        "(SELECT t.tableoid, {targets} FROM {leaf} AS t WHERE t.ctid = ANY (%(rows0)s::tid[]) "
        "AND {which}) AS p WHERE {joined}{others}"
    ).format(
        targets=SQL(", ").join(quoted("t", column) for column in reference.key.targets),
        leaf=first.leaf.identifier,
        which=first.which,
        joined=reference.joined("c", "p"),
        # A record that is deleted too is not changed: an update would give it another ctid.
        others=SQL("").join(others),
    )


def _row_parameters(deleted: Sequence[LockedRecords]) -> dict[str, str]:
    return {f"rows{at}": as_array(records.rows) for at, records in enumerate(deleted)}


def _execute_in_strides(
    state: ExecutionState,
    query: Composed,
    rows: Sequence[str],
    before: Callable[[Sequence[str]], None] = lambda _rows: None,
) -> list[Key]:
    """Execute a statement on `STRIDE` rows at a time, and return the keys of all."""
    text = query.as_bytes(state.connection)
    keys: list[Key] = []
    took = 0.0
    for at in range(0, len(rows), STRIDE):
        # A batch that is ahead of the ledger would wait at its end. It waits here instead, so that
        # other sessions get the core.
        state.await_ledger(min(LONGEST_REST, REST * took))
        stride = rows[at : at + STRIDE]
        before(stride)
        begun = time.monotonic()
        keys += state.connection.execute(text, {"rows": as_array(stride)}).fetchall()
        took = time.monotonic() - begun
    return keys


def as_array(ctids: Sequence[str]) -> str:
    """Return ctids as the text of an array, since psycopg would write it element by element."""
    return "{" + ",".join(f'"{ctid}"' for ctid in ctids) + "}"
