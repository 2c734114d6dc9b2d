"""A state that stands apart: a schema of its own in the state database, for a drill.

It has every table at the newest revision, made by the same migrations. Whoever works in it finds
nothing else: its connections look names up in that schema only, so a statement fails where it would
otherwise reach the live tables. It is made and dropped by the run that plays the drill.

Names are made from the run and never given, and only a schema with such a name and our comment is
ever dropped. The role of the state database needs CREATE on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

import psycopg
from psycopg import sql
from psycopg.errors import InsufficientPrivilege, LockNotAvailable, UndefinedTable
from sqlalchemy import (
    Column,
    Connection,
    DateTime,
    Engine,
    LargeBinary,
    Table,
    Text,
    column,
    func,
    select,
    table,
    text,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import ProgrammingError

from include.services.errors import ControlFailed, ServiceError, UsageError
from include.state.connect import engine
from include.state.migrate import current_revision, migrate_here, newest_revision
from include.state.sandbox_objects import TABLES

KIND = "parcelseal tabletop"  # in the comment; what has another one is not ours
_NAME = re.compile(r"tabletop_[0-9a-f]{32}")
_PATIENCE = "30s"  # for whoever still works in what is to be dropped
_FOUND = text("SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = :name")
_ALL = text(
    "SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace"
    " WHERE starts_with(nspname, 'tabletop_') ORDER BY nspname"
)

sandbox_secret = Table(
    "sandbox_secret",
    TABLES,
    Column("name", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)


@dataclass(frozen=True)
class Sandbox:
    """The state of one drill.

    Attributes:
        name: of the schema.
        dag_id: the workflow that is drilled.
        run_id: the run that is the drill.
        made_at: when the schema was made.
    """

    name: str
    dag_id: str
    run_id: str
    made_at: datetime


def name_of(dag_id: str, run_id: str) -> str:
    """Return the name of a run's schema."""
    return f"tabletop_{sha256(json.dumps([dag_id, run_id]).encode()).hexdigest()[:32]}"


def open_sandbox(
    conninfo: str, dag_id: str, run_id: str, at: datetime, check: Callable[[Connection], None]
) -> Engine:
    """Return the state of a drill, and make it when it is not there; several may do so at once.

    Args:
        conninfo: of the state database.
        dag_id: the workflow.
        run_id: its run.
        at: the moment.
        check: refuses by raising, and reads the live tables; while it does, and until the schema
            stands, nobody drops it. So nothing is made again for a run that was sealed meanwhile.

    Raises:
        UsageError: the role may not make a schema, or a newer version made this one.
        ControlFailed: a schema of that name is there and is not the run's.
    """
    made = Sandbox(name_of(dag_id, run_id), dag_id, run_id, at)
    with _locked(engine(conninfo), made.name) as conn:
        check(conn)
        found = _look(conn, made.name)
        if found is None:
            _make(conn, made)
        elif (found.dag_id, found.run_id) != (dag_id, run_id):
            raise _foreign(made.name)
        _bring_up(conn, made.name)
    return engine(conninfo, made.name)


def find_sandbox(conninfo: str, dag_id: str, run_id: str) -> Engine:
    """Return the state of a drill that was made before.

    Raises:
        UsageError: a newer version made it.
        ControlFailed: it is not there: the drill was sealed, or given up and cleared away.
    """
    name = name_of(dag_id, run_id)
    with _locked(engine(conninfo), name) as conn:
        if _look(conn, name) is None:
            raise ControlFailed(
                "The state of this drill is gone: it was sealed, or cleared away as left over.",
                "Start another drill.",
            )
        _bring_up(conn, name)
    return engine(conninfo, name)


def is_there(live: Engine, dag_id: str, run_id: str) -> bool:
    """Say whether the state of a drill is there.

    Raises:
        ControlFailed: a schema of that name is there and is not ours.
    """
    with live.connect() as conn:
        return _look(conn, name_of(dag_id, run_id)) is not None


def drop_sandbox(live: Engine, dag_id: str, run_id: str) -> bool:
    """Remove the state of a drill with everything in it; whether there was any.

    Raises:
        ControlFailed: a schema of that name is there and is not ours.
        ServiceError: somebody still works in it.
    """
    return drop(live, name_of(dag_id, run_id))


def drop(live: Engine, name: str) -> bool:
    """Remove a schema that `sandboxes` named; whether it was still there.

    Raises:
        ControlFailed: it is none of ours.
        ServiceError: somebody still works in it.
    """
    if not _NAME.fullmatch(name):
        raise _foreign(name)
    with _locked(live, name) as conn:
        if _look(conn, name) is None:
            return False
        conn.execute(text("SELECT set_config('lock_timeout', :limit, true)"), {"limit": _PATIENCE})
        try:
            _run(conn, sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))
        except LockNotAvailable:
            raise ServiceError(
                "The state of a drill could not be removed: a task still works in it.",
                "The task is repeated; end the tasks of that run if it goes on.",
            ) from None
    return True


def sandboxes(live: Engine) -> list[Sandbox]:
    """Return every drill whose state is there, by name; what only looks like one is left out."""
    with live.connect() as conn:
        every = [(str(name), comment) for name, comment in conn.execute(_ALL)]
    found = [_read(name, comment) for name, comment in every if _NAME.fullmatch(name)]
    return [one for one in found if one is not None]


def leftovers(live: Engine, before: datetime) -> list[Sandbox]:
    """Return the drills in which nothing was recorded since a moment: killed, and never sealed."""
    left = []
    for one in sandboxes(live):
        steps = table("run_step", column("recorded_at", DateTime(True)), schema=one.name)
        with live.connect() as conn:
            try:
                last = conn.scalar(select(func.max(steps.c.recorded_at)))
            except ProgrammingError as error:
                if not isinstance(error.orig, UndefinedTable):
                    raise
                continue  # dropped since the list was made
        if max(one.made_at, last or one.made_at) < before:
            left.append(one)
    return left


def kept(sandbox: Engine, name: str, make: Callable[[], bytes]) -> bytes:
    """Return what is kept under a name for the length of a drill; whoever comes first makes it."""
    wanted = select(sandbox_secret.c.content).where(sandbox_secret.c.name == name)
    with sandbox.begin() as conn:
        found = conn.scalar(wanted)
        if found is None:
            given = insert(sandbox_secret).values(name=name, content=make())
            conn.execute(given.on_conflict_do_nothing())  # of two the later finds the earlier's
            found = conn.scalar(wanted)
    assert found is not None
    return bytes(found)


@contextmanager
def _locked(live: Engine, name: str) -> Iterator[Connection]:
    """A transaction that alone makes or drops a schema."""
    with live.begin() as conn:
        conn.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name}
        )
        yield conn


def _make(conn: Connection, sandbox: Sandbox) -> None:
    about = {
        "kind": KIND,
        "dag_id": sandbox.dag_id,
        "run_id": sandbox.run_id,
        "made_at": sandbox.made_at.isoformat(),
    }
    name = sql.Identifier(sandbox.name)
    try:
        _run(conn, sql.SQL("CREATE SCHEMA {}").format(name))
    except InsufficientPrivilege:
        raise UsageError(
            "The role of the connection state_db may not make schemas, in which drills are played.",
            "Let the database's owner run: GRANT CREATE ON DATABASE <name> TO <role>.",
        ) from None
    _run(conn, sql.SQL("COMMENT ON SCHEMA {} IS {}").format(name, sql.Literal(json.dumps(about))))


def _bring_up(conn: Connection, name: str) -> None:
    """Make what is missing in a schema; this version of the code may be newer than it."""
    conn.execute(text("SELECT set_config('search_path', quote_ident(:name), true)"), {"name": name})
    if current_revision(conn) != newest_revision():
        migrate_here(conn)
        TABLES.create_all(conn)


def _look(conn: Connection, name: str) -> Sandbox | None:
    """Return what is there under a name, None when nothing is.

    Raises:
        ControlFailed: it is none of ours.
    """
    row = conn.execute(_FOUND, {"name": name}).first()
    if row is None:
        return None
    found = _read(name, row[0])
    if found is None:
        raise _foreign(name)
    return found


def _read(name: str, comment: str | None) -> Sandbox | None:
    """Read our own comment; None for any other."""
    try:
        about = json.loads(comment or "")
        if about["kind"] != KIND:
            return None
        return Sandbox(
            name, about["dag_id"], about["run_id"], datetime.fromisoformat(about["made_at"])
        )
    except (ValueError, KeyError, TypeError):
        return None


def _foreign(name: str) -> ControlFailed:
    return ControlFailed(
        f"The schema {name} of the state database is not that of this drill; it stays as it is.",
        "Find out who made it.",
    )


def _run(conn: Connection, query: sql.Composed) -> None:
    driver = conn.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    driver.execute(query)
