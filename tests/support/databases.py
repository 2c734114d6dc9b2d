"""Create separate databases for tests on the shared server."""

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
def temporary_database(server: EmbeddedPostgres, template: str = "template1") -> Iterator[str]:
    """Create a database, yield its name, and drop it at the end.

    Args:
        server: the server.
        template: database to copy, which must have no sessions.
    """
    name = f"t_{uuid.uuid4().hex[:12]}"
    # Copying files is quicker than through the write-ahead log, which is never replayed here.
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
    with psycopg.connect(server.conninfo("postgres"), autocommit=True) as admin:
        admin.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
        yield name
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def as_template(address: str) -> None:
    """Connect to a database once, so that PostgreSQL writes its catalog cache file.

    Copies of the database include this file. Without the file, the first connection to each copy
    takes 22 ms of CPU instead of 3 ms.
    """
    psycopg.connect(address).close()


_MIGRATED: dict[str, str] = {}


def migrated(server: EmbeddedPostgres) -> str:
    """Return the name of a migrated state database that is only used as a template.

    Migrating a database takes five times as long as copying it.
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

    The engine of the product opens a connection for each use, which takes 5 ms of CPU.

    Args:
        source: connection string.
        checked: whether a connection that the server has closed is replaced.
    """

    def connect() -> psycopg.Connection[Any]:
        # DISCARD ALL would delete prepared statements.
        return psycopg.connect(source, prepare_threshold=None)

    pooled_engine = create_engine(
        "postgresql+psycopg://", creator=connect, pool_size=8, pool_pre_ping=checked
    )

    @event.listens_for(pooled_engine, "reset")
    def clean(connection: psycopg.Connection[Any], _record: object, state: Any) -> None:
        if not connection.closed and not state.terminate_only:
            connection.rollback()
            connection.autocommit = True
            connection.execute("DISCARD ALL")
            connection.autocommit = False

    return pooled_engine
