"""Match the records of a table with the erasure ledger, in constant memory.

The HMAC secret is compared with the ledger first. With a wrong secret no record would match, and a
restored copy would keep all erased records without any sign of it.
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

from include.erasure.ledger import Action, ErasureKeys, driver_of, entries, stream
from include.erasure.places import Place, key_texts
from include.services.database import PRINTING
from include.services.errors import ServiceError, UsageError
from include.state.tables import erasure_key

CHUNK = 20_000  # keys that are compared at once: about 10 MB
_ROW = struct.Struct("!iiI")  # a number of four bytes, and the length of an HMAC
_numbers = count()

_STAGE = (
    "SET LOCAL client_min_messages = warning",  # it exists but for the first chunk of a session
    "CREATE TEMP TABLE IF NOT EXISTS parcelseal_asking (n integer, key_hmac bytea) "
    "ON COMMIT DELETE ROWS",
)
_ASK = """
SELECT s.n, e.action, b.record_class
FROM parcelseal_asking s
JOIN erasure e ON e.key_hmac = s.key_hmac AND e.key_id = %(key_id)s
JOIN erasure_batch b ON b.id = e.batch_id
WHERE (%(batches)s::bigint[] IS NULL OR b.id = ANY(%(batches)s))
  AND (%(key_types)s::text[] IS NULL OR coalesce(b.key_types, '') = ANY(%(key_types)s))
"""


@dataclass(frozen=True)
class Match:
    """A record that is in a table, and in the ledger.

    Attributes:
        key: of the record, as PostgreSQL prints it.
    """

    key: tuple[str, ...]
    action: Action
    record_class: str


@dataclass(frozen=True)
class Table:
    """The records that are compared with the ledger.

    Attributes:
        columns: of the primary key, in order.
        condition: SQL over the record ``t`` that selects the records; None selects all.
        key_types: types of key (`TYPES_OF_KEY`) of the entries that are compared, None for those
            that do not say theirs; all entries where there are none.
    """

    database: str
    collection: str
    place: Place
    columns: Sequence[str]
    condition: sql.Composable | None = None
    key_types: Collection[str | None] | None = None


def matches(
    state: Engine,
    connection: psycopg.Connection,
    table: Table,
    keys: ErasureKeys,
    batches: Collection[int] | None = None,
) -> Iterator[list[Match]]:
    """Yield the records of a table that the ledger has, some thousands of keys at a time.

    Entries of open batches are among them. The connection's transaction stays open, and between two
    lists it may be used; its session prints keys as `PRINTING` says from then on.

    Args:
        state: database of the ledger.
        connection: of the records, in a transaction.
        table: what to look at.
        keys: of the HMAC, old ones included.
        batches: look for their entries only.

    Raises:
        UsageError: a key of the ledger is missing.
        ServiceError: the table or the ledger cannot be read.
    """
    try:
        with state.connect() as ledger:
            key_ids = entries(ledger, table.database).get(table.collection, {})
            check_keys(key_ids, keys)
            ledger.commit()
            for chunk in _chunks(connection, table):
                yield _known(ledger, chunk, table, keys, list(key_ids), batches)
    except psycopg.Error as error:
        raise ServiceError(
            f"The erasure ledger cannot be read ({kind_of(error)}).",
            "Check the connection state_db.",
        ) from None


def check_keys(key_ids: Collection[str], keys: ErasureKeys) -> None:
    """Raise UsageError when an entry was made with a key that is not here."""
    if absent := set(key_ids) - set(keys.keys):
        raise UsageError(
            f"Keys of the erasure ledger are missing here: {', '.join(sorted(absent))}.",
            "Add them to the extra `erasure_keys` of the connection state_db.",
        )


def place_of(collection: str, places: Mapping[str, Place]) -> Place:
    """Return where a collection of the ledger is; UsageError when the data map lacks it."""
    if collection not in places:
        raise UsageError(
            f"The erasure ledger names the collection {collection}, which the data map lacks.",
            "Keep the collection in the data map as long as backups may contain it.",
        )
    return places[collection]


def kind_of(error: psycopg.Error) -> str:
    """Name an error of PostgreSQL without its message, which may hold values."""
    return f"{type(error).__name__}, {error.sqlstate or 'no code'}"


@contextmanager
def copy_failures(copy: psycopg.Connection[Any], problem: str) -> Iterator[None]:
    """Roll a restored copy back if it refuses a statement; the error message has no value.

    Args:
        copy: the restored database.
        problem: the first words of the error message.

    Raises:
        ServiceError: the copy refused.
    """
    try:
        yield
    except psycopg.Error as error:
        if not copy.broken:
            copy.rollback()
        raise ServiceError(
            f"{problem} ({kind_of(error)}).",
            "The copy is not fit for use. The log of its server tells more.",
        ) from None


def _chunks(connection: psycopg.Connection, table: Table) -> Iterator[list[tuple[str, ...]]]:
    query = sql.SQL("SELECT {} FROM {} AS t WHERE {}").format(
        key_texts(table.columns), table.place.identifier, table.condition or sql.SQL("true")
    )
    try:
        for name, value in PRINTING.items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        # A cursor, since COPY would block the connection between two chunks.
        with connection.cursor(f"parcelseal_keys_{next(_numbers)}") as cursor:
            cursor.execute(query)
            while rows := cursor.fetchmany(CHUNK):
                yield rows
    except psycopg.Error as error:
        raise ServiceError(
            f"The table of {table.collection} cannot be read ({kind_of(error)}).",
            "Erased records were not looked for. The log of its server tells more.",
        ) from None


def _known(
    ledger: Connection,
    chunk: Sequence[tuple[str, ...]],
    table: Table,
    keys: ErasureKeys,
    key_ids: Sequence[str],
    batches: Collection[int] | None,
) -> list[Match]:
    known: dict[tuple[int, str], Match] = {}  # each once, although two keys may name it
    driver = driver_of(ledger)
    for key_id in key_ids:
        digests = keys.digests(key_id, table.database, table.collection, chunk)
        ledger.execute(text("SELECT 1"))  # SQLAlchemy commits only what it saw begin
        for statement in _STAGE:
            driver.execute(statement)
        with (
            driver.cursor() as cursor,
            cursor.copy("COPY parcelseal_asking FROM STDIN (FORMAT binary)") as into,
        ):
            rows = (_ROW.pack(4, n, 32) + digest for n, digest in enumerate(digests))
            into.write(stream(2, rows))
        parameters = {
            "key_id": key_id,
            "batches": None if batches is None else list(batches),
            "key_types": table.key_types and [types or "" for types in table.key_types],
        }
        for n, action, record_class in driver.execute(_ASK, parameters):
            known.setdefault((n, action), Match(chunk[n], action, record_class))
        ledger.commit()  # which empties the table
    return list(known.values())


TEXT = b"parcelseal erasure key"  # the check value is its HMAC


def require_same_secrets(state: Engine, keys: ErasureKeys, at: datetime) -> None:
    """Compare the secret of each key id with the secret of its first use; remember new ids.

    Args:
        state: database of the ledger.
        keys: of the HMAC, old ones included.
        at: the moment.

    Raises:
        UsageError: the secret of an id has changed.
    """
    checks = {name: hmac.digest(secret, TEXT, "sha256") for name, secret in keys.keys.items()}
    rows = [{"key_id": name, "check": it, "first_used_at": at} for name, it in checks.items()]
    with state.begin() as conn:
        conn.execute(insert(erasure_key).on_conflict_do_nothing(), rows)
        query = select(erasure_key.c.key_id, erasure_key.c.check)
        known = {name: bytes(check) for name, check in conn.execute(query)}
    others = [name for name in checks if not hmac.compare_digest(checks[name], known[name])]
    if others:
        raise UsageError(
            f"The secret of erasure key {', '.join(sorted(others))} is not the one that the ledger "
            "was written with. A restore would not find erased people with it, and would bring "
            "them back.",
            "Put the earlier secret back into the extra `erasure_keys` of the connection state_db. "
            "To use a new secret, give it a new id and keep the earlier key.",
        )
