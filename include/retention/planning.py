"""Making a plan: counted inside PostgreSQL, from one view of the database; no key leaves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import add, sub, xor
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Composable, Composed

from include.erasure.ledger import ErasureKeys
from include.erasure.request_records import NamedRecord, Reader
from include.holds.records import RecordHolds
from include.policy.datamap import MappedDatabase
from include.policy.fragments import both, negated
from include.policy.retention import RetentionRule
from include.retention.binding import bind
from include.retention.classes import RecordClass
from include.retention.counting import Counted, Scan, count, key_hash, key_seed, scan
from include.retention.deletable import Deletable
from include.retention.detaching import detached_columns, require_detachable
from include.retention.graph import FALSE, Graph, Reference
from include.retention.keepers import Keepers, columns_to_bound, find
from include.retention.mask_checks import require_masks_fit
from include.retention.plan import (
    HeldBy,
    KeptBy,
    Plan,
    PlannedClass,
    PlannedPartition,
    PlannedTable,
    rule_digest,
)
from include.retention.reactions import read_reactions
from include.retention.relations import Relation, read_relations, require
from include.retention.session import NOTHING, one_view
from include.retention.transaction_counters import require_counting

if TYPE_CHECKING:
    from include.erasure.requests import ErasureRequest

Connection = psycopg.Connection[Any]


@dataclass(frozen=True)
class Going:
    """Records that go from a table, or from one of its partitions.

    Attributes:
        partition: oid; 0 of a plain table.
        digest: XOR of the hashes of their keys, so that some can be taken out or put in.
        by_class: how many the classes let go, in the order of those that delete.
    """

    partition: int
    records: int
    digest: int
    by_class: Sequence[int]

    def without(self, others: Going) -> Going:
        """Take out some of these records."""
        return self._joined(others, sub)

    def with_(self, others: Going) -> Going:
        """Put in others."""
        return self._joined(others, add)

    def _joined(self, others: Going, by: Callable[[int, int], int]) -> Going:
        return Going(
            self.partition,
            by(self.records, others.records),
            self.digest ^ others.digest,
            [by(mine, theirs) for mine, theirs in zip(self.by_class, others.by_class, strict=True)],
        )


@dataclass(frozen=True)
class Schedule:
    """The record classes of one database, for one moment.

    Attributes:
        rules: of retention.yaml.
        as_of: moment for which a plan is made; timezone-aware.
        now: moment of planning.
        timezone: IANA name of the pack's timezone.
        holds: that count.
        requests: of data subjects, that are open and that this run may carry out.
        keys: of the erasure ledger.
        remembered: records that runs found for open requests, each with its data subject.
    """

    database: MappedDatabase
    rules: Sequence[RetentionRule]
    as_of: datetime
    now: datetime
    timezone: str
    holds: RecordHolds
    requests: Sequence[ErasureRequest]
    keys: ErasureKeys
    remembered: Sequence[tuple[str, NamedRecord]] = ()

    def graph(self, connection: Connection) -> Graph:
        """Bind the classes to the tables as they are now.

        Raises:
            UsageError: a class is about no table with a primary key, its SQL is faulty, or a key
                that the pack wants set to null cannot be.
        """
        relations = read_relations(connection, self.database)
        require(relations, [one.collection for one in self.rules])
        classes = bind(
            connection,
            self.rules,
            relations.by_collection,
            as_of=self.as_of,
            now=self.now,
            timezone=self.timezone,
        )
        subjects = frozenset(one.subject for one in self.requests)
        reader = Reader(connection, self.database, self.keys, self.rules)
        records = reader.records(self.remembered)
        graph = Graph(classes, relations, self.holds, subjects, records)
        require_detachable(connection, graph)
        require_masks_fit(connection, graph)
        return graph


def make_plan(
    connection: Connection, schedule: Schedule, settings: Mapping[str, str] = NOTHING
) -> Plan:
    """Plan what goes from one database.

    Args:
        connection: a session that `include.retention.session.prepare` set up; nothing is written.
        schedule: the record classes and the moment.
        settings: of the server for this, by their name.

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
        self.deletable = Deletable(graph)
        self.seed = key_seed(schedule.keys, schedule.keys.current)
        self.keepers: dict[str, Keepers | None] = {}

    def plan(self) -> Plan:
        collections = list(self.graph.classes)
        scans = {name: self._scanned(name) for name in collections}
        tables = {name: self._table(name, scans[name]) for name in collections}
        made = {
            one.name: self._class(one, scans[name].classes[one.name], *tables[name])
            for name in collections
            for one in self.graph.classes[name]
        }
        schedule = self.schedule
        return Plan(
            database=schedule.database.name,
            as_of=schedule.as_of,
            key_id=schedule.keys.current,
            holds=schedule.holds.fingerprint,
            requests=tuple(sorted(one.id for one in schedule.requests)),
            order=self.graph.groups,
            classes=tuple(made[one.record_class] for one in schedule.rules),
            tables=tuple(one for one, _ in tables.values()),
            reactions=read_reactions(self.connection, self.graph),
        )

    def _scanned(self, collection: str) -> Scan:
        """Count every class of a table in one scan."""
        empties = collection in self.graph.emptied
        numbers = columns_to_bound(self.deletable, collection) if empties else None
        return scan(self.connection, self.graph, collection, seed=self.seed, numbers=numbers)

    def _table(self, collection: str, counted: Scan) -> tuple[PlannedTable, dict[str, int]]:
        """What goes from a table, and how many of it by class."""
        graph = self.graph
        relation = graph.relations.by_collection[collection]
        deleting = [one for one in graph.classes[collection] if one.rule.deletes]
        going: list[Going] = []
        if any(counted.classes[one.name].ready for one in deleting):
            going = self._all_but_kept(collection, deleting, counted) or self._going(
                collection, deleting, self.deletable.of(collection)
            )
        drops = any(one.rule.action == "drop_partition" for one in deleting)
        table = PlannedTable(
            collection=collection,
            to_delete=sum(one.records for one in going),
            deleted=str(reduce(xor, (one.digest for one in going), 0)),
            to_mask=counted.to_mask.records,
            masked=str(counted.to_mask.digest),
            references=tuple(
                _described(graph, collection, one) for one in graph.references(collection)
            )
            if deleting
            else (),
            partitions=self._whole_partitions(relation, going) if drops else (),
        )
        by_class = {
            one.name: sum(part.by_class[place] for part in going)
            for place, one in enumerate(deleting)
        }
        return table, by_class

    def _all_but_kept(
        self, collection: str, deleting: Sequence[RecordClass], counted: Scan
    ) -> list[Going] | None:
        """All that may go, less what others keep; None where it has to be counted."""
        found = find(self.connection, self.deletable, collection, counted)
        self.keepers[collection] = found
        if found is None:
            return None
        by_class = tuple(counted.classes[one.name].ready for one in deleting)
        ready = Going(0, counted.ready.records, counted.ready.digest, by_class)
        if found.maybe is None:
            return [ready]
        # Two queries: PostgreSQL joins what must be there, and looks up one by one what must not.
        may_go, goes = self.graph.may_go(collection), self.deletable.of(collection)
        (doubtful,) = self._going(collection, deleting, both([found.maybe, may_go]))
        (freed,) = self._going(collection, deleting, both([found.maybe, goes]))
        return [ready.without(doubtful).with_(freed)]

    def _going(
        self, collection: str, deleting: Sequence[RecordClass], which: Composable
    ) -> list[Going]:
        """Count records that may go: those of each partition, or of a plain table in one."""
        relation = self.graph.relations.by_collection[collection]
        # of the only class that deletes, all that may go is ready
        each: list[Composable] = [SQL("count(*)")]
        if len(deleting) > 1:
            each = [count(self.graph.ready(one)) for one in deleting]
        oid: Composable = SQL("t.tableoid::bigint") if relation.partitioned else SQL("0::bigint")
        grouped = SQL(" GROUP BY 1 ORDER BY 1") if relation.partitioned else SQL("")
        query = SQL(
            "{circles} SELECT {oid}, count(*), {digest}::bigint, ARRAY[{each}] FROM {table} AS t "
            "WHERE {which}{grouped}"
        ).format(
            circles=self.deletable.circles,
            oid=oid,
            digest=key_hash(relation, self.seed),
            each=SQL(", ").join(each),
            table=relation.identifier,
            which=which,
            grouped=grouped,
        )
        return [Going(*row) for row in self.connection.execute(query, {})]

    def _whole_partitions(
        self, relation: Relation, parts: Sequence[Going]
    ) -> tuple[PlannedPartition, ...]:
        """Partitions of which every record goes; an empty one is nobody's to drop."""
        going = {one.partition: one for one in parts}
        query = SQL("SELECT t.tableoid::bigint, count(*) FROM {} AS t GROUP BY 1")
        there = dict(self.connection.execute(query.format(relation.identifier), {}).fetchall())
        return tuple(
            PlannedPartition(
                table=f"{leaf.schema}.{leaf.name}",
                records=going[leaf.oid].records,
                digest=str(going[leaf.oid].digest),
            )
            for leaf in relation.leaves
            if leaf.oid in going
            and leaf.parent != leaf.oid
            and there[leaf.oid] == going[leaf.oid].records
        )

    def _class(
        self,
        one: RecordClass,
        counted: Counted,
        table: PlannedTable,
        by_class: dict[str, int],
    ) -> PlannedClass:
        going = by_class.get(one.name, 0)
        masks = one.rule.action == "mask"
        keeps = one.rule.action == "keep"
        ready = 0 if keeps else counted.ready
        kept = ready - going if one.rule.deletes else 0
        drops = one.rule.action == "drop_partition" and going
        return PlannedClass(
            name=one.name,
            collection=one.rule.collection,
            action=one.rule.action,
            rule_sha256=rule_digest(one.rule),
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
            minimum_not_started=self._without_minimum(one),
            referred_by=self._referred_by(one) if kept else (),
            held_by=tuple(HeldBy(hold=one, records=n) for one, n in counted.held_by.items()),
        )

    def _without_minimum(self, one: RecordClass) -> int:
        """Count the records that only a `minimum` without a date keeps."""
        lacks = one.lacks_minimum(self.graph.subjects)
        if lacks == FALSE:
            return 0
        query = SQL("SELECT count(*) FROM {} AS t WHERE {}").format(one.relation.identifier, lacks)
        return int(self._row(query)[0])

    def _referred_by(self, one: RecordClass) -> tuple[KeptBy, ...]:
        """Count by foreign key what keeps records of a class."""
        collection = one.rule.collection
        relation = self.graph.relations.by_collection[collection]
        found = []
        keepers = self.keepers.get(collection)
        for reference in self.graph.references(collection):
            keeps = self.deletable.keeps(reference)
            if keeps is None:
                continue
            which = both([self.graph.ready(one), negated(self.graph.no_record(reference, keeps))])
            if keepers is not None:
                which = both([keepers.by(reference), which])
            query = SQL("{} SELECT count(*) FROM {} AS t WHERE {}").format(
                self.deletable.circles, relation.identifier, which
            )
            if records := self._row(query)[0]:
                found.append(
                    KeptBy(
                        table=reference.key.label,
                        collection=reference.child,
                        constraint=reference.key.name,
                        records=records,
                    )
                )
        return tuple(found)

    def _row(self, query: Composed) -> tuple[Any, ...]:
        row: tuple[Any, ...] | None = self.connection.execute(query, {}).fetchone()
        assert row is not None
        return row


def _described(graph: Graph, collection: str, one: Reference) -> str:
    effect = {
        (False, False): "keeps",
        (True, False): "set to null by the database",
        (True, True): "set to null",
    }[one.sets_null, one.by_us]
    columns = detached_columns(graph, collection, one) if one.by_us else one.key.columns
    return f"{one.key.label} ({', '.join(columns)}): {effect}"
