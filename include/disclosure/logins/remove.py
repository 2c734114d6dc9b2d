"""End the sessions of transient logins, and drop the logins with their schemas."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from include.disclosure.logins.create import KEYS
from include.services.database import LOGIN_PREFIX, DatabaseAddress, connected
from include.services.errors import ServiceError

_LOCK_TIMEOUT = "10s"
_PAUSE = 0.05  # seconds between two attempts to end the sessions
_END_TIMEOUT = 5000  # milliseconds for which the server waits for the end of a session
_LOGINS = r"""
SELECT rolname FROM pg_roles WHERE starts_with(rolname, %(start)s)
UNION SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %(start)s)
ORDER BY 1
"""
_END_SESSIONS = """
SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE usename = %s
"""

_ELSEWHERE = """
SELECT DISTINCT d.datname FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
JOIN pg_roles r ON r.oid = s.refobjid
WHERE s.refclassid = 'pg_authid'::regclass AND r.rolname = %s AND d.datname <> current_database()
"""
_PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE owner = %s AND database = current_database()"


def logins_of(connection: psycopg.Connection[Any], number: int | None = None) -> list[str]:
    """Return the names of transient logins and of their schemas.

    Args:
        connection: connection to a database.
        number: number of a request; None for all requests.
    """
    start = LOGIN_PREFIX if number is None else f"{LOGIN_PREFIX}{number}_"
    return [str(row[0]) for row in connection.execute(_LOGINS, {"start": start})]


def list_logins(address: DatabaseAddress) -> list[str]:
    """Return the names of all transient logins on a server, and of their schemas in a database.

    Raises:
        UsageError: the server refused the connection.
        ServiceError: the server cannot be reached.
    """
    with connected(address) as connection:
        return logins_of(connection)


def remove_logins(address: DatabaseAddress, number: int) -> None:
    """Remove all logins of a request: their sessions, schemas and roles.

    Raises:
        UsageError: the server refused the connection.
        ServiceError: the server cannot be reached, or refused a statement.
    """
    with connected(address) as connection:
        names = logins_of(connection, number)
    for name in names:
        remove_login(address, name)


def remove_login(address: DatabaseAddress, name: str) -> None:
    """End the sessions of a login, and drop its schema and its role. A repeated call does nothing.

    The approved keys are deleted first: the login cannot lock them, so it reads no record from then
    on, whatever its sessions do. A session may hold a lock on its own role. Therefore one
    connection refuses new sessions while another ends the running ones.

    Args:
        address: database of the login, with the workflow's login.
        name: name of the login and of its schema.

    Raises:
        UsageError: the server refused the connection.
        ServiceError: the server cannot be reached, or refused a statement.
    """
    with connected(address) as connection, connected(address) as second:
        for session in (connection, second):
            session.autocommit = True
            session.execute(SQL("SET lock_timeout = {}").format(Literal(_LOCK_TIMEOUT)))
        try:
            _delete_keys(connection, name)
            exists = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [name]).rowcount
            if exists:
                _shut_out(connection, second, name)
            role = Identifier(name)
            connection.execute(SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(role))
            if exists:
                # Rights on the database, and objects that the login created.
                connection.execute(SQL("DROP OWNED BY {}").format(role))
                _drop_owned_elsewhere(address, connection, name)
                connection.execute(SQL("DROP ROLE {}").format(role))
        except psycopg.errors.UndefinedObject:
            return  # another run dropped it at the same time
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            raise ServiceError(
                f"The login {name} could not be removed: {_reason(error)}.",
                "Drop its schema and the role as a superuser.",
            ) from None


def _delete_keys(connection: psycopg.Connection[Any], name: str) -> None:
    keys = Identifier(name, KEYS)
    table = connection.execute("SELECT to_regclass(%s)", [keys.as_string(connection)]).fetchone()
    if table != (None,):
        connection.execute(SQL("DELETE FROM {}").format(keys))


def _shut_out(
    connection: psycopg.Connection[Any], second: psycopg.Connection[Any], name: str
) -> None:
    """Refuse new sessions of a login, and end the running ones and their transactions."""
    errors: list[psycopg.Error] = []

    def refuse() -> None:
        statement = SQL("ALTER ROLE {} NOLOGIN CONNECTION LIMIT 0").format(Identifier(name))
        try:
            connection.execute(statement)
        except psycopg.Error as error:
            errors.append(error)

    thread = threading.Thread(target=refuse)
    thread.start()
    try:
        while thread.is_alive():
            _end_sessions(second, name)
            thread.join(_PAUSE)
    finally:
        thread.join()  # at most for the lock timeout
    if errors:
        raise errors[0]
    _end_sessions(second, name)


def _end_sessions(connection: psycopg.Connection[Any], name: str) -> None:
    connection.execute(_END_SESSIONS, [_END_TIMEOUT, name])
    _roll_back_prepared(connection, name)


def _drop_owned_elsewhere(
    address: DatabaseAddress, connection: psycopg.Connection[Any], name: str
) -> None:
    """Drop the objects that a login created in other databases of the server."""
    for (database,) in connection.execute(_ELSEWHERE, [name]).fetchall():
        other = replace(address, parameters={**address.parameters, "dbname": database})
        with connected(other) as session:
            session.execute(SQL("DROP OWNED BY {}").format(Identifier(name)))


def _roll_back_prepared(connection: psycopg.Connection[Any], name: str) -> None:
    """Roll back prepared transactions of a login, whose locks outlive its sessions."""
    rows = connection.execute(_PREPARED, [name]).fetchall()
    if not rows:
        return
    connection.execute(SQL("SET ROLE {}").format(Identifier(name)))  # only their user may do it
    for (transaction,) in rows:
        connection.execute(SQL("ROLLBACK PREPARED {}").format(Literal(transaction)))
    connection.execute("RESET ROLE")


def _reason(error: psycopg.Error) -> str:
    """Return the message of the server, with the objects that prevent the removal."""
    parts = [error.diag.message_primary or str(error), error.diag.message_detail or ""]
    return " ".join("; ".join(part for part in parts if part).split())
