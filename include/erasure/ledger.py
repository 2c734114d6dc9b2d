"""The erasure ledger, which identifies erased records by a keyed HMAC of their primary keys.

Without the HMAC key, the ledger identifies no person. With the HMAC key, a replay finds the erased
records in a restored backup and erases them again (PIPL 47, version 2021-11-01).

Each transaction that erases records has one batch of entries in the ledger. `open_batch` stores the
batch before the transaction commits, and `settle_batches` records the commit. docs/decisions/0012
gives the reasons for this order. If a process is killed, its batch stays open, and
`include.erasure.resolve` settles or withdraws the batch later.

Evidence bundles state the number of erased records. Each batch stores the number of its entries and
a digest of its entries. A deleted or changed entry is therefore detected.

Entries are written with ``COPY ... (FORMAT binary)``. psycopg's ``Copy.write_row`` would need 1.3
times the CPU time, and each deletion waits until its entries are written.
"""

from __future__ import annotations

import hmac
import json
import os
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from json.encoder import encode_basestring
from typing import Any, Literal

import psycopg
from sqlalchemy import (
    ColumnElement,
    Connection,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    update,
)

from include.services.errors import ControlFailed, UsageError
from include.state.tables import erasure, erasure_batch

_HEAD = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)  # signature, flags, length of extension
_TAIL = struct.pack("!h", -1)


def copy_field(value: bytes) -> bytes:
    """Encode one field of a row for COPY in binary format.

    Args:
        value: value of the field, in the binary format of its PostgreSQL type.
    """
    return struct.pack("!i", len(value)) + value


def copy_stream(fields: int, rows: Iterable[bytes]) -> bytes:
    """Encode the complete input of a COPY in binary format.

    Args:
        fields: number of fields of each row.
        rows: one bytes object for each row: its fields, encoded by `copy_field` and concatenated.
    """
    row_head = struct.pack("!h", fields)
    return b"".join([_HEAD, *(row_head + row for row in rows), _TAIL])


# Digest of the entries of a row of erasure_batch. The order is fixed, so that equal entries give
# equal digests. Migration 0024 has the same SQL for older batches.
BATCH_DIGEST: ColumnElement[bytes] = literal_column(
    """(SELECT sha256(coalesce(string_agg(
        e.key_hmac || convert_to(e.action || ' ' || e.key_id || chr(10), 'UTF8'), ''::bytea
        ORDER BY e.key_hmac, e.action COLLATE "C", e.key_id COLLATE "C"
    ), ''::bytea)) FROM erasure e WHERE e.batch_id = erasure_batch.id)"""
)


def count_changed_batches(conn: Connection, database: str) -> dict[str, int]:
    """Count the settled batches whose entries were changed after the batch was settled.

    A batch contains the ledger entries of one transaction that erased records. It is settled once
    the ledger knows that the transaction committed. This function reads every entry of the
    database. A million entries take 1.05 s of CPU time if each batch has 20 entries, and 2.6 s if
    each batch has 1,000 entries.

    Args:
        conn: the state database.
        database: name of the database in the data map.

    Returns:
        Collection -> number of changed batches. Collections without a changed batch are left out.
    """
    is_changed = erasure_batch.c.entries_sha256.is_distinct_from(BATCH_DIGEST)
    return _by_collection(conn, database, func.count().filter(is_changed))


def _by_collection(conn: Connection, database: str, figure: ColumnElement[int]) -> dict[str, int]:
    """Compute an SQL aggregate over the settled ledger batches of each collection of a database.

    A batch is settled when the ledger knows that the transaction that erased its records committed.

    Args:
        conn: the state database.
        database: name of the database in the data map.
        figure: SQL aggregate over the batches of a collection.

    Returns:
        Collection -> value of the aggregate. Collections with the value 0 are left out.
    """
    query = (
        select(erasure_batch.c.collection, figure)
        .where(erasure_batch.c.database == database, erasure_batch.c.settled_at.is_not(None))
        .group_by(erasure_batch.c.collection)
        .order_by(erasure_batch.c.collection)
    )
    return {collection: int(number) for collection, number in conn.execute(query) if number}


Action = Literal["delete", "mask"]
_encoded = json.JSONEncoder(ensure_ascii=False).encode

_COPY = "COPY erasure (key_hmac, key_id, action, batch_id) FROM STDIN (FORMAT binary)"
# Used if the ledger has some of the keys. An entry of another open batch moves to this batch, since
# the transaction of that batch cannot have erased the record.
_ENTER = """
INSERT INTO erasure AS e (key_hmac, key_id, action, batch_id)
SELECT s.key_hmac, %s, %s, %s FROM unnest(%s::bytea[]) AS s (key_hmac)
ON CONFLICT (key_hmac, key_id, action) DO UPDATE SET batch_id = excluded.batch_id
WHERE EXISTS (SELECT FROM erasure_batch b WHERE b.id = e.batch_id AND b.settled_at IS NULL)
"""
_entries_of_batch = (
    select(func.count())
    .where(erasure.c.batch_id == erasure_batch.c.id)
    .correlate(erasure_batch)
    .scalar_subquery()
)
_ACTION_OF_INCOMPLETE = (
    "Restore the state database from a backup that has them. `restore --incomplete-ledger` "
    "replays the others meanwhile, and keeps the copy closed."
)
# Records of one statement. A statement on thousands of records blocks a core of the server until it
# ends, and other sessions wait. A shorter statement takes longer to send than to execute.
STRIDE = 64
# Keys to digest (about 0.5 ms) before other threads get the processor. Digesting a whole batch took
# 15 ms, in which other processes on that core had to wait.
DIGESTS_PER_TURN = 256


@dataclass(frozen=True)
class ErasureKeys:
    """The HMAC keys of the erasure ledger.

    Each ledger entry states the id of the HMAC key with which it was written. The earlier HMAC keys
    therefore remain necessary after a key rotation.

    Attributes:
        keys: id of the HMAC key -> secret.
        current: id of the HMAC key that is used for new entries.
    """

    keys: Mapping[str, bytes]
    current: str

    def __post_init__(self) -> None:
        if self.current not in self.keys or any(len(key) < 32 for key in self.keys.values()):
            raise UsageError(
                "The erasure keys need a current key, and each key needs at least 32 bytes.",
                "Correct the extra `erasure_keys` of the connection state_db.",
            )

    def __repr__(self) -> str:
        return f"ErasureKeys({', '.join(self.keys)})"

    def digest(self, key_id: str, database: str, collection: str, key: Sequence[str]) -> bytes:
        """Return the HMAC-SHA-256 of a record's primary key.

        Args:
            key_id: id of the HMAC key.
            database: name of the database in the data map.
            collection: name of the collection in the data map.
            key: primary key of the record, each column as PostgreSQL prints it.
        """
        return self.digests(key_id, database, collection, [key])[0]

    def digests(
        self, key_id: str, database: str, collection: str, keys: Iterable[Sequence[str]]
    ) -> list[bytes]:
        """Return the HMAC-SHA-256 of several primary keys of a collection, in the order of `keys`.

        Args:
            key_id: id of the HMAC key.
            database: name of the database in the data map.
            collection: name of the collection in the data map.
            keys: primary keys of the records, each column as PostgreSQL prints it.
        """
        secret, head = self.keys[key_id], _encoded([database, collection])[:-1] + ", "
        digests = []
        for number, key in enumerate(keys, start=1):
            text = f"{head}[{', '.join(map(encode_basestring, key))}]]"
            digests.append(hmac.digest(secret, text.encode(), "sha256"))
            if not number % DIGESTS_PER_TURN:
                os.sched_yield()
        return digests


@dataclass(frozen=True)
class Origin:
    """The run, collection and rule from which a batch of ledger entries comes.

    Attributes:
        database: name of the database in the data map.
        collection: collection of the erased records.
        action: ``delete`` or ``mask``.
        record_class: record class of the erased records.
        rule: SHA-256 of the retention rule, or a text that names another reason for the erasure.
        dag_id: DAG id of the workflow that erased the records.
        run_id: id of the run that erased the records.
        key_types: types of the primary key columns, as `include.erasure.tables.primary_key_types`
            returns them; None if they are unknown.
    """

    database: str
    collection: str
    action: Action
    record_class: str
    rule: str
    dag_id: str
    run_id: str
    key_types: str | None = None


@dataclass(frozen=True)
class OpenBatch:
    """A batch of ledger entries for which it is unknown whether the erasing transaction committed.

    Attributes:
        id: number of the batch in the ledger.
        origin: collection of the records, and the run and rule that erased them.
        transaction: PostgreSQL's 64-bit number of the transaction that erased the records, in
            decimal digits; None if no number was recorded.
        server: text that identifies the database server of the transaction, from
            `include.erasure.resolve.server_of`.
        at: time of the erasure.
    """

    id: int
    origin: Origin
    transaction: str | None
    server: str | None
    at: datetime


def open_batch(
    conn: Connection,
    keys: ErasureKeys,
    origin: Origin,
    record_keys: Sequence[Sequence[str]],
    *,
    transaction: str,
    server: str,
    at: datetime,
) -> int:
    """Store a batch of ledger entries for records that an open transaction erases.

    The caller must commit the ledger's transaction first, and then the transaction that erases the
    records. If the ledger already has an entry for a record, no second entry is stored:

    - If the transaction of the existing entry is known to have committed, that entry stays in its
      batch.
    - Otherwise, the existing entry moves to the new batch.

    Args:
        conn: the state database, in a transaction of the caller.
        keys: HMAC keys of the ledger.
        origin: collection of the records, and the run and rule that erase them.
        record_keys: primary keys as PostgreSQL prints them under
            `include.services.database.PRINTING`.
        transaction: number of the erasing transaction, from
            `include.erasure.resolve.transaction_of`.
        server: server of the erasing transaction, from `include.erasure.resolve.server_of`.
        at: time of the erasure.

    Returns:
        Id of the batch, for `settle_batches` or `withdraw_batch`.
    """
    digests = set(keys.digests(keys.current, origin.database, origin.collection, record_keys))
    # SQLAlchemy must execute the first statement, or it would not commit the transaction.
    batch = conn.scalar(
        insert(erasure_batch)
        .values(
            **asdict(origin),
            records=len(digests),
            transaction=transaction,
            server=server,
            erased_at=at,
        )
        .returning(erasure_batch.c.id)
    )
    assert batch is not None
    # Sorted, so that two runs cannot deadlock.
    driver, ordered = psycopg_connection(conn), sorted(digests)
    strides = [ordered[start : start + STRIDE] for start in range(0, len(ordered), STRIDE)]
    other_fields = copy_field(keys.current.encode()) + copy_field(origin.action.encode())
    other_fields += copy_field(batch.to_bytes(8))
    try:
        # COPY takes three quarters of the time of INSERT ... ON CONFLICT (docs/decisions/0048).
        with driver.transaction(), driver.cursor() as cursor:
            for stride in strides:
                with cursor.copy(_COPY) as copy:
                    copy.write(
                        copy_stream(4, [copy_field(hmac_) + other_fields for hmac_ in stride])
                    )
    except psycopg.errors.UniqueViolation:
        for stride in strides:
            driver.execute(_ENTER, [keys.current, origin.action, batch, stride])
    return int(batch)


def settle_batches(conn: Connection, batch_ids: Sequence[int], at: datetime) -> None:
    """Record that the transactions that erased the records of these batches have committed.

    Batches for which this is already recorded stay unchanged.

    Args:
        conn: the state database.
        batch_ids: ids of the batches.
        at: time that is stored as the time of settlement.
    """
    if batch_ids:
        conn.execute(
            update(erasure_batch)
            .where(erasure_batch.c.id.in_(batch_ids), erasure_batch.c.settled_at.is_(None))
            .values(settled_at=at, entries=_entries_of_batch, entries_sha256=BATCH_DIGEST)
        )


def withdraw_batch(conn: Connection, batch_id: int) -> None:
    """Delete the batch of ledger entries of a transaction that did not commit.

    If the ledger has recorded that the transaction committed, the batch is not deleted.
    """
    still_open = select(erasure_batch.c.id).where(
        erasure_batch.c.id == batch_id, erasure_batch.c.settled_at.is_(None)
    )
    if conn.scalar(still_open.with_for_update()) is None:
        return
    conn.execute(delete(erasure).where(erasure.c.batch_id == batch_id))
    conn.execute(delete(erasure_batch).where(erasure_batch.c.id == batch_id))


def withdraw_empty_batches(conn: Connection, batch_ids: Sequence[int]) -> None:
    """Delete the open batches in `batch_ids` that have no ledger entry.

    A batch is open as long as the ledger does not know whether its transaction committed. Settled
    batches, and batches with an entry, are kept.

    Args:
        conn: the state database.
        batch_ids: ids of the batches.
    """
    has_no_entry = ~exists().where(erasure.c.batch_id == erasure_batch.c.id)
    conn.execute(
        delete(erasure_batch).where(
            erasure_batch.c.id.in_(batch_ids), erasure_batch.c.settled_at.is_(None), has_no_entry
        )
    )


def read_open_batches(conn: Connection, database: str) -> list[OpenBatch]:
    """Return the open batches of a database, in the order in which they were stored.

    A batch is open as long as the ledger does not know whether the erasing transaction committed.
    """
    query = (
        select(erasure_batch)
        .where(erasure_batch.c.database == database, erasure_batch.c.settled_at.is_(None))
        .order_by(erasure_batch.c.id)
    )
    return [
        OpenBatch(
            id=row.id,
            origin=Origin(
                database=row.database,
                collection=row.collection,
                action=row.action,
                record_class=row.record_class,
                rule=row.rule,
                dag_id=row.dag_id,
                run_id=row.run_id,
                key_types=row.key_types,
            ),
            transaction=row.transaction,
            server=row.server,
            at=row.erased_at,
        )
        for row in conn.execute(query)
    ]


def count_entries(conn: Connection, database: str) -> dict[str, dict[str, int]]:
    """Count the ledger entries of a database.

    Entries are counted even if it is unknown whether the transaction of the erasure committed.

    Returns:
        Collection -> id of the HMAC key -> number of entries.
    """
    numbers: dict[str, dict[str, int]] = defaultdict(dict)
    query = (
        select(erasure_batch.c.collection, erasure.c.key_id, func.count())
        .join_from(erasure, erasure_batch)
        .where(erasure_batch.c.database == database)
        .group_by(erasure_batch.c.collection, erasure.c.key_id)
        .order_by(erasure_batch.c.collection, erasure.c.key_id)
    )
    for collection, key_id, number in conn.execute(query):
        numbers[collection][key_id] = number
    return dict(numbers)


def count_missing_entries(conn: Connection, database: str) -> dict[str, int]:
    """Count the entries that the erasure ledger should have for a database and does not have.

    ParcelSeal never deletes an entry of a committed erasure. If an entry is missing, a person
    deleted the entry, or data of the state database was lost.

    Args:
        conn: the state database.
        database: name of the database in the data map.

    Returns:
        Collection -> number of missing entries. Collections without a missing entry are left out.
    """
    gone = func.greatest(erasure_batch.c.entries - _entries_of_batch, 0)
    return _by_collection(conn, database, func.sum(gone))


def require_complete_ledger(conn: Connection, database: str) -> None:
    """Raise an error if the erasure ledger of a database has missing or changed entries.

    A restore must not continue in this case. Only entries of committed erasures are checked.

    Raises:
        ControlFailed: `count_missing_entries` or `count_changed_batches` finds at least one.
    """
    if gone := count_missing_entries(conn, database):
        raise ControlFailed(
            f"The erasure ledger lost {sum(gone.values())} entries "
            f"({', '.join(sorted(gone))}). A restore would bring these records back.",
            _ACTION_OF_INCOMPLETE,
        )
    if changed := count_changed_batches(conn, database):
        raise ControlFailed(
            f"Entries of the erasure ledger were changed in {sum(changed.values())} batches "
            f"({', '.join(sorted(changed))}). A restore would bring these records back.",
            _ACTION_OF_INCOMPLETE,
        )


def count_entries_by_key_types(
    conn: Connection, database: str, collection: str
) -> dict[str | None, int]:
    """Count the ledger entries of a collection, grouped by the types of the primary key columns.

    The types are those that the primary key had when the record was erased.

    Returns:
        Types of the primary key (see `include.erasure.tables.primary_key_types`) -> number of
        entries. The key None counts old entries, for which no types were recorded.
    """
    query = (
        select(erasure_batch.c.key_types, func.count())
        .join_from(erasure, erasure_batch)
        .where(erasure_batch.c.database == database, erasure_batch.c.collection == collection)
        .group_by(erasure_batch.c.key_types)
        .order_by(erasure_batch.c.key_types)
    )
    return {types: int(number) for types, number in conn.execute(query)}


def key_ids_except(conn: Connection, key_ids: Iterable[str]) -> set[str]:
    """Return the ids of all HMAC keys that ledger entries use, except for the ids in `key_ids`.

    Args:
        conn: the state database.
        key_ids: ids to leave out.
    """
    query = select(erasure.c.key_id).where(erasure.c.key_id.not_in(list(key_ids))).distinct()
    return set(conn.scalars(query))


def count_deleted_since(conn: Connection, database: str, collection: str, at: datetime) -> int:
    """Count the records of a collection that were deleted after the time `at`.

    Only batches of the ledger whose transaction is known to have committed are counted.
    """
    query = select(func.coalesce(func.sum(erasure_batch.c.records), 0)).where(
        erasure_batch.c.database == database,
        erasure_batch.c.collection == collection,
        erasure_batch.c.action == "delete",
        erasure_batch.c.settled_at.is_not(None),
        erasure_batch.c.erased_at > at,
    )
    return int(conn.execute(query).scalar_one())


def count_erased(conn: Connection, dag_id: str, run_id: str) -> dict[tuple[str, str, Action], int]:
    """Count the records that a run erased, according to the erasure ledger.

    Only erasures that are known to have committed are counted. A record that was erased, reappeared
    and was erased again counts twice.

    Args:
        conn: the state database.
        dag_id: DAG id of the run.
        run_id: run id of the run.

    Returns:
        (database, record class, action) -> number of records. The action is delete or mask.
    """
    columns = (erasure_batch.c.database, erasure_batch.c.record_class, erasure_batch.c.action)
    query = (
        select(*columns, func.sum(erasure_batch.c.records))
        .where(
            erasure_batch.c.dag_id == dag_id,
            erasure_batch.c.run_id == run_id,
            erasure_batch.c.settled_at.is_not(None),
        )
        .group_by(*columns)
    )
    return {(row[0], row[1], row[2]): int(row[3]) for row in conn.execute(query)}


def count_erased_by_class(
    conn: Connection, database: str, dag_id: str, run_id: str
) -> dict[str, int]:
    """Count, for each record class, the records that a run erased from a database.

    The erasures of all attempts of the run are counted.
    """
    erased: Counter[str] = Counter()
    for (own_database, name, _action), records in count_erased(conn, dag_id, run_id).items():
        if own_database == database:
            erased[name] += records
    return dict(erased)


def has_batches(conn: Connection, database: str, dag_id: str, run_id: str) -> bool:
    """Return whether a run stored at least one batch in the erasure ledger for a database.

    It does not matter whether the transaction of the batch is known to have committed.
    """
    batch = erasure_batch.c
    run = (batch.database == database, batch.dag_id == dag_id, batch.run_id == run_id)
    return conn.scalar(select(batch.id).where(*run).limit(1)) is not None


def psycopg_connection(conn: Connection) -> psycopg.Connection[Any]:
    """Return the psycopg connection of an SQLAlchemy connection. Both share one transaction."""
    driver = conn.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


@dataclass(frozen=True)
class EntryLoss:
    """The missing entries and the changed batches of one collection in the erasure ledger.

    Only batches whose transaction is known to have committed are counted.

    Attributes:
        missing: number of entries that are missing.
        changed_batches: number of batches whose entries changed. A batch with a missing entry is
            counted as well.
    """

    database: str
    collection: str
    missing: int
    changed_batches: int


def find_entry_losses(conn: Connection) -> list[EntryLoss]:
    """Find missing and changed entries of committed erasures, for all databases of the ledger.

    This function reads every entry. A million entries take a few seconds (see
    `count_changed_batches`).

    Returns:
        One item for each collection with a missing or changed entry, sorted by database and
        collection.
    """
    losses = []
    query = select(erasure_batch.c.database).distinct().order_by(erasure_batch.c.database)
    for database in conn.scalars(query).all():
        missing = count_missing_entries(conn, database)
        changed = count_changed_batches(conn, database)
        losses += [
            EntryLoss(database, collection, missing.get(collection, 0), changed.get(collection, 0))
            for collection in sorted({*missing, *changed})
        ]
    return losses


def require_no_missing_entry(conn: Connection, database: str) -> None:
    """Raise an error if the erasure ledger lacks entries of earlier erasures in a database.

    A run calls this function before it erases more records. It only counts entries, so it does not
    detect a changed entry.

    Raises:
        ControlFailed: entries are missing (see `count_missing_entries`).
    """
    if gone := count_missing_entries(conn, database):
        raise ControlFailed(
            f"The erasure ledger lost {sum(gone.values())} entries of {database} "
            f"({', '.join(sorted(gone))}). A restore would bring these records back, so the run "
            "deletes nothing more.",
            "Restore the state database from a backup that has them: `./parcelseal recover-ledger` "
            "names what is missing. If no backup has them: docs/how-to/recover-lost-records.md, "
            '"When no backup has the entries".',
        )
