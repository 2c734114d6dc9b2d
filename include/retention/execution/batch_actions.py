"""Delete and mask the records of a record class, with statements that process few records each.

A server has few cores. While a statement processes a thousand records, other sessions wait for the
core that it uses (docs/decisions/0048).
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import psycopg
from psycopg.sql import SQL, Composable, Composed, Literal

from include.erasure.ledger import STRIDE
from include.erasure.masks import mask_assignments
from include.policy.fragments import all_of, escape_percent, is_not_true, quoted
from include.retention.execution.state import ExecutionState, Key
from include.retention.planning.classes import RecordClass
from include.retention.planning.column_checks import set_to_null
from include.retention.planning.graph import Graph, Reference
from include.retention.postgres.relations import Leaf
from include.retention.postgres.transaction_counters import TransactionCounters
from include.services.database import scalar

REST = 0.5  # pause after a statement, as a share of its time, while the ledger is being written
LONGEST_REST = 0.005  # seconds; the transaction keeps its locks during a pause


class KeptByTrigger(psycopg.DataError):
    """Raised if a trigger prevents the change of a locked record without raising an error.

    The exception derives from a psycopg error. Callers therefore handle it like an error that the
    trigger raised.
    """

    sqlstate = "kept"


@dataclass(frozen=True)
class LockedRecords:
    """Records of one table or partition that a transaction has locked to delete or mask them.

    Attributes:
        leaf: the table or partition.
        rows: ctids of the records.
        which: SQL condition that selects the records to change; it refers to the table as ``t``. A
            locked record is changed only if it still meets this condition.
    """

    leaf: Leaf
    rows: Sequence[str]
    which: Composable


@dataclass(frozen=True)
class BatchAction(ABC):
    """Carries out the disposition of a record class, one batch of records at a time.

    Attributes:
        record_class: the record class.
    """

    record_class: RecordClass

    @abstractmethod
    def condition(self, graph: Graph) -> Composable:
        """Return the SQL condition under which a record is deleted or masked.

        The condition refers to the table of the record as ``t``.
        """

    @abstractmethod
    def apply(
        self, state: ExecutionState, counters: TransactionCounters, locked: LockedRecords
    ) -> list[Key]:
        """Delete or mask the locked records that still meet the condition in `locked`.

        Each change is recorded in `counters`.

        Args:
            state: the execution.
            counters: counters of the changes of the open transaction.
            locked: the locked records, and the condition that they have to meet.

        Returns:
            Keys of the changed records.
        """


@dataclass(frozen=True)
class Deleting(BatchAction):
    """Deletes the records of a record class, one batch of records at a time.

    Only records to which no remaining record refers are deleted.

    Attributes:
        unapproved: other record classes of the same collection whose deletion was not approved
            (`ExecutionState.unapproved_classes`). Records that belong to such a record class are
            kept.
    """

    unapproved: tuple[RecordClass, ...] = ()

    def condition(self, graph: Graph) -> Composable:
        """Return the SQL condition under which a record (table alias ``t``) is deleted."""
        stays = [is_not_true(graph.belongs(other)) for other in self.unapproved]
        unreferenced = graph.unreferenced(self.record_class.rule.collection)
        return all_of([graph.ready(self.record_class), *stays, unreferenced])

    def apply(
        self, state: ExecutionState, counters: TransactionCounters, locked: LockedRecords
    ) -> list[Key]:
        """Delete the locked records that still meet the condition in `locked`.

        Each deletion, and each reference that becomes null, is recorded in `counters`.

        Args:
            state: the execution.
            counters: counters of the changes of the open transaction.
            locked: the locked records, and the condition that they have to meet.

        Returns:
            Keys of the deleted records.
        """
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
    """Masks the records of a record class, one batch of records at a time."""

    def condition(self, graph: Graph) -> Composable:
        """Return the SQL condition under which a record (table alias ``t``) is masked."""
        return graph.ready(self.record_class)

    def apply(
        self, state: ExecutionState, counters: TransactionCounters, locked: LockedRecords
    ) -> list[Key]:
        """Mask the locked records that still meet the condition in `locked`.

        Each change is recorded in `counters`.

        Args:
            state: the execution.
            counters: counters of the changes of the open transaction.
            locked: the locked records, and the condition that they have to meet.

        Returns:
            Keys of the masked records.
        """
        mask, relation = self.record_class.mask, self.record_class.relation
        at = Literal(state.clock.now())
        query = SQL(
            "UPDATE {leaf} AS t SET {changes} WHERE t.ctid = ANY (%(rows)s::tid[]) AND {which} "
            "RETURNING {keys}"
        ).format(
            leaf=locked.leaf.identifier,
            changes=escape_percent(mask_assignments(mask, self.record_class.shapes, at)),
            which=locked.which,
            keys=relation.key_texts,
        )
        masked = _execute_in_strides(state, query, locked.rows)
        counters.updated[relation.oid] += len(masked)
        return masked


def detach(
    counters: TransactionCounters, reference: Reference, deleted: Sequence[LockedRecords]
) -> None:
    """Set a foreign key to null in the records that refer to records to be deleted.

    Only the columns that retention.yaml lists under `detach` are set to null. A record that is
    itself among the records to be deleted is not changed.

    Args:
        counters: counters of the transaction, to which the number of changed rows is added.
        reference: the foreign key.
        deleted: the records to be deleted, by table or partition. The foreign key refers to the
            records of the first item. The other items are records that the same statement deletes.
    """
    query = SQL("UPDATE {child} AS c SET {changes} FROM {referred}").format(
        child=reference.key.identifier,
        changes=set_to_null(reference.detached),
        referred=_referring(reference, deleted),
    )
    changed = counters.connection.execute(query, _row_parameters(deleted)).rowcount
    counters.updated[reference.key.child_root] += changed


def record_nulled(
    counters: TransactionCounters, reference: Reference, deleted: Sequence[LockedRecords]
) -> None:
    """Count the rows whose foreign key the deletion will set to null or to its default.

    The foreign key of these rows is declared ON DELETE SET NULL or SET DEFAULT. The referenced
    records are locked, so no new references can appear between the count and the deletion.

    Args:
        counters: counters of the transaction, to which the number of rows is added.
        reference: the foreign key.
        deleted: the records to be deleted, by table or partition. The foreign key refers to the
            records of the first item. The other items are records that the same statement deletes.
    """
    query = SQL("SELECT count(*) FROM {child} AS c, {referred}").format(
        child=reference.key.constrained, referred=_referring(reference, deleted)
    )
    nulled = scalar(counters.connection, query, _row_parameters(deleted))
    counters.updated[reference.key.child_root] += nulled


def _referring(reference: Reference, deleted: Sequence[LockedRecords]) -> Composable:
    """Return the FROM and WHERE clauses for records ``c`` that refer to records to be deleted.

    Records ``c`` that are deleted themselves are excluded.

    Args:
        reference: the foreign key of the records ``c``.
        deleted: the records to be deleted, by table or partition. The foreign key refers to the
            records of the first item. The other items are records that the same statement deletes.
    """
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
        # A record that is deleted too must not be updated, since an update changes its ctid.
        others=SQL("").join(others),
    )


def _row_parameters(deleted: Sequence[LockedRecords]) -> dict[str, str]:
    return {f"rows{at}": tid_array(records.rows) for at, records in enumerate(deleted)}


def _execute_in_strides(
    state: ExecutionState,
    query: Composed,
    rows: Sequence[str],
    before: Callable[[Sequence[str]], None] = lambda _rows: None,
) -> list[Key]:
    """Execute a statement several times, each time on at most `STRIDE` records.

    Args:
        state: the execution.
        query: statement with a RETURNING clause that returns keys. The parameter ``rows`` of the
            statement receives the ctids of the records.
        rows: ctids of all records.
        before: function that is called before each execution, with the ctids of its records.

    Returns:
        The keys that the statement returned.
    """
    text = query.as_bytes(state.connection)
    keys: list[Key] = []
    took = 0.0
    for at in range(0, len(rows), STRIDE):
        # A batch must wait for the ledger at its end anyway. It waits between its statements, so
        # that other sessions get the core.
        state.await_ledger(min(LONGEST_REST, REST * took))
        stride = rows[at : at + STRIDE]
        before(stride)
        begun = time.monotonic()
        keys += state.connection.execute(text, {"rows": tid_array(stride)}).fetchall()
        took = time.monotonic() - begun
    return keys


def tid_array(ctids: Sequence[str]) -> str:
    """Return ctids as a PostgreSQL array literal.

    This is faster than the conversion of a list by psycopg.
    """
    return "{" + ",".join(f'"{ctid}"' for ctid in ctids) + "}"
