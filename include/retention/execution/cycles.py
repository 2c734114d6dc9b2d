"""Records that refer to each other in a circle: they go together in one statement, or stay."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable, Identifier

from include.erasure.places import key_texts
from include.erasure.resolve import transaction_of
from include.policy.fragments import both, fixed, literal, negated
from include.retention.execution.batch_actions import Going, Kept, detach, record_nulled
from include.retention.execution.batches import PAUSE, TRIES, lost_to_others, refuses, set_limits
from include.retention.execution.state import ExecutionState, Key
from include.retention.planning.classes import RecordClass
from include.retention.planning.column_checks import detached_columns
from include.retention.planning.deletable import KeptRecords
from include.retention.postgres.relations import Leaf
from include.retention.postgres.transaction_counters import ByTriggers

MOST = 10_000  # records that one transaction deletes; a larger knot is left and reported


@dataclass(frozen=True)
class _Part:
    """Records of one class in one leaf, by their place on disk."""

    one: RecordClass
    leaf: Leaf
    rows: list[str]
    which: Composable

    @property
    def going(self) -> Going:
        """The records as ones that a statement deletes."""
        return Going(self.leaf, self.rows, self.which)


class _Changed(Exception):
    """The circle is another by the time that its records are locked."""


def untie(work: ExecutionState, group: Sequence[str]) -> int:
    """Delete what is left of a group of collections and refers only to what goes too.

    Call it when no record of the group is left that nothing refers to, or the rest is a long chain.
    Foreign keys are checked at the end of the statement, so the records may refer to each other in
    any way. Where the database refuses one of them, all stay and are not tried again.

    What others have locked is tried again some times; what the database refuses is left and counted
    (`ExecutionCounts.busy`, `ExecutionCounts.refused`).

    Returns:
        How many records were deleted.
    """
    name = next(it for one in group for it in work.graph.classes[one] if it.rule.deletes).name
    if tuple(group) in work.tied:
        return 0
    for attempt in range(TRIES):
        parts: list[_Part] = []
        try:
            gone = _untied(work, group, parts)
        except (psycopg.DatabaseError, _Changed) as error:
            if isinstance(error, _Changed) or lost_to_others(error):
                if isinstance(error, errors.QueryCanceled):
                    work.tally.slow.add(name)
                work.tally.busy[name] = work.tally.busy.get(name, 0) + 1
                time.sleep(PAUSE * 2**attempt)
                for part in parts:
                    same = [len(it.rows) for it in parts if it.one is part.one]
                    work.tally.locked[part.one.name] = sum(same)  # in all partitions
                continue
            if not refuses(error):
                raise
            work.tied.add(tuple(group))
            for part in parts:
                work.tally.refuse(part.one.name, error, len(part.rows))
            return 0
        else:
            for part in parts:
                work.tally.locked.pop(part.one.name, None)  # of an earlier round
            return gone
    return 0


def _untied(work: ExecutionState, group: Sequence[str], parts: list[_Part]) -> int:
    """One transaction; fills in what was tried."""
    done: dict[str, int] = {}
    by_triggers = ByTriggers()
    with work.guard.batch() as holds:
        work.current(holds)
        if any(work.may_lose_subjects(it) for name in group for it in work.graph.classes[name]):
            work.remember_requests()
        with work.transaction() as entered:
            one = next(it for it in work.graph.classes[group[0]] if it.rule.deletes)
            set_limits(work, one)
            parts += _found(work, group)
            if parts:
                _lock(work, group, parts)
                by_triggers = _untie(work, parts, entered, done)
    work.tally.react(by_triggers)
    for name, records in done.items():
        work.tally.add(name, records)
    for batch in entered:
        work.committed(batch)
    work.settle()
    return sum(done.values())


def _untie(
    work: ExecutionState, parts: Sequence[_Part], entered: list[int], done: dict[str, int]
) -> ByTriggers:
    number = transaction_of(work.connection)
    counters = work.counters([part.one for part in parts])
    for by_us in (True, False):  # what is set to null by us is left alone by the database
        for part in parts:
            going = [part.going, *(one.going for one in parts if one is not part)]
            for reference in work.graph.references(part.one.rule.collection):
                if not reference.sets_null or reference.by_us is not by_us:
                    continue
                if by_us:
                    columns = detached_columns(work.graph, part.one.rule.collection, reference)
                    detach(work.connection, counters, reference, columns, going)
                else:
                    record_nulled(work.connection, counters, reference, going)
    deleted = _deleted(work, parts)
    for part, keys in zip(parts, deleted, strict=True):
        counters.deleted[part.one.relation.oid] += len(keys)
    if any(len(keys) != len(part.rows) for part, keys in zip(parts, deleted, strict=True)):
        raise Kept  # a foreign key with CASCADE may have taken it nevertheless
    for part, keys in zip(parts, deleted, strict=True):
        entered.append(work.intend(part.one, keys, number))
        done[part.one.name] = done.get(part.one.name, 0) + len(keys)
    by_triggers = counters.require_recorded()
    work.progress("changed")
    work.confirm()
    return by_triggers


def _found(work: ExecutionState, group: Sequence[str]) -> list[_Part]:
    """What a circle consists of; nothing where it is too large, or larger than the plan allows."""
    graph = work.graph
    for name in (it.name for one in group for it in graph.classes[one]):
        work.tally.knots.pop(name, None)  # of an earlier try; a chain is shorter by now
    deleting = [it for name in group for it in graph.classes[name] if it.rule.deletes]
    ready = {one.name: graph.ready(one) for one in deleting}
    places = _free(work, group, deleting, ready)
    found: list[_Part] = []
    for at, one in enumerate(deleting):
        rows_of_class = 0
        for leaf in one.relation.leaves:
            if rows := places.get((at, leaf.oid), []):
                found.append(_Part(one, leaf, rows, ready[one.name]))
                rows_of_class += len(rows)
        if rows_of_class > work.left(one.name):
            return []
    if sum(len(one.rows) for one in found) > MOST:
        for part in found:
            work.tally.knots[part.one.name] = max(
                len(part.rows), work.tally.knots.get(part.one.name, 0)
            )
        return []
    return found


def _free(
    work: ExecutionState,
    group: Sequence[str],
    deleting: Sequence[RecordClass],
    ready: Mapping[str, Composable],
) -> dict[tuple[int, int], list[str]]:
    """Return places of the records of a group that only records of the group refer to that go too.

    By number of the class and oid of the table, at most one more than `MOST` of each class. Of
    several classes the first deletes a record.
    """
    kept = KeptRecords(work.graph, group, refused=work.refused_places)
    expressions = kept.expressions()
    each = [
        SQL(
            "(SELECT {at}, t.tableoid::bigint, t.ctid::text FROM {table} AS t WHERE {which} "
            "LIMIT {most})"
        ).format(
            at=literal(at),
            table=one.relation.identifier,
            which=both(
                [
                    ready[one.name],
                    kept.may_go(one.rule.collection),
                    *(negated(ready[other.name]) for other in _before(deleting, at)),
                    kept.free(one.rule.collection),
                ]
            ),
            most=literal(MOST + 1),
        )
        for at, one in enumerate(deleting)
    ]
    query = SQL("{} {}").format(expressions, SQL(" UNION ALL ").join(each))
    places: dict[tuple[int, int], list[str]] = {}
    for at, oid, place in work.connection.execute(query, {}):
        places.setdefault((at, oid), []).append(place)
    return places


def _before(deleting: Sequence[RecordClass], at: int) -> list[RecordClass]:
    """Return the classes before one that delete records of the same collection."""
    collection = deleting[at].rule.collection
    return [one for one in deleting[:at] if one.rule.collection == collection]


def _lock(work: ExecutionState, group: Sequence[str], parts: Sequence[_Part]) -> None:
    """Lock the records of a circle, so that nobody can refer to them, and look once more.

    A foreign key with CASCADE would take what refers to them unseen, and the ledger would not know.

    Raises:
        _Changed: something came in between, or a record outside still refers to them.
    """
    for part in parts:
        query = SQL(
            "SELECT FROM {} AS t WHERE t.ctid = ANY (%(rows)s::tid[]) FOR UPDATE OF t"
        ).format(part.leaf.identifier)
        work.connection.execute(query, {"rows": part.rows})
    if _places(_found(work, group)) != _places(parts):
        raise _Changed
    for part in parts:
        for reference in work.graph.references(part.one.rule.collection):
            if reference.sets_null or reference.child in group:
                continue
            query = SQL(
                "SELECT FROM {} AS c JOIN {} AS t ON {} WHERE t.ctid = ANY (%(rows)s::tid[]) "
                "LIMIT 1"
            ).format(reference.key.identifier, part.leaf.identifier, reference.joined("c", "t"))
            if work.connection.execute(query, {"rows": part.rows}).fetchone() is not None:
                raise _Changed


def _places(parts: Sequence[_Part]) -> set[tuple[str, int, str]]:
    return {(part.one.name, part.leaf.oid, row) for part in parts for row in part.rows}


def _deleted(work: ExecutionState, parts: Sequence[_Part]) -> list[list[Key]]:
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
            keys=fixed(key_texts(part.one.relation.key)),
        )
        for at, part in enumerate(parts)
    ]
    each = [
        SQL("SELECT {}, key FROM {}").format(at, Identifier(f"part {at}"))
        for at in range(len(parts))
    ]
    query = SQL("WITH {} {}").format(SQL(", ").join(statements), SQL(" UNION ALL ").join(each))
    given = {f"rows{at}": part.rows for at, part in enumerate(parts)}
    keys: list[list[Key]] = [[] for _ in parts]
    for at, key in work.connection.execute(query, given):
        keys[at].append(tuple(key))
    return keys
