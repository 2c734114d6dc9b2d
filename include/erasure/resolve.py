"""Find out whether the transactions of open batches committed.

A process that is killed leaves its batch open. Whoever works on that database next asks PostgreSQL
for the transaction by its number; docs/decisions/0012 says why that is enough.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import errors, sql
from sqlalchemy import Engine, delete, tuple_, update

from include.erasure.ledger import (
    ErasureKeys,
    OpenBatch,
    settle,
    unsettled,
    withdraw,
    withdraw_empty,
)
from include.erasure.masks import Mask, shapes, to_mask
from include.erasure.matching import Table, kind_of, matches, place_of
from include.erasure.places import Place, primary_key
from include.services.errors import ServiceError
from include.state.tables import erasure, erasure_batch

UNKNOWN = "unknown"
# A promoted replica and a server that was set back may give a number that its twin gave before:
# they differ by the timeline. It is read from the log's present position, since the control file
# says the new one only after the next checkpoint.
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
_TIMELINE = "SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"
# By its oid: a database that was dropped and restored under its name is another one.
_DATABASE = "SELECT oid::text FROM pg_database WHERE datname = current_database()"


def server_of(connection: psycopg.Connection[Any]) -> str:
    """Return the server's system identifier and timeline, and the database's oid.

    Functions of the first two are anybody's by default. Where they were revoked, or the server is a
    replica, ``unknown`` stands in their place, and `is_known` says so.

    Raises:
        psycopg.Error: the connection is gone.
    """
    system, timeline = (_asked(connection, query) for query in (_SYSTEM, _TIMELINE))
    return f"{system}/{timeline}/{_asked(connection, _DATABASE)}"


def is_known(server: str | None) -> bool:
    """Whether it says on which server a transaction number counts."""
    return server is not None and UNKNOWN not in server


def are_one_database(first: str, second: str) -> bool:
    """Return whether two sessions are on the same database, of one server or its standby.

    Parts that one of the sessions does not know are not compared.

    Args:
        first: the database of a session, as `server_of` returns it.
        second: the database of the other session.
    """
    system, _timeline, database = zip(first.split("/"), second.split("/"), strict=True)
    return all(UNKNOWN in pair or len(set(pair)) == 1 for pair in (system, database))


def transaction_of(connection: psycopg.Connection[Any]) -> str:
    """Return the number of the open transaction, 64 bits in decimal; it gets one if it has none.

    Raises:
        psycopg.Error: the server is a replica, or the connection is gone.
    """
    row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
    assert row is not None
    return str(row[0])


def _asked(connection: psycopg.Connection[Any], query: str) -> str:
    try:
        with connection.transaction():
            row = connection.execute(query).fetchone()
    except (errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState):
        return UNKNOWN
    return UNKNOWN if row is None else str(row[0])


PATIENCE = timedelta(seconds=10)
_POLL_SECONDS = 0.1


def resolve(
    state: Engine,
    connection: psycopg.Connection,
    database: str,
    places: Mapping[str, Place],
    keys: ErasureKeys,
    at: datetime,
    masks: Mapping[str, Mask] | None = None,
    patience: timedelta = PATIENCE,
) -> None:
    """Settle or withdraw every open batch of a database.

    A batch is settled if its transaction committed, and withdrawn if it did not. If PostgreSQL no
    longer knows the transaction, the records are looked for: entries of those that are still there
    are withdrawn, the others settled.

    Nobody else may be erasing there, or their batches are waited for too.

    Args:
        state: database of the ledger.
        connection: of the mapped database, outside of a transaction. Its session prints keys as
            `include.services.database.PRINTING` says afterwards.
        database: its name in the data map.
        places: collection -> table.
        keys: of the HMAC, old ones included.
        at: present moment.
        masks: record class -> mask. Without the mask of a class its batches are settled when their
            transaction is unknown: a restored copy is then rather masked once too often.
        patience: how long a transaction that still goes on is waited for.

    Raises:
        UsageError: a collection or a key of the ledger is missing, or a table has no key.
        ServiceError: a transaction goes on, or the database does not answer.
    """
    with state.connect() as conn:
        batches = unsettled(conn, database)
    if not batches:
        return
    try:
        _resolve(state, connection, batches, places, keys, at, masks or {}, patience)
    except psycopg.Error as error:
        raise ServiceError(
            f"ParcelSeal cannot find out which records of {database} were erased "
            f"({kind_of(error)}).",
            "See the log of its server, then run again.",
        ) from None


def _resolve(
    state: Engine,
    connection: psycopg.Connection,
    batches: Sequence[OpenBatch],
    places: Mapping[str, Place],
    keys: ErasureKeys,
    at: datetime,
    masks: Mapping[str, Mask],
    patience: timedelta,
) -> None:
    with connection.transaction():
        server = server_of(connection)
    unknown: list[OpenBatch] = []
    until = time.monotonic() + patience.total_seconds()
    for batch in batches:
        status = _status(connection, batch, server, until)
        if status == "committed":
            with state.begin() as conn:
                settle(conn, [batch.id], at)
        elif status == "aborted":
            with state.begin() as conn:
                withdraw(conn, batch.id)
        else:
            unknown.append(batch)
    # Each look reads the whole table, so that batches of the same records are looked for together.
    alike: dict[tuple[str, str, str], list[OpenBatch]] = defaultdict(list)
    for batch in unknown:
        of = batch.origin
        alike[of.collection, of.action, of.record_class].append(batch)
    for together in alike.values():
        _look(state, connection, together, places, keys, at, masks)


def _status(
    connection: psycopg.Connection, batch: OpenBatch, server: str, until: float
) -> str | None:
    """Return committed or aborted; None where PostgreSQL cannot tell."""
    if batch.transaction is None:
        return None
    certain = is_known(server) and batch.server == server
    perhaps = not is_known(server) or not is_known(batch.server)
    if not certain and not perhaps:
        return None
    while True:
        try:
            with connection.transaction():
                row = connection.execute(
                    "SELECT pg_xact_status(%s::xid8)", [batch.transaction]
                ).fetchone()
        except errors.InvalidParameterValue:  # a number that the server did not give yet
            return None
        status = row[0] if row else None
        if status != "in progress":
            # Another server's transaction may have the number: whether it goes on is a reason to
            # wait, whether it ended none to believe it.
            return status if certain else None
        if time.monotonic() >= until:
            raise ServiceError(
                f"A transaction that erases records of {batch.origin.database} still goes on: "
                f"{batch.transaction}.",
                "If no other run is at work, end its session (pg_stat_activity, backend_xid), then "
                "run again.",
            )
        time.sleep(_POLL_SECONDS)


def _look(
    state: Engine,
    connection: psycopg.Connection,
    batches: Sequence[OpenBatch],
    places: Mapping[str, Place],
    keys: ErasureKeys,
    at: datetime,
    masks: Mapping[str, Mask],
) -> None:
    """Withdraw the entries of batches, all of one collection and mask, whose records are there."""
    ids, of = [batch.id for batch in batches], batches[0].origin
    with connection.transaction():
        table = _table(connection, batches[0], places, masks)
        found = [] if table is None else list(matches(state, connection, table, keys, ids))
    with state.begin() as conn:
        still_here: Counter[int] = Counter()
        for chunk in found:
            for match in chunk:
                # Two batches may name it by two keys, and a match tells of one.
                names = [
                    (key_id, keys.digest(key_id, of.database, of.collection, match.key))
                    for key_id in keys.keys
                ]
                withdrawn = conn.execute(
                    delete(erasure)
                    .where(
                        tuple_(erasure.c.key_id, erasure.c.key_hmac).in_(names),
                        erasure.c.action == match.action,
                        erasure.c.batch_id.in_(ids),
                    )
                    .returning(erasure.c.batch_id)
                )
                still_here.update(withdrawn.scalars())
        for batch, number in still_here.items():
            conn.execute(
                update(erasure_batch)
                .where(erasure_batch.c.id == batch)
                .values(records=erasure_batch.c.records - number)
            )
        withdraw_empty(conn, ids)
        settle(conn, ids, at)


def _table(
    connection: psycopg.Connection,
    batch: OpenBatch,
    places: Mapping[str, Place],
    masks: Mapping[str, Mask],
) -> Table | None:
    """Return the records of which an entry would be wrong; None where there are none."""
    origin = batch.origin
    place = place_of(origin.collection, places)
    columns = primary_key(connection, place)
    if columns is None:
        return None
    condition: sql.Composable | None = None
    if origin.action == "mask":
        if origin.record_class not in masks:
            return None
        condition = to_mask(masks[origin.record_class], shapes(connection, place))
    return Table(origin.database, origin.collection, place, columns, condition)
