"""Find the records of open requests and remember their keys before the run erases records.

A record may be found through another record that a run erases first: an address through its
customer. Remembered records are planned, erased, held and counted by their keys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.sql import SQL
from sqlalchemy import Connection, Engine

from include.erasure import request_records, requests
from include.erasure.ledger import ErasureKeys
from include.erasure.request_records import (
    Key,
    NamedRecord,
    Namer,
    RequestRecords,
    collected,
    digest_of,
)
from include.erasure.requests import ErasureRequest
from include.policy.datamap import MappedDatabase
from include.policy.fragments import all_of
from include.retention.planning.classes import RecordClass
from include.retention.planning.graph import Graph
from include.retention.planning.schedule import Schedule
from include.retention.postgres.session import ONE_CORE, one_view
from include.services.clock import Clock

MOST_RECORDS = 100_000  # of one request in one class: about 20 MB in the state database
AT_ONCE = 5_000  # rows that are fetched together


@dataclass(frozen=True)
class Search:
    """The result of a search for the records of requests.

    Attributes:
        names: records to remember.
        records: their primary keys.
        found: ids of the requests that have records, whether masked or not.
        oversized: ids of requests that have more records than are remembered.
    """

    names: frozenset[NamedRecord]
    records: RequestRecords
    found: frozenset[int]
    oversized: frozenset[int]


def search(
    connection: psycopg.Connection[Any],
    database: MappedDatabase,
    keys: ErasureKeys,
    graph: Graph,
    asked: Sequence[ErasureRequest],
    known: frozenset[str] = frozenset(),
) -> Search:
    """Find the records of requests in every class that a request erases.

    Of a class whose subject cannot be lost (`Graph.keeps_subject`) more than `MOST_RECORDS` of a
    request are not remembered and not needed; of any other class the request is oversized then.

    Args:
        connection: inside of one view of the database, so that no link is lost between two classes.
        database: of the data map.
        keys: of the erasure ledger.
        graph: the record classes.
        asked: open requests.
        known: names that are remembered already.
    """
    by_subject = {request.subject: request.id for request in asked}
    subjects = {request.id: request.subject for request in asked}
    names: set[NamedRecord] = set()
    keys_found: list[tuple[str, str, str, Key]] = []
    found: set[int] = set()
    oversized: set[int] = set()
    for record_class in (it for classes in graph.classes.values() for it in classes):
        if not record_class.rule.on_request or not by_subject:
            continue
        name, collection = record_class.name, record_class.rule.collection
        by_request = _found(connection, record_class, by_subject)
        namer = Namer(keys, database, collection, record_class.relation.key, known)
        for request_id, records in by_request.items():
            found.add(request_id)
            if len(records) > MOST_RECORDS:
                if not graph.keeps_subject(record_class):
                    oversized.add(request_id)
                continue
            for key, found_by in records:
                keys_found.append((name, subjects[request_id], found_by, key))
                names.add(NamedRecord(request_id, name, collection, namer.name(key), found_by))
    return Search(frozenset(names), collected(keys_found), frozenset(found), frozenset(oversized))


def _found(
    connection: psycopg.Connection[Any], record_class: RecordClass, by_subject: dict[str, int]
) -> dict[int, set[tuple[Key, str]]]:
    """Return the keys of a class by request, each with the digest of what named the subject.

    Of a request that has too many only the first are returned, one more than are remembered.
    """
    expressions = record_class.rule.keys.subject
    width = len(record_class.relation.key)
    positions, requests_at = [], []
    for text in expressions:
        key_type = record_class.key_types[text]
        forms = [
            (form, request_id)
            for subject, request_id in by_subject.items()
            for form in record_class.keys.forms_of_subjects(key_type, [subject])
        ]
        positions.append(key_type.positions(text, [form for form, _request_id in forms]))
        requests_at.append([request_id for _form, request_id in forms])
    query = SQL("SELECT {keys}, {subjects} FROM {table} AS t WHERE {which}").format(
        keys=record_class.relation.key_texts,
        subjects=SQL(", ").join(positions),
        table=record_class.relation.identifier,
        which=all_of([record_class.belongs, record_class.linked(by_subject)]),
    )
    digests = [digest_of(it) for it in expressions]
    by_request: dict[int, set[tuple[Key, str]]] = defaultdict(set)
    with connection.cursor("parcelseal_subjects") as cursor:
        cursor.execute(query, {})
        while rows := cursor.fetchmany(AT_ONCE):
            for row in rows:
                for digest, ids, matched in zip(digests, requests_at, row[width:], strict=True):
                    for request_id in {ids[position - 1] for position in matched}:
                        if len(by_request[request_id]) <= MOST_RECORDS:
                            by_request[request_id].add((row[:width], digest))
    return by_request


def enter(conn: Connection, clock: Clock, searched: Search) -> None:
    """Store the result of a search; the caller commits the transaction of the state database.

    A request is closed only if a run found records of it; otherwise no erasure was shown.
    """
    request_records.keep(conn, clock, searched.names)
    requests.mark_found(conn, clock, sorted(searched.found))
    requests.mark_oversized(conn, clock, sorted(searched.oversized))


def remember(
    connection: psycopg.Connection[Any], state: Engine, clock: Clock, schedule: Schedule
) -> Schedule:
    """Find and remember the records of all open requests.

    Args:
        connection: a session that `session.prepare` set up, in no transaction.
        state: the state database.
        clock: the time.
        schedule: the record classes.

    Returns:
        The same schedule with what is remembered now, without requests that are oversized.

    Raises:
        UsageError: the schedule does not fit the database, or a right is missing.
        ServiceError: a lock was not free, or a statement took too long.
    """
    name = schedule.database.name
    with state.connect() as conn:
        asked = requests.open_requests(conn, name)
    if not asked or not any(rule.on_request for rule in schedule.rules):
        return schedule
    known = frozenset(record.name for _subject, record in schedule.remembered)
    with one_view(connection, schedule.database, ONE_CORE):
        graph = replace(schedule, remembered=()).graph(connection)
        searched = search(connection, schedule.database, schedule.keys, graph, asked, known)
    with state.begin() as conn:
        enter(conn, clock, searched)
    with state.connect() as conn:
        remembered = request_records.remembered(conn, name)
    rest = [request for request in schedule.requests if request.id not in searched.oversized]
    return replace(schedule, requests=rest, remembered=remembered)
