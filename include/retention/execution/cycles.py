"""Delete records that refer to each other in a cycle: in one statement, or not at all."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable, Identifier

from include.erasure.resolve import transaction_of
from include.policy.fragments import all_of, literal, negated
from include.retention.execution.batch_actions import Kept, LockedRecords, detach, record_nulled
from include.retention.execution.batches import PAUSE, TRIES, lost_to_others, refuses, set_limits
from include.retention.execution.state import ExecutionState, Key
from include.retention.planning.classes import RecordClass
from include.retention.planning.deletable import KeptRecords
from include.retention.postgres.transaction_counters import ByTriggers

MOST = 10_000  # records that one transaction deletes; a larger cycle stays and is reported


@dataclass(frozen=True)
class _Part(LockedRecords):
    """Records of one class in one leaf."""

    record_class: RecordClass


class _Changed(Exception):
    """The cycle has other records by the time that its records are locked."""


def delete_cycle(state: ExecutionState, group: Sequence[str]) -> int:
    """Delete the remaining records of a group to which only deletable records of the group refer.

    Call it when other records keep each record of the group, or the rest is a long chain. Foreign
    keys are checked at the end of the statement, so the records may refer to each other in any way.
    If the database refuses one of them, all stay and are not tried again.

    Records that other sessions have locked are tried again some times. Refused records are counted
    (`ExecutionCounts.busy`, `ExecutionCounts.refused`).

    Returns:
        The number of deleted records.
    """
    counts, name = state.counts, _deleting(state, group)[0].name
    if tuple(group) in state.refused_cycles:
        return 0
    for attempt in range(TRIES):
        parts: list[_Part] = []
        try:
            deleted = _delete_in_transaction(state, group, parts)
        except (psycopg.DatabaseError, _Changed) as error:
            if isinstance(error, _Changed) or lost_to_others(error):
                if isinstance(error, errors.QueryCanceled):
                    counts.slow.add(name)
                counts.busy[name] += 1
                time.sleep(PAUSE * 2**attempt)
                for part in parts:
                    same = [len(it.rows) for it in parts if it.record_class is part.record_class]
                    counts.locked[part.record_class.name] = sum(same)  # in all partitions
                continue
            if not refuses(error):
                raise
            state.refused_cycles.add(tuple(group))
            for part in parts:
                counts.refuse(part.record_class.name, error, len(part.rows))
            return 0
        else:
            for part in parts:
                counts.locked.pop(part.record_class.name, None)  # of an earlier round
            return deleted
    return 0


def _deleting(state: ExecutionState, group: Sequence[str]) -> list[RecordClass]:
    """Return the classes that delete records of a group."""
    return [it for name in group for it in state.graph.classes[name] if it.rule.deletes]


def _delete_in_transaction(state: ExecutionState, group: Sequence[str], parts: list[_Part]) -> int:
    """Delete a cycle in one transaction, and return the number of records; fills in ``parts``."""
    done: Counter[str] = Counter()
    by_triggers = ByTriggers()
    with state.guard.batch() as holds:
        state.current(holds)
        if any(state.may_lose_subjects(it) for name in group for it in state.graph.classes[name]):
            state.remember_requests()
        with state.transaction() as entered:
            set_limits(state, _deleting(state, group)[0])
            parts += _find(state, group)
            if parts:
                _lock(state, group, parts)
                by_triggers = _delete(state, parts, entered, done)
    state.counts.react(by_triggers)
    state.counts.done.update(done)
    for batch in entered:
        state.committed(batch)
    state.settle()
    return done.total()


def _delete(
    state: ExecutionState, parts: Sequence[_Part], entered: list[int], done: Counter[str]
) -> ByTriggers:
    number = transaction_of(state.connection)
    counters = state.counters([part.record_class for part in parts])
    nulling = [
        (reference, [part, *(other for other in parts if other is not part)])
        for part in parts
        for reference in state.graph.references(part.record_class.rule.collection)
        if reference.sets_null
    ]
    for reference, records in nulling:  # the database does not change what is detached here
        if reference.detached:
            detach(counters, reference, records)
    for reference, records in nulling:
        if not reference.detached:
            record_nulled(counters, reference, records)
    deleted = _delete_parts(state, parts)
    for part, keys in zip(parts, deleted, strict=True):
        counters.deleted[part.record_class.relation.oid] += len(keys)
    if any(len(keys) != len(part.rows) for part, keys in zip(parts, deleted, strict=True)):
        raise Kept  # a foreign key with CASCADE may have deleted the record nevertheless
    for part, keys in zip(parts, deleted, strict=True):
        entered.append(state.intend(part.record_class, keys, number))
        done[part.record_class.name] += len(keys)
    by_triggers = counters.require_recorded()
    state.progress("changed")
    state.confirm()
    return by_triggers


def _find(state: ExecutionState, group: Sequence[str]) -> list[_Part]:
    """Return the records of a cycle; none if it is too large, or larger than the plan allows."""
    graph, large_cycles = state.graph, state.counts.large_cycles
    for collection in group:
        for record_class in graph.classes[collection]:
            large_cycles.pop(record_class.name, None)  # of an earlier try; a chain is shorter now
    deleting = _deleting(state, group)
    ready = {record_class.name: graph.ready(record_class) for record_class in deleting}
    ctids = _free(state, group, deleting, ready)
    parts: list[_Part] = []
    for at, record_class in enumerate(deleting):
        rows_of_class = 0
        for leaf in record_class.relation.leaves:
            if rows := ctids.get((at, leaf.oid), []):
                parts.append(_Part(leaf, rows, ready[record_class.name], record_class))
                rows_of_class += len(rows)
        if rows_of_class > state.left(record_class.name):
            return []
    if sum(len(part.rows) for part in parts) > MOST:
        for part in parts:
            name = part.record_class.name
            large_cycles[name] = max(len(part.rows), large_cycles.get(name, 0))
        return []
    return parts


def _free(
    state: ExecutionState,
    group: Sequence[str],
    deleting: Sequence[RecordClass],
    ready: Mapping[str, Composable],
) -> dict[tuple[int, int], list[str]]:
    """Return ctids of the deletable records to which only deletable records of the group refer.

    They are listed by index of the class and oid of the table, at most one more than `MOST` of each
    class. If a record has several classes, the first deletes it.
    """
    kept = KeptRecords(state.graph, group, refused=state.refused_places)
    expressions = kept.expressions()
    each = [
        SQL(
            "(SELECT {at}, t.tableoid::bigint, t.ctid::text FROM {table} AS t WHERE {which} "
            "LIMIT {most})"
        ).format(
            at=literal(at),
            table=record_class.relation.identifier,
            which=all_of(
                [
                    ready[record_class.name],
                    kept.may_go(record_class.rule.collection),
                    *(
                        negated(ready[other.name])
                        for other in deleting[:at]
                        if other.rule.collection == record_class.rule.collection
                    ),
                    kept.free(record_class.rule.collection),
                ]
            ),
            most=literal(MOST + 1),
        )
        for at, record_class in enumerate(deleting)
    ]
    query = SQL("{} {}").format(expressions, SQL(" UNION ALL ").join(each))
    ctids: dict[tuple[int, int], list[str]] = {}
    for at, oid, ctid in state.connection.execute(query, {}):
        ctids.setdefault((at, oid), []).append(ctid)
    return ctids


def _lock(state: ExecutionState, group: Sequence[str], parts: Sequence[_Part]) -> None:
    """Lock the records of a cycle against new references, and find the cycle again.

    A foreign key with CASCADE would delete referring records that the ledger does not know.

    Raises:
        _Changed: the cycle changed, or a record outside still refers to it.
    """
    for part in parts:
        query = SQL(
            "SELECT FROM {} AS t WHERE t.ctid = ANY (%(rows)s::tid[]) FOR UPDATE OF t"
        ).format(part.leaf.identifier)
        state.connection.execute(query, {"rows": part.rows})
    if _ctids(_find(state, group)) != _ctids(parts):
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
    """Delete all parts in one statement, and return the keys of each."""
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
    each = [
        SQL("SELECT {}, key FROM {}").format(at, Identifier(f"part {at}"))
        for at in range(len(parts))
    ]
    query = SQL("WITH {} {}").format(SQL(", ").join(statements), SQL(" UNION ALL ").join(each))
    rows = {f"rows{at}": part.rows for at, part in enumerate(parts)}
    keys: list[list[Key]] = [[] for _ in parts]
    for at, key in state.connection.execute(query, rows):
        keys[at].append(tuple(key))
    return keys
