"""Open a snapshot of a database. pg_dump and the row counts then see the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg import errors, sql

from include.backup.manifest import NewestRecord
from include.services.database import LOGIN_PREFIX, UNREADABLE, DatabaseAddress, connected
from include.services.errors import ServiceError, UsageError
from include.services.programs import ClientProgram, require_fitting_server


class PgDump(ClientProgram):
    """A running pg_dump.

    The original and the restored copy are dumped with the same options. Otherwise, their checksums
    could not be compared.

    Args:
        address: address of the database.
        encoding: encoding of the dump.
        more: further options of pg_dump.
    """

    def __init__(self, address: DatabaseAddress, encoding: str, more: Sequence[str] = ()) -> None:
        words = [
            "--format=custom",
            "--compress=0",  # same as "none", which version 15 refuses
            f"--encoding={encoding}",
            f"--exclude-schema={LOGIN_PREFIX}*",  # the roles that own rights there are not dumped
        ]
        super().__init__("pg_dump", [*words, *more], address)


LOCK_TIMEOUT = "60s"
ATTEMPTS = 5

ALL_TABLES = """
SELECT n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
  AND n.nspname !~ '^(pg_|parcelseal_use_)' AND n.nspname <> 'information_schema'
  AND NOT EXISTS (SELECT FROM pg_depend d
                  WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 1, 2
"""

HIDDEN_ROWS = """
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND row_security_active(c.oid) ORDER BY 1
"""

# pg_dump reads the view, which hides options from most roles. Only the catalogue says whether a
# mapping has options; a role that may not read it must expect that each mapping has.
HIDDEN_OPTIONS = """
SELECT v.usename || ' SERVER ' || v.srvname FROM pg_user_mappings v {} ORDER BY 1
"""
KNOWN_OPTIONS = """
JOIN pg_user_mapping m ON m.oid = v.umid WHERE v.umoptions IS NULL AND m.umoptions IS NOT NULL
"""
UNKNOWN_OPTIONS = "WHERE v.umoptions IS NULL"


def missing_tables(
    connection: psycopg.Connection, tables: Sequence[tuple[str, str]], label: str
) -> list[str]:
    """Return those of the given tables that a database lacks.

    Args:
        connection: connection to the database. Only the system catalogs are read.
        tables: schema and name of each table to search for.
        label: description of the database, for messages.

    Raises:
        UsageError: the database has none of the tables.
    """
    # to_regclass() would need USAGE on the schemas.
    rows = connection.execute(
        "SELECT format('%%I.%%I', m.schema, m.name)"
        " FROM unnest(%s::text[], %s::text[]) m (schema, name) WHERE NOT EXISTS"
        " (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        "  WHERE n.nspname = m.schema AND c.relname = m.name)",
        [[schema for schema, _ in tables], [name for _, name in tables]],
    ).fetchall()
    if tables and len(rows) == len(tables):
        raise UsageError(
            f"{label} has none of the {len(tables)} mapped tables: it is another database.",
            "Check the connection's database name and the data map.",
        )
    return [row[0] for row in rows]


@dataclass(frozen=True)
class NewestRecordColumn:
    """A column whose newest value shows how recent the data of a database is.

    Attributes:
        collection: name of the collection in the data map.
        schema: schema of the table.
        table: name of the table.
        field: name of the column.
    """

    collection: str
    schema: str
    table: str
    field: str


@dataclass
class Snapshot:
    """An open transaction whose snapshot other sessions can use.

    Attributes:
        connection: connection on which the transaction is open.
        name: name for ``SET TRANSACTION SNAPSHOT`` and ``pg_dump --snapshot``.
        taken_at: start of the transaction by the server's clock.
        lsn: position of the snapshot in the write-ahead log.
        server_version: version of the server.
        timezone: timezone of the session, in which timestamps without a timezone are read.
        encoding: PostgreSQL's name for the encoding of the database.
    """

    connection: psycopg.Connection
    name: str
    taken_at: datetime
    lsn: str
    server_version: str
    timezone: str
    encoding: str

    def count(self, schema: str, table: str) -> int:
        """Count the rows of a table in this snapshot. Rows of child tables are not counted."""
        query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, table))
        row = self.connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])

    def mappings_without_options(self) -> tuple[str, ...]:
        """Return the user mappings whose options pg_dump cannot read.

        Each is written as ``role SERVER server``.
        """
        row = self.connection.execute(
            "SELECT has_table_privilege('pg_catalog.pg_user_mapping', 'SELECT')"
        ).fetchone()
        assert row is not None
        which = sql.SQL(KNOWN_OPTIONS if row[0] else UNKNOWN_OPTIONS)
        return tuple(r[0] for r in self.connection.execute(sql.SQL(HIDDEN_OPTIONS).format(which)))

    def newest(self, columns: Sequence[NewestRecordColumn]) -> tuple[NewestRecord, ...]:
        """Return the newest value of each given column in this snapshot."""
        return newest_records(self.connection, columns)


@contextmanager
def open_snapshot(source: DatabaseAddress) -> Iterator[Snapshot]:
    """Open a snapshot of a database for the duration of the ``with`` block.

    The snapshot locks every table, so no other session can drop or rewrite a table until the block
    ends. A DROP in another session waits until then. If a table is dropped before it is locked, the
    tables are listed again.

    Raises:
        UsageError: the role is not allowed to read a table, or sees only some rows of a table; the
            name of a table cannot be written in UTF-8; or pg_dump does not support the version of
            the server.
        ServiceError: the tables cannot be locked, or the connection was lost.
    """
    with connected(source) as connection:
        require_fitting_server(
            connection.info.server_version, f"The database {source.display_name}"
        )
        for attempt in range(1, ATTEMPTS + 1):
            try:
                snapshot = _take(connection)
                break
            except (errors.UndefinedTable, errors.InvalidSchemaName):
                connection.rollback()
                if attempt == ATTEMPTS:
                    raise ServiceError(
                        f"Tables of {source.display_name} keep disappearing while they are listed.",
                        "Run the backup when no migration runs.",
                    ) from None
            except errors.InsufficientPrivilege as error:
                raise UsageError(
                    f"The role may not read all of {source.display_name}: "
                    f"{error.diag.message_primary}.",
                    "Grant the right: GRANT pg_read_all_data TO the role of the connection.",
                ) from None
            except UNREADABLE:
                raise unreadable_name(source) from None
            except errors.LockNotAvailable:
                raise ServiceError(
                    f"Another session keeps a table of {source.display_name} locked "
                    f"({LOCK_TIMEOUT}).",
                    "Search pg_stat_activity for a migration or VACUUM FULL.",
                ) from None
        yield snapshot


def unreadable_name(source: DatabaseAddress) -> UsageError:
    """Return the error for a database object whose name cannot be converted to UTF-8.

    Args:
        source: address of the database that contains the object.
    """
    return UsageError(
        f"Names of tables or other objects of {source.display_name} are not UTF-8, and the "
        f"encoding of "
        "the database does not define their characters.",
        "Rename the objects (ALTER ... RENAME TO ...). Values of rows may have such bytes.",
    )


def newest_records(
    connection: psycopg.Connection, columns: Sequence[NewestRecordColumn]
) -> tuple[NewestRecord, ...]:
    """Return the newest value of each column in the database of a connection.

    Args:
        connection: connection to the database.
        columns: columns that show how recent the data is.

    Raises:
        UsageError: a column does not exist, or contains no dates or times.
    """
    newest = []
    for column in columns:
        query = sql.SQL("SELECT max({})::timestamptz FROM {}").format(
            sql.Identifier(column.field), sql.Identifier(column.schema, column.table)
        )
        try:
            row = connection.execute(query).fetchone()
        except (psycopg.ProgrammingError, psycopg.DataError) as error:
            # The server's message for a data error may contain the value.
            is_value = isinstance(error, psycopg.DataError)
            reason = "its value is not a date or time" if is_value else error.diag.message_primary
            raise UsageError(
                f"The data map's newest record {column.collection}.{column.field} cannot be read: "
                f"{reason}.",
                "Correct meta.parcelseal.newest in the data map.",
            ) from None
        assert row is not None
        newest.append(NewestRecord(collection=column.collection, field=column.field, moment=row[0]))
    return tuple(newest)


def _take(connection: psycopg.Connection) -> Snapshot:
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(LOCK_TIMEOUT)))
    connection.execute("SET LOCAL statement_timeout = 0")
    connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
    # The dump already uses two cores. Parallel counts would slow it down.
    connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
    tables = connection.execute(ALL_TABLES).fetchall()
    for start in range(0, len(tables), 200):
        names = [sql.Identifier(*table) for table in tables[start : start + 200]]
        connection.execute(
            sql.SQL("LOCK TABLE ONLY {} IN ACCESS SHARE MODE").format(
                sql.SQL(", ONLY ").join(names)
            )
        )
    _require_all_rows(connection)
    row = connection.execute(
        "SELECT pg_export_snapshot(), transaction_timestamp(), "
        "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
        "ELSE pg_current_wal_lsn() END::text, current_setting('server_version'), "
        "current_setting('TimeZone'), current_setting('server_encoding')"
    ).fetchone()
    assert row is not None
    return Snapshot(connection, *row)


def _require_all_rows(connection: psycopg.Connection) -> None:
    hidden = connection.execute(HIDDEN_ROWS).fetchall()
    if hidden:
        raise UsageError(
            f"Row-level security hides rows from the role, for example rows of {hidden[0][0]}.",
            "Let the role read all rows: ALTER ROLE ... BYPASSRLS.",
        )
