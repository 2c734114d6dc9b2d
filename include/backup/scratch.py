"""Scratch databases of restore drills: generated names, always dropped."""

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
from include.state.locks import LockHeld, exclusive
from include.state.tables import scratch_database

SINCE_SERVER = 170_000  # knows event_triggers, as libpq counts versions


def without_event_triggers(copy: DatabaseAddress) -> DatabaseAddress:
    """Return the address of a database for sessions in which no event trigger fires.

    Event triggers of the backup would fire at each login and at each later statement of the
    restore: they write rows that the backup does not have, or forbid the session. Only a superuser
    creates event triggers, and only a superuser may switch them off, so the address of another role
    stays as it is. On a server before 17, in a session of a replica those do not fire that are not
    ``ENABLE ALWAYS`` or ``ENABLE REPLICA``; foreign keys are checked as they are created all the
    same, and `suspended` leaves that role where rows are deleted.

    Args:
        copy: the database that is restored or examined.

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
DROPS = 4  # tries; each waits five seconds for others to go


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
    """Create a scratch database, and drop it at the end, also after an error.

    Its name is entered in ``state`` before it is created, so that `drop_left_over` finds it if this
    process is killed. A lock that ends with this process shows whether it still works.

    Args:
        server: address with a role that may create databases.
        state: the state database.
        dag_id: whose run it is.
        run_id: which run it is.
        clock: for the name and the record.
        locale: of the original database; where the server lacks its collation, the database gets
            another one.

    Raises:
        UsageError: the role may not create databases.
        ServiceError: the server failed, or its disk is full.
    """
    name = f"{PREFIX}{clock.now():%Y%m%d%H%M%S}_{secrets.token_hex(4)}"
    with exclusive(state, _lock(name), "this scratch database"):
        options = (locale or DatabaseLocale()).create_options()
        _create(server, name, state, options, dag_id=dag_id, run_id=run_id, clock=clock)
        try:
            yield server.with_database(name)
        except BaseException:
            try:
                drop(server, name, state, clock)
            except ServiceError as error:  # what went wrong first is what people must read
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
            # It holds erased people until the replay. Its owner connects all the same.
            admin.execute(
                sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name))
            )
        except errors.InsufficientPrivilege:
            raise UsageError(
                f"The drill's role may not create databases on {server.place}.",
                "ALTER ROLE ... CREATEDB for the user of the connection drill_db.",
            ) from None
        except errors.DiskFull:
            raise ServiceError(
                f"The disk of the drill server {server.place} is full.",
                "Free space there, then run the drill again.",
            ) from None
        except psycopg.OperationalError as error:
            raise lost(server, error) from None


def _create_like(admin: psycopg.Connection, name: str, options: Sequence[str]) -> None:
    for position, each in enumerate(options, 1):
        try:
            create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ").format(sql.Identifier(name))
            admin.execute(create + sql.SQL(each))
        except (errors.DataError, errors.WrongObjectType, errors.NotSupportedError):
            if position == len(options):  # the server lacks the locale, or it has another encoding
                raise
        else:
            return


def drop(server: DatabaseAddress, name: str, state: Engine, clock: Clock) -> None:
    """Drop a scratch database, and nothing that is not one; a missing one is fine.

    Raises:
        ServiceError: the server cannot be reached or went away.
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
                f"The scratch database {name}{server.place} is in use by a session that its owner "
                "may not end.",
                "Run the drill again: it drops what is left over. See pg_stat_activity for who it "
                "is.",
            ) from None
    with state.begin() as conn:
        conn.execute(
            update(scratch_database)
            .where(scratch_database.c.name == name)
            .values(dropped_at=clock.now())
        )


def _drop(admin: psycopg.Connection, name: str) -> None:
    """Drop a database, also while others are connected to it.

    Plainly first: that waits for an autovacuum worker to go, which no role but a superuser may end
    by FORCE.
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
    """Drop what killed drills left on this server, and nothing that a living drill uses.

    Returns:
        The names of the databases that were dropped.
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
            stack.enter_context(exclusive(state, _lock(name), "this scratch database"))
        except LockHeld:  # a drill is at work in it
            return False
        drop(server, name, state, clock)
    return True


def _lock(name: str) -> str:
    return f"scratch:{name}"


def _server(address: DatabaseAddress) -> str:
    return address.with_database("").place.removeprefix(" on ")
