"""Drop partitions in which every record is to be deleted.

A partition is dropped only if its whole range of dates is past the retention period
(`include.retention.planning.classes`), because applications still write to newer partitions. The
run reads the keys of a partition and writes them to the erasure ledger. Then it locks the partition
against writers and checks the following:

- The records of the partition are exactly those that were written to the ledger.
- Each record is expired.
- No legal hold or reference keeps a record.

Finally, it detaches and drops the partition, which blocks readers of the whole table for a moment.
"""

from __future__ import annotations

import time

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable

from include.erasure.resolve import transaction_of
from include.policy.fragments import all_of, is_not_true, quoted
from include.retention.execution.batches import (
    PAUSE,
    TRIES,
    become_owner,
    is_lock_conflict,
    is_refusal,
    set_timeouts,
)
from include.retention.execution.state import ExecutionState
from include.retention.planning.classes import RecordClass, expired_partitions
from include.retention.planning.column_checks import set_to_null
from include.retention.planning.counting import key_hash, key_seed
from include.retention.planning.plan import PlannedPartition
from include.retention.postgres.relations import Leaf
from include.retention.postgres.transaction_counters import TransactionCounters

CHUNK = 20_000  # keys to read and to write to the ledger at once
BLOCKING_MS = 1000  # timeout of a statement that blocks other sessions


class PartitionChanged(Exception):
    """Raised if a partition differs from the plan and therefore must not be dropped.

    The records of the partition are deleted in batches instead.
    """


def drop_planned_partitions(state: ExecutionState, record_class: RecordClass) -> None:
    """Drop the planned partitions of a record class.

    A partition is not dropped if it changed after the plan was made, or if the current role is not
    and cannot become the owner of the table. The caller deletes the records of partitions that are
    not dropped with `include.retention.execution.batches.process_class`.

    Args:
        state: the execution.
        record_class: the record class.
    """
    table = state.plan.table(record_class.rule.collection)
    planned = {partition.table: partition for partition in table.partitions}
    relation, name = record_class.relation, record_class.name
    if not (relation.owned or relation.can_become_owner):
        return
    past = expired_partitions(state.connection, record_class) if planned else []
    for leaf in relation.leaves:
        expected = planned.get(f"{leaf.schema}.{leaf.name}")
        if state.is_stopped():
            break
        is_dropped = leaf.oid in state.dropped  # dropped by another class of the same records
        if expected is None or is_dropped or leaf.oid not in past:
            continue
        if state.remaining_allowance(name) >= expected.records and _try_drop(
            state, record_class, leaf, expected
        ):
            state.dropped.add(leaf.oid)
            state.graph = state.graph.without_tables(state.dropped)  # no later statement names it
            state.counts.partitions[name] += 1
            state.counts.done[name] += expected.records
    state.settle()


def _try_drop(
    state: ExecutionState, record_class: RecordClass, leaf: Leaf, expected: PlannedPartition
) -> bool:
    for attempt in range(TRIES):
        try:
            _drop(state, record_class, leaf, expected)
        except (PartitionChanged, errors.UndefinedTable):  # the second: the table was dropped
            return False
        except psycopg.DatabaseError as error:
            if is_lock_conflict(error):
                state.counts.busy[record_class.name] += 1
                time.sleep(PAUSE * 2**attempt)
                continue
            if not is_refusal(error):
                raise
            return False  # the database refuses a record; batches delete the others
        else:
            return True
    return False


def _drop(
    state: ExecutionState, record_class: RecordClass, leaf: Leaf, expected: PlannedPartition
) -> None:
    parent = _parent(state, leaf)
    _try_locks(state, record_class, leaf, parent)
    connection = state.connection
    is_blocking = False
    with state.guard.batch() as holds:
        state.refresh_graph(holds)
        if state.may_make_untraceable(record_class):
            state.store_request_records()
        try:
            with state.transaction(may_block_others=False) as entered:
                # The run writes many keys to the ledger before another session has to wait.
                idle_ms = state.batch_rules.statement_timeout_s * 2000
                set_timeouts(state, record_class, leaf, idle_ms)
                number = transaction_of(connection)
                count = 0
                with connection.cursor(name="keys") as cursor:
                    cursor.itersize = CHUNK
                    cursor.execute(
                        SQL("SELECT {} FROM {} AS t").format(
                            record_class.relation.key_texts, leaf.identifier
                        ),
                        {},
                    )
                    while keys := cursor.fetchmany(CHUNK):
                        count += len(keys)
                        entered.append(state.enter_batch(record_class, keys, number))
                begun = time.monotonic()
                _set_short_timeouts(state)
                is_blocking = True
                connection.execute(
                    SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(leaf.identifier), {}
                )
                _require_planned_records(state, record_class, leaf, expected, count)
                counters = state.counters([record_class], [leaf.oid])
                _detach_and_drop(state, counters, record_class, leaf, parent)
                by_triggers = counters.require_recorded()
                state.progress("changed")
                state.confirm()
        except errors.QueryCanceled:
            if is_blocking:  # another attempt would take as long
                raise PartitionChanged from None
            raise
        finally:
            if is_blocking:
                state.counts.record_duration(begun)
    state.counts.count_trigger_changes(by_triggers)
    for batch in entered:
        state.mark_committed(batch)


def _try_locks(
    state: ExecutionState, record_class: RecordClass, leaf: Leaf, parent: Composable
) -> None:
    """Check that a partition can be locked, before its keys are written to the erasure ledger.

    Without this check, the keys would be written although a lock of another session prevents the
    drop.

    Args:
        state: the execution.
        record_class: record class of the partition.
        leaf: the partition to drop.
        parent: name of the table to which the partition is attached.
    """
    with state.connection.transaction(force_rollback=True):
        set_timeouts(state, record_class, leaf)
        if not record_class.relation.owned:
            become_owner(state, record_class)
        _set_short_timeouts(state)
        for table in (
            SQL("ONLY {}").format(parent),
            leaf.identifier,
        ):  # the order in which readers lock
            state.connection.execute(
                SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table), {}
            )


def _set_short_timeouts(state: ExecutionState) -> None:
    """Set short timeouts for the open transaction, since other sessions will wait for its locks."""
    lock_timeout = min(state.batch_rules.lock_timeout_ms, BLOCKING_MS * 9 // 10)
    state.connection.execute(
        "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
        [f"{lock_timeout}ms", f"{BLOCKING_MS}ms"],
    )


def _parent(state: ExecutionState, leaf: Leaf) -> Composable:
    """Return the name of the table to which a partition is attached."""
    row = state.connection.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n "
        "ON n.oid = c.relnamespace WHERE c.oid = %s::oid",
        [leaf.parent],
    ).fetchone()
    if row is None:
        raise PartitionChanged
    return quoted(*row)


def _require_planned_records(
    state: ExecutionState,
    record_class: RecordClass,
    leaf: Leaf,
    expected: PlannedPartition,
    entered: int,
) -> None:
    """Check that a partition has exactly the planned records and that each of them may be deleted.

    Args:
        state: the execution.
        record_class: record class of the partition.
        leaf: the partition.
        expected: the partition as described in the plan.
        entered: number of records of the partition that were written to the erasure ledger.

    Raises:
        PartitionChanged: the records differ from the plan or the ledger, a record must be kept, or
            the partition was detached.
    """
    which = all_of(
        [state.graph.ready(record_class), state.graph.unreferenced(record_class.rule.collection)]
    )
    seed = key_seed(state.schedule.keys, state.plan.key_id)
    query = SQL(
        "SELECT count(*), {digest}, count(*) FILTER (WHERE {staying}) FROM {leaf} AS t"
    ).format(
        digest=key_hash(record_class.relation, seed),
        staying=is_not_true(which),
        leaf=leaf.identifier,
    )
    row = state.connection.execute(query, {}).fetchone()
    assert row is not None
    if (entered, *row) != (expected.records, expected.records, expected.digest, 0):
        raise PartitionChanged
    if leaf.oid not in expired_partitions(
        state.connection, record_class, [leaf]
    ):  # for example, the partition was detached meanwhile
        raise PartitionChanged


def _detach_and_drop(
    state: ExecutionState,
    counters: TransactionCounters,
    record_class: RecordClass,
    leaf: Leaf,
    parent: Composable,
) -> None:
    connection = state.connection
    if not record_class.relation.owned:
        become_owner(state, record_class)
    for reference in state.graph.references(record_class.rule.collection):
        if not reference.detached:
            continue
        changed = connection.execute(
            SQL("UPDATE {child} AS c SET {changes} FROM {leaf} AS t WHERE {joined}").format(
                child=reference.key.identifier,
                changes=set_to_null(reference.detached),
                leaf=leaf.identifier,
                joined=reference.joined("c"),
            ),
            {},
        ).rowcount
        counters.updated[reference.key.child_root] += changed
    connection.execute(
        SQL("ALTER TABLE {} DETACH PARTITION {}").format(parent, leaf.identifier), {}
    )
    connection.execute(SQL("DROP TABLE {}").format(leaf.identifier), {})
