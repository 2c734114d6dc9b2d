"""Store the keys of records that runs found for open erasure requests.

A run may find record B only through record A, and erase record A first. After that, only the stored
key leads to record B. A key that identifies a person, or is very long, is stored as an HMAC, as in
the quarantine register (docs/decisions/0033). When a request is closed, its stored keys are
deleted.
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
from include.erasure.tables import key_texts, require_primary_key, table_names_of
from include.policy.datamap import MappedDatabase
from include.policy.retention import RetentionRule
from include.quarantine.keys import KeyNames
from include.quarantine.register import key_of
from include.services.clock import Clock
from include.state.tables import erasure_request, erasure_request_record

Key = tuple[str, ...]
ROWS_AT_ONCE = 10_000  # rows of one statement, and keys of one comparison
_DIGEST = "hmac:"


@dataclass(frozen=True)
class NamedRecord:
    """A record that a run found for an erasure request, as the state database stores it.

    Attributes:
        request_id: number of the request.
        record_class: record class of retention.yaml for which a run found the record.
        collection: collection of the data map.
        name: text that stands for the record's primary key, from
            `include.quarantine.keys.KeyNames`. It contains the primary key, or an HMAC of the
            primary key.
        found_by: digest of the key expression that was used to find the record, from `digest_of`.
    """

    request_id: int
    record_class: str
    collection: str
    name: str
    found_by: str


@dataclass(frozen=True)
class SubjectKeys:
    """The primary keys of one data subject's records in one record class.

    Attributes:
        subject: key of the data subject, as in the request.
        found_by: digest of the key expression that was used to find the records, from `digest_of`.
        keys: primary keys as PostgreSQL prints them, sorted.
    """

    subject: str
    found_by: str
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class RequestRecords:
    """The primary keys of all records found for open erasure requests, by record class.

    The state database stores `NamedRecord.name` instead, which may be an HMAC of the primary key.
    """

    by_class: Mapping[str, tuple[SubjectKeys, ...]]

    @property
    def subjects(self) -> frozenset[str]:
        """The keys of the data subjects, as they are written in the requests."""
        return frozenset(group.subject for keys in self.by_class.values() for group in keys)

    def of(
        self, record_class: str, subjects: Collection[str] | None = None
    ) -> tuple[SubjectKeys, ...]:
        """Return the primary keys of the records of one record class, grouped by data subject.

        Args:
            record_class: name of the record class.
            subjects: keys of the data subjects to include; None includes all data subjects.
        """
        keys = self.by_class.get(record_class, ())
        return tuple(group for group in keys if subjects is None or group.subject in subjects)

    def merged_with(self, others: RequestRecords) -> RequestRecords:
        """Return an object that contains the primary keys of both this object and `others`."""
        return group_records(
            (record_class, group.subject, group.found_by, key)
            for records in (self, others)
            for record_class, groups in records.by_class.items()
            for group in groups
            for key in group.keys
        )


NO_RECORDS = RequestRecords({})


def group_records(records: Iterable[tuple[str, str, str, Key]]) -> RequestRecords:
    """Arrange the primary keys of records by record class and data subject.

    Args:
        records: for each record: record class, key of the data subject, digest of the key
            expression that was used to find the record (see `digest_of`), and primary key.
    """
    keys: dict[str, dict[tuple[str, str], set[Key]]] = defaultdict(lambda: defaultdict(set))
    for record_class, subject, found_by, key in records:
        keys[record_class][subject, found_by].add(key)
    return RequestRecords(
        {
            record_class: tuple(
                SubjectKeys(subject, found_by, tuple(sorted(group)))
                for (subject, found_by), group in sorted(groups.items())
            )
            for record_class, groups in keys.items()
        }
    )


def digest_of(expression: str) -> str:
    """Return the SHA-256 of a key expression of retention.yaml, in hexadecimal digits.

    A key expression is SQL that returns the key of a record's data subject.
    """
    return hashlib.sha256(expression.encode()).hexdigest()


def store_records(conn: Connection, clock: Clock, records: Collection[NamedRecord]) -> None:
    """Store records that a run found for open erasure requests, unless they are stored already.

    Records of a closed request are not stored. The caller must commit the transaction.

    Args:
        conn: the state database.
        clock: source of the current time.
        records: the records to store.
    """
    open_ids = set(
        conn.scalars(
            select(erasure_request.c.id)
            .where(
                erasure_request.c.id.in_({record.request_id for record in records}),
                erasure_request.c.closed_at.is_(None),
            )
            .order_by(erasure_request.c.id)
            .with_for_update(read=True)  # `close` waits for this lock, then deletes the records
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
    for start in range(0, len(rows), ROWS_AT_ONCE):
        statement = insert(erasure_request_record).on_conflict_do_nothing()
        conn.execute(statement, rows[start : start + ROWS_AT_ONCE])


def load_records(conn: Connection, database: str) -> list[tuple[str, NamedRecord]]:
    """Return the stored records of all open erasure requests of a database.

    Returns:
        For each record, a pair: key of the data subject, and the record.
    """
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


def delete_records(conn: Connection, records: Collection[NamedRecord]) -> None:
    """Delete stored records of erasure requests from the state database.

    The caller must commit. The records in the mapped database are not changed.

    Args:
        conn: the state database.
        records: the stored records to delete.
    """
    table = erasure_request_record
    names = sorted({(record.request_id, record.record_class, record.name) for record in records})
    for start in range(0, len(names), ROWS_AT_ONCE):
        chunk = names[start : start + ROWS_AT_ONCE]
        conn.execute(
            delete(table).where(
                tuple_(table.c.request_id, table.c.record_class, table.c.key).in_(chunk)
            )
        )


@dataclass(frozen=True)
class RecordReader:
    """Finds the records whose primary keys runs stored for erasure requests.

    The state database stores the primary key of each record. If the key identifies a person or is
    very long, the state database stores an HMAC of the key instead. To find such a record in the
    mapped database, the reader computes the HMAC of every primary key in the table.

    Attributes:
        connection: session in the mapped database, with the settings of
            `include.services.database.PRINTING`.
        database: database of the data map.
        keys: current and earlier HMAC keys.
        rules: retention rules of the database.
    """

    connection: psycopg.Connection[Any]
    database: MappedDatabase
    keys: ErasureKeys
    rules: Sequence[RetentionRule]

    def keys_of(self, records: Sequence[tuple[str, NamedRecord]]) -> dict[NamedRecord, Key]:
        """Return the primary keys of records that the state database stores for erasure requests.

        If the state database stores only an HMAC of a record's primary key, the function searches
        the collection's table in the mapped database for the primary key with this HMAC.

        Args:
            records: pairs: key of the data subject, and the stored record.

        Returns:
            Stored record -> primary key. A record is left out if its HMAC is stored, and no primary
            key in the table has this HMAC.

        Raises:
            UsageError: an HMAC key is missing.
        """
        digests: dict[str, set[str]] = defaultdict(set)
        keys: dict[NamedRecord, Key] = {}
        digested: list[NamedRecord] = []
        for _subject, record in records:
            key = tuple(key_of(record.name))
            if len(key) == 1 and key[0].startswith(_DIGEST):
                digests[record.collection].add(key[0])
                digested.append(record)
            else:
                keys[record] = key
        keys_by_digest = {
            collection: dict(self._match_digests(collection, group))
            for collection, group in digests.items()
        }
        for record in digested:
            digest = key_of(record.name)[0]
            if digest in keys_by_digest[record.collection]:
                keys[record] = keys_by_digest[record.collection][digest]
        return keys

    def is_erased_on_request(self, record: NamedRecord) -> bool:
        """Return whether a record class of a record's collection is erased on request."""
        return bool(self._classes(record))

    def deleted_records(
        self, stored: Sequence[tuple[str, NamedRecord]], existing: Collection[tuple[str, Key]]
    ) -> list[NamedRecord]:
        """Return those stored records that no longer exist in the mapped database.

        A record is left out if no record class of its collection is erased on request any more.
        `existing` contains no records of such a collection, so it cannot show whether the record
        exists.

        Args:
            stored: pairs of the data subject's key and the stored record.
            existing: pairs of record class and primary key, one for each stored record that still
                exists, from `Inspection.existing_records`. Only record classes that are erased on
                request are included.
        """
        keys = self.keys_of(stored)
        return [
            record
            for _subject, record in stored
            if (classes := self._classes(record))
            and not any((name, keys.get(record)) in existing for name in classes)
        ]

    def records(self, stored: Sequence[tuple[str, NamedRecord]]) -> RequestRecords:
        """Return the primary keys of stored records, by record class and data subject.

        If a record class was removed from the policy pack or renamed, its stored records are
        returned in every record class of the collection that is erased on request. Otherwise these
        records would be lost.

        Args:
            stored: pairs of the data subject's key and the stored record.
        """
        keys = self.keys_of(stored)
        return group_records(
            (record_class, subject, record.found_by, keys[record])
            for subject, record in stored
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

    def _match_digests(
        self, collection: str, digests: Collection[str]
    ) -> Iterator[tuple[str, Key]]:
        """Find the records of a collection for which the state database stores an HMAC.

        Args:
            collection: name of the collection in the data map.
            digests: the stored texts with the HMACs.

        Yields:
            A text with an HMAC, and the primary key of the record that has this HMAC.
        """
        table_name = table_names_of(self.database).get(collection)
        columns = require_primary_key(self.connection, table_name) if table_name else None
        if table_name is None or columns is None:
            return
        key_ids = {digest.removeprefix(_DIGEST).rpartition(":")[0] for digest in digests}
        check_keys(key_ids, self.keys)
        query = sql.SQL("SELECT {} FROM {} AS t").format(key_texts(columns), table_name.identifier)
        with self.connection.cursor("parcelseal_records") as cursor:
            cursor.execute(query)
            while chunk := cursor.fetchmany(ROWS_AT_ONCE):
                for key_id in key_ids:
                    computed = self.keys.digests(key_id, self.database.name, collection, chunk)
                    for key, digest in zip(chunk, computed, strict=True):
                        name = f"{_DIGEST}{key_id}:{digest.hex()}"
                        if name in digests:
                            yield name, key


@dataclass
class RecordNamer:
    """Builds the texts with which the state database names records of erasure requests.

    A text contains the primary key of the record, or an HMAC of the primary key. The state database
    may already name a record by an HMAC that was calculated with an older HMAC key. In this case,
    the older text is used.

    Attributes:
        keys: current and earlier HMAC keys.
        database: database of the data map.
        collection: name of the collection in the data map.
        columns: columns of the primary key.
        stored: texts that are already stored.
    """

    keys: ErasureKeys
    database: MappedDatabase
    collection: str
    columns: Sequence[str]
    stored: Collection[str]

    @cached_property
    def _names(self) -> KeyNames:
        return KeyNames(
            self.keys,
            self.database.name,
            self.database.collections[self.collection],
            self.columns,
            frozenset(self.stored),
        )

    def name(self, key: Key) -> str:
        """Return the text that identifies a record of an erasure request in the state database.

        Args:
            key: primary key of the record, as PostgreSQL prints it.
        """
        return self._names.of(key)
