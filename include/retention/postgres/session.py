"""Set up the database sessions of a disposition, compare system clocks, and translate errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from sqlalchemy import Engine, func, select

from include.policy.datamap import MappedDatabase
from include.services.clock import Clock
from include.services.database import PRINTING, scalar
from include.services.errors import ControlFailed, ServiceError, UsageError
from include.services.programs import SUPPORTED, listed, major_version
from include.state.tables import disposition

MAX_CLOCK_DIFFERENCE = timedelta(minutes=10)  # synchronized clocks never differ by more


def require_clocks_agree(
    connection: psycopg.Connection[Any], state: Engine, clock: Clock
) -> datetime:
    """Compare the worker's clock with the clocks of both databases and the time of the last plan.

    The two databases are the mapped database and the state database.

    Args:
        connection: connection to the mapped database.
        state: the state database.
        clock: clock of the worker.

    Returns:
        The current time of the worker's clock.

    Raises:
        ControlFailed: the clocks of the worker and a database differ, or the worker's clock is
            before the time of the last plan.
    """
    now = clock.now()
    mapped: datetime = scalar(connection, "SELECT clock_timestamp()")
    with state.connect() as conn:
        theirs: datetime = conn.execute(select(func.clock_timestamp())).scalar_one()
        last = conn.scalar(select(func.max(disposition.c.planned_at)))
    for name, moment in (("mapped database", mapped), ("state database", theirs)):
        if abs(moment - now) > MAX_CLOCK_DIFFERENCE:
            raise ControlFailed(
                f"The clock of the worker shows {now:%Y-%m-%d %H:%M} UTC, the clock of the {name} "
                f"{moment:%Y-%m-%d %H:%M} ({moment:%z}).",
                "Nothing was deleted. Correct the wrong clock, which decides when records expire.",
            )
    if last is not None and last > now + MAX_CLOCK_DIFFERENCE:
        raise ControlFailed(
            f"The clock of the worker shows {now:%Y-%m-%d %H:%M} UTC, but a plan was made at "
            f"{last:%Y-%m-%d %H:%M} ({last:%z}).",
            "Nothing was deleted. Find out which clock was wrong; if it was the earlier one, "
            "records may have been deleted too early.",
        )
    return now


_DENIED = re.compile(r"permission denied for ((?:table|view|schema|function|sequence) \S+)")
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
# Use one core at a time, so that large reads leave cores to other sessions.
ONE_CORE = {"max_parallel_workers_per_gather": "0"}
JOIN_MEMORY_KB = 128 * 1024  # for all joins of one statement; PostgreSQL may use twice as much
LEAST_JOIN_KB = 256
# The operating system writes pages to the disk at once when the server writes them out of its
# memory. By default, it would write all of them half a minute later, and every commit would wait.
# The setting applies to the transaction or to the session, and only if the server's own setting is
# 0. Only Linux supports it.
WRITE_AT_ONCE = """
SELECT set_config('backend_flush_after', '256kB', %(is_local)s)
WHERE current_setting('backend_flush_after') = '0'
"""


def prepare_session(connection: psycopg.Connection[Any], database: MappedDatabase) -> None:
    """Set up a database session for the planning, execution or verification of a disposition.

    The connection must not have an open transaction.

    Raises:
        UsageError: the server is older than the oldest supported version of PostgreSQL.
    """
    version = major_version(connection.info.server_version)
    if version < SUPPORTED[0]:
        raise UsageError(
            f"The server of {database.name} is on PostgreSQL {version}, which is not supported.",
            f"Upgrade it to a supported version: {listed(SUPPORTED)}.",
        )
    _apply_settings(connection, database, {}, is_local=False)


def set_for_transaction(
    connection: psycopg.Connection[Any], database: MappedDatabase, more: Mapping[str, str]
) -> None:
    """Apply the settings of `prepare_session` to the open transaction.

    A connection pooler in transaction mode may use another session for each transaction. Without
    these settings, that session would print keys in another format.

    Args:
        connection: connection with an open transaction.
        database: the database in the data map.
        more: further PostgreSQL settings, by name.
    """
    _apply_settings(connection, database, more, is_local=True)


def _apply_settings(
    connection: psycopg.Connection[Any],
    database: MappedDatabase,
    more: Mapping[str, str],
    *,
    is_local: bool,
) -> None:
    path = SQL("{}, pg_catalog").format(Identifier(database.schema_name)).as_string(connection)
    values = {**PRINTING, "search_path": path, **more}
    # The ledger relies on the server's commits, so a commit must wait until it is on disk.
    connection.execute(
        "SELECT set_config(name, value, %s) FROM unnest(%s::text[], %s::text[]) AS s (name, value) "
        "UNION ALL SELECT set_config('synchronous_commit', 'on', %s) "
        "WHERE current_setting('synchronous_commit') = 'off'",
        [is_local, list(values), list(values.values()), is_local],
    )


def set_up_joins(connection: psycopg.Connection[Any], joins: int) -> None:
    """Set memory and JIT compilation, in the open transaction, for a statement with many joins.

    All joins together get `JOIN_MEMORY_KB`, because PostgreSQL frees the memory of a join only at
    the end of the statement. Each join gets at least `LEAST_JOIN_KB`. JIT compilation is turned
    off, because PostgreSQL overestimates the cost of such a statement. The compilation would take
    longer than the execution.

    Args:
        connection: connection with an open transaction.
        joins: number of joins in the statement.
    """
    connection.execute(
        "SELECT set_config('work_mem', least(reset_val::bigint, %s)::text || 'kB', true), "
        "set_config('jit', 'off', true) FROM pg_settings WHERE name = 'work_mem'",
        [max(LEAST_JOIN_KB, JOIN_MEMORY_KB // joins)],
    )


@contextmanager
def open_snapshot(
    connection: psycopg.Connection[Any],
    database: MappedDatabase,
    more: Mapping[str, str] = NO_SETTINGS,
) -> Iterator[None]:
    """Open a read-only transaction in which all statements see the same snapshot of the database.

    Args:
        connection: connection that `prepare_session` set up.
        database: the database in the data map.
        more: further PostgreSQL settings for the transaction, by name.

    Raises:
        UsageError: a right is missing.
        ServiceError: another session holds a lock, or a statement took too long.
    """
    with translate_errors(connection, database.name), connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        set_for_transaction(connection, database, more)
        yield


@contextmanager
def translate_errors(connection: psycopg.Connection[Any], database: str) -> Iterator[None]:
    """Translate errors of PostgreSQL into errors of ParcelSeal.

    The messages of PostgreSQL are left out, because they may contain values of records.

    Raises:
        UsageError: a right is missing, row security hides rows, a connection pooler does not
            support prepared statements, or SQL of the policy pack fails.
        ServiceError: another session held a lock, or a statement took too long or was cancelled.
    """
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise UsageError(
            f"The user {connection.info.user} lacks a right in {database}, or row security would "
            f"hide rows (SQLSTATE {error.sqlstate}{_object_of_error(error)}).",
            "Grant it: the configuration check prints the statement when it tries the connections "
            "(--connect). Where a table has row security, the user needs BYPASSRLS.",
        ) from None
    except (
        psycopg.errors.InvalidSqlStatementName,
        psycopg.errors.DuplicatePreparedStatement,
    ) as error:
        raise UsageError(
            f"A pooler before {database} does not support prepared statements (SQLSTATE "
            f"{error.sqlstate}).",
            "Connect without the pooler, or use PgBouncer 1.22 or newer with "
            "max_prepared_statements above 0.",
        ) from None
    except (
        psycopg.DataError,
        psycopg.ProgrammingError,
        psycopg.errors.ReadOnlySqlTransaction,
    ) as error:  # its message may contain a value
        raise UsageError(
            f"A clock, condition or key of retention.yaml fails on a record of {database} "
            f"({type(error).__name__}, SQLSTATE {error.sqlstate}).",
            "The log of its server has the statement. Correct it in retention.yaml.",
        ) from None
    except psycopg.errors.SerializationFailure as error:
        raise ServiceError(
            f"A statement in {database} was cancelled (SQLSTATE {error.sqlstate}): on a standby, "
            "replay removed rows that the statement was reading.",
            "Airflow retries the task. On a standby, raise max_standby_streaming_delay, or read "
            "from the primary.",
        ) from None
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise ServiceError(
            f"Another session holds a lock in {database} (SQLSTATE {error.sqlstate}"
            f"{_object_of_error(error)}).",
            "Completed deletions remain, and Airflow retries the task. pg_locks shows the session.",
        ) from None
    except psycopg.errors.QueryCanceled as error:
        raise ServiceError(
            f"A statement in {database} took too long, or was cancelled "
            f"(SQLSTATE {error.sqlstate}).",
            "Completed deletions remain, and Airflow retries the task. pg_stat_activity shows the "
            "cause.",
        ) from None


def _object_of_error(error: psycopg.Error) -> str:
    """Return the table or other object that an error message of PostgreSQL names.

    Other parts of the message are left out. Return an empty text if the message names no object.
    """
    if error.diag.table_name:
        return f", table {error.diag.table_name}"
    denied = _DENIED.fullmatch(error.diag.message_primary or "")
    return f", {denied[1]}" if denied else ""
