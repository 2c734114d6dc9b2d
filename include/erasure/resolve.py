"""Identify servers and transactions, and find out whether transactions of open batches committed.

A process that is killed leaves its batch open. The next run on the database queries PostgreSQL for
the transaction by its number (docs/decisions/0012).
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

import psycopg
from psycopg import errors, sql
from sqlalchemy import Engine, delete, tuple_, update

from include.erasure.ledger import (
    ErasureKeys,
    OpenBatch,
    Origin,
    settle,
    unsettled,
    withdraw,
    withdraw_empty,
)
from include.erasure.masks import Mask, shapes, to_mask
from include.erasure.matching import Table, kind_of, matches, place_of
from include.erasure.places import Place, primary_key
from include.services.database import scalar
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
    number = scalar(connection, "SELECT pg_current_xact_id()::text")
    assert number is not None
    return str(number)


def _asked(connection: psycopg.Connection[Any], query: str) -> str:
    try:
        with connection.transaction():
            return str(scalar(connection, query) or UNKNOWN)
    except (errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState):
        return UNKNOWN


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
    resolution = _Resolution(state, connection, places, keys, at, masks or {}, patience)
    try:
        resolution.resolve(batches)
    except psycopg.Error as error:
        raise ServiceError(
            f"ParcelSeal cannot find out which records of {database} were erased "
            f"({kind_of(error)}).",
            "See the log of its server, then run again.",
        ) from None


@dataclass(frozen=True)
class _Resolution:
    """The arguments of `resolve`."""

    state: Engine
    connection: psycopg.Connection
    places: Mapping[str, Place]
    keys: ErasureKeys
    at: datetime
    masks: Mapping[str, Mask]
    patience: timedelta

    def resolve(self, batches: Sequence[OpenBatch]) -> None:
        with self.connection.transaction():
            server = server_of(self.connection)
        # Each search reads the whole table, so one search serves all batches of the same records.
        unknown: dict[tuple[str, str, str], list[OpenBatch]] = defaultdict(list)
        until = time.monotonic() + self.patience.total_seconds()
        for batch in batches:
            status = self._status(batch, server, until)
            if status == "committed":
                with self.state.begin() as conn:
                    settle(conn, [batch.id], self.at)
            elif status == "aborted":
                with self.state.begin() as conn:
                    withdraw(conn, batch.id)
            else:
                origin = batch.origin
                unknown[origin.collection, origin.action, origin.record_class].append(batch)
        for alike in unknown.values():
            self._search(alike)

    def _status(self, batch: OpenBatch, server: str, until: float) -> str | None:
        """Return committed or aborted; None if PostgreSQL cannot tell."""
        if batch.transaction is None:
            return None
        is_certain = is_known(server) and batch.server == server
        is_possible = not is_known(server) or not is_known(batch.server)
        if not is_certain and not is_possible:
            return None
        query = "SELECT pg_xact_status(%s::xid8)"
        while True:
            try:
                with self.connection.transaction():
                    status: str | None = scalar(self.connection, query, [batch.transaction])
            except errors.InvalidParameterValue:  # a number that the server has not assigned yet
                return None
            if status != "in progress":
                # Another server's transaction may have the number. That it goes on is a reason to
                # wait; how it ended does not count.
                return status if is_certain else None
            if time.monotonic() >= until:
                raise ServiceError(
                    f"A transaction that erases records of {batch.origin.database} still goes on: "
                    f"{batch.transaction}.",
                    "If no other run is at work, end its session (pg_stat_activity, backend_xid), "
                    "then run again.",
                )
            time.sleep(_POLL_SECONDS)

    def _search(self, batches: Sequence[OpenBatch]) -> None:
        """Withdraw the entries whose records still exist, of batches of one class and action."""
        ids, origin = [batch.id for batch in batches], batches[0].origin
        with self.connection.transaction():
            table = self._table(origin)
            chunks = (
                list(matches(self.state, self.connection, table, self.keys, ids)) if table else []
            )
        with self.state.begin() as conn:
            withdrawn: Counter[int] = Counter()
            for match in chain.from_iterable(chunks):
                # Two batches may name the record by two keys; a match has one of them.
                names = [
                    (
                        key_id,
                        self.keys.digest(key_id, origin.database, origin.collection, match.key),
                    )
                    for key_id in self.keys.keys
                ]
                deleted = conn.execute(
                    delete(erasure)
                    .where(
                        tuple_(erasure.c.key_id, erasure.c.key_hmac).in_(names),
                        erasure.c.action == match.action,
                        erasure.c.batch_id.in_(ids),
                    )
                    .returning(erasure.c.batch_id)
                )
                withdrawn.update(deleted.scalars())
            for batch, number in withdrawn.items():
                conn.execute(
                    update(erasure_batch)
                    .where(erasure_batch.c.id == batch)
                    .values(records=erasure_batch.c.records - number)
                )
            withdraw_empty(conn, ids)
            settle(conn, ids, self.at)

    def _table(self, origin: Origin) -> Table | None:
        """Return the records for which an entry would be wrong; None if there are none."""
        place = place_of(origin.collection, self.places)
        columns = primary_key(self.connection, place)
        if columns is None:
            return None
        condition: sql.Composable | None = None
        if origin.action == "mask":
            if origin.record_class not in self.masks:
                return None
            condition = to_mask(self.masks[origin.record_class], shapes(self.connection, place))
        return Table(origin.database, origin.collection, place, columns, condition)
