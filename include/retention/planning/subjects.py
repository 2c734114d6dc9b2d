"""Find the records of open erasure requests, and store their keys before the run erases records.

Some records can be found only through another record, which the run may erase first. For example,
an address is found through the customer record. Planning, execution, legal holds and verification
therefore find the address by its stored key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import psycopg
from psycopg.sql import SQL
from sqlalchemy import Connection, Engine

from include.erasure import request_records, requests
from include.erasure.ledger import ErasureKeys
from include.erasure.request_records import (
    Key,
    NamedRecord,
    RecordNamer,
    RequestRecords,
    digest_of,
    group_records,
)
from include.erasure.requests import ErasureRequest
from include.policy.datamap import MappedDatabase
from include.policy.fragments import all_of
from include.retention.planning.classes import RecordClass
from include.retention.planning.graph import Graph
from include.retention.planning.schedule import Schedule
from include.retention.postgres.session import ONE_CORE, open_snapshot
from include.services.clock import Clock

MOST_RECORDS = 100_000  # records of a request in a class: about 20 MB in the state database
ROWS_AT_ONCE = 5_000  # rows that are fetched together


@dataclass(frozen=True)
class RequestSearch:
    """The result of a search for the records of erasure requests.

    Attributes:
        names: records whose keys are to be stored.
        records: primary keys of these records.
        matched_request_ids: ids of the erasure requests for which the search found records. Records
            that are masked already count as found.
        oversized: ids of the erasure requests with too many records. The keys of so many records
            are not stored.
    """

    names: frozenset[NamedRecord]
    records: RequestRecords
    matched_request_ids: frozenset[int]
    oversized: frozenset[int]


def search_requests(
    connection: psycopg.Connection[Any],
    database: MappedDatabase,
    keys: ErasureKeys,
    graph: Graph,
    open_requests: Sequence[ErasureRequest],
    stored_names: frozenset[str] = frozenset(),
) -> RequestSearch:
    """Find the records of erasure requests in every record class that is erased on request.

    If a request has more than `MOST_RECORDS` records in a record class, the keys of these records
    are not stored. The request is then marked as oversized, unless these records can always be
    traced to their data subject (`Graph.is_traceable`).

    Args:
        connection: connection with an open snapshot. The searches of all record classes therefore
            see the same data.
        database: the database in the data map.
        keys: HMAC keys of the erasure ledger.
        graph: the record classes.
        open_requests: open erasure requests of the database.
        stored_names: names of the records that are stored already.
    """
    by_subject = {request.subject: request.id for request in open_requests}
    subjects = {request.id: request.subject for request in open_requests}
    names: set[NamedRecord] = set()
    record_keys: list[tuple[str, str, str, Key]] = []
    with_records: set[int] = set()
    oversized: set[int] = set()
    for record_class in chain.from_iterable(graph.classes.values()):
        if not record_class.rule.on_request or not by_subject:
            continue
        name, collection = record_class.name, record_class.rule.collection
        by_request = _keys_by_request(connection, record_class, by_subject)
        namer = RecordNamer(keys, database, collection, record_class.relation.key, stored_names)
        for request_id, records in by_request.items():
            with_records.add(request_id)
            if len(records) > MOST_RECORDS:
                if not graph.is_traceable(record_class):
                    oversized.add(request_id)
                continue
            for key, found_by in records:
                record_keys.append((name, subjects[request_id], found_by, key))
                names.add(NamedRecord(request_id, name, collection, namer.name(key), found_by))
    return RequestSearch(
        frozenset(names), group_records(record_keys), frozenset(with_records), frozenset(oversized)
    )


def _keys_by_request(
    connection: psycopg.Connection[Any], record_class: RecordClass, by_subject: dict[str, int]
) -> dict[int, set[tuple[Key, str]]]:
    """Return the primary keys of the records of a record class that belong to erasure requests.

    Args:
        connection: connection with an open snapshot.
        record_class: the record class.
        by_subject: key of a data subject -> id of the erasure request.

    Returns:
        Request id -> pairs: primary key of a record, and digest of the key expression that returned
        the data subject's key. Each request has at most `MOST_RECORDS` + 1 pairs.
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
    digests = [digest_of(text) for text in expressions]
    by_request: dict[int, set[tuple[Key, str]]] = defaultdict(set)
    with connection.cursor("parcelseal_subjects") as cursor:
        cursor.execute(query, {})
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            for row in rows:
                for digest, ids, matched in zip(digests, requests_at, row[width:], strict=True):
                    for request_id in {ids[position - 1] for position in matched}:
                        if len(by_request[request_id]) <= MOST_RECORDS:
                            by_request[request_id].add((row[:width], digest))
    return by_request


def store_search(conn: Connection, clock: Clock, searched: RequestSearch) -> None:
    """Store the result of a search in the state database. The caller has to commit.

    If the search found records for an erasure request, the request is marked as found. The
    verification does not close a request that is not marked as found, because its key may be wrong.

    Args:
        conn: connection to the state database.
        clock: source of the current time.
        searched: result of the search.
    """
    request_records.store_records(conn, clock, searched.names)
    requests.mark_found(conn, clock, sorted(searched.matched_request_ids))
    requests.mark_oversized(conn, clock, sorted(searched.oversized))


def store_request_records(
    connection: psycopg.Connection[Any], state: Engine, clock: Clock, schedule: Schedule
) -> Schedule:
    """Find the records of all open erasure requests, and store their keys in the state database.

    Args:
        connection: connection that `session.prepare_session` set up, without an open transaction.
        state: the state database.
        clock: source of the current time.
        schedule: retention schedule with the open requests.

    Returns:
        The schedule with the stored records, and without requests that have too many records.

    Raises:
        UsageError: the retention schedule does not fit the database, or a right is missing.
        ServiceError: another session held a lock, or a statement took too long.
    """
    name = schedule.database.name
    with state.connect() as conn:
        open_requests = requests.open_requests(conn, name)
    if not open_requests or not any(rule.on_request for rule in schedule.rules):
        return schedule
    stored_names = frozenset(record.name for _subject, record in schedule.remembered)
    with open_snapshot(connection, schedule.database, ONE_CORE):
        graph = replace(schedule, remembered=()).graph(connection)
        searched = search_requests(
            connection, schedule.database, schedule.keys, graph, open_requests, stored_names
        )
    with state.begin() as conn:
        store_search(conn, clock, searched)
    with state.connect() as conn:
        remembered = request_records.load_records(conn, name)
    rest = [request for request in schedule.requests if request.id not in searched.oversized]
    return replace(schedule, requests=rest, remembered=remembered)
