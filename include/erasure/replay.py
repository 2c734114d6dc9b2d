"""Replaying the erasure ledger on a restored copy, and proving that no erased record is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors, sql

from include.erasure.ledger import ErasureKeys
from include.policy.datamap import MappedDatabase
from include.services.errors import ControlFailed, ServiceError, UsageError

PRIMARY_KEY = """
SELECT a.attname
FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY k(num, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num
WHERE i.indrelid = to_regclass(%s) AND i.indisprimary AND k.place <= i.indnkeyatts
ORDER BY k.place
"""
# Keys are named as PostgreSQL prints them, so the printing must not depend on the session.
PRINTING = (
    "SET datestyle = 'ISO, YMD'",
    "SET timezone = 'UTC'",
    "SET intervalstyle = 'iso_8601'",
    "SET extra_float_digits = 1",
    "SET bytea_output = 'hex'",
    "SET row_security = off",  # an error where a policy would hide rows
)


@dataclass(frozen=True)
class Place:
    """Where a collection's rows are in the restored copy."""

    schema: str
    table: str

    @property
    def identifier(self) -> sql.Identifier:
        """The qualified name for a query."""
        return sql.Identifier(self.schema, self.table)


def places_of(database: MappedDatabase) -> dict[str, Place]:
    """Return where the data map says that each collection's rows are."""
    return {name: Place(one.schema_name, one.table) for name, one in database.collections.items()}


@dataclass(frozen=True)
class Replay:
    """What a replay did.

    Attributes:
        entries: entries of the ledger for this database.
        replayed: records that the copy had brought back and that were erased again.
        remaining: erased records still present afterwards, by a second query; must be 0.
        skipped: collections whose table the copy does not have.
        not_looked_for: entries of those collections: of a table that is younger than the restore
            point, or that had another name then.
    """

    entries: int
    replayed: int
    remaining: int
    skipped: tuple[str, ...] = ()
    not_looked_for: int = 0


def replay(
    copy: psycopg.Connection,
    database: str,
    places: Mapping[str, Place],
    ledger: Mapping[str, Mapping[str, set[bytes]]],
    keys: ErasureKeys,
) -> Replay:
    """Erase from a restored copy whatever the ledger says was erased, then look again.

    All deletions happen in one statement, so foreign keys between the erased records hold in any
    order and in cycles.

    Args:
        copy: the restored database; a transaction is committed.
        database: its name in the data map.
        places: collection -> table.
        ledger: as `include.erasure.ledger.erased` returns it.
        keys: of the HMAC, old ones included.

    Raises:
        UsageError: a key of the ledger is missing, a collection is not mapped or has no key.
        ControlFailed: records that were never erased still refer to erased ones.
        ServiceError: the copy cannot be read or changed. Nothing is erased in either case.
    """
    check_keys(ledger, keys)
    found: dict[str, list[tuple[str, ...]]] = {}
    skipped = []
    for collection, by_key in ledger.items():
        place = _place(collection, places)
        columns = primary_key(copy, place)
        if columns is None:
            skipped.append(collection)
            continue
        found[collection] = list(_matches(copy, database, collection, place, columns, by_key, keys))
    _erase(copy, places, {name: rows for name, rows in found.items() if rows})
    remaining = sum(
        1
        for collection, by_key in ledger.items()
        if collection in found
        for _ in _matches(
            copy,
            database,
            collection,
            places[collection],
            primary_key(copy, places[collection]) or [],
            by_key,
            keys,
        )
    )
    copy.commit()
    entries = {collection: sum(map(len, by_key.values())) for collection, by_key in ledger.items()}
    return Replay(
        sum(entries.values()),
        sum(map(len, found.values())),
        remaining,
        tuple(skipped),
        sum(entries[collection] for collection in skipped),
    )


def check_keys(ledger: Mapping[str, Mapping[str, set[bytes]]], keys: ErasureKeys) -> None:
    """Raise UsageError when an entry was made with a key that is not here."""
    absent = {key_id for by_key in ledger.values() for key_id in by_key} - set(keys.keys)
    if absent:
        raise UsageError(
            f"Keys of the erasure ledger are missing here: {', '.join(sorted(absent))}.",
            "Add them to the extra `erasure_keys` of the connection state_db.",
        )


def primary_key(copy: psycopg.Connection, place: Place) -> list[str] | None:
    """Return a table's primary key columns in order, None when there is no such table.

    Raises:
        UsageError: the table has no primary key.
    """
    name = place.identifier.as_string(copy)
    row = copy.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchone()
    if row is None or not row[0]:
        return None
    columns = [found[0] for found in copy.execute(PRIMARY_KEY, [name])]
    if not columns:
        raise UsageError(f"Table {name} has no primary key, so its erased records have no name.")
    return columns


def _place(collection: str, places: Mapping[str, Place]) -> Place:
    if collection not in places:
        raise UsageError(
            f"The erasure ledger names the collection {collection}, which the data map lacks.",
            "Keep the collection in the data map as long as backups may contain it.",
        )
    return places[collection]


def _matches(
    copy: psycopg.Connection,
    database: str,
    collection: str,
    place: Place,
    columns: Sequence[str],
    by_key: Mapping[str, set[bytes]],
    keys: ErasureKeys,
) -> Iterator[tuple[str, ...]]:
    texts = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(one)) for one in columns)
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT").format(texts, place.identifier)
    try:
        for statement in PRINTING:
            copy.execute(statement)
        with copy.cursor() as cursor, cursor.copy(query) as rows:
            for row in rows.rows():
                key = tuple(str(part) for part in row)
                if any(
                    keys.digest(key_id, database, collection, key) in digests
                    for key_id, digests in by_key.items()
                ):
                    yield key
    except psycopg.Error as error:
        raise ServiceError(
            f"The copy's table of {collection} cannot be read ({_kind(error)}).",
            "Erasures were not replayed. The log of the copy's server tells more.",
        ) from None


def _erase(
    copy: psycopg.Connection,
    places: Mapping[str, Place],
    found: Mapping[str, list[tuple[str, ...]]],
) -> None:
    parts = []
    for number, (collection, rows) in enumerate(found.items()):
        columns = primary_key(copy, places[collection])
        assert columns is not None
        wanted = sql.Identifier(f"parcelseal_erase_{number}")
        names = [sql.Identifier(f"k{place}") for place in range(len(columns))]
        copy.execute(
            sql.SQL("CREATE TEMP TABLE {} ({}) ON COMMIT DROP").format(
                wanted, sql.SQL(", ").join(sql.SQL("{} text").format(name) for name in names)
            )
        )
        with (
            copy.cursor() as cursor,
            cursor.copy(sql.SQL("COPY {} FROM STDIN").format(wanted)) as into,
        ):
            for row in rows:
                into.write_row(row)
        same = sql.SQL(" AND ").join(
            sql.SQL("t.{}::text = e.{}").format(sql.Identifier(column), name)
            for column, name in zip(columns, names, strict=True)
        )
        parts.append(
            sql.SQL("{} AS (DELETE FROM {} t USING {} e WHERE {})").format(
                sql.Identifier(f"d{number}"), places[collection].identifier, wanted, same
            )
        )
    if not parts:
        return
    try:
        copy.execute(sql.SQL("WITH {} SELECT 1").format(sql.SQL(", ").join(parts)))
        copy.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except (errors.ForeignKeyViolation, errors.RestrictViolation) as error:
        copy.rollback()
        raise ControlFailed(
            f"Erased records cannot be erased again: {error.diag.table_name} still refers to them "
            f"({error.diag.constraint_name}).",
            "The copy is not fit for use. Erase the referring records too, or take a later point.",
        ) from None
    except psycopg.Error as error:  # a trigger's own message may hold values
        _roll_back(copy)
        raise ServiceError(
            f"Erased records cannot be erased again: the copy refuses ({_kind(error)}).",
            "The copy is not fit for use. The log of its server tells more.",
        ) from None


def _roll_back(copy: psycopg.Connection) -> None:
    if not copy.broken:
        copy.rollback()


def _kind(error: psycopg.Error) -> str:
    return f"{type(error).__name__}, {error.sqlstate or 'no code'}"
