"""The quarantine register, which lists the records that break an expectation.

The register identifies a record by its primary key. If the primary key identifies a person or is
very long, the register stores a keyed hash (HMAC) of it instead. An entry is open as long as checks
find that its record breaks the expectation. When a check no longer finds this, the entry is
resolved. The names `rule` and `rules` in this package stand for ids of expectations.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg
from sqlalchemy import ColumnElement, Connection, Engine, func, select

from include.services.errors import ServiceError
from include.state.tables import quarantine

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_DIGEST = "hmac:"
ROWS_AT_ONCE = 10_000  # rows of one COPY
_STAGE = """
DROP TABLE IF EXISTS pg_temp.broken_records, pg_temp.checked_keys;
CREATE TEMP TABLE broken_records (rule text NOT NULL, key text NOT NULL, part text);
CREATE TEMP TABLE checked_keys (key text NOT NULL)
"""
# One run at a time writes entries of a collection, so that no older check overwrites newer results.
_LOCK = (
    "SELECT pg_advisory_xact_lock(hashtextextended(%(database)s || '.' || %(collection)s, 9131))"
)
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '1min'"
_OVERTAKEN = """
SELECT EXISTS (SELECT FROM quality_check WHERE database = %(database)s
    AND collection = %(collection)s AND number > %(check_number)s
    AND (dag_id, run_id) <> (%(dag_id)s, %(run_id)s))
"""
_FOUND = """
WITH found AS (
    SELECT rule, key, max(part) AS part FROM broken_records WHERE rule = ANY(%(rules)s)
    GROUP BY rule, key
)
"""
_MOVE = f"""{_FOUND}
UPDATE quarantine q SET part = found.part FROM found
WHERE database = %(database)s AND collection = %(collection)s AND resolved_at IS NULL
  AND q.rule = found.rule AND q.key = found.key AND q.part IS DISTINCT FROM found.part
"""  # noqa: S608 - constants
_ADD = f"""{_FOUND}
INSERT INTO quarantine (database, collection, rule, key, part, found_at, found_dag_id, found_run_id)
SELECT %(database)s, %(collection)s, rule, key, part, %(at)s, %(dag_id)s, %(run_id)s
FROM found WHERE NOT EXISTS (
    SELECT FROM quarantine q
    WHERE q.database = %(database)s AND q.collection = %(collection)s AND q.resolved_at IS NULL
      AND q.rule = found.rule AND q.key = found.key)
ORDER BY rule, key
"""  # noqa: S608 - constants
_RESOLVE = """
UPDATE quarantine q SET resolved_at = %(at)s, resolved_dag_id = %(dag_id)s,
    resolved_run_id = %(run_id)s
WHERE database = %(database)s AND collection = %(collection)s AND rule = ANY(%(rules)s)
  AND resolved_at IS NULL
  AND NOT EXISTS (SELECT FROM broken_records f WHERE f.rule = q.rule AND f.key = q.key)
"""
_OF_CHECKED = " AND (rule = ANY(%(fully_checked)s) OR key IN (SELECT key FROM checked_keys))"
_CLOSE = """
UPDATE quarantine SET resolved_at = %(at)s, resolved_dag_id = %(dag_id)s,
    resolved_run_id = %(run_id)s
WHERE database = %(database)s AND collection = %(collection)s AND resolved_at IS NULL
  AND found_dag_id = %(dag_id)s AND NOT rule = ANY(%(rules)s)
RETURNING rule
"""
_OTHER_COLLECTIONS = """
SELECT DISTINCT collection FROM quarantine
WHERE database = %(database)s AND resolved_at IS NULL AND found_dag_id = %(dag_id)s
  AND NOT collection = ANY(%(collections)s)
"""
_OPEN = """
SELECT rule, count(*) FROM quarantine
WHERE database = %(database)s AND collection = %(collection)s AND rule = ANY(%(rules)s)
  AND resolved_at IS NULL GROUP BY rule
"""


@dataclass(frozen=True)
class CheckedCollection:
    """A collection, the run that checks it, and the time of the check.

    Attributes:
        database: name of the database in the data map.
        collection: name of the collection.
        dag_id: DAG id of the run.
        run_id: run id of the run.
        at: time of the check.
    """

    database: str
    collection: str
    dag_id: str
    run_id: str
    at: datetime


@dataclass(frozen=True)
class RegisterChange:
    """The numbers of entries in the quarantine register after a run wrote its results.

    Attributes:
        open: id of an expectation -> number of its open entries.
        resolved: number of entries that the run resolved because the record was corrected or
            deleted.
    """

    open: Mapping[str, int]
    resolved: int


def key_text(key: Sequence[str]) -> str:
    """Encode the values of a primary key as the JSON text that the quarantine register stores."""
    if len(key) == 1 and key[0] and key[0].isascii() and key[0].isalnum():
        return f'["{key[0]}"]'  # the usual form of a key; the encoder would take five times as long
    return _encode(list(key))


def digest_text(digest: str) -> str:
    """Encode the HMAC of a primary key as the JSON text that the quarantine register stores.

    Args:
        digest: id of the HMAC key, a colon, and the HMAC in hexadecimal digits.
    """
    return key_text([f"{_DIGEST}{digest}"])


def key_of(text: str) -> list[str]:
    """Decode the JSON text that the quarantine register stores for a primary key.

    Args:
        text: result of `key_text` or `digest_text`.

    Returns:
        The values of the primary key. If the register stores an HMAC instead, a list with the HMAC.
    """
    plain = text[2:-2]
    if plain.isascii() and plain.isalnum():
        return [plain]
    return [str(part) for part in json.loads(text)]


class Stage:
    """Temporary tables in which a run collects its results before it writes them to the register.

    The tables are in the state database. The memory use of the run therefore does not grow with the
    number of records. Other sessions cannot see the rows of these tables, and do not have to wait
    for them. `enter` writes the results to the quarantine register.

    Args:
        connection: connection to the state database, without an open transaction.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._waiting: list[tuple[str, str, str | None]] = []
        with connection.transaction():
            connection.execute(_STAGE)

    @classmethod
    def of(cls, conn: Connection) -> Stage:
        """Return a `Stage` object that uses the psycopg connection of an SQLAlchemy connection.

        Args:
            conn: SQLAlchemy connection without an open transaction.
        """
        return cls(_psycopg_connection(conn))

    def add(self, rule: str, key: str, part: str | None) -> None:
        """Add a record that breaks an expectation.

        Args:
            rule: id of the expectation.
            key: name of the record in the register, from `include.quarantine.keys.KeyNames`.
            part: department of the record; None if it has no department.
        """
        self._waiting.append((rule, key, part))
        if len(self._waiting) >= ROWS_AT_ONCE:
            self._send()

    def forget(self, rules: Sequence[str]) -> None:
        """Remove from this stage the records that `add` added for certain expectations.

        Args:
            rules: ids of the expectations.
        """
        self._waiting = [row for row in self._waiting if row[0] not in rules]
        with self._connection.transaction():
            self._connection.execute(
                "DELETE FROM broken_records WHERE rule = ANY(%s)", [list(rules)]
            )

    def add_checked_keys(self, keys: Iterable[str]) -> None:
        """Add the names of the records that the run checked.

        A run that checks only some records has to call this function. `enter` then resolves only
        entries of these records.

        Args:
            keys: names of the records in the register, from `include.quarantine.keys.KeyNames`.
        """
        with self._connection.transaction(), self._connection.cursor() as cursor:
            with cursor.copy("COPY checked_keys FROM STDIN") as copy:
                for key in keys:
                    copy.write_row((key,))
            cursor.execute("ANALYZE checked_keys")

    def enter(
        self,
        collection: CheckedCollection,
        rules: Sequence[str],
        resolved_scope: Literal["all", "checked", "none"],
        fully_checked: Collection[str] = (),
        check_number: int | None = None,
        unchecked_rules: Sequence[str] = (),
    ) -> RegisterChange:
        """Write the collected records to the register, and resolve entries of corrected records.

        The function uses one transaction. It can be called again after an error.

        Args:
            collection: the checked collection, the run that checks it, and the time of the check.
            rules: ids of the expectations that the run checked.
            resolved_scope: which open entries of these expectations may be resolved: ``all``,
                ``none`` or ``checked`` (only entries of the records that `add_checked_keys` added).
            fully_checked: ids of the expectations that the run checked on all records. All of their
                open entries may be resolved even if `resolved_scope` is ``checked``.
            check_number: sequence number of the quality check; None for a run that is not a quality
                check.
            unchecked_rules: ids of expectations that the run did not check. Their open entries are
                counted, but not changed.

        Raises:
            ServiceError: another run is writing entries of the collection, or a quality check that
                began later has already written its entries.
        """
        parameters = {
            **collection.__dict__,
            "rules": list(rules),
            "fully_checked": list(fully_checked),
        }
        self._send()
        with self._connection.transaction(), self._connection.cursor() as cursor:
            _lock(cursor, collection)
            if check_number is not None:
                _require_latest(cursor, collection, check_number)
            cursor.execute("ANALYZE broken_records")
            cursor.execute(_MOVE, parameters)
            cursor.execute(_ADD, parameters)
            resolved = 0
            if resolved_scope != "none":
                condition = _OF_CHECKED if resolved_scope == "checked" else ""
                resolved = cursor.execute(_RESOLVE + condition, parameters).rowcount
            counted = [*rules, *unchecked_rules]
            numbers = dict(cursor.execute(_OPEN, {**parameters, "rules": counted}).fetchall())
        return RegisterChange({rule: numbers.get(rule, 0) for rule in counted}, resolved)

    def _send(self) -> None:
        if not self._waiting:
            return
        with (
            self._connection.transaction(),
            self._connection.cursor() as cursor,
            cursor.copy("COPY broken_records FROM STDIN") as copy,
        ):
            for row in self._waiting:
                copy.write_row(row)
        self._waiting.clear()


def _lock(cursor: psycopg.Cursor[Any], collection: CheckedCollection) -> None:
    cursor.execute(_LOCK_TIMEOUT)  # the mapped database keeps a snapshot open during the wait
    try:
        cursor.execute(_LOCK, collection.__dict__)
    except psycopg.errors.LockNotAvailable:
        raise ServiceError(
            f"Another run has been entering records that break expectations of "
            f"{collection.database}."
            f"{collection.collection} for more than a minute.",
            "Nothing was entered, and the task is repeated. Check that the other run makes "
            "progress, or end its session in the state database.",
        ) from None


def _require_latest(
    cursor: psycopg.Cursor[Any], collection: CheckedCollection, check_number: int
) -> None:
    parameters = {**collection.__dict__, "check_number": check_number}
    overtaken = cursor.execute(_OVERTAKEN, parameters).fetchone()
    if overtaken and overtaken[0]:
        raise ServiceError(
            f"Another check of {collection.database}.{collection.collection} began after this one.",
            "Nothing was entered, and the task is repeated.",
        )


@contextmanager
def open_stage(state: Engine) -> Iterator[Stage]:
    """Open a connection and yield a `Stage` object that uses it. Close the connection at the end.

    Args:
        state: the state database.
    """
    with state.connect() as conn:
        yield Stage.of(conn)


def _psycopg_connection(conn: Connection) -> psycopg.Connection[Any]:
    raw = conn.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw


def _is_open(database: str, collection: str) -> list[ColumnElement[bool]]:
    return [
        quarantine.c.database == database,
        quarantine.c.collection == collection,
        quarantine.c.resolved_at.is_(None),
    ]


def open_digests(conn: Connection, database: str, collection: str) -> frozenset[str]:
    """Return the names in the open entries of a collection that are HMACs.

    Names that contain the values of the primary key are left out.

    Args:
        conn: connection to the state database.
        database: name of the database in the data map.
        collection: name of the collection whose entries are read.

    Returns:
        The names as the JSON texts that the register stores.
    """
    is_digest = quarantine.c.key.startswith(f'["{_DIGEST}', autoescape=True)
    query = select(quarantine.c.key).where(*_is_open(database, collection), is_digest)
    return frozenset(conn.scalars(query.distinct()))


@dataclass(frozen=True)
class Entry:
    """An entry of the quarantine register for a record that breaks an expectation.

    Attributes:
        database: name of the database in the data map.
        collection: collection of the record.
        rule: id of the expectation.
        key: values of the record's primary key, or an HMAC of these values.
        part: department of the record; None if it has no department.
        found_at: time of the first check that found that the record breaks the expectation.
    """

    database: str
    collection: str
    rule: str
    key: Sequence[str]
    part: str | None
    found_at: datetime


def list_open_entries(
    conn: Connection, database: str | None, collection: str | None, rule: str | None, limit: int
) -> list[Entry]:
    """Return open entries of the quarantine register, oldest entry first.

    Args:
        conn: connection to the state database.
        database: name of the database whose entries are returned; None for all databases.
        collection: name of the collection whose entries are returned; None for all collections.
        rule: id of the expectation whose entries are returned; None for all expectations.
        limit: maximum number of entries.
    """
    filters = {"database": database, "collection": collection, "rule": rule}
    columns = [quarantine.c[name] for name in ("database", "collection", "rule", "key", "part")]
    query = (
        select(*columns, quarantine.c.found_at)
        .where(quarantine.c.resolved_at.is_(None))
        .where(
            *(quarantine.c[name] == value for name, value in filters.items() if value is not None)
        )
        .order_by(quarantine.c.found_at, quarantine.c.id)
        .limit(limit)
    )
    return [
        Entry(row[0], row[1], row[2], key_of(row[3]), row[4], row[5].astimezone(UTC))
        for row in conn.execute(query)
    ]


def count_by_department(
    conn: Connection, database: str, collection: str
) -> list[tuple[str | None, int]]:
    """Return how many records of a collection have open entries, by department.

    Returns:
        Pairs of a department and its number of records, largest number first. The department is
        None for records without a department.
    """
    records = (
        select(quarantine.c.part, quarantine.c.key)
        .where(*_is_open(database, collection))
        .distinct()
        .subquery()
    )
    number, part = func.count(), records.c.part
    query = select(part, number).group_by(part).order_by(number.desc(), part)
    return [(row[0], row[1]) for row in conn.execute(query)]


def resolve_removed_rules(
    conn: Connection, collection: CheckedCollection, rules: Sequence[str]
) -> dict[str, int]:
    """Resolve the open entries of expectations that the policy pack no longer contains.

    Args:
        conn: connection to the state database.
        collection: the collection, the run, and the time of the check. Only entries that the
            workflow of this run wrote are resolved.
        rules: ids of the expectations that the policy pack contains.

    Returns:
        Id of a removed expectation -> number of entries that were resolved.
    """
    parameters = {**collection.__dict__, "rules": list(rules)}
    rows = _psycopg_connection(conn).execute(_CLOSE, parameters).fetchall()
    return dict(Counter(row[0] for row in rows))


def other_collections_with_entries(
    conn: Connection, database: str, dag_id: str, collections: Collection[str]
) -> list[str]:
    """Return the collections for which a workflow has open entries, except those in `collections`.

    Args:
        conn: connection to the state database.
        database: name of the database in the data map.
        dag_id: DAG id of the workflow that wrote the entries.
        collections: names of the collections that are left out.
    """
    parameters = {"database": database, "dag_id": dag_id, "collections": list(collections)}
    return [row[0] for row in _psycopg_connection(conn).execute(_OTHER_COLLECTIONS, parameters)]


def registered_names(conn: Connection, kind: str) -> list[str]:
    """Return the names of all databases, collections or expectations with entries in the register.

    Both open and resolved entries are considered.

    Args:
        conn: connection to the state database.
        kind: type of the returned names: ``database``, ``collection`` or ``rule`` (expectation).
    """
    column = quarantine.c[kind]
    return list(conn.scalars(select(column).distinct().order_by(column)))


_SETTLE = """
UPDATE quarantine SET resolved_at = %(at)s, resolved_dag_id = %(dag_id)s,
    resolved_run_id = %(run_id)s
WHERE database = %(database)s AND collection = %(collection)s AND found_dag_id = %(dag_id)s
  AND resolved_at IS NULL AND key = ANY(%(keys)s)
"""


def open_keys_of(conn: Connection, database: str, collection: str, dag_id: str) -> list[str]:
    """Return the keys of the records for which a workflow has open entries.

    Args:
        conn: connection to the state database.
        database: name of the database in the data map.
        collection: name of the collection of the records.
        dag_id: DAG id of the workflow that wrote the entries.

    Returns:
        The keys, or their HMACs, as the JSON texts that the register stores.
    """
    query = (
        select(quarantine.c.key)
        .distinct()
        .where(*_is_open(database, collection), quarantine.c.found_dag_id == dag_id)
    )
    return list(conn.scalars(query))


def resolve_entries(
    connection: psycopg.Connection, collection: CheckedCollection, keys: Sequence[str]
) -> int:
    """Resolve the open entries that a workflow wrote for certain records, and return their number.

    The entries of all expectations are resolved. The function can be called again after an error.

    Args:
        connection: connection to the state database, with an open transaction.
        collection: the collection, the run, and the time at which the entries are resolved. Only
            entries that the workflow of this run wrote are resolved.
        keys: keys of the records, as the JSON texts that the register stores.
    """
    return connection.execute(_SETTLE, {**collection.__dict__, "keys": list(keys)}).rowcount
