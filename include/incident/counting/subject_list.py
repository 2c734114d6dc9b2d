"""The stored list of people whom an incident affects. It contains their keys and has a digest.

The list only grows. Once a person was counted, the person stays on the list, together with the
first version of the scope that included the person. The list contains no names and no addresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

import psycopg
from psycopg.sql import SQL
from sqlalchemy import Connection, Engine, text

from include.incident.counting.affected_records import key_as_text, resolve_selection
from include.incident.counting.live_database import inspect_database
from include.incident.counting.snapshot import open_snapshot
from include.incident.rules import ScopeRule
from include.incident.selection import Selection
from include.policy.datamap import MappedDatabase
from include.services.database import DatabaseAddress

PAGE = 10_000  # keys per read

_INSERT_NEW = text(
    "INSERT INTO incident_subject (incident_id, database, key, version)"
    " SELECT :incident, :database, key, :version FROM found_subject"
    " ON CONFLICT DO NOTHING"
)
# Sort by code points, so that other programs can reproduce the order.
_SELECT_LIST = text(
    "SELECT database, key, version FROM incident_subject WHERE incident_id = :incident"
    ' AND version >= :since ORDER BY database COLLATE "C", key COLLATE "C"'
)


@dataclass(frozen=True)
class FrozenList:
    """The size and the digest of an incident's list of affected people.

    Attributes:
        people: number of people on the list.
        sha256: digest (hex) of the lines ``<database>/<key>``, each with a line feed, sorted by
            code points.
    """

    people: int
    sha256: str


def freeze_subjects(
    conn: Connection,
    incident_id: int,
    version: int,
    selection: Selection,
    rule: ScopeRule,
    database: MappedDatabase,
    address: DatabaseAddress,
    *,
    moment: datetime,
    zone: ZoneInfo,
) -> int:
    """Add the affected people of a database to the stored list of an incident.

    People who are on the list already are not added again.

    Args:
        conn: connection to the state database, in a transaction.
        incident_id: id of the incident.
        version: version of the scope that is stored with the added people.
        selection: criteria of affected records that `check_selection` returned.
        rule: rule of the database in incident.yaml.
        database: database of the data map.
        address: address of the database.
        moment: time at which the age of people is determined.
        zone: timezone of the policy pack.

    Returns:
        Number of people who were added.

    Raises:
        CannotCount: the database cannot be read, so nobody was added.
    """
    driver = conn.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    conn.execute(text("CREATE TEMP TABLE found_subject (key text NOT NULL) ON COMMIT DROP"))
    with (
        open_snapshot(address, database, zone.key) as connection,
        driver.cursor() as cursor,
        cursor.copy("COPY found_subject FROM STDIN") as into,
    ):
        live = inspect_database(connection, database, rule)
        affected = resolve_selection(live, selection, moment)
        query = SQL("COPY (SELECT {} FROM ({}) AS person) TO STDOUT").format(
            key_as_text(live, SQL("k")), affected.people()
        )
        with connection.cursor().copy(query, affected.values) as out:
            for piece in out:
                into.write(piece)
    values = {"incident": incident_id, "database": database.name, "version": version}
    added = conn.execute(_INSERT_NEW, values).rowcount
    conn.execute(text("DROP TABLE found_subject"))
    return added


def frozen_list(conn: Connection, incident_id: int) -> FrozenList:
    """Return the size and digest of an incident's list of affected people.

    Args:
        conn: connection to the state database.
        incident_id: id of the incident.
    """
    digest, people = hashlib.sha256(), 0
    for database, key in list_rows(conn, incident_id):
        digest.update(f"{database}/{key}\n".encode())
        people += 1
    return FrozenList(people, digest.hexdigest())


def stream_with_versions(state: Engine, incident_id: int) -> Generator[tuple[str, str, int]]:
    """Yield the database, the key and the scope version of each person on an incident's list.

    The version is that of the first scope that included the person. The list is sorted by database
    and key.

    Args:
        state: engine of the state database.
        incident_id: id of the incident.
    """
    with state.connect() as conn:
        yield from _versioned_rows(conn, incident_id, 1)


def count_by_database(conn: Connection, incident_id: int) -> dict[str, int]:
    """Return the number of people on an incident's list, by database."""
    query = text(
        "SELECT database, count(*) FROM incident_subject WHERE incident_id = :incident GROUP BY 1"
    )
    return {row[0]: row[1] for row in conn.execute(query, {"incident": incident_id})}


def stream_subjects(state: Engine, incident_id: int, since: int = 1) -> Generator[tuple[str, str]]:
    """Yield the database and the key of each person on an incident's list, sorted by both.

    The list is read in pages, so the memory does not grow with its length.

    Args:
        state: engine of the state database.
        incident_id: id of the incident.
        since: version of the scope. People who were added with an earlier version are left out.
    """
    with state.connect() as conn:
        yield from list_rows(conn, incident_id, since)


def list_rows(conn: Connection, incident_id: int, since: int = 1) -> Iterator[tuple[str, str]]:
    """Yield the database and the key of each person on an incident's list, sorted by both.

    Unlike `stream_subjects`, this function uses a connection that the caller has opened.

    Args:
        conn: connection to the state database.
        incident_id: id of the incident.
        since: version of the scope. People who were added with an earlier version are left out.
    """
    return (
        (database, key) for database, key, _version in _versioned_rows(conn, incident_id, since)
    )


def _versioned_rows(
    conn: Connection, incident_id: int, since: int
) -> Generator[tuple[str, str, int]]:
    values = {"incident": incident_id, "since": since}
    with conn.execute(_SELECT_LIST.execution_options(yield_per=PAGE), values) as rows:
        for row in rows:
            yield row.database, row.key, row.version
