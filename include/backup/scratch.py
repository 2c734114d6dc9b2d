"""Create and drop the scratch databases of restore drills."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import psycopg
from psycopg import errors, sql
from sqlalchemy import Engine, insert, select, update

from include.backup.server_needs import DatabaseLocale
from include.services.clock import Clock
from include.services.database import DatabaseAddress, connected, lost
from include.services.errors import ServiceError, UsageError
from include.state.locks import LockHeld, hold_exclusive_lock
from include.state.tables import scratch_database

SINCE_SERVER = 170_000  # first version with the setting event_triggers, as libpq writes it


def without_event_triggers(copy: DatabaseAddress) -> DatabaseAddress:
    """Return the address of a restored copy, with options that suppress event triggers.

    A restored copy contains the event triggers of the original. They would fire at each login and
    at later statements, and could write rows that the backup lacks, or end the session. Only a
    superuser can create or disable event triggers. Therefore, if the role is not a superuser, the
    address is returned unchanged.

    Servers before version 17 have no setting for event triggers. On such servers, the sessions use
    the replication role "replica". In this role, only event triggers with ``ENABLE ALWAYS`` or
    ``ENABLE REPLICA`` fire. Foreign keys are still checked when they are created. When rows are
    deleted, `suspended` changes the replication role.

    Args:
        copy: restored copy.

    Raises:
        UsageError, ServiceError: the database refuses the login, or does not answer.
    """
    with connected(copy) as connection:
        is_superuser = connection.info.parameter_status("is_superuser") == "on"
        if not is_superuser:
            return copy
        has_setting = connection.info.server_version >= SINCE_SERVER
    setting = "event_triggers=off" if has_setting else "session_replication_role=replica"
    options = f"{copy.parameters.get('options', '')} -c {setting}".strip()
    return replace(copy, parameters={**copy.parameters, "options": options})


log = logging.getLogger(__name__)
PREFIX = "parcelseal_drill_"
DROPS = 4  # attempts; each waits five seconds for other sessions to end


@contextmanager
def scratch(
    server: DatabaseAddress,
    state: Engine,
    *,
    dag_id: str,
    run_id: str,
    clock: Clock,
    locale: DatabaseLocale | None = None,
) -> Iterator[DatabaseAddress]:
    """Create a scratch database, and drop it at the end of the block, even after an error.

    The name is recorded in the state database before the scratch database is created. If this
    process is killed, `drop_left_over` finds the name there. A lock, which ends with this process,
    shows whether the database is still in use.

    Args:
        server: address of the server, with a role that may create databases.
        state: state database.
        dag_id: id of the workflow.
        run_id: id of the run.
        clock: clock for the name and the record.
        locale: locale of the original database. If the server lacks the collation of this locale,
            the scratch database gets another collation.

    Raises:
        UsageError: the role may not create databases.
        ServiceError: the server failed, or its disk is full.
    """
    name = f"{PREFIX}{clock.now():%Y%m%d%H%M%S}_{secrets.token_hex(4)}"
    with hold_exclusive_lock(state, _lock(name), "this scratch database"):
        options = (locale or DatabaseLocale()).create_options()
        _create(server, name, state, options, dag_id=dag_id, run_id=run_id, clock=clock)
        try:
            yield server.with_database(name)
        except BaseException:
            try:
                drop(server, name, state, clock)
            except ServiceError as error:  # report the first error, not the error of the clean-up
                log.warning(
                    "%s was not dropped; a later task or drill drops it: %s", name, error.message
                )
            raise
        drop(server, name, state, clock)


def _create(
    server: DatabaseAddress,
    name: str,
    state: Engine,
    options: Sequence[str],
    *,
    dag_id: str,
    run_id: str,
    clock: Clock,
) -> None:
    with server.connect(autocommit=True) as admin:
        taken = {row[0] for row in admin.execute("SELECT datname FROM pg_database")}
        if name in taken:
            raise ServiceError(f"The generated name {name} is taken.", "Run the drill again.")
        with state.begin() as conn:
            conn.execute(
                insert(scratch_database).values(
                    name=name,
                    server=_server(server),
                    created_at=clock.now(),
                    dag_id=dag_id,
                    run_id=run_id,
                )
            )
        try:
            _create_like(admin, name, options)
            # It contains erased records until the replay. The owner can connect without this right.
            admin.execute(
                sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name))
            )
        except errors.InsufficientPrivilege:
            raise UsageError(
                f"The drill's role may not create databases on {server.display_name}.",
                "Execute ALTER ROLE ... CREATEDB for the user of the connection drill_db.",
            ) from None
        except errors.DiskFull:
            raise ServiceError(
                f"The disk of the drill server {server.display_name} is full.",
                "Free space there, then run the drill again.",
            ) from None
        except psycopg.OperationalError as error:
            raise lost(server, error) from None


def _create_like(admin: psycopg.Connection, name: str, options: Sequence[str]) -> None:
    for position, statement_options in enumerate(options, 1):
        try:
            create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ").format(sql.Identifier(name))
            admin.execute(create + sql.SQL(statement_options))
        except (errors.DataError, errors.WrongObjectType, errors.NotSupportedError):
            if position == len(options):  # the server lacks the locale, or it has another encoding
                raise
        else:
            return


def drop(server: DatabaseAddress, name: str, state: Engine, clock: Clock) -> None:
    """Drop a scratch database if it exists, and record in the state database that it was dropped.

    Args:
        server: address of the server.
        name: name of the scratch database.
        state: state database.
        clock: source of the recorded time.

    Raises:
        ValueError: the name is not that of a scratch database.
        ServiceError: the server cannot be reached, or the connection was lost.
    """
    if not name.startswith(PREFIX):
        raise ValueError(f"{name} is not a scratch database")
    with server.connect(autocommit=True) as admin:
        try:
            _drop(admin, name)
        except psycopg.OperationalError as error:
            raise lost(server, error) from None
        except errors.InsufficientPrivilege:
            raise ServiceError(
                f"The scratch database {name} on {server.display_name} is in use by a "
                f"session that its "
                "owner may not end.",
                "Find the session in pg_stat_activity. Then run the drill again: it drops "
                "databases "
                "that are left over.",
            ) from None
    with state.begin() as conn:
        conn.execute(
            update(scratch_database)
            .where(scratch_database.c.name == name)
            .values(dropped_at=clock.now())
        )


def _drop(admin: psycopg.Connection, name: str) -> None:
    """Drop a database, even if other sessions are connected to it.

    Each attempt first runs DROP DATABASE without FORCE: the server then waits for an autovacuum
    worker to end, which only a superuser could end with FORCE. If other sessions are still
    connected, the attempt continues with FORCE.

    Args:
        admin: connection to another database of the server.
        name: name of the database to drop.
    """
    plain = sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name))
    for _try in range(DROPS - 1):
        try:
            admin.execute(plain)
        except errors.ObjectInUse:
            with suppress(errors.InsufficientPrivilege):
                admin.execute(sql.SQL("{} WITH (FORCE)").format(plain))
                return
        else:
            return
    admin.execute(sql.SQL("{} WITH (FORCE)").format(plain))


def drop_left_over(server: DatabaseAddress, state: Engine, clock: Clock) -> list[str]:
    """Drop the scratch databases that remain on a server from interrupted restore drills.

    Scratch databases of running drills are kept.

    Args:
        server: address of the server.
        state: state database, which records the names of scratch databases.
        clock: clock for the record.

    Returns:
        Names of the dropped databases.
    """
    with state.connect() as conn:
        names = list(
            conn.scalars(
                select(scratch_database.c.name).where(
                    scratch_database.c.dropped_at.is_(None),
                    scratch_database.c.server == _server(server),
                )
            )
        )
    return [name for name in names if _drop_unless_used(server, name, state, clock)]


def _drop_unless_used(server: DatabaseAddress, name: str, state: Engine, clock: Clock) -> bool:
    with ExitStack() as stack:
        try:
            stack.enter_context(hold_exclusive_lock(state, _lock(name), "this scratch database"))
        except LockHeld:  # a running drill uses it
            return False
        drop(server, name, state, clock)
    return True


def _lock(name: str) -> str:
    return f"scratch:{name}"


def _server(address: DatabaseAddress) -> str:
    return address.with_database("").display_name.removeprefix(" on ")
