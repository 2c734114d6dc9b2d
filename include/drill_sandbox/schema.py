"""The state of a drill: a schema of its own in the state database.

The schema has every table at the newest revision, made by the same migrations. Its connections look
names up in that schema only, so a statement fails where it would otherwise reach the live tables.
The run that plays the drill makes the schema and drops it.

The name derives from the run. A schema is dropped only if it has such a name and our comment. The
role of the state database needs CREATE on the database.
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
from sqlalchemy import Connection, DateTime, Engine, column, func, select, table, text
from sqlalchemy.exc import ProgrammingError

from include.services.errors import ControlFailed, ServiceError, UsageError
from include.state.connect import engine
from include.state.migrate import current_revision, migrate_here, newest_revision

KIND = "parcelseal tabletop"  # in the comment; a schema with another comment is not ours
_NAME = re.compile(r"tabletop_[0-9a-f]{32}")
_PATIENCE = "30s"  # for a task that still works in a schema that is to be dropped
_COMMENT = text(
    "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = :name"
)
_COMMENTS = text(
    "SELECT nspname, obj_description(oid, 'pg_namespace') FROM pg_namespace"
    " WHERE starts_with(nspname, 'tabletop_') ORDER BY nspname"
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
    """Return the state of a drill; make it if it does not exist. Several tasks may do so at once.

    Args:
        conninfo: of the state database.
        dag_id: the workflow.
        run_id: its run.
        at: the moment.
        check: raises to refuse, and reads the live tables. It runs under the lock that `drop`
            takes, so that no state is made again for a run that was sealed meanwhile.

    Raises:
        UsageError: the role may not make a schema, or a newer version made this one.
        ControlFailed: a schema of that name exists and is not the run's.
    """
    expected = Sandbox(name_of(dag_id, run_id), dag_id, run_id, at)
    with _locked(engine(conninfo), expected.name) as conn:
        check(conn)
        existing = _find(conn, expected.name)
        if existing is None:
            _make(conn, expected)
        elif (existing.dag_id, existing.run_id) != (dag_id, run_id):
            raise _foreign(expected.name)
        _migrate(conn, expected.name)
    return engine(conninfo, expected.name)


def find_sandbox(conninfo: str, dag_id: str, run_id: str) -> Engine:
    """Return the state of a drill that was made before.

    Raises:
        UsageError: a newer version made it.
        ControlFailed: it does not exist: the drill was sealed, or cleared away as left over.
    """
    name = name_of(dag_id, run_id)
    with _locked(engine(conninfo), name) as conn:
        if _find(conn, name) is None:
            raise ControlFailed(
                "The state of this drill is gone: it was sealed, or cleared away as left over.",
                "Start another drill.",
            )
        _migrate(conn, name)
    return engine(conninfo, name)


def is_there(live: Engine, dag_id: str, run_id: str) -> bool:
    """Return whether the state of a drill exists.

    Raises:
        ControlFailed: a schema of that name exists and is not ours.
    """
    with live.connect() as conn:
        return _find(conn, name_of(dag_id, run_id)) is not None


def drop_sandbox(live: Engine, dag_id: str, run_id: str) -> bool:
    """Drop the state of a drill with all its content; return whether it existed.

    Raises:
        ControlFailed: a schema of that name exists and is not ours.
        ServiceError: a task still works in it.
    """
    return drop(live, name_of(dag_id, run_id))


def drop(live: Engine, name: str) -> bool:
    """Drop a schema that `sandboxes` named; return whether it still existed.

    Raises:
        ControlFailed: it is not ours.
        ServiceError: a task still works in it.
    """
    if not _NAME.fullmatch(name):
        raise _foreign(name)
    with _locked(live, name) as conn:
        if _find(conn, name) is None:
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
    """Return every drill whose state exists, by name; schemas of other programs are left out."""
    with live.connect() as conn:
        comments = [(str(name), comment) for name, comment in conn.execute(_COMMENTS)]
    read = [_read(name, comment) for name, comment in comments if _NAME.fullmatch(name)]
    return [sandbox for sandbox in read if sandbox is not None]


def leftovers(live: Engine, before: datetime) -> list[Sandbox]:
    """Return the drills without a step since a moment: killed, and never sealed."""
    left = []
    for sandbox in sandboxes(live):
        steps = table("run_step", column("recorded_at", DateTime(True)), schema=sandbox.name)
        with live.connect() as conn:
            try:
                last = conn.scalar(select(func.max(steps.c.recorded_at)))
            except ProgrammingError as error:
                if not isinstance(error.orig, UndefinedTable):
                    raise
                continue  # dropped since the list was made
        if max(sandbox.made_at, last or sandbox.made_at) < before:
            left.append(sandbox)
    return left


@contextmanager
def _locked(live: Engine, name: str) -> Iterator[Connection]:
    """Open a transaction that alone makes or drops a schema."""
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


def _migrate(conn: Connection, name: str) -> None:
    """Apply missing migrations to a schema; this version of the code may be newer than it."""
    conn.execute(text("SELECT set_config('search_path', quote_ident(:name), true)"), {"name": name})
    if current_revision(conn) != newest_revision():
        migrate_here(conn)


def _find(conn: Connection, name: str) -> Sandbox | None:
    """Return the sandbox of a name, or None if no schema has the name.

    Raises:
        ControlFailed: the schema is not ours.
    """
    row = conn.execute(_COMMENT, {"name": name}).first()
    if row is None:
        return None
    sandbox = _read(name, row[0])
    if sandbox is None:
        raise _foreign(name)
    return sandbox


def _read(name: str, comment: str | None) -> Sandbox | None:
    """Read a schema's comment; return None if it is not ours."""
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
