"""The quarantine register: records that break a rule, each with the rule and the period.

The register names a record by its primary key, or by a keyed HMAC if the key identifies a person.
A record that a check finds again stays open; otherwise its entry is resolved.
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

_as_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_DIGEST = "hmac:"
AT_ONCE = 10_000  # names that are sent together
_STAGE = """
DROP TABLE IF EXISTS pg_temp.found_broken, pg_temp.looked_at;
CREATE TEMP TABLE found_broken (rule text NOT NULL, key text NOT NULL, part text);
CREATE TEMP TABLE looked_at (key text NOT NULL)
"""
# One run at a time enters a collection, so that no other run enters after its check.
_LOCK = (
    "SELECT pg_advisory_xact_lock(hashtextextended(%(database)s || '.' || %(collection)s, 9131))"
)
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '1min'"
_OVERTAKEN = """
SELECT EXISTS (SELECT FROM quality_check WHERE database = %(database)s
    AND collection = %(collection)s AND number > %(begun)s
    AND (dag_id, run_id) <> (%(dag_id)s, %(run_id)s))
"""
_FOUND = """
WITH found AS (
    SELECT rule, key, max(part) AS part FROM found_broken WHERE rule = ANY(%(rules)s)
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
  AND NOT EXISTS (SELECT FROM found_broken f WHERE f.rule = q.rule AND f.key = q.key)
"""
_LOOKED_AT = " AND (rule = ANY(%(whole)s) OR key IN (SELECT key FROM looked_at))"
_CLOSE = """
UPDATE quarantine SET resolved_at = %(at)s, resolved_dag_id = %(dag_id)s,
    resolved_run_id = %(run_id)s
WHERE database = %(database)s AND collection = %(collection)s AND resolved_at IS NULL
  AND found_dag_id = %(dag_id)s AND NOT rule = ANY(%(rules)s)
RETURNING rule
"""
_FORSAKEN = """
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
class Place:
    """A collection, in a run."""

    database: str
    collection: str
    dag_id: str
    run_id: str
    at: datetime


@dataclass(frozen=True)
class Change:
    """The changes of a run.

    Attributes:
        open: broken records after it, by rule.
        resolved: entries of records that are correct again or no longer exist.
    """

    open: Mapping[str, int]
    resolved: int


def key_text(key: Sequence[str]) -> str:
    """Return the text of a primary key in the register."""
    if len(key) == 1 and key[0] and key[0].isascii() and key[0].isalnum():
        return f'["{key[0]}"]'  # like nearly all keys; the encoder takes five times as long
    return _as_text(list(key))


def digest_text(digest: str) -> str:
    """Return the text of a digest of a primary key in the register."""
    return key_text([f"{_DIGEST}{digest}"])


def key_of(text: str) -> list[str]:
    """Return the primary key from its text in the register."""
    plain = text[2:-2]
    if plain.isascii() and plain.isalnum():
        return [plain]
    return [str(part) for part in json.loads(text)]


class Stage:
    """The results of a run for one collection before they are entered in the register.

    Rows wait in temporary tables of the state database, so that memory does not grow with their
    number. No other session sees or waits for them until `enter`.

    Args:
        connection: to the state database, in no transaction.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._waiting: list[tuple[str, str, str | None]] = []
        with connection.transaction():
            connection.execute(_STAGE)

    @classmethod
    def of(cls, conn: Connection) -> Stage:
        """Return a stage on a connection that is in no transaction."""
        return cls(_raw(conn))

    def add(self, rule: str, key: str, part: str | None) -> None:
        """Add a broken record.

        Args:
            rule: that it breaks.
            key: `key_text` of it.
            part: its department.
        """
        self._waiting.append((rule, key, part))
        if len(self._waiting) >= AT_ONCE:
            self._send()

    def forget(self, rules: Sequence[str]) -> None:
        """Remove the added records of rules."""
        self._waiting = [row for row in self._waiting if row[0] not in rules]
        with self._connection.transaction():
            self._connection.execute("DELETE FROM found_broken WHERE rule = ANY(%s)", [list(rules)])

    def looked_at(self, keys: Iterable[str]) -> None:
        """Add the keys of the checked records, if the run does not check all."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            with cursor.copy("COPY looked_at FROM STDIN") as copy:
                for key in keys:
                    copy.write_row((key,))
            cursor.execute("ANALYZE looked_at")

    def enter(
        self,
        place: Place,
        rules: Sequence[str],
        resolve: Literal["all", "looked_at", "none"],
        whole: Collection[str] = (),
        begun: int | None = None,
        unexamined: Sequence[str] = (),
    ) -> Change:
        """Enter the broken records of rules, and resolve the entries of other records.

        It is one transaction, and can be repeated.

        Args:
            place: the collection and the run.
            rules: of the collection.
            resolve: whether entries of all records, of those `looked_at`, or none are resolved.
            whole: rules of which nevertheless all entries were checked.
            begun: number of the check, if it is one.
            unexamined: rules whose open entries are only counted.

        Raises:
            ServiceError: another run is entering, or a check that began later has entered.
        """
        parameters = {**place.__dict__, "rules": list(rules), "whole": list(whole)}
        self._send()
        with self._connection.transaction(), self._connection.cursor() as cursor:
            _lock(cursor, place)
            if begun is not None:
                _require_latest(cursor, place, begun)
            cursor.execute("ANALYZE found_broken")
            cursor.execute(_MOVE, parameters)
            cursor.execute(_ADD, parameters)
            resolved = 0
            if resolve != "none":
                narrow = _LOOKED_AT if resolve == "looked_at" else ""
                resolved = cursor.execute(_RESOLVE + narrow, parameters).rowcount
            counted = [*rules, *unexamined]
            numbers = dict(cursor.execute(_OPEN, {**parameters, "rules": counted}).fetchall())
        return Change({rule: numbers.get(rule, 0) for rule in counted}, resolved)

    def _send(self) -> None:
        if not self._waiting:
            return
        with (
            self._connection.transaction(),
            self._connection.cursor() as cursor,
            cursor.copy("COPY found_broken FROM STDIN") as copy,
        ):
            for row in self._waiting:
                copy.write_row(row)
        self._waiting.clear()


def _lock(cursor: psycopg.Cursor[Any], place: Place) -> None:
    cursor.execute(_LOCK_TIMEOUT)  # meanwhile the customers' server holds a snapshot for us
    try:
        cursor.execute(_LOCK, place.__dict__)
    except psycopg.errors.LockNotAvailable:
        raise ServiceError(
            f"Another run has been entering broken records of {place.database}."
            f"{place.collection} for more than a minute.",
            "Nothing was entered, and the task is repeated. See that the other run goes on, or "
            "end its session in the state database.",
        ) from None


def _require_latest(cursor: psycopg.Cursor[Any], place: Place, begun: int) -> None:
    overtaken = cursor.execute(_OVERTAKEN, {**place.__dict__, "begun": begun}).fetchone()
    if overtaken and overtaken[0]:
        raise ServiceError(
            f"Another check of {place.database}.{place.collection} began after this one.",
            "Nothing was entered, and the task is repeated.",
        )


@contextmanager
def staging(state: Engine) -> Iterator[Stage]:
    """Open a stage of its own connection."""
    with state.connect() as conn:
        yield Stage.of(conn)


def _raw(conn: Connection) -> psycopg.Connection[Any]:
    raw = conn.connection.driver_connection
    assert isinstance(raw, psycopg.Connection)
    return raw


def _open(database: str, collection: str) -> list[ColumnElement[bool]]:
    return [
        quarantine.c.database == database,
        quarantine.c.collection == collection,
        quarantine.c.resolved_at.is_(None),
    ]


def digests(conn: Connection, database: str, collection: str) -> frozenset[str]:
    """Return the names of a collection's open records that are digests."""
    is_digest = quarantine.c.key.startswith(f'["{_DIGEST}', autoescape=True)
    query = select(quarantine.c.key).where(*_open(database, collection), is_digest)
    return frozenset(conn.scalars(query.distinct()))


@dataclass(frozen=True)
class Entry:
    """A record that breaks a rule.

    Attributes:
        key: its primary key, or a digest of it.
        part: its department.
        found_at: when it was first found so.
    """

    database: str
    collection: str
    rule: str
    key: Sequence[str]
    part: str | None
    found_at: datetime


def listed(
    conn: Connection, database: str | None, collection: str | None, rule: str | None, most: int
) -> list[Entry]:
    """Return open entries, the oldest first; of all, or of a database, collection or rule."""
    filters = {"database": database, "collection": collection, "rule": rule}
    columns = [quarantine.c[name] for name in ("database", "collection", "rule", "key", "part")]
    query = (
        select(*columns, quarantine.c.found_at)
        .where(quarantine.c.resolved_at.is_(None))
        .where(
            *(quarantine.c[name] == value for name, value in filters.items() if value is not None)
        )
        .order_by(quarantine.c.found_at, quarantine.c.id)
        .limit(most)
    )
    return [
        Entry(row[0], row[1], row[2], key_of(row[3]), row[4], row[5].astimezone(UTC))
        for row in conn.execute(query)
    ]


def by_part(conn: Connection, database: str, collection: str) -> list[tuple[str | None, int]]:
    """Return the number of open records of each department, the largest first."""
    each = (
        select(quarantine.c.part, quarantine.c.key)
        .where(*_open(database, collection))
        .distinct()
        .subquery()
    )
    amount = func.count()
    query = select(each.c.part, amount).group_by(each.c.part).order_by(amount.desc(), each.c.part)
    return [(row[0], row[1]) for row in conn.execute(query)]


def close_others(conn: Connection, place: Place, rules: Sequence[str]) -> dict[str, int]:
    """Resolve open entries of rules that the pack no longer has; return their numbers by rule.

    Entries of other workflows, which have their own rules, stay.
    """
    rows = _raw(conn).execute(_CLOSE, {**place.__dict__, "rules": list(rules)}).fetchall()
    return dict(Counter(row[0] for row in rows))


def forsaken(
    conn: Connection, database: str, dag_id: str, collections: Collection[str]
) -> list[str]:
    """Return the other collections in which a workflow has open entries."""
    parameters = {"database": database, "dag_id": dag_id, "collections": list(collections)}
    return [row[0] for row in _raw(conn).execute(_FORSAKEN, parameters)]


def names(conn: Connection, kind: str) -> list[str]:
    """Return the names of a kind in the register, also of resolved entries.

    Args:
        conn: to the state database.
        kind: ``database``, ``collection`` or ``rule``.
    """
    column = quarantine.c[kind]
    return list(conn.scalars(select(column).distinct().order_by(column)))


_SETTLE = """
UPDATE quarantine SET resolved_at = %(at)s, resolved_dag_id = %(dag_id)s,
    resolved_run_id = %(run_id)s
WHERE database = %(database)s AND collection = %(collection)s AND found_dag_id = %(dag_id)s
  AND resolved_at IS NULL AND key = ANY(%(keys)s)
"""


def open_by(conn: Connection, database: str, collection: str, dag_id: str) -> list[str]:
    """Return the distinct keys, as texts of the register, of open entries of a workflow."""
    query = (
        select(quarantine.c.key)
        .distinct()
        .where(*_open(database, collection), quarantine.c.found_dag_id == dag_id)
    )
    return list(conn.scalars(query))


def resolve(connection: psycopg.Connection, place: Place, keys: Sequence[str]) -> int:
    """Resolve the entries of a workflow for some records, of any rule; return their number.

    Args:
        connection: to the state database, in a transaction; may be repeated.
        place: database, collection, workflow and run.
        keys: as texts of the register.
    """
    return connection.execute(_SETTLE, {**place.__dict__, "keys": list(keys)}).rowcount
