"""Dropping whole partitions of which every record goes.

The keys are read and entered in the ledger before anybody is kept waiting. Then the partition is
closed to writers and looked at once more: the very records that were entered, and each of them
still over, unheld and referred to by nobody. Only then it is detached and dropped, which keeps
readers of the whole table out for a moment.
"""

from __future__ import annotations

import time

import psycopg
from psycopg import errors
from psycopg.sql import SQL

from include.erasure.identity import transaction_of
from include.erasure.places import key_texts
from include.policy.fragments import both, fixed, negated, quoted
from include.retention.batches import PAUSE, TRIES, become_owner, set_limits
from include.retention.classes import RecordClass
from include.retention.counting import key_hash, key_seed
from include.retention.plan import PlannedPartition
from include.retention.relations import Leaf
from include.retention.work import Work

CHUNK = 20_000  # keys that are read and entered at once
_BUSY = (errors.LockNotAvailable, errors.DeadlockDetected, errors.QueryCanceled)


class Changed(Exception):
    """A partition is not what its plan says any more; its records are looked at one by one."""


def drop_whole(work: Work, one: RecordClass) -> int:
    """Drop the partitions of a class that the plan names and that are still as it says.

    What cannot be dropped is left to `include.retention.batches.walk`.

    Returns:
        How many were dropped.
    """
    planned = {leaf.table: leaf for leaf in work.plan.table(one.rule.collection).partitions}
    relation = one.relation
    if not (relation.owned or relation.can_become_owner):
        return 0
    dropped = 0
    for leaf in relation.leaves:
        expected = planned.get(f"{leaf.schema}.{leaf.name}")
        work.tally.stopped = work.limits.reached() or work.tally.stopped
        if work.tally.stopped:
            break
        if expected is None or work.left(one.name) < expected.records:
            continue
        if _dropped(work, one, leaf, expected):
            dropped += 1
            work.tally.partitions[one.name] = work.tally.partitions.get(one.name, 0) + 1
            work.tally.add(one.name, expected.records)
    work.settle()
    return dropped


def _dropped(work: Work, one: RecordClass, leaf: Leaf, expected: PlannedPartition) -> bool:
    for attempt in range(TRIES):
        try:
            _drop(work, one, leaf, expected)
        except Changed:
            return False
        except _BUSY:
            work.tally.busy[one.name] = work.tally.busy.get(one.name, 0) + 1
            time.sleep(PAUSE * 2**attempt)
        except (errors.ForeignKeyViolation, errors.DependentObjectsStillExist):
            return False
        else:
            return True
    return False


def _drop(work: Work, one: RecordClass, leaf: Leaf, expected: PlannedPartition) -> None:
    entered: list[int] = []
    connection = work.connection
    with work.guard.batch() as holds:
        work.current(holds)
        try:
            with connection.transaction():
                set_limits(work, one, leaf)
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
                connection.execute(
                    SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(leaf.identifier), {}
                )
                _require_same(work, one, leaf, expected, count)
                _detach_and_drop(work, one, leaf)
                work.progress("changed")
                work.confirm()
            work.tally.seconds = max(work.tally.seconds, time.monotonic() - begun)
        except (psycopg.Error, Changed):
            if not connection.broken:
                for batch in entered:
                    work.withdraw(batch)
            raise
    for batch in entered:
        work.committed(batch)


def _require_same(
    work: Work, one: RecordClass, leaf: Leaf, expected: PlannedPartition, entered: int
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


def _detach_and_drop(work: Work, one: RecordClass, leaf: Leaf) -> None:
    connection = work.connection
    if not one.relation.owned:
        become_owner(work, one)
    for reference in work.graph.detached(one.rule.collection):
        changes = [SQL("{} = NULL").format(quoted(one)) for one in reference.key.columns]
        connection.execute(
            SQL("UPDATE {child} AS c SET {changes} FROM {leaf} AS t WHERE {joined}").format(
                child=reference.key.identifier,
                changes=SQL(", ").join(changes),
                leaf=leaf.identifier,
                joined=reference.joined("c"),
            ),
            {},
        )
    parent = connection.execute(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n "
        "ON n.oid = c.relnamespace WHERE c.oid = %s::oid",
        [leaf.parent],
    ).fetchone()
    assert parent is not None
    connection.execute(
        SQL("ALTER TABLE {} DETACH PARTITION {}").format(quoted(*parent), leaf.identifier), {}
    )
    connection.execute(SQL("DROP TABLE {}").format(leaf.identifier), {})
