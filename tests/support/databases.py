"""Databases of a test's own on the server that all share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import Engine, create_engine, event

from include.local.postgres import EmbeddedPostgres
from include.state.connect import engine
from include.state.migrate import migrate


@contextmanager
def fresh(server: EmbeddedPostgres, template: str = "template1") -> Iterator[str]:
    """Make a database, yield its name and drop it.

    Args:
        server: where.
        template: the database that it is a copy of; nobody may be connected to that.
    """
    name = f"t_{uuid.uuid4().hex[:12]}"
    # A copy of its files is quicker than one through the log: nothing here is replayed ever.
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        yield name
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def as_template(address: str) -> None:
    """Connect to a database once, so that PostgreSQL keeps a file of its catalog there.

    Copies have that file too. Without it the first connection to each copy takes 22 ms of CPU
    instead of 3.
    """
    psycopg.connect(address).close()


_MIGRATED: dict[str, str] = {}


def migrated(server: EmbeddedPostgres) -> str:
    """Return the name of a server's migrated state database, which is only for copies.

    Migrating takes five times as long as a copy.
    """
    address = server.conninfo("postgres")
    if address not in _MIGRATED:
        name = f"t_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(address, autocommit=True) as admin:
            admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        migrate(engine(server.conninfo(name)))
        as_template(server.conninfo(name))
        _MIGRATED[address] = name
    return _MIGRATED[address]


def pooled(source: str, *, checked: bool = False) -> Engine:
    """Return an engine that keeps its connections, and resets each before it is used again.

    The product's engine opens a connection for each use, which takes 5 ms of CPU.

    Args:
        source: connection string.
        checked: replace a connection that the server ended meanwhile.
    """

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(source, prepare_threshold=None)  # cleaning would take them away

    made = create_engine(
        "postgresql+psycopg://", creator=connect, pool_size=8, pool_pre_ping=checked
    )

    @event.listens_for(made, "reset")
    def clean(connection: psycopg.Connection[Any], _record: object, state: Any) -> None:
        if not connection.closed and not state.terminate_only:
            connection.rollback()
            connection.autocommit = True
            connection.execute("DISCARD ALL")
            connection.autocommit = False

    return made
