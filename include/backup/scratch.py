"""Scratch databases of restore drills: generated names, always dropped, never a live one."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from psycopg import errors, sql
from sqlalchemy import Engine, insert, select, update

from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from include.state.tables import scratch_database

PREFIX = "parcelseal_drill_"


@contextmanager
def scratch(
    server: DatabaseAddress,
    live_names: Collection[str],
    state: Engine,
    *,
    dag_id: str,
    run_id: str,
    clock: Clock,
) -> Iterator[DatabaseAddress]:
    """Create a scratch database and drop it whatever happens.

    Its name is entered in ``state`` before it is created, so that the next drill drops it should
    this process be killed.

    Args:
        server: address with a role that may create databases.
        live_names: names that must not be touched.
        state: the state database.
        dag_id: whose run it is.
        run_id: which run it is.
        clock: for the name and the record.

    Raises:
        UsageError: the role may not create databases.
        ServiceError: the server failed, or its disk is full.
    """
    name = f"{PREFIX}{clock.now():%Y%m%d%H%M%S}_{secrets.token_hex(4)}"
    address = server.with_database(name)
    with server.connect(autocommit=True) as admin:
        taken = {row[0] for row in admin.execute("SELECT datname FROM pg_database")}
        if name in taken or name in live_names:
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
            admin.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(
                    sql.Identifier(name)
                )
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
    try:
        yield address
    finally:
        drop(server, name, state, clock)


def drop(server: DatabaseAddress, name: str, state: Engine, clock: Clock) -> None:
    """Drop a scratch database, and nothing that is not one; a missing one is fine."""
    if not name.startswith(PREFIX):
        raise ValueError(f"{name} is not a scratch database")
    with server.connect(autocommit=True) as admin:
        admin.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )
    with state.begin() as conn:
        conn.execute(
            update(scratch_database)
            .where(scratch_database.c.name == name)
            .values(dropped_at=clock.now())
        )


def drop_left_over(server: DatabaseAddress, state: Engine, clock: Clock) -> list[str]:
    """Drop what killed drills left on this server; call under the drill's lock."""
    with state.connect() as conn:
        names = list(
            conn.scalars(
                select(scratch_database.c.name).where(
                    scratch_database.c.dropped_at.is_(None),
                    scratch_database.c.server == _server(server),
                )
            )
        )
    for name in names:
        drop(server, name, state, clock)
    return names


def _server(address: DatabaseAddress) -> str:
    return address.with_database("").place.removeprefix(" on ")
