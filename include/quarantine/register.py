"""The register: which records break which rule, since when, and until when they did.

A record is named by its primary key, or by a keyed HMAC of it where the key itself tells who a
person is. Whatever is found again stays open; whatever is not is resolved.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from sqlalchemy import Connection, func, select

from include.state.tables import quarantine

_STAGE = "CREATE TEMP TABLE found_broken (key text NOT NULL, part text) ON COMMIT DROP"
_ADD = """
INSERT INTO quarantine (database, collection, rule, key, part, found_at, found_dag_id, found_run_id)
SELECT %(database)s, %(collection)s, %(rule)s, key, max(part), %(at)s, %(dag_id)s, %(run_id)s
FROM found_broken GROUP BY key
ON CONFLICT (database, collection, rule, key) WHERE resolved_at IS NULL
DO UPDATE SET part = excluded.part WHERE quarantine.part IS DISTINCT FROM excluded.part
"""
_RESOLVE = """
UPDATE quarantine q SET resolved_at = %(at)s, resolved_dag_id = %(dag_id)s,
    resolved_run_id = %(run_id)s
WHERE database = %(database)s AND collection = %(collection)s AND rule = %(rule)s
  AND resolved_at IS NULL AND NOT EXISTS (SELECT FROM found_broken f WHERE f.key = q.key)
"""


@dataclass(frozen=True)
class Place:
    """A rule of a collection, in a run."""

    database: str
    collection: str
    rule: str
    dag_id: str
    run_id: str
    at: datetime


@dataclass(frozen=True)
class Change:
    """What a run changed of one rule's records.

    Attributes:
        open: broken records after it.
        resolved: records that it found good again, or gone.
    """

    open: int
    resolved: int


def key_text(key: Sequence[str]) -> str:
    """A primary key as it stands in the register."""
    return json.dumps(list(key), ensure_ascii=False, separators=(",", ":"))


def key_of(text: str) -> list[str]:
    """The primary key that stands in the register."""
    return [str(one) for one in json.loads(text)]


def put(
    connection: psycopg.Connection,
    place: Place,
    found: Iterable[tuple[str, str | None]],
    *,
    resolve: bool = True,
) -> Change:
    """Enter the broken records of a rule, and resolve those that are no longer among them.

    Args:
        connection: to the state database, in a transaction; may be repeated.
        place: the rule and the run.
        found: every broken record of the collection: key, and what it belongs to.
        resolve: False where they are not all of the collection's: then nothing is resolved.
    """
    given = place.__dict__
    with connection.transaction():
        connection.execute("DROP TABLE IF EXISTS pg_temp.found_broken")
        connection.execute(_STAGE)
        with connection.cursor() as cursor, cursor.copy("COPY found_broken FROM STDIN") as copy:
            for row in found:
                copy.write_row(row)
        connection.execute("ANALYZE found_broken")
        connection.execute(_ADD, given)
        resolved = connection.execute(_RESOLVE, given).rowcount if resolve else 0
        count = connection.execute(
            "SELECT count(*) FROM quarantine WHERE database = %(database)s "
            "AND collection = %(collection)s AND rule = %(rule)s AND resolved_at IS NULL",
            given,
        ).fetchone()
    assert count is not None
    return Change(count[0], resolved)


def open_keys(conn: Connection, database: str, collection: str) -> list[str]:
    """The keys of a collection's open records, each once."""
    query = (
        select(quarantine.c.key)
        .distinct()
        .where(
            quarantine.c.database == database,
            quarantine.c.collection == collection,
            quarantine.c.resolved_at.is_(None),
        )
    )
    return list(conn.scalars(query))


def by_part(conn: Connection, database: str, collection: str) -> list[tuple[str | None, int]]:
    """How many open records each part (department) has, the most first."""
    amount = func.count(quarantine.c.key.distinct())
    query = (
        select(quarantine.c.part, amount)
        .where(
            quarantine.c.database == database,
            quarantine.c.collection == collection,
            quarantine.c.resolved_at.is_(None),
        )
        .group_by(quarantine.c.part)
        .order_by(amount.desc(), quarantine.c.part)
    )
    return [(row[0], row[1]) for row in conn.execute(query)]


def close_others(connection: psycopg.Connection, place: Place, rules: Sequence[str]) -> int:
    """Resolve what rules left open that the pack no longer has; how many records."""
    return connection.execute(
        "UPDATE quarantine SET resolved_at = %(at)s, resolved_dag_id = %(dag_id)s, "
        "resolved_run_id = %(run_id)s WHERE database = %(database)s "
        "AND collection = %(collection)s AND resolved_at IS NULL AND NOT rule = ANY(%(rules)s)",
        {**place.__dict__, "rules": list(rules)},
    ).rowcount
