"""Create, find and drop the schemas of incident drills in the state database.

Each drill has a schema of its own, which holds its state. The migrations that create the live
tables also create all tables of the schema. The drill's sessions search tables only in this schema,
so a statement that names a missing table fails and cannot reach a live table. The first step of a
drill creates the schema, and the schema is dropped after the drill was sealed.

The name of the schema is derived from the DAG id and the run id. A schema is dropped only if it has
such a name and a comment written by ParcelSeal. The database role of the connection `state_db`
needs the CREATE privilege on the database.
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

KIND = "parcelseal tabletop"  # in the comment of the schemas that ParcelSeal created
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
    """The schema of one incident drill.

    Attributes:
        name: name of the schema.
        dag_id: DAG id of the workflow.
        run_id: id of the run that is the drill.
        created_at: time at which the schema was created.
    """

    name: str
    dag_id: str
    run_id: str
    created_at: datetime


def name_of(dag_id: str, run_id: str) -> str:
    """Return the name of the schema of a drill, which is derived from its DAG id and run id."""
    return f"tabletop_{sha256(json.dumps([dag_id, run_id]).encode()).hexdigest()[:32]}"


def open_sandbox(
    conninfo: str, dag_id: str, run_id: str, at: datetime, check: Callable[[Connection], None]
) -> Engine:
    """Return an engine for the schema of a drill. Create the schema if it does not exist.

    Several tasks may call this function at the same time.

    Args:
        conninfo: connection string of the state database.
        dag_id: DAG id of the workflow.
        run_id: id of the run that is the drill.
        at: current time.
        check: function that receives a connection to the live tables, and raises an exception if
            the drill is already sealed. No other task can create or drop the schema while the
            function runs.

    Raises:
        UsageError: the role may not create a schema, or a newer version of ParcelSeal created the
            existing schema.
        ControlFailed: a schema of that name exists and does not belong to this run.
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
    """Return an engine for the existing schema of a drill.

    Raises:
        UsageError: a newer version of ParcelSeal created the schema.
        ControlFailed: the schema does not exist any more, because the drill was sealed or its steps
            stopped long ago. Also raised if ParcelSeal did not create the schema of that name.
    """
    name = name_of(dag_id, run_id)
    with _locked(engine(conninfo), name) as conn:
        if _find(conn, name) is None:
            raise ControlFailed(
                "The state of this drill no longer exists: it was sealed, or removed.",
                "Start a new drill.",
            )
        _migrate(conn, name)
    return engine(conninfo, name)


def schema_exists(live: Engine, dag_id: str, run_id: str) -> bool:
    """Return whether the schema of a drill exists.

    Raises:
        ControlFailed: a schema of that name exists and was not created by ParcelSeal.
    """
    with live.connect() as conn:
        return _find(conn, name_of(dag_id, run_id)) is not None


def drop_sandbox(live: Engine, dag_id: str, run_id: str) -> bool:
    """Drop the schema of a drill with all its tables, and return whether it existed.

    Raises:
        ControlFailed: a schema of that name exists and was not created by ParcelSeal.
        ServiceError: a task still uses the schema.
    """
    return drop(live, name_of(dag_id, run_id))


def drop(live: Engine, name: str) -> bool:
    """Drop the drill schema with the given name, and return whether it existed.

    Raises:
        ControlFailed: the schema was not created by ParcelSeal.
        ServiceError: a task still uses the schema.
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
                "The state of a drill could not be removed: a task still uses it.",
                "The task is repeated. If the error continues, end the tasks of that run.",
            ) from None
    return True


def sandboxes(live: Engine) -> list[Sandbox]:
    """Return the schemas of all incident drills in the state database, sorted by name.

    Schemas that ParcelSeal did not create are omitted.
    """
    with live.connect() as conn:
        comments = [(str(name), comment) for name, comment in conn.execute(_COMMENTS)]
    read = [_read(name, comment) for name, comment in comments if _NAME.fullmatch(name)]
    return [sandbox for sandbox in read if sandbox is not None]


def drills_without_steps_since(live: Engine, before: datetime) -> list[Sandbox]:
    """Return the schemas of drills that have recorded no step for a long time.

    Args:
        live: engine of the live state database.
        before: a schema is returned only if it was created before this time and its last step was
            recorded before this time.
    """
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
        if max(sandbox.created_at, last or sandbox.created_at) < before:
            left.append(sandbox)
    return left


@contextmanager
def _locked(live: Engine, name: str) -> Iterator[Connection]:
    """Open a transaction that holds a lock. No other task can then create or drop the schema.

    Args:
        live: engine of the live state database.
        name: name of the schema.
    """
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
        "made_at": sandbox.created_at.isoformat(),
    }
    name = sql.Identifier(sandbox.name)
    try:
        _run(conn, sql.SQL("CREATE SCHEMA {}").format(name))
    except InsufficientPrivilege:
        raise UsageError(
            "The role of the connection state_db may not create schemas, which drills need.",
            "Let the database's owner run: GRANT CREATE ON DATABASE <name> TO <role>.",
        ) from None
    _run(conn, sql.SQL("COMMENT ON SCHEMA {} IS {}").format(name, sql.Literal(json.dumps(about))))


def _migrate(conn: Connection, name: str) -> None:
    """Apply pending migrations to a drill's schema.

    The schema may be new, or an older version of ParcelSeal may have created it.

    Args:
        conn: connection on which the transaction is open.
        name: name of the schema.
    """
    conn.execute(text("SELECT set_config('search_path', quote_ident(:name), true)"), {"name": name})
    if current_revision(conn) != newest_revision():
        migrate_here(conn)


def _find(conn: Connection, name: str) -> Sandbox | None:
    """Return the sandbox whose schema has the given name, or None if no such schema exists.

    Raises:
        ControlFailed: the schema was not created by ParcelSeal.
    """
    row = conn.execute(_COMMENT, {"name": name}).first()
    if row is None:
        return None
    sandbox = _read(name, row[0])
    if sandbox is None:
        raise _foreign(name)
    return sandbox


def _read(name: str, comment: str | None) -> Sandbox | None:
    """Return the sandbox that the comment of a schema describes.

    Return None if ParcelSeal did not write the comment.

    Args:
        name: name of the schema.
        comment: comment of the schema; None if it has no comment.
    """
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
        f"The schema {name} of the state database belongs to no drill. It was not changed.",
        "Find out who created it.",
    )


def _run(conn: Connection, query: sql.Composed) -> None:
    driver = conn.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    driver.execute(query)
