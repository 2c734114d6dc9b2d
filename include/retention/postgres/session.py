"""Sessions that count, delete and mask records, and the comparison of clocks before they do."""

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

APART = timedelta(minutes=10)  # synchronized clocks never differ by more


def require_agreement(connection: psycopg.Connection[Any], state: Engine, clock: Clock) -> datetime:
    """Compare our clock with those of both databases and with the last plan.

    Args:
        connection: to the mapped database.
        state: the state database.
        clock: ours.

    Returns:
        The moment by our clock.

    Raises:
        ControlFailed: they differ, or ours was set back behind a plan that was made already.
    """
    now = clock.now()
    mapped: datetime = scalar(connection, "SELECT clock_timestamp()")
    with state.connect() as conn:
        theirs: datetime = conn.execute(select(func.clock_timestamp())).scalar_one()
        last = conn.scalar(select(func.max(disposition.c.planned_at)))
    for name, moment in (("mapped database", mapped), ("state database", theirs)):
        if abs(moment - now) > APART:
            raise ControlFailed(
                f"The clock here says {now:%Y-%m-%d %H:%M} UTC, that of the {name} "
                f"{moment:%Y-%m-%d %H:%M} ({moment:%z}).",
                "Nothing was deleted. Set the wrong clock right; records expire by it.",
            )
    if last is not None and last > now + APART:
        raise ControlFailed(
            f"The clock here says {now:%Y-%m-%d %H:%M} UTC, and a plan was made at "
            f"{last:%Y-%m-%d %H:%M} ({last:%z}).",
            "Nothing was deleted. Find out which clock was wrong; if it was the earlier one, "
            "records may have been deleted too early.",
        )
    return now


_DENIED = re.compile(r"permission denied for ((?:table|view|schema|function|sequence) \S+)")
NOTHING: Mapping[str, str] = MappingProxyType({})
# For transactions that read much beside others: one core at a time.
ONE_CORE = {"max_parallel_workers_per_gather": "0"}
JOIN_MEMORY_KB = 128 * 1024  # for all joins of one statement; PostgreSQL may use twice as much
LEAST_JOIN_KB = 256
# Write pages that leave the server's memory to the disk at once. The operating system would write
# all of them half a minute later, and every commit would wait. It applies to the transaction or the
# session, only if the server has no setting of its own; only Linux supports it.
WRITE_AT_ONCE = """
SELECT set_config('backend_flush_after', '256kB', %(is_local)s)
WHERE current_setting('backend_flush_after') = '0'
"""


def prepare(connection: psycopg.Connection[Any], database: MappedDatabase) -> None:
    """Set up a session for retention, outside of a transaction.

    Raises:
        UsageError: the server is too old.
    """
    version = major_version(connection.info.server_version)
    if version < SUPPORTED[0]:
        raise UsageError(
            f"The server of {database.name} is on PostgreSQL {version}, which is not supported.",
            f"Upgrade it to a supported version: {listed(SUPPORTED)}.",
        )
    _set(connection, database, {}, is_local=False)


def set_locally(
    connection: psycopg.Connection[Any], database: MappedDatabase, more: Mapping[str, str]
) -> None:
    """Set up the transaction that is open, as `prepare` does its session, in one statement.

    Behind a pooler that hands transactions out, the next one may be on a session that was not set
    up; it would print keys in another way.

    Args:
        connection: with an open transaction.
        database: whose tables it works on.
        more: settings besides, by their name.
    """
    _set(connection, database, more, is_local=True)


def _set(
    connection: psycopg.Connection[Any],
    database: MappedDatabase,
    more: Mapping[str, str],
    *,
    is_local: bool,
) -> None:
    path = SQL("{}, pg_catalog").format(Identifier(database.schema_name)).as_string(connection)
    values = {**PRINTING, "search_path": path, **more}
    # The ledger is settled by the server's commits, so a commit must wait until it is on disk.
    connection.execute(
        "SELECT set_config(name, value, %s) FROM unnest(%s::text[], %s::text[]) AS s (name, value) "
        "UNION ALL SELECT set_config('synchronous_commit', 'on', %s) "
        "WHERE current_setting('synchronous_commit') = 'off'",
        [is_local, list(values), list(values.values()), is_local],
    )


def set_up_joins(connection: psycopg.Connection[Any], joins: int) -> None:
    """Set up the open transaction for a statement with many joins.

    All joins share `JOIN_MEMORY_KB`, since PostgreSQL frees their memory only at the end of the
    statement; each gets at least `LEAST_JOIN_KB`. JIT compilation is off: PostgreSQL overestimates
    the cost of such a statement, and compiling takes longer than reading few records.
    """
    connection.execute(
        "SELECT set_config('work_mem', least(reset_val::bigint, %s)::text || 'kB', true), "
        "set_config('jit', 'off', true) FROM pg_settings WHERE name = 'work_mem'",
        [max(LEAST_JOIN_KB, JOIN_MEMORY_KB // joins)],
    )


@contextmanager
def one_view(
    connection: psycopg.Connection[Any], database: MappedDatabase, more: Mapping[str, str] = NOTHING
) -> Iterator[None]:
    """Open a read-only transaction with one snapshot of the database.

    Args:
        connection: that `prepare` set up.
        database: what is read.
        more: settings besides, by their name.

    Raises:
        UsageError: a right is missing.
        ServiceError: another session holds a lock, or a statement took too long.
    """
    with refusals(connection, database.name), connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        set_locally(connection, database, more)
        yield


@contextmanager
def refusals(connection: psycopg.Connection[Any], database: str) -> Iterator[None]:
    """Raise the project's errors for refusals of the database, without its messages.

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
            "Grant it: the configuration check prints the statement when it tries the connections "
            "(--connect). Where a table has row security, the user needs BYPASSRLS.",
        ) from None
    except (
        psycopg.errors.InvalidSqlStatementName,
        psycopg.errors.DuplicatePreparedStatement,
    ) as error:
        raise UsageError(
            f"A pooler before {database} does not know prepared statements (SQLSTATE "
            f"{error.sqlstate}).",
            "Connect without it, or let it keep them: PgBouncer 1.22 or newer with "
            "max_prepared_statements above 0.",
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
    except psycopg.errors.SerializationFailure as error:
        raise ServiceError(
            f"A statement in {database} was cancelled (SQLSTATE {error.sqlstate}): on a standby, "
            "replay took away rows that it still read.",
            "The task is repeated. On a standby raise max_standby_streaming_delay, or read from "
            "the primary.",
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
    """Return the object of an error if the server names it, without the rest of its message."""
    if error.diag.table_name:
        return f", table {error.diag.table_name}"
    denied = _DENIED.fullmatch(error.diag.message_primary or "")
    return f", {denied[1]}" if denied else ""
