"""The register of records that break a rule: which rule, since when, and until when.

A record is named by its primary key, or by a keyed HMAC of it where the key itself tells who a
person is. Whatever is found again stays open; whatever is not is resolved.
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
# One run at a time enters a collection, so that nobody enters between a look and what follows it.
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
    """What a run changed.

    Attributes:
        open: broken records after it, by rule.
        resolved: entries of records that it found good again, or gone.
    """

    open: Mapping[str, int]
    resolved: int


def key_text(key: Sequence[str]) -> str:
    """A primary key as it stands in the register."""
    if len(key) == 1 and key[0] and key[0].isascii() and key[0].isalnum():
        return f'["{key[0]}"]'  # as nearly all are; the encoder takes five times as long
    return _as_text(list(key))


def digest_text(digest: str) -> str:
    """A record that is named by a digest of its key, as it stands in the register."""
    return key_text([f"{_DIGEST}{digest}"])


def key_of(text: str) -> list[str]:
    """The primary key that stands in the register."""
    plain = text[2:-2]
    if plain.isascii() and plain.isalnum():
        return [plain]
    return [str(one) for one in json.loads(text)]


class Stage:
    """What a run finds in one collection, in the state database but not yet in the register.

    Rows wait in temporary tables, so that memory stays flat however much is broken; nothing of them
    is seen, and nothing is locked, until `enter`.

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
        """A stage on a connection that is in no transaction."""
        return cls(_raw(conn))

    def add(self, rule: str, key: str, part: str | None) -> None:
        """Take a broken record.

        Args:
            rule: that it breaks.
            key: `key_text`.
            part: what it belongs to.
        """
        self._waiting.append((rule, key, part))
        if len(self._waiting) >= AT_ONCE:
            self._send()

    def forget(self, rules: Sequence[str]) -> None:
        """Give up what was taken of rules."""
        self._waiting = [one for one in self._waiting if one[0] not in rules]
        with self._connection.transaction():
            self._connection.execute("DELETE FROM found_broken WHERE rule = ANY(%s)", [list(rules)])

    def looked_at(self, keys: Iterable[str]) -> None:
        """Take the keys of records that were looked at, where those are not all."""
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
        """Enter what was found of rules, and resolve what was not found again.

        May be repeated. All of it happens, or nothing.

        Args:
            place: the collection and the run.
            rules: of the collection.
            resolve: entries of all records, or of those that were `looked_at`, or of none.
            whole: rules of which nevertheless all entries were looked at.
            begun: number of the check, if it is one.
            unexamined: rules whose open entries are only counted.

        Raises:
            ServiceError: another run is entering, or a check that began later has entered: it knows
                better.
        """
        given = {**place.__dict__, "rules": list(rules), "whole": list(whole)}
        self._send()
        with self._connection.transaction(), self._connection.cursor() as cursor:
            _lock(cursor, place)
            if begun is not None:
                _require_latest(cursor, place, begun)
            cursor.execute("ANALYZE found_broken")
            cursor.execute(_MOVE, given)
            cursor.execute(_ADD, given)
            resolved = 0
            if resolve != "none":
                narrow = _LOOKED_AT if resolve == "looked_at" else ""
                resolved = cursor.execute(_RESOLVE + narrow, given).rowcount
            counted = [*rules, *unexamined]
            found = dict(cursor.execute(_OPEN, {**given, "rules": counted}).fetchall())
        return Change({rule: found.get(rule, 0) for rule in counted}, resolved)

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
    """The names of a collection's open records that are digests."""
    is_digest = quarantine.c.key.startswith(f'["{_DIGEST}', autoescape=True)
    query = select(quarantine.c.key).where(*_open(database, collection), is_digest)
    return frozenset(conn.scalars(query.distinct()))


@dataclass(frozen=True)
class Entry:
    """A record that breaks a rule.

    Attributes:
        key: its primary key, or a digest of it.
        part: what it belongs to, a department.
        found_at: when it was first found so.
    """

    database: str
    collection: str
    rule: str
    key: Sequence[str]
    part: str | None
    found_at: datetime

    def as_json(self) -> dict[str, object]:
        """The same for a machine."""
        return {**self.__dict__, "found_at": self.found_at.isoformat()}


def listed(
    conn: Connection, database: str | None, collection: str | None, rule: str | None, most: int
) -> list[Entry]:
    """Records that are broken now, the oldest first; of all, or of a database, collection, rule."""
    asked = {"database": database, "collection": collection, "rule": rule}
    columns = [quarantine.c[one] for one in ("database", "collection", "rule", "key", "part")]
    query = (
        select(*columns, quarantine.c.found_at)
        .where(quarantine.c.resolved_at.is_(None))
        .where(*(quarantine.c[name] == one for name, one in asked.items() if one is not None))
        .order_by(quarantine.c.found_at, quarantine.c.id)
        .limit(most)
    )
    return [
        Entry(row[0], row[1], row[2], key_of(row[3]), row[4], row[5].astimezone(UTC))
        for row in conn.execute(query)
    ]


def by_part(conn: Connection, database: str, collection: str) -> list[tuple[str | None, int]]:
    """How many open records each part (department) has, the most first."""
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
    """Resolve what rules left open that the pack no longer has; how many entries, by rule.

    Entries of other workflows stay: they have rules of their own.
    """
    rows = _raw(conn).execute(_CLOSE, {**place.__dict__, "rules": list(rules)}).fetchall()
    return dict(Counter(row[0] for row in rows))


def forsaken(
    conn: Connection, database: str, dag_id: str, collections: Collection[str]
) -> list[str]:
    """Other collections than these of which a workflow left entries open."""
    given = {"database": database, "dag_id": dag_id, "collections": list(collections)}
    return [row[0] for row in _raw(conn).execute(_FORSAKEN, given)]


def names(conn: Connection, kind: str) -> list[str]:
    """The names of one kind that stand in the register, resolved entries included.

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
    """The keys of the open records that one workflow entered, each once, as they stand there."""
    query = (
        select(quarantine.c.key)
        .distinct()
        .where(*_open(database, collection), quarantine.c.found_dag_id == dag_id)
    )
    return list(conn.scalars(query))


def resolve(connection: psycopg.Connection, place: Place, keys: Sequence[str]) -> int:
    """Resolve what the place's workflow entered of these records, whatever the rule; how many.

    Args:
        connection: to the state database, in a transaction; may be repeated.
        place: database, collection, workflow and run.
        keys: as they stand in the register.
    """
    return connection.execute(_SETTLE, {**place.__dict__, "keys": list(keys)}).rowcount
