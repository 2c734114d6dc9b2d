"""Delete records that refer to each other in a foreign-key cycle, with one statement."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable, Identifier

from include.erasure.resolve import transaction_of
from include.policy.fragments import all_of, is_not_true, literal
from include.retention.execution.batch_actions import (
    KeptByTrigger,
    LockedRecords,
    detach,
    record_nulled,
)
from include.retention.execution.batches import (
    PAUSE,
    TRIES,
    is_lock_conflict,
    is_refusal,
    set_timeouts,
)
from include.retention.execution.state import ExecutionState, Key
from include.retention.planning.classes import RecordClass
from include.retention.planning.kept_records import KeptRecords
from include.retention.postgres.transaction_counters import TriggerChanges

MAX_RECORDS = 10_000  # in one transaction; a larger cycle is reported and not deleted


@dataclass(frozen=True)
class _Part(LockedRecords):
    """The records of a foreign-key cycle in one record class and one table or partition."""

    record_class: RecordClass


class _Changed(Exception):
    """Raised if records of a foreign-key cycle changed before the transaction locked them."""


def delete_cycle(state: ExecutionState, group: Sequence[str]) -> int:
    """Delete records that refer to each other in a foreign-key cycle.

    A record is deleted only if each record that refers to it is deletable and belongs to the same
    cycle. The caller uses this function in two cases:

    - No single record can be deleted, because another record refers to each of them.
    - Only a long chain of references is left.

    One statement deletes all records, since PostgreSQL checks foreign keys at the end of a
    statement. If the database refuses to delete one record, no record is deleted, and the deletion
    is not repeated.

    After a lock conflict, the deletion is repeated a few times. Conflicts and refused records are
    counted (`ExecutionCounts.busy`, `ExecutionCounts.refused`).

    Args:
        state: the execution.
        group: collections of the foreign-key cycle.

    Returns:
        The number of deleted records.
    """
    counts, name = state.counts, _deleting_classes(state, group)[0].name
    if tuple(group) in state.refused_cycles:
        return 0
    for attempt in range(TRIES):
        parts: list[_Part] = []
        try:
            deleted = _delete_in_transaction(state, group, parts)
        except (psycopg.DatabaseError, _Changed) as error:
            if isinstance(error, _Changed) or is_lock_conflict(error):
                if isinstance(error, errors.QueryCanceled):
                    counts.slow.add(name)
                counts.busy[name] += 1
                time.sleep(PAUSE * 2**attempt)
                for part in parts:
                    in_partitions = [
                        len(other.rows)
                        for other in parts
                        if other.record_class is part.record_class
                    ]
                    counts.locked[part.record_class.name] = sum(in_partitions)
                continue
            if not is_refusal(error):
                raise
            state.refused_cycles.add(tuple(group))
            for part in parts:
                counts.refuse(part.record_class.name, error, len(part.rows))
            return 0
        else:
            for part in parts:
                counts.locked.pop(part.record_class.name, None)  # counted in an earlier round
            return deleted
    return 0


def _deleting_classes(state: ExecutionState, group: Sequence[str]) -> list[RecordClass]:
    """Return the record classes that delete records in the collections of a foreign-key cycle."""
    return [
        record_class
        for name in group
        for record_class in state.graph.classes[name]
        if record_class.rule.deletes
    ]


def _delete_in_transaction(state: ExecutionState, group: Sequence[str], parts: list[_Part]) -> int:
    """Delete the records of a foreign-key cycle in one transaction, and return their number.

    Args:
        state: the execution.
        group: collections of the foreign-key cycle.
        parts: an empty list. The function adds to it the records that it tries to delete. After an
            error, the caller reads from the list which records these were.
    """
    done: Counter[str] = Counter()
    by_triggers = TriggerChanges()
    with state.guard.batch() as holds:
        state.refresh_graph(holds)
        if any(
            state.may_make_untraceable(record_class)
            for name in group
            for record_class in state.graph.classes[name]
        ):
            state.store_request_records()
        with state.transaction() as entered:
            set_timeouts(state, _deleting_classes(state, group)[0])
            parts += _find_cycle(state, group)
            if parts:
                _lock(state, group, parts)
                by_triggers = _delete(state, parts, entered, done)
    state.counts.count_trigger_changes(by_triggers)
    state.counts.done.update(done)
    for batch in entered:
        state.mark_committed(batch)
    state.settle()
    return done.total()


def _delete(
    state: ExecutionState, parts: Sequence[_Part], entered: list[int], done: Counter[str]
) -> TriggerChanges:
    number = transaction_of(state.connection)
    counters = state.counters([part.record_class for part in parts])
    nulling = [
        (reference, [part, *(other for other in parts if other is not part)])
        for part in parts
        for reference in state.graph.references(part.record_class.rule.collection)
        if reference.sets_null
    ]
    for reference, records in nulling:  # detach first, so that the database has nothing to change
        if reference.detached:
            detach(counters, reference, records)
    for reference, records in nulling:
        if not reference.detached:
            record_nulled(counters, reference, records)
    deleted = _delete_parts(state, parts)
    for part, keys in zip(parts, deleted, strict=True):
        counters.deleted[part.record_class.relation.oid] += len(keys)
    if any(len(keys) != len(part.rows) for part, keys in zip(parts, deleted, strict=True)):
        raise KeptByTrigger  # or a foreign key with CASCADE deleted the record first
    for part, keys in zip(parts, deleted, strict=True):
        entered.append(state.enter_batch(part.record_class, keys, number))
        done[part.record_class.name] += len(keys)
    by_triggers = counters.require_recorded()
    state.progress("changed")
    state.confirm()
    return by_triggers


def _find_cycle(state: ExecutionState, group: Sequence[str]) -> list[_Part]:
    """Return the records of a foreign-key cycle that can be deleted together.

    The list is empty if there are more such records than one transaction may delete, or more than
    the plan allows.

    Args:
        state: the execution.
        group: collections of the foreign-key cycle.
    """
    graph, large_cycles = state.graph, state.counts.large_cycles
    for collection in group:
        for record_class in graph.classes[collection]:
            large_cycles.pop(record_class.name, None)  # counted by an earlier attempt
    deleting = _deleting_classes(state, group)
    ready = {record_class.name: graph.ready(record_class) for record_class in deleting}
    ctids = _deletable_ctids(state, group, deleting, ready)
    parts: list[_Part] = []
    for at, record_class in enumerate(deleting):
        rows_of_class = 0
        for leaf in record_class.relation.leaves:
            if rows := ctids.get((at, leaf.oid), []):
                parts.append(_Part(leaf, rows, ready[record_class.name], record_class))
                rows_of_class += len(rows)
        if rows_of_class > state.remaining_allowance(record_class.name):
            return []
    if sum(len(part.rows) for part in parts) > MAX_RECORDS:
        for part in parts:
            name = part.record_class.name
            large_cycles[name] = max(len(part.rows), large_cycles.get(name, 0))
        return []
    return parts


def _deletable_ctids(
    state: ExecutionState,
    group: Sequence[str],
    deleting: Sequence[RecordClass],
    ready: Mapping[str, Composable],
) -> dict[tuple[int, int], list[str]]:
    """Return the ctids of the records of a foreign-key cycle that can be deleted together.

    These are deletable records to which only other deletable records of the cycle refer. A record
    that belongs to several record classes is returned for the first of these record classes.

    Args:
        state: the execution.
        group: collections of the foreign-key cycle.
        deleting: record classes that delete records of the cycle.
        ready: record class -> SQL condition under which a record (table alias ``t``) is deleted.

    Returns:
        (Index of the record class in `deleting`, oid of the table) -> ctids. Each record class has
        at most `MAX_RECORDS` + 1 ctids.
    """
    kept = KeptRecords(state.graph, group, refused=state.refused_ctids_by_table)
    expressions = kept.expressions()
    queries = [
        SQL(
            "(SELECT {at}, t.tableoid::bigint, t.ctid::text FROM {table} AS t WHERE {which} "
            "LIMIT {most})"
        ).format(
            at=literal(at),
            table=record_class.relation.identifier,
            which=all_of(
                [
                    ready[record_class.name],
                    kept.deletable(record_class.rule.collection),
                    *(
                        is_not_true(ready[other.name])
                        for other in deleting[:at]
                        if other.rule.collection == record_class.rule.collection
                    ),
                    kept.unreferenced(record_class.rule.collection),
                ]
            ),
            most=literal(MAX_RECORDS + 1),
        )
        for at, record_class in enumerate(deleting)
    ]
    query = SQL("{} {}").format(expressions, SQL(" UNION ALL ").join(queries))
    ctids: dict[tuple[int, int], list[str]] = {}
    for at, oid, ctid in state.connection.execute(query, {}):
        ctids.setdefault((at, oid), []).append(ctid)
    return ctids


def _lock(state: ExecutionState, group: Sequence[str], parts: Sequence[_Part]) -> None:
    """Lock the records of a foreign-key cycle. After that, no new references to them can appear.

    Without this lock, a foreign key with ON DELETE CASCADE could delete referring records that have
    no entry in the erasure ledger.

    Args:
        state: the execution.
        group: collections of the foreign-key cycle.
        parts: the records to lock, by record class and by table or partition.

    Raises:
        _Changed: the records of the cycle changed, or a record outside of the cycle refers to one
            of them.
    """
    for part in parts:
        query = SQL(
            "SELECT FROM {} AS t WHERE t.ctid = ANY (%(rows)s::tid[]) FOR UPDATE OF t"
        ).format(part.leaf.identifier)
        state.connection.execute(query, {"rows": part.rows})
    if _ctids(_find_cycle(state, group)) != _ctids(parts):
        raise _Changed
    for part in parts:
        for reference in state.graph.references(part.record_class.rule.collection):
            if reference.sets_null or reference.child in group:
                continue
            query = SQL(
                "SELECT FROM {} AS c JOIN {} AS t ON {} WHERE t.ctid = ANY (%(rows)s::tid[]) "
                "LIMIT 1"
            ).format(reference.key.identifier, part.leaf.identifier, reference.joined("c", "t"))
            if state.connection.execute(query, {"rows": part.rows}).fetchone() is not None:
                raise _Changed


def _ctids(parts: Sequence[_Part]) -> set[tuple[str, int, str]]:
    return {(part.record_class.name, part.leaf.oid, row) for part in parts for row in part.rows}


def _delete_parts(state: ExecutionState, parts: Sequence[_Part]) -> list[list[Key]]:
    """Delete all records of a foreign-key cycle with one statement.

    Args:
        state: the execution.
        parts: the records, by record class and by table or partition.

    Returns:
        For each item of `parts`, the keys of its deleted records.
    """
    statements = [
        SQL(
            "{name} AS (DELETE FROM {leaf} AS t WHERE t.ctid = ANY ({rows}::tid[]) AND {which} "
            "RETURNING ARRAY[{keys}] AS key)"
        ).format(
            name=Identifier(f"part {at}"),
            leaf=part.leaf.identifier,
            rows=SQL(f"%(rows{at})s"),
            which=part.which,
            keys=part.record_class.relation.key_texts,
        )
        for at, part in enumerate(parts)
    ]
    queries = [
        SQL("SELECT {}, key FROM {}").format(at, Identifier(f"part {at}"))
        for at in range(len(parts))
    ]
    query = SQL("WITH {} {}").format(SQL(", ").join(statements), SQL(" UNION ALL ").join(queries))
    rows = {f"rows{at}": part.rows for at, part in enumerate(parts)}
    keys: list[list[Key]] = [[] for _ in parts]
    for at, key in state.connection.execute(query, rows):
        keys[at].append(tuple(key))
    return keys
