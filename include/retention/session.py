"""Sessions in which records are counted, deleted and masked: what their statements depend on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from include.erasure.places import PRINTING
from include.policy.datamap import MappedDatabase
from include.services.errors import ServiceError, UsageError

OLDEST_SERVER = 140_000  # hash_record_extended, bit_xor and scans of row ranges


def prepare(connection: psycopg.Connection[Any], database: MappedDatabase) -> None:
    """Set a session up for the statements of this room; outside of a transaction.

    Raises:
        UsageError: the server is too old.
    """
    if connection.info.server_version < OLDEST_SERVER:
        raise UsageError(
            f"The server of {database.name} is older than PostgreSQL 14.",
            "Upgrade it; older versions get no security fixes any more.",
        )
    # The ledger is settled by what the server says it committed, so it has to be on disk by then.
    connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) "
        "WHERE current_setting('synchronous_commit') = 'off'"
    )
    path = SQL("{}, pg_catalog").format(Identifier(database.schema_name)).as_string(connection)
    for name, value in {**PRINTING, "search_path": path}.items():
        connection.execute("SELECT set_config(%s, %s, false)", [name, value])


@contextmanager
def one_view(connection: psycopg.Connection[Any], database: MappedDatabase) -> Iterator[None]:
    """Read one unchanging view of the database; nothing can be written.

    Raises:
        UsageError: a right is missing.
        ServiceError: another session holds a lock, or a statement took too long.
    """
    with refusals(connection, database.name), connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield


@contextmanager
def refusals(connection: psycopg.Connection[Any], database: str) -> Iterator[None]:
    """Make the project's own errors of what the database refuses, without its words.

    Raises:
        UsageError: a right is missing, row security hides rows, or SQL of the pack fails.
        ServiceError: the server went away, a lock was not free, or a statement took too long.
    """
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise UsageError(
            f"The user {connection.info.user} lacks a right in {database}, or row security would "
            f"hide rows (SQLSTATE {error.sqlstate}{_about(error)}).",
            "Grant it: docs/retention.md lists the rights. Where a table has row security, the "
            "user needs BYPASSRLS.",
        ) from None
    except (
        psycopg.DataError,
        psycopg.ProgrammingError,
        psycopg.errors.ReadOnlySqlTransaction,
    ) as error:  # its words may quote a value
        raise UsageError(
            f"A clock, condition or key of retention.yaml fails on a record of {database} "
            f"({type(error).__name__}, SQLSTATE {error.sqlstate}).",
            "See the log of its server for the statement, and correct it.",
        ) from None
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise ServiceError(
            f"Another session holds a lock in {database} (SQLSTATE {error.sqlstate}"
            f"{_about(error)}).",
            "What was done stays done, and the task is repeated. See in pg_locks who holds it.",
        ) from None
    except psycopg.errors.QueryCanceled as error:
        raise ServiceError(
            f"A statement in {database} took too long, or was cancelled "
            f"(SQLSTATE {error.sqlstate}).",
            "What was done stays done, and the task is repeated. See in pg_stat_activity what "
            "keeps it.",
        ) from None


def _about(error: psycopg.Error) -> str:
    return f", table {error.diag.table_name}" if error.diag.table_name else ""
