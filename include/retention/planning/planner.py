"""Make a plan: count in PostgreSQL, in one snapshot; no key leaves the database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from psycopg.sql import SQL, Composable

from include.erasure.masks import to_mask
from include.policy.fragments import all_of, any_of, fixed, literal
from include.policy.retention import SqlClock
from include.retention.database import RetentionDatabase
from include.retention.planning.classes import RecordClass, past_partitions
from include.retention.planning.counting import (
    Counted,
    Records,
    Scan,
    count,
    hashed_key,
    key_hash,
    key_seed,
    scan,
)
from include.retention.planning.deletable import Detail, KeptRecords
from include.retention.planning.graph import FALSE, Graph, Reference
from include.retention.planning.plan import (
    HeldBy,
    KeptBy,
    Plan,
    PlannedClass,
    PlannedPartition,
    PlannedTable,
    rule_digest,
)
from include.retention.planning.reactions import read_reactions
from include.retention.planning.schedule import Schedule, schedule_of
from include.retention.planning.subjects import remember
from include.retention.postgres.session import (
    NOTHING,
    one_view,
    prepare,
    require_agreement,
    set_up_joins,
)
from include.retention.postgres.transaction_counters import require_counting
from include.services.database import scalar
from include.services.errors import UsageError

YEARS = range(1900, 9000)  # any period can be added within the years of Python's datetime


def moment_of(as_of: str | None, now: datetime, timezone: str) -> datetime:
    """Return the moment for which a plan is made.

    Args:
        as_of: a date, which is 00:00 of that day in the pack's timezone, or a moment with an offset
            from UTC, both by ISO 8601; the present day if it is empty.
        now: the moment, timezone-aware.
        timezone: of the pack.

    Raises:
        UsageError: it is neither.
    """
    zone = ZoneInfo(timezone)
    if not as_of:
        return datetime.combine(now.astimezone(zone).date(), time(), zone)
    try:
        if len(as_of) <= len("2026-01-01"):
            moment = datetime.combine(date.fromisoformat(as_of), time(), zone)
        else:
            moment = datetime.fromisoformat(as_of)
    except ValueError:
        raise _unreadable(as_of) from None
    if moment.tzinfo is None:
        raise _unreadable(as_of)
    if moment.year not in YEARS:
        raise UsageError(f"{as_of!r} is too far away.", "Write a year from 1900 to 8999.")
    return moment


def _unreadable(as_of: str) -> UsageError:
    return UsageError(
        f"{as_of!r} is no day and no moment.",
        "Write 2026-11-25, or 2026-11-25T03:30:00+08:00 with the offset from UTC.",
    )


Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Kept:
    """Deletable records of a collection that other records keep.

    Attributes:
        parts: records by the oid of their partition; key 0 for a plain table.
        by_key: numbers by class, by the index of the keeping foreign key in `Graph.references`.
    """

    parts: dict[int, Records] = field(default_factory=dict)
    by_key: dict[int, Sequence[int]] = field(default_factory=dict)


def plan_of(database: RetentionDatabase, as_of: str | None, *, is_preview: bool = False) -> Plan:
    """Make the plan for a moment; nothing is written to the mapped database.

    Args:
        database: to plan for.
        as_of: see `moment_of`.
        is_preview: whether the moment may lie in the future, and no record of a request is
            remembered.

    Raises:
        ControlFailed: clocks disagree.
        UsageError: the moment lies in the future and may not, or the schedule does not fit the
            database.
        ServiceError: a lock was not free, or a statement took too long.
    """
    state, clock = database.run.state, database.run.clock
    with database.reader.connect(autocommit=True) as connection:
        prepare(connection, database.mapped)
        now = require_agreement(connection, state, clock)
        moment = moment_of(as_of, now, database.run.pack.calendar.timezone)
        if moment > now and not is_preview:
            raise UsageError(
                f"{moment:%Y-%m-%d %H:%M %z} is in the future; nothing is deleted ahead of time.",
                "See what would go then by `./parcelseal retention plan --as-of`.",
            )
        schedule = schedule_of(database, moment)
        if not is_preview:  # before the run erases records that lead to them
            schedule = remember(connection, state, clock, schedule)
        return make_plan(connection, schedule)


def make_plan(
    connection: Connection, schedule: Schedule, settings: Mapping[str, str] = NOTHING
) -> Plan:
    """Make the plan for a database.

    Args:
        connection: a session that `session.prepare` set up; nothing is written.
        schedule: the record classes and the moment.
        settings: of the server for the plan, by name.

    Raises:
        UsageError: see `Schedule.graph`; or a right is missing; or the server counts no changes.
        ServiceError: a lock was not free, or a statement took too long.
    """
    with one_view(connection, schedule.database, settings):
        require_counting(connection, schedule.database)
        graph = schedule.graph(connection)
        return _Planner(connection, schedule, graph).plan()


class _Planner:
    def __init__(self, connection: Connection, schedule: Schedule, graph: Graph) -> None:
        self.connection = connection
        self.schedule = schedule
        self.graph = graph
        self.seed = key_seed(schedule.keys, schedule.keys.current)

    def plan(self) -> Plan:
        collections = list(self.graph.classes)
        scans = {
            name: scan(self.connection, self.graph, name, seed=self.seed) for name in collections
        }
        kept = self._kept(scans)
        tables = {
            name: self._table(name, scans[name], kept.get(name, Kept())) for name in collections
        }
        made = {
            record_class.name: self._class(
                record_class,
                scans[name].classes[record_class.name],
                *tables[name],
                kept.get(name, Kept()),
            )
            for name in collections
            for record_class in self.graph.classes[name]
        }
        schedule = self.schedule
        return Plan(
            database=schedule.database.name,
            as_of=schedule.as_of,
            key_id=schedule.keys.current,
            holds=schedule.holds.fingerprint,
            requests=tuple(sorted(request.id for request in schedule.requests)),
            order=self.graph.groups,
            classes=tuple(made[rule.record_class] for rule in schedule.rules),
            tables=tuple(table for table, _ in tables.values()),
            reactions=read_reactions(self.connection, self.graph),
        )

    def _deleting(self, collection: str) -> list[RecordClass]:
        return [
            record_class
            for record_class in self.graph.classes[collection]
            if record_class.rule.deletes
        ]

    def _kept(self, scans: Mapping[str, Scan]) -> dict[str, Kept]:
        """Count the deletable records that other records keep, by collection."""
        ready = [name for name in self.graph.emptied if scans[name].ready.records]
        kept = KeptRecords(self.graph, ready, details={name: self._detail(name) for name in ready})
        expressions = kept.expressions()
        if not kept.joins:
            return {}
        set_up_joins(self.connection, kept.joins + len(ready))
        query = SQL("{} {}").format(expressions, kept.counts())
        found: dict[str, Kept] = {name: Kept() for name in ready}
        for at, key, oid, records, digest, by_class in self.connection.execute(query, {}):
            name = self.graph.emptied[at]
            by_class = by_class[: len(self._deleting(name))]  # rows of a cycle have one length
            if key < 0:
                found[name].parts[oid] = Records(records, digest, by_class)
            else:
                found[name].by_key[key] = by_class
        return found

    def _detail(self, collection: str) -> Detail:
        """Return the figures of a kept record: its digest, and the classes that may delete it."""
        relation = self.graph.relations.by_collection[collection]
        deleting = self._deleting(collection)
        only = [SQL("true")]  # with one deleting class, it may delete each deletable record
        classes = (
            [self.graph.ready(record_class) for record_class in deleting]
            if len(deleting) > 1
            else only
        )
        return Detail(hashed_key(relation, self.seed), classes)

    def _table(
        self, collection: str, counted: Scan, kept: Kept
    ) -> tuple[PlannedTable, dict[str, int]]:
        """Return the records to delete from a table, and their number by class."""
        deleting = self._deleting(collection)
        going = counted.ready
        for part in kept.parts.values():
            going = going.without(part)
        table = PlannedTable(
            collection=collection,
            to_delete=going.records,
            deleted=str(going.digest),
            to_mask=counted.to_mask.records,
            masked=str(counted.to_mask.digest),
            references=tuple(map(_described, self.graph.references(collection)))
            if deleting
            else (),
            partitions=self._whole_partitions(collection, kept) if going.records else (),
        )
        each = zip(deleting, going.by_class, strict=True)
        return table, {it.name: records for it, records in each}

    def _whole_partitions(self, collection: str, kept: Kept) -> tuple[PlannedPartition, ...]:
        """Return the partitions that may be dropped and whose records are all to be deleted.

        Empty partitions are not dropped.
        """
        relation = self.graph.relations.by_collection[collection]
        dropping = [
            record_class
            for record_class in self._deleting(collection)
            if record_class.rule.action == "drop_partition"
        ]
        over = {
            oid
            for record_class in dropping
            for oid in past_partitions(self.connection, record_class)
        }
        if not over:
            return ()
        query = SQL(
            "SELECT t.tableoid::bigint, count(*), {ready}, {digest} FROM {table} AS t "
            "WHERE t.tableoid = ANY ({over}::oid[]) GROUP BY 1"
        ).format(
            ready=count(may_go := self.graph.may_go(collection)),
            digest=key_hash(relation, self.seed, may_go),
            table=relation.identifier,
            over=literal(sorted(over)),
        )
        parts = {row[0]: row[1:] for row in self.connection.execute(query, {})}
        none = Records(0, 0)
        whole = []
        for leaf in relation.leaves:
            records, ready, digest = parts.get(leaf.oid, (0, 0, "0"))
            stays = kept.parts.get(leaf.oid, none)
            if records and records == ready and not stays.records:
                name = f"{leaf.schema}.{leaf.name}"
                whole.append(PlannedPartition(table=name, records=records, digest=digest))
        return tuple(whole)

    def _class(
        self,
        record_class: RecordClass,
        counted: Counted,
        table: PlannedTable,
        by_class: dict[str, int],
        by_reference: Kept,
    ) -> PlannedClass:
        going = by_class.get(record_class.name, 0)
        masks = record_class.rule.action == "mask"
        keeps = record_class.rule.action == "keep"
        ready = 0 if keeps else counted.ready
        kept = ready - going if record_class.rule.deletes else 0
        drops = record_class.rule.action == "drop_partition" and going
        return PlannedClass(
            name=record_class.name,
            collection=record_class.rule.collection,
            action=record_class.rule.action,
            rule_sha256=rule_digest(record_class.rule),
            records=counted.records,
            expired=counted.expired,
            requested=counted.due - counted.expired,
            held=counted.held,
            suspended=counted.suspended,
            kept_longer=counted.due - counted.held - counted.suspended - counted.ready,
            kept_by_reference=kept,
            to_delete=going,
            to_mask=ready if masks else 0,
            to_drop_partitions=len(table.partitions) if drops else 0,
            not_started=counted.not_started,
            ahead=counted.ahead,
            minimum_not_started=self._without_minimum(record_class),
            referred_by=self._referred_by(record_class, by_reference) if kept else (),
            held_by=tuple(HeldBy(hold=hold, records=n) for hold, n in counted.held_by.items()),
        )

    def _without_minimum(self, record_class: RecordClass) -> int:
        """Count the records that only a `minimum` without a date keeps."""
        lacks = _lacks_minimum(record_class, self.graph.subjects)
        if lacks == FALSE:
            return 0
        query = SQL("SELECT count(*) FROM {} AS t WHERE {}").format(
            record_class.relation.identifier, lacks
        )
        return int(scalar(self.connection, query, {}))

    def _referred_by(self, record_class: RecordClass, kept: Kept) -> tuple[KeptBy, ...]:
        """Return by foreign key how many records of a class are kept."""
        collection = record_class.rule.collection
        place = self._deleting(collection).index(record_class)
        return tuple(
            KeptBy(
                table=reference.key.label,
                collection=reference.child,
                constraint=reference.key.name,
                records=kept.by_key[at][place],
            )
            for at, reference in enumerate(self.graph.references(collection))
            if at in kept.by_key and kept.by_key[at][place]
        )


def _described(reference: Reference) -> str:
    effect = "keeps"
    if reference.sets_null:
        effect = "set to null" if reference.detached else "set to null by the database"
    columns = reference.detached or reference.key.columns
    return f"{reference.key.label} ({', '.join(columns)}): {effect}"


def _lacks_minimum(record_class: RecordClass, subjects: Collection[str]) -> Composable:
    """Return the condition that only the missing start date of a `minimum` keeps a record.

    The record's own period is over, or its data subject requested erasure, but the start date of
    the legal period is null. The record stays until a person fills in the date.

    Args:
        record_class: the class, bound to its table.
        subjects: keys of data subjects who requested erasure.
    """
    rule, relation = record_class.rule, record_class.relation
    missing = [
        bound.not_started
        for bound, minimum in zip(record_class.minima, rule.minimum, strict=True)
        if minimum.clock is not None
        and (isinstance(minimum.clock, SqlClock) or relation.nullable >= set(minimum.clock))
    ]
    if not missing:
        return FALSE
    over = record_class.clock.over
    if rule.on_request and subjects:
        over = any_of([over, record_class.linked(subjects)])
    conditions = [record_class.belongs, over, any_of(missing)]
    if rule.action == "mask":  # masked records need no date
        conditions.append(fixed(to_mask(record_class.mask, record_class.shapes)))
    return SQL("({} IS TRUE)").format(all_of(conditions))
