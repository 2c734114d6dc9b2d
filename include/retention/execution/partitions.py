"""Dropping whole partitions of which every record goes.

Only partitions that end before the cutoff are dropped (`include.retention.planning.classes`): into
others an application still writes. The run reads the keys and enters them in the ledger before it
locks the partition. Then it locks out writers and checks again that the partition has the entered
records and no others, each expired, not on hold and without references. Only then it detaches and
drops the partition, which locks out readers of the whole table for a moment.
"""

from __future__ import annotations

import time

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable

from include.erasure.places import key_texts
from include.erasure.resolve import transaction_of
from include.policy.fragments import both, fixed, negated, quoted
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
from include.retention.planning.column_checks import detached_columns, to_null
from include.retention.planning.counting import key_hash, key_seed
from include.retention.planning.plan import PlannedPartition
from include.retention.postgres.relations import Leaf
from include.retention.postgres.transaction_counters import TransactionCounters

CHUNK = 20_000  # keys that are read and entered at once
CLOSED_MS = 1000  # for a statement that keeps others out


class Changed(Exception):
    """A partition is not what its plan says any more; its records are looked at one by one."""


def drop_whole(work: ExecutionState, one: RecordClass) -> int:
    """Drop the partitions of a class that the plan names and that are still as it says.

    What cannot be dropped is left to `include.retention.execution.batches.walk`.

    Returns:
        How many were dropped.
    """
    planned = {leaf.table: leaf for leaf in work.plan.table(one.rule.collection).partitions}
    relation = one.relation
    if not (relation.owned or relation.can_become_owner):
        return 0
    dropped = 0
    past = past_partitions(work.connection, one) if planned else []
    for leaf in relation.leaves:
        expected = planned.get(f"{leaf.schema}.{leaf.name}")
        work.tally.stopped = work.limits.reached() or work.tally.stopped
        if work.tally.stopped:
            break
        gone = leaf.oid in work.dropped  # by another class of the same records
        if expected is None or gone or leaf.oid not in past:
            continue
        if work.left(one.name) < expected.records:
            continue
        if _dropped(work, one, leaf, expected):
            work.dropped.add(leaf.oid)
            work.graph = work.graph.without(work.dropped)  # no later statement names it
            dropped += 1
            work.tally.partitions[one.name] = work.tally.partitions.get(one.name, 0) + 1
            work.tally.add(one.name, expected.records)
    work.settle()
    return dropped


def _dropped(
    work: ExecutionState, one: RecordClass, leaf: Leaf, expected: PlannedPartition
) -> bool:
    for attempt in range(TRIES):
        try:
            _drop(work, one, leaf, expected)
        except (Changed, errors.UndefinedTable):  # the latter: somebody else dropped it
            return False
        except psycopg.DatabaseError as error:
            if lost_to_others(error):
                work.tally.busy[one.name] = work.tally.busy.get(one.name, 0) + 1
                time.sleep(PAUSE * 2**attempt)
                continue
            if not refuses(error):
                raise
            return False  # it is one of its records that is refused: the others go one by one
        else:
            return True
    return False


def _drop(work: ExecutionState, one: RecordClass, leaf: Leaf, expected: PlannedPartition) -> None:
    parent = _parent(work, leaf)
    _try_locks(work, one, leaf, parent)
    connection = work.connection
    closed = False
    with work.guard.batch() as holds:
        work.current(holds)
        if work.may_lose_subjects(one):
            work.remember_requests()
        try:
            with work.transaction(keeps_others=False) as entered:
                # Many keys are entered before anybody is kept waiting.
                idle_ms = work.limits.rules.batch.statement_timeout_s * 2000
                set_limits(work, one, leaf, idle_ms)
                number = transaction_of(connection)
                count = 0
                with connection.cursor(name="keys") as cursor:
                    cursor.itersize = CHUNK
                    cursor.execute(
                        SQL("SELECT {} FROM {} AS t").format(
                            fixed(key_texts(one.relation.key)), leaf.identifier
                        ),
                        {},
                    )
                    while keys := cursor.fetchmany(CHUNK):
                        count += len(keys)
                        entered.append(work.intend(one, keys, number))
                begun = time.monotonic()
                _be_quick(work)
                closed = True
                connection.execute(
                    SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(leaf.identifier), {}
                )
                _require_same(work, one, leaf, expected, count)
                counters = work.counters([one], [leaf.oid])
                _detach_and_drop(work, counters, one, leaf, parent)
                by_triggers = counters.require_recorded()
                work.progress("changed")
                work.confirm()
        except errors.QueryCanceled:
            if closed:  # it would take as long the next time
                raise Changed from None
            raise
        finally:
            if closed:
                work.tally.took(begun)
    work.tally.react(by_triggers)
    for batch in entered:
        work.committed(batch)


def _try_locks(work: ExecutionState, one: RecordClass, leaf: Leaf, parent: Composable) -> None:
    """See that the locks can be had now, before all keys are entered in vain."""
    with work.connection.transaction(force_rollback=True):
        set_limits(work, one, leaf)
        if not one.relation.owned:
            become_owner(work, one)
        _be_quick(work)
        for table in (SQL("ONLY {}").format(parent), leaf.identifier):  # in the order of readers
            work.connection.execute(SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(table), {})


def _be_quick(work: ExecutionState) -> None:
    """From here on others wait. A lock that is not free is told from a statement that is slow."""
    patience = min(work.limits.rules.batch.lock_timeout_ms, CLOSED_MS * 9 // 10)
    work.connection.execute(
        "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)",
        [f"{patience}ms", f"{CLOSED_MS}ms"],
    )


def _parent(work: ExecutionState, leaf: Leaf) -> Composable:
    """The table that a partition belongs to."""
    row = work.connection.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n "
        "ON n.oid = c.relnamespace WHERE c.oid = %s::oid",
        [leaf.parent],
    ).fetchone()
    if row is None:
        raise Changed
    return quoted(*row)


def _require_same(
    work: ExecutionState, one: RecordClass, leaf: Leaf, expected: PlannedPartition, entered: int
) -> None:
    """The records that were entered are those that the plan meant, and each of them may go."""
    which = both([work.graph.ready(one), work.graph.unreferred(one.rule.collection)])
    seed = key_seed(work.schedule.keys, work.plan.key_id)
    query = SQL(
        "SELECT count(*), {digest}, count(*) FILTER (WHERE {staying}) FROM {leaf} AS t"
    ).format(digest=key_hash(one.relation, seed), staying=negated(which), leaf=leaf.identifier)
    row = work.connection.execute(query, {}).fetchone()
    assert row is not None
    if (entered, *row) != (expected.records, expected.records, expected.digest, 0):
        raise Changed
    if leaf.oid not in past_partitions(work.connection, one, [leaf]):  # detached meanwhile, for one
        raise Changed


def _detach_and_drop(
    work: ExecutionState,
    counters: TransactionCounters,
    one: RecordClass,
    leaf: Leaf,
    parent: Composable,
) -> None:
    connection = work.connection
    if not one.relation.owned:
        become_owner(work, one)
    for reference in work.graph.detached(one.rule.collection):
        columns = detached_columns(work.graph, one.rule.collection, reference)
        changed = connection.execute(
            SQL("UPDATE {child} AS c SET {changes} FROM {leaf} AS t WHERE {joined}").format(
                child=reference.key.identifier,
                changes=to_null(columns),
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
