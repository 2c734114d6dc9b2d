"""Make a disposition plan by counting records in one snapshot of a database.

The plan contains counts and digests, and no keys of records.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from psycopg.sql import SQL, Composable

from include.erasure.masks import needs_masking
from include.policy.fragments import all_of, any_of, escape_percent, literal
from include.policy.retention import SqlClock
from include.retention.database import RetentionDatabase
from include.retention.planning.classes import RecordClass, expired_partitions
from include.retention.planning.counting import (
    ClassCounts,
    RecordFigures,
    Scan,
    count_where,
    hashed_key,
    key_hash,
    key_seed,
    scan_collection,
)
from include.retention.planning.graph import FALSE, Graph, Reference
from include.retention.planning.kept_records import KeptFigures, KeptRecords
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
from include.retention.planning.subjects import store_request_records
from include.retention.postgres.session import (
    NO_SETTINGS,
    open_snapshot,
    prepare_session,
    require_clocks_agree,
    set_up_joins,
)
from include.retention.postgres.transaction_counters import require_counting
from include.services.database import scalar
from include.services.errors import CouldNotRun

YEARS = range(1900, 9000)  # so that adding a period does not overflow Python's datetime


def parse_as_of(as_of: str | None, now: datetime, timezone: str) -> datetime:
    """Parse the text that states the time for which a plan is made.

    Args:
        as_of: a date or a time in ISO 8601. A date means 00:00 in the policy pack's timezone. A
            time needs an offset from UTC. An empty text or None means 00:00 of the current day.
        now: the current time, timezone-aware.
        timezone: timezone of the policy pack.

    Raises:
        CouldNotRun: the text has another format, or the year is outside of 1900 to 8999.
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
        raise _unreadable_moment(as_of) from None
    if moment.tzinfo is None:
        raise _unreadable_moment(as_of)
    if moment.year not in YEARS:
        raise CouldNotRun(
            f"The year of {as_of!r} is not supported.", "Write a year from 1900 to 8999."
        )
    return moment


def _unreadable_moment(as_of: str) -> CouldNotRun:
    return CouldNotRun(
        f"{as_of!r} is neither a date nor a date and time.",
        "Write 2026-11-25, or 2026-11-25T03:30:00+08:00 with the offset from UTC.",
    )


Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class KeptCounts:
    """The numbers of records of a collection that are kept because other records refer to them.

    Attributes:
        parts: oid of a table or partition -> number and digest of the kept records in it.
        by_key: index of the foreign key in `Graph.references` -> numbers of records that are kept
            because of this foreign key. There is one number for each record class of the collection
            whose disposition is deletion, in the order of retention.yaml.
    """

    parts: dict[int, RecordFigures] = field(default_factory=dict)
    by_key: dict[int, Sequence[int]] = field(default_factory=dict)


def plan_database(
    database: RetentionDatabase, as_of: str | None, *, is_preview: bool = False
) -> Plan:
    """Make the disposition plan of a database, without writing to the mapped database.

    Args:
        database: database for which the plan is made.
        as_of: time for which the plan is made, as text that `parse_as_of` reads.
        is_preview: whether the plan is only shown to a person. A preview may be for a time in the
            future, and stores no keys of records of erasure requests.

    Raises:
        ControlFailed: system clocks differ.
        CouldNotRun: the time is not valid, or it is in the future and the plan is not a preview.
        UsageError: the retention schedule does not fit the database.
        ServiceError: another session held a lock, or a statement took too long.
    """
    state, clock = database.run.state, database.run.clock
    with database.reader.connect(autocommit=True) as connection:
        prepare_session(connection, database.mapped)
        now = require_clocks_agree(connection, state, clock)
        moment = parse_as_of(as_of, now, database.run.pack.calendar.timezone)
        if moment > now and not is_preview:
            raise CouldNotRun(
                f"{moment:%Y-%m-%d %H:%M %z} is in the future, and records are not deleted early.",
                "`./parcelseal retention plan --as-of` shows the records that will expire by then.",
            )
        schedule = schedule_of(database, moment)
        if not is_preview:  # the run may erase records that lead to other records
            schedule = store_request_records(connection, state, clock, schedule)
        return make_plan(connection, schedule)


def make_plan(
    connection: Connection, schedule: Schedule, settings: Mapping[str, str] = NO_SETTINGS
) -> Plan:
    """Make the disposition plan of a database from its retention schedule.

    No record is changed.

    Args:
        connection: connection that `session.prepare_session` set up.
        schedule: the record classes and the time for which the plan is made.
        settings: PostgreSQL settings for the transaction of the plan, by name.

    Raises:
        UsageError: the retention schedule does not fit the database (`Schedule.graph`), a right is
            missing, or the server does not count changed rows.
        ServiceError: another session held a lock, or a statement took too long.
    """
    with open_snapshot(connection, schedule.database, settings):
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
            name: scan_collection(self.connection, self.graph, name, seed=self.seed)
            for name in collections
        }
        kept = self._kept(scans)
        tables = {
            name: self._table(name, scans[name], kept.get(name, KeptCounts()))
            for name in collections
        }
        planned_classes = {
            record_class.name: self._class(
                record_class,
                scans[name].classes[record_class.name],
                *tables[name],
                kept.get(name, KeptCounts()),
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
            classes=tuple(planned_classes[rule.record_class] for rule in schedule.rules),
            tables=tuple(table for table, _ in tables.values()),
            reactions=read_reactions(self.connection, self.graph),
        )

    def _deleting(self, collection: str) -> list[RecordClass]:
        return [
            record_class
            for record_class in self.graph.classes[collection]
            if record_class.rule.deletes
        ]

    def _kept(self, scans: Mapping[str, Scan]) -> dict[str, KeptCounts]:
        """Count the records that are kept because remaining records refer to them.

        Args:
            scans: collection -> numbers of its records, from scans that ignore references.

        Returns:
            Collection -> numbers of its kept records.
        """
        ready = [name for name in self.graph.deleting_collections if scans[name].ready.records]
        kept = KeptRecords(self.graph, ready, details={name: self._detail(name) for name in ready})
        expressions = kept.expressions()
        if not kept.joins:
            return {}
        set_up_joins(self.connection, kept.joins + len(ready))
        query = SQL("{} {}").format(expressions, kept.counts())
        by_collection: dict[str, KeptCounts] = {name: KeptCounts() for name in ready}
        for at, key, oid, records, digest, by_class in self.connection.execute(query, {}):
            name = self.graph.deleting_collections[at]
            by_class = by_class[: len(self._deleting(name))]  # rows of a cycle have one length
            if key < 0:
                by_collection[name].parts[oid] = RecordFigures(records, digest, by_class)
            else:
                by_collection[name].by_key[key] = by_class
        return by_collection

    def _detail(self, collection: str) -> KeptFigures:
        """Return the SQL that computes the digest and the counts of a collection's kept records.

        These are the records that are kept because other records refer to them. They are counted
        for each record class of the collection whose disposition is deletion.
        """
        relation = self.graph.relations.by_collection[collection]
        deleting = self._deleting(collection)
        only = [SQL("true")]  # with one deleting class, it may delete each deletable record
        classes = (
            [self.graph.ready(record_class) for record_class in deleting]
            if len(deleting) > 1
            else only
        )
        return KeptFigures(hashed_key(relation, self.seed), classes)

    def _table(
        self, collection: str, counted: Scan, kept: KeptCounts
    ) -> tuple[PlannedTable, dict[str, int]]:
        """Return the planned changes of a table.

        Args:
            collection: collection of the table.
            counted: numbers of the collection's records, from a scan that ignores references.
            kept: numbers of the collection's records that are kept because of references.

        Returns:
            The planned changes, and record class -> number of its records to delete.
        """
        deleting = self._deleting(collection)
        going = counted.ready
        for part in kept.parts.values():
            going = going.minus(part)
        table = PlannedTable(
            collection=collection,
            to_delete=going.records,
            deleted=str(going.digest),
            to_mask=counted.to_mask.records,
            masked=str(counted.to_mask.digest),
            references=tuple(map(_describe_reference, self.graph.references(collection)))
            if deleting
            else (),
            partitions=self._whole_partitions(collection, kept) if going.records else (),
        )
        by_class = zip(deleting, going.by_class, strict=True)
        return table, {record_class.name: records for record_class, records in by_class}

    def _whole_partitions(self, collection: str, kept: KeptCounts) -> tuple[PlannedPartition, ...]:
        """Return the partitions of a table to drop, because all their records are to be deleted.

        Empty partitions are not dropped.

        Args:
            collection: collection of the table.
            kept: numbers of the collection's records that are kept because of references.
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
            for oid in expired_partitions(self.connection, record_class)
        }
        if not over:
            return ()
        query = SQL(
            "SELECT t.tableoid::bigint, count(*), {ready}, {digest} FROM {table} AS t "
            "WHERE t.tableoid = ANY ({over}::oid[]) GROUP BY 1"
        ).format(
            ready=count_where(deletable := self.graph.deletable(collection)),
            digest=key_hash(relation, self.seed, deletable),
            table=relation.identifier,
            over=literal(sorted(over)),
        )
        parts = {row[0]: row[1:] for row in self.connection.execute(query, {})}
        no_records = RecordFigures(0, 0)
        partitions = []
        for leaf in relation.leaves:
            records, ready, digest = parts.get(leaf.oid, (0, 0, "0"))
            stays = kept.parts.get(leaf.oid, no_records)
            if records and records == ready and not stays.records:
                name = f"{leaf.schema}.{leaf.name}"
                partitions.append(PlannedPartition(table=name, records=records, digest=digest))
        return tuple(partitions)

    def _class(
        self,
        record_class: RecordClass,
        counted: ClassCounts,
        table: PlannedTable,
        by_class: dict[str, int],
        by_reference: KeptCounts,
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
        """Count the records that are kept only because a `minimum` period has no start date."""
        lacks = _lacks_minimum_date(record_class, self.graph.subjects)
        if lacks == FALSE:
            return 0
        query = SQL("SELECT count(*) FROM {} AS t WHERE {}").format(
            record_class.relation.identifier, lacks
        )
        return int(scalar(self.connection, query, {}))

    def _referred_by(self, record_class: RecordClass, kept: KeptCounts) -> tuple[KeptBy, ...]:
        """Return for each foreign key how many records of a record class are kept because of it.

        Args:
            record_class: the record class.
            kept: numbers of kept records of the record class's collection.
        """
        collection = record_class.rule.collection
        index = self._deleting(collection).index(record_class)
        return tuple(
            KeptBy(
                table=reference.key.label,
                collection=reference.child,
                constraint=reference.key.name,
                records=kept.by_key[at][index],
            )
            for at, reference in enumerate(self.graph.references(collection))
            if at in kept.by_key and kept.by_key[at][index]
        )


def _describe_reference(reference: Reference) -> str:
    effect = "keeps"
    if reference.sets_null:
        effect = "set to null" if reference.detached else "set to null by the database"
    columns = reference.detached or reference.key.columns
    return f"{reference.key.label} ({', '.join(columns)}): {effect}"


def _lacks_minimum_date(record_class: RecordClass, subjects: Collection[str]) -> Composable:
    """Return the SQL condition that a record is kept only because a start date is missing.

    The retention period of the record has ended, or its data subject requested erasure. But a law
    requires a minimum period (`minimum` in retention.yaml), and the start of this period is null.
    The record is kept until a person fills in the date.

    Args:
        record_class: record class of the record.
        subjects: keys of the data subjects who requested erasure.
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
    ended = record_class.clock.ended
    if rule.on_request and subjects:
        ended = any_of([ended, record_class.linked(subjects)])
    conditions = [record_class.belongs, ended, any_of(missing)]
    if rule.action == "mask":  # a record that is masked already needs no date
        conditions.append(escape_percent(needs_masking(record_class.mask, record_class.shapes)))
    return SQL("({} IS TRUE)").format(all_of(conditions))
