"""Keep the keys of records that runs found for open erasure requests, until these are closed.

A run may find a record through another record, and erase that record first. After that, only the
record's key leads to it. Keys are named as in the quarantine register: by a keyed HMAC if the key
identifies a person (docs/decisions/0033).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Connection, delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from include.erasure.ledger import ErasureKeys
from include.erasure.matching import check_keys
from include.erasure.places import key_texts, places_of, primary_key
from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.quarantine.keys import KeyNames
from include.quarantine.register import key_of
from include.services.clock import Clock
from include.state.tables import erasure_request, erasure_request_record

Key = tuple[str, ...]
AT_ONCE = 10_000  # rows of a statement, and keys that are compared together
_DIGEST = "hmac:"


@dataclass(frozen=True)
class NamedRecord:
    """The name of a record in the state database, with its erasure request.

    Attributes:
        request_id: number of the request.
        record_class: class of retention.yaml by which a run found the record.
        collection: of the data map.
        name: of the primary key, as `include.quarantine.keys.KeyNames` writes it.
        found_by: `digest_of` the expression that named the data subject.
    """

    request_id: int
    record_class: str
    collection: str
    name: str
    found_by: str


@dataclass(frozen=True)
class SubjectKeys:
    """Primary keys of records of one data subject in one record class.

    Attributes:
        subject: key of the data subject, as the request is written.
        found_by: digest of the expression that named the data subject.
        keys: primary keys as PostgreSQL prints them, sorted.
    """

    subject: str
    found_by: str
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class RequestRecords:
    """Primary keys of the records of open requests: record class -> keys by subject.

    The keys are in memory only; the state database has their names.
    """

    by_class: Mapping[str, tuple[SubjectKeys, ...]]

    @property
    def subjects(self) -> frozenset[str]:
        """Keys of the data subjects, as their requests are written."""
        return frozenset(group.subject for keys in self.by_class.values() for group in keys)

    def of(
        self, record_class: str, subjects: Collection[str] | None = None
    ) -> tuple[SubjectKeys, ...]:
        """Return the keys of a class, of some data subjects or of all."""
        keys = self.by_class.get(record_class, ())
        return tuple(group for group in keys if subjects is None or group.subject in subjects)

    def joined(self, others: RequestRecords) -> RequestRecords:
        """Return these keys and others."""
        return collected(
            (record_class, group.subject, group.found_by, key)
            for records in (self, others)
            for record_class, groups in records.by_class.items()
            for group in groups
            for key in group.keys
        )


NO_RECORDS = RequestRecords({})


def collected(records: Iterable[tuple[str, str, str, Key]]) -> RequestRecords:
    """Return the keys of records by class.

    Args:
        records: class, data subject, digest of the expression and primary key of each.
    """
    keys: dict[str, dict[tuple[str, str], set[Key]]] = defaultdict(lambda: defaultdict(set))
    for record_class, subject, found_by, key in records:
        keys[record_class][subject, found_by].add(key)
    return RequestRecords(
        {
            record_class: tuple(
                SubjectKeys(subject, found_by, tuple(sorted(those)))
                for (subject, found_by), those in sorted(groups.items())
            )
            for record_class, groups in keys.items()
        }
    )


def digest_of(expression: str) -> str:
    """Return SHA-256 of an expression of ``keys.subject``, in hex digits."""
    return hashlib.sha256(expression.encode()).hexdigest()


def keep(conn: Connection, clock: Clock, records: Collection[NamedRecord]) -> None:
    """Store records of open requests; records that are stored already do not change.

    The caller commits. Records of a request that was closed meanwhile are not stored.
    """
    open_ids = set(
        conn.scalars(
            select(erasure_request.c.id)
            .where(
                erasure_request.c.id.in_({record.request_id for record in records}),
                erasure_request.c.closed_at.is_(None),
            )
            .order_by(erasure_request.c.id)
            .with_for_update(read=True)  # closing a request deletes its records, and waits for us
        )
    )
    rows = [
        {
            "request_id": record.request_id,
            "record_class": record.record_class,
            "collection": record.collection,
            "key": record.name,
            "found_by": record.found_by,
            "found_at": clock.now(),
        }
        for record in records
        if record.request_id in open_ids
    ]
    for start in range(0, len(rows), AT_ONCE):
        statement = insert(erasure_request_record).on_conflict_do_nothing()
        conn.execute(statement, rows[start : start + AT_ONCE])


def remembered(conn: Connection, database: str) -> list[tuple[str, NamedRecord]]:
    """Return the records of a database's open requests, each with its data subject's key."""
    record, request = erasure_request_record, erasure_request
    query = (
        select(
            request.c.subject,
            record.c.request_id,
            record.c.record_class,
            record.c.collection,
            record.c.key,
            record.c.found_by,
        )
        .join_from(record, request)
        .where(request.c.database == database, request.c.closed_at.is_(None))
        .order_by(record.c.request_id, record.c.record_class, record.c.key)
    )
    return [(row[0], NamedRecord(*row[1:])) for row in conn.execute(query)]


def forget(conn: Connection, records: Collection[NamedRecord]) -> None:
    """Delete stored names of records that no longer exist; the caller commits."""
    table = erasure_request_record
    names = sorted({(record.request_id, record.record_class, record.name) for record in records})
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        conn.execute(
            delete(table).where(
                tuple_(table.c.request_id, table.c.record_class, table.c.key).in_(some)
            )
        )


@dataclass(frozen=True)
class Reader:
    """Resolves names of records to primary keys in one mapped database.

    A digest is compared with every key of its table, which reads the whole table. Only tables whose
    keys identify a person have digests.

    Attributes:
        connection: a session that prints keys as `include.services.database.PRINTING` says.
        database: of the data map.
        keys: of the HMAC, old ones included.
        rules: record classes of the database.
    """

    connection: psycopg.Connection[Any]
    database: MappedDatabase
    keys: ErasureKeys
    rules: Sequence[RetentionRule]

    def keys_of(self, records: Sequence[tuple[str, NamedRecord]]) -> dict[NamedRecord, Key]:
        """Return the primary keys of named records, without digests that no record has.

        Raises:
            UsageError: a key of the HMAC is missing.
        """
        digests: dict[str, set[str]] = defaultdict(set)
        keys: dict[NamedRecord, Key] = {}
        hidden: list[NamedRecord] = []
        for _subject, record in records:
            key = tuple(key_of(record.name))
            if len(key) == 1 and key[0].startswith(_DIGEST):
                digests[record.collection].add(key[0])
                hidden.append(record)
            else:
                keys[record] = key
        revealed = {name: dict(self._revealed(name, those)) for name, those in digests.items()}
        for record in hidden:
            digest = key_of(record.name)[0]
            if digest in revealed[record.collection]:
                keys[record] = revealed[record.collection][digest]
        return keys

    def is_erased_on_request(self, record: NamedRecord) -> bool:
        """Return whether a record class of the collection is erased on request."""
        return bool(self._classes(record))

    def gone(
        self, named: Sequence[tuple[str, NamedRecord]], there: Collection[tuple[str, Key]]
    ) -> list[NamedRecord]:
        """Return the named records that no longer exist.

        Records of a collection that is no longer erased on request are not returned: the count
        does not search them.

        Args:
            named: records.
            there: record classes and primary keys of the records that still exist.
        """
        keys = self.keys_of(named)
        return [
            record
            for _subject, record in named
            if (classes := self._classes(record))
            and not any((name, keys.get(record)) in there for name in classes)
        ]

    def records(self, named: Sequence[tuple[str, NamedRecord]]) -> RequestRecords:
        """Return the primary keys of named records by record class.

        If the pack no longer has a record's class, the record counts in every class of its
        collection that is erased on request, so that a renamed class loses no record.
        """
        keys = self.keys_of(named)
        return collected(
            (record_class, subject, record.found_by, keys[record])
            for subject, record in named
            if record in keys
            for record_class in self._classes(record)
        )

    def _classes(self, record: NamedRecord) -> list[str]:
        names = [
            rule.record_class
            for rule in self.rules
            if rule.on_request and rule.collection == record.collection
        ]
        return [record.record_class] if record.record_class in names else names

    def _revealed(self, collection: str, digests: Collection[str]) -> Iterator[tuple[str, Key]]:
        """Yield those of the digests that a record of the table has, with the record's key."""
        place = places_of(self.database).get(collection)
        columns = primary_key(self.connection, place) if place else None
        if place is None or columns is None:
            return
        key_ids = {digest.removeprefix(_DIGEST).rpartition(":")[0] for digest in digests}
        check_keys(key_ids, self.keys)
        query = sql.SQL("SELECT {} FROM {} AS t").format(key_texts(columns), place.identifier)
        with self.connection.cursor("parcelseal_records") as cursor:
            cursor.execute(query)
            while chunk := cursor.fetchmany(AT_ONCE):
                for key_id in key_ids:
                    computed = self.keys.digests(key_id, self.database.name, collection, chunk)
                    for key, digest in zip(chunk, computed, strict=True):
                        name = f"{_DIGEST}{key_id}:{digest.hex()}"
                        if name in digests:
                            yield name, key


@dataclass
class Namer:
    """Names records of one collection; records named by an older HMAC key keep their names.

    Attributes:
        keys: of the HMAC.
        database: of the data map.
        collection: name in the data map.
        columns: of the primary key.
        known: names that are stored already.
    """

    keys: ErasureKeys
    database: MappedDatabase
    collection: str
    columns: Sequence[str]
    known: Collection[str]

    @cached_property
    def _names(self) -> KeyNames:
        return KeyNames(
            self.keys,
            self.database.name,
            self.database.collections[self.collection],
            self.columns,
            frozenset(self.known),
        )

    def name(self, key: Key) -> str:
        """Return the name of a record, from its key as PostgreSQL prints it."""
        return self._names.of(key)
