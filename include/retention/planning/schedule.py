"""The record classes of a database, for one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from include.erasure import request_records, requests
from include.erasure.ledger import ErasureKeys
from include.erasure.request_records import NamedRecord, Reader
from include.erasure.requests import ErasureRequest
from include.holds.records import RecordHolds, on_records
from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.retention.database import RetentionDatabase
from include.retention.planning.binding import bind
from include.retention.planning.detaching import require_detachable
from include.retention.planning.graph import Graph
from include.retention.planning.mask_checks import require_masks_fit
from include.retention.postgres.relations import read_relations, require

Connection = psycopg.Connection[Any]


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


def schedule_of(database: RetentionDatabase, as_of: datetime) -> Schedule:
    """Return the record classes for a moment, with the holds and requests of now."""
    run, name = database.run, database.name
    with run.state.connect() as conn:
        holds = on_records(conn, name)
        open_requests = requests.open_requests(conn, name)
        remembered = request_records.remembered(conn, name)
    return Schedule(
        database=database.mapped,
        rules=database.rules,
        as_of=as_of,
        now=run.clock.now(),
        timezone=run.pack.calendar.timezone,
        holds=holds,
        requests=[request for request in open_requests if request.oversized_at is None],
        keys=run.services.erasure_keys,
        remembered=remembered,
    )
