"""Find the records of a table that have an entry in the erasure ledger.

The memory use does not grow with the number of records. Before a replay, the caller must call
`require_same_secrets` to check the HMAC keys. With a wrong HMAC key no record matches, so a
restored copy would keep all erased records without an error.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.dialects.postgresql import insert

from include.erasure.ledger import (
    Action,
    ErasureKeys,
    copy_stream,
    count_entries,
    psycopg_connection,
)
from include.erasure.tables import TableName, key_texts
from include.services.database import PRINTING
from include.services.errors import ServiceError, UsageError
from include.state.tables import erasure_key

CHUNK = 20_000  # keys to compare at once, about 10 MB
_ROW = struct.Struct("!iiI")  # length and value of a number, then the length of an HMAC
_numbers = count()

_STAGE = (
    "SET LOCAL client_min_messages = warning",  # no notice that the table exists already
    "CREATE TEMP TABLE IF NOT EXISTS parcelseal_key_digests (n integer, key_hmac bytea) "
    "ON COMMIT DELETE ROWS",
)
_MATCH = """
SELECT s.n, e.action, b.record_class
FROM parcelseal_key_digests s
JOIN erasure e ON e.key_hmac = s.key_hmac AND e.key_id = %(key_id)s
JOIN erasure_batch b ON b.id = e.batch_id
WHERE (%(batches)s::bigint[] IS NULL OR b.id = ANY(%(batches)s))
  AND (%(key_types)s::text[] IS NULL OR coalesce(b.key_types, '') = ANY(%(key_types)s))
"""


@dataclass(frozen=True)
class Match:
    """A record of a table that has an entry in the erasure ledger.

    Attributes:
        key: primary key of the record, as PostgreSQL prints it.
        action: disposition that the entry names: delete or mask.
        record_class: record class that the entry names.
    """

    key: tuple[str, ...]
    action: Action
    record_class: str


@dataclass(frozen=True)
class ComparedTable:
    """A table whose records are compared with the erasure ledger.

    Attributes:
        columns: columns of the primary key, in order.
        condition: SQL condition that selects the records to compare; it refers to the table as
            ``t``. None compares all records.
        key_types: alternatives for the types of the primary key. Each alternative is one text with
            the types of all key columns, as `include.erasure.tables.primary_key_types` returns it.
            Only entries whose recorded types equal an alternative are compared. The alternative
            None stands for entries without recorded types. If the attribute itself is None, entries
            of all types are compared.
    """

    database: str
    collection: str
    name: TableName
    columns: Sequence[str]
    condition: sql.Composable | None = None
    key_types: Collection[str | None] | None = None


def match_records(
    state: Engine,
    connection: psycopg.Connection,
    table: ComparedTable,
    keys: ErasureKeys,
    batches: Collection[int] | None = None,
) -> Iterator[list[Match]]:
    """Yield the records of a table that have an entry in the ledger.

    The table is read in chunks of `CHUNK` records. For each chunk, the function yields a list of
    the records with an entry, which may be empty. Entries match even if it is unknown whether the
    transaction of the erasure committed.

    The transaction on `connection` stays open. Between two lists, the caller may execute other
    statements on `connection`. The session keeps the settings of
    `include.services.database.PRINTING`.

    Args:
        state: state database with the ledger.
        connection: database of the records, in a transaction.
        table: table to compare.
        keys: current and earlier HMAC keys.
        batches: ids of the batches to compare; None compares all batches.

    Raises:
        UsageError: an HMAC key is missing.
        ServiceError: the table or the ledger cannot be read.
    """
    try:
        with state.connect() as ledger:
            key_ids = count_entries(ledger, table.database).get(table.collection, {})
            check_keys(key_ids, keys)
            ledger.commit()
            for chunk in _chunks(connection, table):
                yield _match_chunk(ledger, chunk, table, keys, list(key_ids), batches)
    except psycopg.Error as error:
        raise ServiceError(
            f"The erasure ledger cannot be read ({describe_error(error)}).",
            "Check the connection state_db.",
        ) from None


def check_keys(key_ids: Collection[str], keys: ErasureKeys) -> None:
    """Raise UsageError if an HMAC key that ledger entries use is not configured.

    Args:
        key_ids: ids of the HMAC keys that the entries use.
        keys: configured HMAC keys.
    """
    if missing := set(key_ids) - set(keys.keys):
        raise UsageError(
            "Keys of the erasure ledger are missing in the configuration: "
            f"{', '.join(sorted(missing))}.",
            "Add them to the extra `erasure_keys` of the connection state_db.",
        )


def table_name_of(collection: str, table_names: Mapping[str, TableName]) -> TableName:
    """Return the table of a collection.

    Args:
        collection: name of the collection in the data map.
        table_names: collection -> table, for all collections of the data map.

    Raises:
        UsageError: the collection is not in the data map.
    """
    if collection not in table_names:
        raise UsageError(
            f"The erasure ledger has the collection {collection}, which is not in the data map.",
            "Keep the collection in the data map as long as backups may contain it.",
        )
    return table_names[collection]


def describe_error(error: psycopg.Error) -> str:
    """Return the type and SQLSTATE of a database error.

    The error's message is left out, because it may contain personal data.
    """
    return f"{type(error).__name__}, {error.sqlstate or 'no code'}"


@contextmanager
def copy_failures(copy: psycopg.Connection[Any], problem: str) -> Iterator[None]:
    """Raise ServiceError if a statement in the ``with`` block fails on a restored copy.

    The transaction on the copy is rolled back first. The error message contains no values of
    records.

    Args:
        copy: the restored database.
        problem: start of the error message.

    Raises:
        ServiceError: a statement in the ``with`` block failed.
    """
    try:
        yield
    except psycopg.Error as error:
        if not copy.broken:
            copy.rollback()
        raise ServiceError(
            f"{problem} ({describe_error(error)}).",
            "Do not use the copy. The log of its server has the details.",
        ) from None


def _chunks(
    connection: psycopg.Connection, table: ComparedTable
) -> Iterator[list[tuple[str, ...]]]:
    query = sql.SQL("SELECT {} FROM {} AS t WHERE {}").format(
        key_texts(table.columns), table.name.identifier, table.condition or sql.SQL("true")
    )
    try:
        for name, value in PRINTING.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        # COPY instead of a cursor would block the connection between two chunks.
        with connection.cursor(f"parcelseal_keys_{next(_numbers)}") as cursor:
            cursor.execute(query)
            while rows := cursor.fetchmany(CHUNK):
                yield rows
    except psycopg.Error as error:
        raise ServiceError(
            f"The table of {table.collection} cannot be read ({describe_error(error)}).",
            "Erased records were not searched. The log of its server has the details.",
        ) from None


def _match_chunk(
    ledger: Connection,
    chunk: Sequence[tuple[str, ...]],
    table: ComparedTable,
    keys: ErasureKeys,
    key_ids: Sequence[str],
    batches: Collection[int] | None,
) -> list[Match]:
    matches: dict[tuple[int, str], Match] = {}  # entries of two HMAC keys may match one record
    driver = psycopg_connection(ledger)
    for key_id in key_ids:
        digests = keys.digests(key_id, table.database, table.collection, chunk)
        ledger.execute(text("SELECT 1"))  # SQLAlchemy must begin the transaction to commit it later
        for statement in _STAGE:
            driver.execute(statement)
        with (
            driver.cursor() as cursor,
            cursor.copy("COPY parcelseal_key_digests FROM STDIN (FORMAT binary)") as into,
        ):
            rows = (_ROW.pack(4, n, 32) + digest for n, digest in enumerate(digests))
            into.write(copy_stream(2, rows))
        parameters = {
            "key_id": key_id,
            "batches": None if batches is None else list(batches),
            "key_types": table.key_types and [types or "" for types in table.key_types],
        }
        for n, action, record_class in driver.execute(_MATCH, parameters):
            matches.setdefault((n, action), Match(chunk[n], action, record_class))
        ledger.commit()  # empties the temporary table
    return list(matches.values())


CHECKED_TEXT = b"parcelseal erasure key"  # its HMAC is the stored check value of a key


def require_same_secrets(state: Engine, keys: ErasureKeys, at: datetime) -> None:
    """Check that each HMAC key still has the secret that it had at its first use.

    When an HMAC key is used for the first time, the function stores a check value. Later calls
    compare the secret with this value.

    Args:
        state: state database with the ledger.
        keys: current and earlier HMAC keys.
        at: the current time, stored as the time of first use of new keys.

    Raises:
        UsageError: an HMAC key has another secret than at its first use.
    """
    checks = {
        name: hmac.digest(secret, CHECKED_TEXT, "sha256") for name, secret in keys.keys.items()
    }
    rows = [{"key_id": name, "check": check, "first_used_at": at} for name, check in checks.items()]
    with state.begin() as conn:
        conn.execute(insert(erasure_key).on_conflict_do_nothing(), rows)
        query = select(erasure_key.c.key_id, erasure_key.c.check)
        stored = {name: bytes(check) for name, check in conn.execute(query)}
    changed = [name for name in checks if not hmac.compare_digest(checks[name], stored[name])]
    if changed:
        raise UsageError(
            f"The secret of erasure key {', '.join(sorted(changed))} differs from the secret that "
            "the ledger was written with. A restore could not find the erased records, and would "
            "bring them back.",
            "Restore the earlier secret in the extra `erasure_keys` of the connection state_db. "
            "To use a new secret, give it a new id and keep the earlier key.",
        )
