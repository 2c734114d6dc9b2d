"""The list of affected people: their keys, frozen, and named by a digest.

It only ever grows: who was found affected once stays so, and stands with the count that found them
first. Keys are all that is kept: no name, no address.
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

from include.incident.counting.affected import affected, printed
from include.incident.counting.live import look
from include.incident.counting.reading import reading
from include.incident.rules import ScopeRule
from include.incident.selection import Selection
from include.policy.datamap import MappedDatabase
from include.services.database import DatabaseAddress

PAGE = 10_000  # keys that are read at once

_NEW = text(
    "INSERT INTO incident_subject (incident_id, database, key, version)"
    " SELECT :incident, :database, key, :version FROM found_subject"
    " ON CONFLICT DO NOTHING"
)
# By code points, so that an outsider can sort the list the same anywhere.
_LISTED = text(
    "SELECT database, key, version FROM incident_subject WHERE incident_id = :incident"
    ' AND version >= :since ORDER BY database COLLATE "C", key COLLATE "C"'
)


@dataclass(frozen=True)
class Frozen:
    """A list of affected people.

    Attributes:
        people: on it.
        sha256: over its lines ``<database>/<key>``, each with a line feed, sorted by code points;
            hex.
    """

    people: int
    sha256: str


def freeze(
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
    """Add the affected people of one database that are not on the list yet; how many those were.

    Args:
        conn: the state database, in a transaction.
        incident_id: of the incident.
        version: of the scope that found them.
        selection: what is affected, `selection.checked`.
        rule: of the database.
        database: of the data map.
        address: where it is.
        moment: as of which the age of people counts.
        zone: of the pack.

    Raises:
        CannotCount: nobody can read there; nothing was added.
    """
    driver = conn.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    conn.execute(text("CREATE TEMP TABLE found_subject (key text NOT NULL) ON COMMIT DROP"))
    with (
        reading(address, database, zone.key) as connection,
        driver.cursor() as cursor,
        cursor.copy("COPY found_subject FROM STDIN") as into,
    ):
        live = look(connection, database, rule)
        found = affected(live, selection, moment)
        query = SQL("COPY (SELECT {} FROM ({}) AS person) TO STDOUT").format(
            printed(live, SQL("k")), found.people()
        )
        with connection.cursor().copy(query, found.values) as out:
            for piece in out:
                into.write(piece)
    values = {"incident": incident_id, "database": database.name, "version": version}
    added = conn.execute(_NEW, values).rowcount
    conn.execute(text("DROP TABLE found_subject"))
    return added


def frozen(conn: Connection, incident_id: int) -> Frozen:
    """The list as it stands, with its digest.

    Args:
        conn: the state database.
        incident_id: of the incident.
    """
    digest, people = hashlib.sha256(), 0
    for database, key in rows(conn, incident_id):
        digest.update(f"{database}/{key}\n".encode())
        people += 1
    return Frozen(people, digest.hexdigest())


def of_versions(state: Engine, incident_id: int) -> Generator[tuple[str, str, int]]:
    """As `stream`, with the version of the scope that found each of them."""
    with state.connect() as conn:
        yield from _rows(conn, incident_id, 1)


def by_database(conn: Connection, incident_id: int) -> dict[str, int]:
    """Return how many people of each database are on the list."""
    counted = text(
        "SELECT database, count(*) FROM incident_subject WHERE incident_id = :incident GROUP BY 1"
    )
    return {row[0]: row[1] for row in conn.execute(counted, {"incident": incident_id})}


def stream(state: Engine, incident_id: int, since: int = 1) -> Generator[tuple[str, str]]:
    """Database and key of everybody on the list, sorted; any number of them in flat memory.

    Args:
        state: the state database.
        incident_id: of the incident.
        since: version of the scope from which on.
    """
    with state.connect() as conn:
        yield from rows(conn, incident_id, since)


def rows(conn: Connection, incident_id: int, since: int = 1) -> Iterator[tuple[str, str]]:
    """As `stream`, on a connection that is open."""
    return ((database, key) for database, key, _version in _rows(conn, incident_id, since))


def _rows(conn: Connection, incident_id: int, since: int) -> Generator[tuple[str, str, int]]:
    values = {"incident": incident_id, "since": since}
    with conn.execute(_LISTED.execution_options(yield_per=PAGE), values) as found:
        for row in found:
            yield row.database, row.key, row.version
