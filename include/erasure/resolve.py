"""Find out whether the transactions of open ledger batches committed.

A batch contains the ledger entries of one transaction that erases records. It is open as long as
the ledger does not know whether this transaction committed. If a process is killed while it erases
records, its batch stays open. The next run on the database asks PostgreSQL whether the transaction
committed (docs/decisions/0012).
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
    read_open_batches,
    settle_batches,
    withdraw_batch,
    withdraw_empty_batches,
)
from include.erasure.masks import Mask, needs_masking, read_column_shapes
from include.erasure.matching import ComparedTable, describe_error, match_records, table_name_of
from include.erasure.tables import TableName, require_primary_key
from include.services.database import scalar
from include.services.errors import ServiceError
from include.state.tables import erasure, erasure_batch

UNKNOWN = "unknown"
# A promoted replica, or a server that was reset to a backup, may reuse a transaction number. Its
# timeline differs. The timeline is read from the log's position, since the control file has the new
# value only after the next checkpoint.
_SYSTEM = "SELECT system_identifier::text FROM pg_control_system()"
_TIMELINE = "SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)"
# The oid distinguishes a database from one that was restored under the same name.
_DATABASE = "SELECT oid::text FROM pg_database WHERE datname = current_database()"


def server_of(connection: psycopg.Connection[Any]) -> str:
    """Return a text that identifies the server and the database of a connection.

    The text consists of the server's system identifier, the server's timeline and the oid of the
    database. PostgreSQL functions return these values, and by default every role may execute them.
    A value is ``unknown`` if this right was revoked or the server is a replica, see
    `identifies_server`.

    Raises:
        psycopg.Error: the connection was lost.
    """
    system, timeline = (_query(connection, query) for query in (_SYSTEM, _TIMELINE))
    return f"{system}/{timeline}/{_query(connection, _DATABASE)}"


def identifies_server(server: str | None) -> bool:
    """Return whether a result of `server_of` is complete, so that it identifies one server.

    It is incomplete if one of its values is ``unknown``.

    Args:
        server: result of `server_of`; None if no server was recorded. For None, the function
            returns False.
    """
    return server is not None and UNKNOWN not in server


def is_same_database(first: str, second: str) -> bool:
    """Return whether two sessions use the same database, on the same server or on its standby.

    A value that is ``unknown`` in `first` or `second` is not compared.

    Args:
        first: result of `server_of` in a session.
        second: result of `server_of` in another session.
    """
    system, _timeline, database = zip(first.split("/"), second.split("/"), strict=True)
    return all(UNKNOWN in pair or len(set(pair)) == 1 for pair in (system, database))


def transaction_of(connection: psycopg.Connection[Any]) -> str:
    """Return the 64-bit number of the connection's open transaction, in decimal.

    PostgreSQL assigns a number if the transaction does not have one yet.

    Raises:
        psycopg.Error: the server is a replica, or the connection was lost.
    """
    number = scalar(connection, "SELECT pg_current_xact_id()::text")
    assert number is not None
    return str(number)


def _query(connection: psycopg.Connection[Any], query: str) -> str:
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
    table_names: Mapping[str, TableName],
    keys: ErasureKeys,
    at: datetime,
    masks: Mapping[str, Mask] | None = None,
    patience: timedelta = PATIENCE,
) -> None:
    """Find out, for every open batch of a database, whether its transaction committed.

    A batch contains the ledger entries of one transaction that erased records. It is open as long
    as the ledger does not know whether this transaction committed. If the transaction committed,
    the batch is settled. If the transaction was rolled back, the batch is withdrawn, that is,
    deleted from the ledger. If PostgreSQL no longer knows the transaction, the function looks for
    the records: entries of records that still exist are withdrawn, and the other entries are
    settled.

    The caller must ensure that no other run is erasing records of the database. Otherwise the
    function waits for the transactions of that run.

    Args:
        state: state database with the ledger.
        connection: mapped database, outside of a transaction. The session keeps the settings of
            `include.services.database.PRINTING`.
        database: name of the database in the data map.
        table_names: collection -> table.
        keys: current and earlier HMAC keys.
        at: the current time.
        masks: record class -> mask. If a record class has no mask and PostgreSQL no longer knows
            the transaction, the batches of this record class are settled. This is harmless, because
            a replay may mask a record twice.
        patience: longest time to wait for transactions in progress.

    Raises:
        UsageError: a collection is not mapped, an HMAC key is missing, or a table has no primary
            key.
        ServiceError: a transaction does not end in time, or the database does not answer.
    """
    with state.connect() as conn:
        batches = read_open_batches(conn, database)
    if not batches:
        return
    resolution = _Resolution(state, connection, table_names, keys, at, masks or {}, patience)
    try:
        resolution.resolve(batches)
    except psycopg.Error as error:
        raise ServiceError(
            f"ParcelSeal cannot determine which records of {database} were erased "
            f"({describe_error(error)}).",
            "Read the log of its server, then run the workflow again.",
        ) from None


@dataclass(frozen=True)
class _Resolution:
    """Finds out whether the transactions of open ledger batches committed.

    A batch of ledger entries is open as long as the ledger does not know whether the transaction
    that erased the records committed. The function `resolve` creates this object for one call.

    Attributes:
        state: state database with the ledger.
        connection: mapped database, outside of a transaction.
        table_names: collection -> table.
        keys: current and earlier HMAC keys.
        at: the current time.
        masks: record class -> mask.
        patience: longest time to wait for transactions in progress.
    """

    state: Engine
    connection: psycopg.Connection
    table_names: Mapping[str, TableName]
    keys: ErasureKeys
    at: datetime
    masks: Mapping[str, Mask]
    patience: timedelta

    def resolve(self, batches: Sequence[OpenBatch]) -> None:
        with self.connection.transaction():
            server = server_of(self.connection)
        # Each search reads the whole table, so batches of one class and action share one search.
        unknown: dict[tuple[str, str, str], list[OpenBatch]] = defaultdict(list)
        until = time.monotonic() + self.patience.total_seconds()
        for batch in batches:
            status = self._status(batch, server, until)
            if status == "committed":
                with self.state.begin() as conn:
                    settle_batches(conn, [batch.id], self.at)
            elif status == "aborted":
                with self.state.begin() as conn:
                    withdraw_batch(conn, batch.id)
            else:
                origin = batch.origin
                unknown[origin.collection, origin.action, origin.record_class].append(batch)
        for group in unknown.values():
            self._search(group)

    def _status(self, batch: OpenBatch, server: str, until: float) -> str | None:
        """Return the status of a batch's transaction: ``committed`` or ``aborted``.

        Return None if the status is unknown.

        Args:
            batch: the open batch.
            server: result of `server_of` for the connection to the mapped database.
            until: value of `time.monotonic` until which to wait for a transaction in progress.
        """
        if batch.transaction is None:
            return None
        is_certain = identifies_server(server) and batch.server == server
        is_possible = not identifies_server(server) or not identifies_server(batch.server)
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
                # The number may belong to a transaction of another server. Its end proves nothing,
                # but to be safe, this run waits for a transaction in progress.
                return status if is_certain else None
            if time.monotonic() >= until:
                raise ServiceError(
                    f"A transaction that erases records of {batch.origin.database} is active: "
                    f"{batch.transaction}.",
                    "If no other run is active, end its session (pg_stat_activity, backend_xid), "
                    "then run again.",
                )
            time.sleep(_POLL_SECONDS)

    def _search(self, batches: Sequence[OpenBatch]) -> None:
        """Settle or withdraw each entry of some batches by searching for the erased record.

        If the record still exists, the erasure did not happen, and the entry is withdrawn. The
        other entries are settled.

        Args:
            batches: batches that agree in collection, record class and action.
        """
        ids, origin = [batch.id for batch in batches], batches[0].origin
        with self.connection.transaction():
            table = self._table(origin)
            chunks = (
                list(match_records(self.state, self.connection, table, self.keys, ids))
                if table
                else []
            )
        with self.state.begin() as conn:
            withdrawn: Counter[int] = Counter()
            for match in chain.from_iterable(chunks):
                # Two batches may have entries of the record under different HMAC keys.
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
            withdraw_empty_batches(conn, ids)
            settle_batches(conn, ids, self.at)

    def _table(self, origin: Origin) -> ComparedTable | None:
        """Return the table of an erasure, with a condition for the records that are not erased.

        After a deletion, this is every record that is still in the table. After a mask, these are
        the records that are not masked.

        Args:
            origin: collection, record class and action of the erasure.

        Returns:
            The table with its condition; None if the table does not exist in the database, or if
            the record class has no mask.
        """
        table_name = table_name_of(origin.collection, self.table_names)
        columns = require_primary_key(self.connection, table_name)
        if columns is None:
            return None
        condition: sql.Composable | None = None
        if origin.action == "mask":
            if origin.record_class not in self.masks:
                return None
            condition = needs_masking(
                self.masks[origin.record_class], read_column_shapes(self.connection, table_name)
            )
        return ComparedTable(origin.database, origin.collection, table_name, columns, condition)
