"""Drop partitions of which every record is to be deleted.

Only partitions that end before the cutoff are dropped (`include.retention.planning.classes`): an
application still writes into others. The run reads the keys and enters them in the ledger before it
locks the partition. Then it locks out writers and checks again that the partition has the entered
records and no others, each expired, not on hold and without references. Only then it detaches and
drops the partition, which locks out readers of the whole table for a moment.
"""

from __future__ import annotations

import time

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable

from include.erasure.resolve import transaction_of
from include.policy.fragments import all_of, negated, quoted
from include.retention.execution.batches import (
    PAUSE,
    TRIES,
    become_owner,
    lost_to_others,
    refuses,
    set_limits,
)
from include.retention.execution.state import ExecutionState
from include.retention.planning.classes import RecordClass, past_partitions
from include.retention.planning.column_checks import to_null
from include.retention.planning.counting import key_hash, key_seed
from include.retention.planning.plan import PlannedPartition
from include.retention.postgres.relations import Leaf
from include.retention.postgres.transaction_counters import TransactionCounters

CHUNK = 20_000  # keys that are read and entered at once
CLOSED_MS = 1000  # for a statement that keeps other sessions waiting


class Changed(Exception):
    """A partition is not as planned any more; its records are disposed of one by one."""


def drop_whole(state: ExecutionState, record_class: RecordClass) -> None:
    """Drop the partitions of a class that the plan names and that are still as planned.

    `include.retention.execution.batches.walk` disposes of the records of the other partitions.
    """
    table = state.plan.table(record_class.rule.collection)
    planned = {partition.table: partition for partition in table.partitions}
    relation, name = record_class.relation, record_class.name
    if not (relation.owned or relation.can_become_owner):
        return
    past = past_partitions(state.connection, record_class) if planned else []
    for leaf in relation.leaves:
        expected = planned.get(f"{leaf.schema}.{leaf.name}")
        if state.is_stopped():
            break
        is_dropped = leaf.oid in state.dropped  # by another class of the same records
        if expected is None or is_dropped or leaf.oid not in past:
            continue
        if state.left(name) >= expected.records and _try_drop(state, record_class, leaf, expected):
            state.dropped.add(leaf.oid)
            state.graph = state.graph.without(state.dropped)  # no later statement names it
            state.counts.partitions[name] += 1
            state.counts.done[name] += expected.records
    state.settle()


def _try_drop(
    state: ExecutionState, record_class: RecordClass, leaf: Leaf, expected: PlannedPartition
) -> bool:
    for attempt in range(TRIES):
        try:
            _drop(state, record_class, leaf, expected)
        except (Changed, errors.UndefinedTable):  # the latter: another session dropped it
            return False
        except psycopg.DatabaseError as error:
            if lost_to_others(error):
                state.counts.busy[record_class.name] += 1
                time.sleep(PAUSE * 2**attempt)
                continue
            if not refuses(error):
                raise
            return False  # the database refuses a record: the others are deleted one by one
        else:
            return True
    return False


def _drop(
    state: ExecutionState, record_class: RecordClass, leaf: Leaf, expected: PlannedPartition
) -> None:
    parent = _parent(state, leaf)
    _try_locks(state, record_class, leaf, parent)
    connection = state.connection
    closed = False
    with state.guard.batch() as holds:
        state.current(holds)
        if state.may_lose_subjects(record_class):
            state.remember_requests()
        try:
            with state.transaction(keeps_others=False) as entered:
                # The run enters many keys before another session has to wait.
                idle_ms = state.batch_rules.statement_timeout_s * 2000
                set_limits(state, record_class, leaf, idle_ms)
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
                        entered.append(state.intend(record_class, keys, number))
                begun = time.monotonic()
                _be_quick(state)
                closed = True
                connection.execute(
                    SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(leaf.identifier), {}
                )
                _require_same(state, record_class, leaf, expected, count)
                counters = state.counters([record_class], [leaf.oid])
                _detach_and_drop(state, counters, record_class, leaf, parent)
                by_triggers = counters.require_recorded()
                state.progress("changed")
                state.confirm()
        except errors.QueryCanceled:
            if closed:  # it would take as long the next time
                raise Changed from None
            raise
        finally:
            if closed:
                state.counts.took(begun)
    state.counts.react(by_triggers)
    for batch in entered:
        state.committed(batch)


def _try_locks(
    state: ExecutionState, record_class: RecordClass, leaf: Leaf, parent: Composable
) -> None:
    """Check that the locks are free now, before all keys are entered in vain."""
    with state.connection.transaction(force_rollback=True):
        set_limits(state, record_class, leaf)
        if not record_class.relation.owned:
            become_owner(state, record_class)
        _be_quick(state)
        for table in (SQL("ONLY {}").format(parent), leaf.identifier):  # in the order of readers
            state.connection.execute(
                SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table), {}
            )


def _be_quick(state: ExecutionState) -> None:
    """Set short timeouts, since other sessions wait from now on; a lock times out earlier."""
    lock_timeout = min(state.batch_rules.lock_timeout_ms, CLOSED_MS * 9 // 10)
    state.connection.execute(
        "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
        [f"{lock_timeout}ms", f"{CLOSED_MS}ms"],
    )


def _parent(state: ExecutionState, leaf: Leaf) -> Composable:
    """Return the table that a partition belongs to."""
    row = state.connection.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n "
        "ON n.oid = c.relnamespace WHERE c.oid = %s::oid",
        [leaf.parent],
    ).fetchone()
    if row is None:
        raise Changed
    return quoted(*row)


def _require_same(
    state: ExecutionState,
    record_class: RecordClass,
    leaf: Leaf,
    expected: PlannedPartition,
    entered: int,
) -> None:
    """Check that the entered records are the planned records, and that each may be deleted."""
    which = all_of(
        [state.graph.ready(record_class), state.graph.unreferred(record_class.rule.collection)]
    )
    seed = key_seed(state.schedule.keys, state.plan.key_id)
    query = SQL(
        "SELECT count(*), {digest}, count(*) FILTER (WHERE {staying}) FROM {leaf} AS t"
    ).format(
        digest=key_hash(record_class.relation, seed), staying=negated(which), leaf=leaf.identifier
    )
    row = state.connection.execute(query, {}).fetchone()
    assert row is not None
    if (entered, *row) != (expected.records, expected.records, expected.digest, 0):
        raise Changed
    if leaf.oid not in past_partitions(
        state.connection, record_class, [leaf]
    ):  # for example detached meanwhile
        raise Changed


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
                changes=to_null(reference.detached),
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
