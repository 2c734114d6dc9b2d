"""The erasure ledger names erased records by a keyed HMAC of their key, and in no other way.

The ledger without the HMAC key identifies nobody. With the key, a restored old backup can be
searched for the erased records, and they are erased again (PIPL 47, version 2021-11-01).

Records are entered by batches, one for each transaction that erases them: `intend` before it
commits, `settle` after it. docs/decisions/0012 gives the reasons; `include.erasure.resolve` handles
batches that a killed process left open.

The figures that bundles seal cover batches. A batch keeps the number and a digest of its entries,
which show a deleted entry.

Entries are written with ``COPY ... (FORMAT binary)``. psycopg's ``Copy.write_row`` takes 1.3 times
the CPU time, and each batch of deletions waits for it.
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


def field(value: bytes) -> bytes:
    """Return one field of a row, given as PostgreSQL's binary format of its type."""
    return struct.pack("!i", len(value)) + value


def stream(fields: int, rows: Iterable[bytes]) -> bytes:
    """Return everything that is sent for a table's rows.

    Args:
        fields: how many there are in each row.
        rows: their fields one after the other, each as `field` returns it.
    """
    begin = struct.pack("!h", fields)
    return b"".join([_HEAD, *(begin + row for row in rows), _TAIL])


# Of the entries of the row of erasure_batch; the order is fixed, so that the same entries give the
# same digest. The migration 0024 has the same SQL for older batches.
DIGEST_OF_BATCH: ColumnElement[bytes] = literal_column(
    """(SELECT sha256(coalesce(string_agg(
        e.key_hmac || convert_to(e.action || ' ' || e.key_id || chr(10), 'UTF8'), ''::bytea
        ORDER BY e.key_hmac, e.action COLLATE "C", e.key_id COLLATE "C"
    ), ''::bytea)) FROM erasure e WHERE e.batch_id = erasure_batch.id)"""
)


def changed_batches(conn: Connection, database: str) -> dict[str, int]:
    """Count settled batches whose entries are not the ones that were settled.

    Reads every entry of the database: for each million, 1.05 s of processor time in batches of 20
    entries, and 2.6 s in batches of 1,000.

    Returns:
        Collection -> batches; nothing for collections where all is as it was.
    """
    is_changed = erasure_batch.c.entries_sha256.is_distinct_from(DIGEST_OF_BATCH)
    return _by_collection(conn, database, func.count().filter(is_changed))


def _by_collection(conn: Connection, database: str, figure: ColumnElement[int]) -> dict[str, int]:
    """Return a figure of the settled batches of a database by collection, without zeros."""
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
# Where the ledger has one of the keys. An entry of a batch that is still open moves to this one:
# its transaction cannot have erased the record that is erased now.
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
# Records of a statement. One of thousands keeps a core of the server busy until it ends, and others
# that wake up meanwhile wait for it; one of less than this takes longer to send than to execute.
STRIDE = 64
# Keys that are digested before others get the processor, about half a millisecond: a batch at once
# took 15, and others that woke up on that core waited for the scheduler's next tick.
TURN = 256


@dataclass(frozen=True)
class ErasureKeys:
    """Keys of the HMAC, by id; several after a rotation.

    Attributes:
        current: id of the key that new entries use.
    """

    keys: Mapping[str, bytes]
    current: str

    def __post_init__(self) -> None:
        if self.current not in self.keys or any(len(key) < 32 for key in self.keys.values()):
            raise UsageError(
                "The erasure keys need a current key, and 32 bytes or more each.",
                "See the extra `erasure_keys` of the connection state_db.",
            )

    def __repr__(self) -> str:
        return f"ErasureKeys({', '.join(self.keys)})"

    def digest(self, key_id: str, database: str, collection: str, key: Sequence[str]) -> bytes:
        """Return HMAC-SHA-256 of a record's primary key, given as PostgreSQL prints it."""
        return self.digests(key_id, database, collection, [key])[0]

    def digests(
        self, key_id: str, database: str, collection: str, keys: Iterable[Sequence[str]]
    ) -> list[bytes]:
        """Return the HMAC of each of a collection's keys, as `digest` does."""
        secret, head = self.keys[key_id], _encoded([database, collection])[:-1] + ", "
        digests = []
        for at, key in enumerate(keys, start=1):
            text = f"{head}[{', '.join(map(encode_basestring, key))}]]"
            digests.append(hmac.digest(secret, text.encode(), "sha256"))
            if not at % TURN:
                os.sched_yield()
        return digests


@dataclass(frozen=True)
class Origin:
    """The records of a batch, and the run and rule that erased them.

    Attributes:
        rule: SHA-256 of the rule, or another reason of the erasure.
        key_types: of the records' primary key, `include.erasure.places.types_of_key`; None if
            unknown.
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
    """A batch whose transaction may have committed or not.

    Attributes:
        transaction: 64-bit number; None where none was recorded.
        server: on which it counts, `include.erasure.resolve.server_of`.
        at: when it was entered.
    """

    id: int
    origin: Origin
    transaction: str | None
    server: str | None
    at: datetime


def intend(
    conn: Connection,
    keys: ErasureKeys,
    origin: Origin,
    record_keys: Sequence[Sequence[str]],
    *,
    transaction: str,
    server: str,
    at: datetime,
) -> int:
    """Enter what an open transaction is about to erase, before it commits.

    Commit the ledger's transaction before the erasing one. A key that a settled batch has stays
    with that one; a key that an open batch has moves here. Keys are texts as PostgreSQL prints them
    under `include.services.database.PRINTING`; transaction and server are what
    `include.erasure.resolve` says of the erasing connection, ``at`` is the moment of erasure. The
    transaction of ``conn`` is the caller's.

    Returns:
        The batch's id, for `settle` or `withdraw`.
    """
    digests = set(keys.digests(keys.current, origin.database, origin.collection, record_keys))
    # Through SQLAlchemy first: it commits only what it saw begin.
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
    # Sorted, so that two runs never wait for each other.
    driver, ordered = driver_of(conn), sorted(digests)
    strides = [ordered[at : at + STRIDE] for at in range(0, len(ordered), STRIDE)]
    same = field(keys.current.encode()) + field(origin.action.encode())
    same += field(batch.to_bytes(8))
    try:
        # Three quarters of the time of an INSERT that looks first (docs/performance.md).
        with driver.transaction(), driver.cursor() as cursor:
            for some in strides:
                with cursor.copy(_COPY) as into:
                    into.write(stream(4, [field(it) + same for it in some]))
    except psycopg.errors.UniqueViolation:
        for some in strides:
            driver.execute(_ENTER, [keys.current, origin.action, batch, some])
    return int(batch)


def settle(conn: Connection, batch_ids: Sequence[int], at: datetime) -> None:
    """Record that the transactions of batches committed; settled batches stay as they are."""
    if batch_ids:
        conn.execute(
            update(erasure_batch)
            .where(erasure_batch.c.id.in_(batch_ids), erasure_batch.c.settled_at.is_(None))
            .values(settled_at=at, entries=_entries_of_batch, entries_sha256=DIGEST_OF_BATCH)
        )


def withdraw(conn: Connection, batch_id: int) -> None:
    """Take back a batch whose transaction did not commit; one that is settled stays."""
    still_open = select(erasure_batch.c.id).where(
        erasure_batch.c.id == batch_id, erasure_batch.c.settled_at.is_(None)
    )
    if conn.scalar(still_open.with_for_update()) is None:
        return
    conn.execute(delete(erasure).where(erasure.c.batch_id == batch_id))
    conn.execute(delete(erasure_batch).where(erasure_batch.c.id == batch_id))


def withdraw_empty(conn: Connection, batch_ids: Sequence[int]) -> None:
    """Delete open batches that have no entry."""
    nothing_left = ~exists().where(erasure.c.batch_id == erasure_batch.c.id)
    conn.execute(
        delete(erasure_batch).where(
            erasure_batch.c.id.in_(batch_ids), erasure_batch.c.settled_at.is_(None), nothing_left
        )
    )


def unsettled(conn: Connection, database: str) -> list[OpenBatch]:
    """Return the open batches of a database, the oldest first."""
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


def entries(conn: Connection, database: str) -> dict[str, dict[str, int]]:
    """Count the entries of a database, open batches included: collection -> key id -> entries."""
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


def missing(conn: Connection, database: str) -> dict[str, int]:
    """Count entries of settled batches that are gone: collection -> entries.

    Nothing of the project takes one away: somebody did, or a part of the ledger was lost.

    Args:
        conn: the state database.
        database: whose entries.
    """
    gone = func.greatest(erasure_batch.c.entries - _entries_of_batch, 0)
    return _by_collection(conn, database, func.sum(gone))


def require_all_there(conn: Connection, database: str) -> None:
    """Refuse to restore with a ledger whose settled batches lack entries or have others.

    Raises:
        ControlFailed: entries are `missing`, or of `changed_batches`.
    """
    if gone := missing(conn, database):
        raise ControlFailed(
            f"The erasure ledger lacks {sum(gone.values())} entries that it had "
            f"({', '.join(sorted(gone))}). A restore would bring back the records that they name.",
            _ACTION_OF_INCOMPLETE,
        )
    if changed := changed_batches(conn, database):
        raise ControlFailed(
            f"Entries of the erasure ledger were changed in {sum(changed.values())} batches "
            f"({', '.join(sorted(changed))}): the records that they named would come back.",
            _ACTION_OF_INCOMPLETE,
        )


def entries_by_key_types(conn: Connection, database: str, collection: str) -> dict[str | None, int]:
    """Count a collection's entries by the types of the key that named their records.

    Returns:
        Types (`include.erasure.places.types_of_key`) -> entries; None for those entered before the
        types were recorded.
    """
    query = (
        select(erasure_batch.c.key_types, func.count())
        .join_from(erasure, erasure_batch)
        .where(erasure_batch.c.database == database, erasure_batch.c.collection == collection)
        .group_by(erasure_batch.c.key_types)
        .order_by(erasure_batch.c.key_types)
    )
    return {types: int(number) for types, number in conn.execute(query)}


def keys_other_than(conn: Connection, known: Iterable[str]) -> set[str]:
    """Return the ids of keys under which entries of any database were made, less those known."""
    query = select(erasure.c.key_id).where(erasure.c.key_id.not_in(list(known))).distinct()
    return set(conn.scalars(query))


def deleted_since(conn: Connection, database: str, collection: str, at: datetime) -> int:
    """Count the records of a collection that were deleted after a moment, by settled batches."""
    query = select(func.coalesce(func.sum(erasure_batch.c.records), 0)).where(
        erasure_batch.c.database == database,
        erasure_batch.c.collection == collection,
        erasure_batch.c.action == "delete",
        erasure_batch.c.settled_at.is_not(None),
        erasure_batch.c.erased_at > at,
    )
    return int(conn.execute(query).scalar_one())


def counted(conn: Connection, dag_id: str, run_id: str) -> dict[tuple[str, str, Action], int]:
    """Count what a run erased by its settled batches: (database, record class, action) -> records.

    A record whose key the ledger had before counts too: it came back, and was erased again.
    """
    of = (erasure_batch.c.database, erasure_batch.c.record_class, erasure_batch.c.action)
    query = (
        select(*of, func.sum(erasure_batch.c.records))
        .where(
            erasure_batch.c.dag_id == dag_id,
            erasure_batch.c.run_id == run_id,
            erasure_batch.c.settled_at.is_not(None),
        )
        .group_by(*of)
    )
    return {(row[0], row[1], row[2]): int(row[3]) for row in conn.execute(query)}


def erased_by_class(conn: Connection, database: str, dag_id: str, run_id: str) -> dict[str, int]:
    """Count what a run erased from a database, over all its tries: record class -> records."""
    done: Counter[str] = Counter()
    for (where, name, _action), records in counted(conn, dag_id, run_id).items():
        if where == database:
            done[name] += records
    return dict(done)


def has_begun(conn: Connection, database: str, dag_id: str, run_id: str) -> bool:
    """Whether a run has entered anything of a database, settled or not."""
    batch = erasure_batch.c
    run = (batch.database == database, batch.dag_id == dag_id, batch.run_id == run_id)
    return conn.scalar(select(batch.id).where(*run).limit(1)) is not None


def driver_of(conn: Connection) -> psycopg.Connection[Any]:
    """Return psycopg's own connection, in the transaction that SQLAlchemy began."""
    driver = conn.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


@dataclass(frozen=True)
class EntryLoss:
    """Lost or changed entries of a collection.

    Attributes:
        missing: number of entries that settled batches had and that are gone.
        changed_batches: number of settled batches whose entries are not the settled ones, those
            that lack entries included.
    """

    database: str
    collection: str
    missing: int
    changed_batches: int


def entry_losses(conn: Connection) -> list[EntryLoss]:
    """Compare the entries of each database of the ledger with their settled batches.

    Reads every entry: seconds for each million, see `changed_batches`.

    Returns:
        Losses by database and collection, in this order; none where all entries are as settled.
    """
    losses = []
    query = select(erasure_batch.c.database).distinct().order_by(erasure_batch.c.database)
    for database in conn.scalars(query).all():
        gone, changed = missing(conn, database), changed_batches(conn, database)
        losses += [
            EntryLoss(database, collection, gone.get(collection, 0), changed.get(collection, 0))
            for collection in sorted({*gone, *changed})
        ]
    return losses


def require_no_entry_missing(conn: Connection, database: str) -> None:
    """Refuse to erase more records of a database while the ledger lacks entries of earlier ones.

    Counts entries and digests none.

    Raises:
        ControlFailed: entries are `include.erasure.ledger.missing`.
    """
    if gone := missing(conn, database):
        raise ControlFailed(
            f"The erasure ledger lacks {sum(gone.values())} entries of {database} that it had "
            f"({', '.join(sorted(gone))}). A restore would bring back the records that they name, "
            "so nothing more is deleted.",
            "Restore the state database from a backup that has them: `./parcelseal recover-ledger` "
            "names what is missing. If no backup has them: docs/evidence.md, "
            '"When no backup has the entries".',
        )
