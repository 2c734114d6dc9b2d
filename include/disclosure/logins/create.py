"""Create a transient login for an approved request, in one transaction.

The login owns nothing. It may use one schema, which has the same name, and read one view in it. The
view is a security barrier over the approved columns, the table of approved keys, and the end of the
access. PostgreSQL therefore never passes a hidden row or value to a function of the user
(PostgreSQL 18, 39.5, Rules and Privileges). Tables of the company and their policies are unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from include.disclosure.content import PlannedColumn
from include.disclosure.logins.confinement import may_connect, require_confined
from include.disclosure.selection import Selection, kept_records, shown_columns
from include.erasure.masks import ColumnShape
from include.policy.fragments import quoted
from include.services.database import LOGIN_PREFIX
from include.services.errors import UsageError

KEYS = "approved_key"  # table of the approved keys
OLDEST_SERVER = 160_000  # in older versions, CREATEROLE may change all roles except superusers
_UNIQUE = """
SELECT EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = to_regclass(%(table)s) AND i.indisunique
        AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
        AND %(columns)s::text[] = ARRAY(
            SELECT a.attname::text COLLATE "C" FROM unnest(i.indkey::smallint[])
                WITH ORDINALITY AS k (attnum, position)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                AND a.attnotnull
            WHERE k.position <= i.indnkeyatts ORDER BY 1)
        AND cardinality(%(columns)s::text[]) = i.indnkeyatts)
"""
_LOCK_TIMEOUT, _STATEMENT_TIMEOUT, _IDLE_TIMEOUT = "5s", "15min", "15min"


@dataclass(frozen=True)
class NewLogin:
    """A login to create.

    Attributes:
        name: name of the role and of its schema, see `login_name`.
        password: password of the role.
        view: name of the view that the login reads.
        columns: approved columns with their masks.
        primary_key: columns of the primary key of the table.
        expires_at: end of the access, timezone-aware.
        sessions: largest number of simultaneous sessions.
    """

    name: str
    password: str
    view: str
    columns: Sequence[PlannedColumn]
    primary_key: Sequence[str]
    expires_at: datetime
    sessions: int


def login_name(number: int, attempt: str) -> str:
    """Return the name of the login of a request, such as ``parcelseal_use_17_3f2a9c01d4e5``.

    Args:
        number: number of the request.
        attempt: id of the attempt to deliver it.
    """
    return f"{LOGIN_PREFIX}{number}_{attempt[:12]}"


def create_login(
    connection: psycopg.Connection[Any],
    selection: Selection,
    shapes: Mapping[str, ColumnShape],
    login: NewLogin,
) -> int:
    """Create a login and its schema, without committing.

    Args:
        connection: connection of the workflow's login, with an open REPEATABLE READ transaction.
            This login becomes the owner of the schema.
        selection: the approved records.
        shapes: columns of the table, as `include.erasure.masks.read_column_shapes` returns them.
        login: login to create.

    Returns:
        The number of approved records.

    Raises:
        UsageError: the server does not allow a confined login. The message says why.
        psycopg.Error: the server failed.
    """
    if connection.info.server_version < OLDEST_SERVER:
        raise UsageError(
            "The server is older than PostgreSQL 16, so no confined login can be created.",
            "Request a file instead.",
        )
    if not _is_unique(connection, selection, login.primary_key):
        raise UsageError(
            "The table has no unique index on the primary key of the data map, so a login cannot "
            "be confined to the approved records.",
            "Create a primary key, or request a file instead.",
        )
    has_time = connection.execute("SELECT clock_timestamp() < %s", [login.expires_at]).fetchone()
    if has_time != (True,):
        raise UsageError(
            "By the clock of the database server, the access has ended already.",
            "Have the clocks of the servers corrected, and request the information again.",
        )
    try:
        connection.execute(SQL("SET LOCAL lock_timeout = {}").format(Literal(_LOCK_TIMEOUT)))
        records = _create_schema(connection, selection, shapes, login)
        _create_role(connection, login)
    except errors.InsufficientPrivilege as error:
        raise UsageError(
            f"The server does not allow the workflow to create a login: "
            f"{error.diag.message_primary}.",
            "Give the login of use.yaml CREATEROLE, CREATE on the database, and SELECT on the "
            "table, or request a file instead.",
        ) from None
    except errors.RaiseException:  # its message may contain values
        raise UsageError(
            "An event trigger of the database refused to create a login.",
            "Let the trigger accept the login of use.yaml, or request a file instead.",
        ) from None
    require_confined(connection, login.name, login.view)
    return records


def _is_unique(
    connection: psycopg.Connection[Any], selection: Selection, columns: Sequence[str]
) -> bool:
    """Return whether an index of the table keeps the columns unique and without null."""
    table = selection.source.as_string(connection).removesuffix(" AS t")
    row = connection.execute(_UNIQUE, {"table": table, "columns": sorted(columns)}).fetchone()
    return row == (True,)


def _create_schema(
    connection: psycopg.Connection[Any],
    selection: Selection,
    shapes: Mapping[str, ColumnShape],
    login: NewLogin,
) -> int:
    """Create the schema with the approved keys and the view, and return the number of keys."""
    keys = quoted(login.name, KEYS)
    names = SQL(", ").join(map(Identifier, login.primary_key))
    of_record = SQL(", ").join(quoted("t", name) for name in login.primary_key)
    connection.execute(SQL("CREATE SCHEMA {}").format(Identifier(login.name)))
    # Unlogged: publications FOR ALL TABLES leave it out, as a subscriber would fail without it.
    connection.execute(  # a utility statement cannot have bound values
        SQL("CREATE UNLOGGED TABLE {} AS SELECT {} FROM {} WITH NO DATA").format(
            keys, of_record, selection.source
        )
    )
    cursor = connection.execute(
        SQL("INSERT INTO {} SELECT {} FROM {} WHERE {}").format(
            keys, of_record, selection.source, kept_records(selection)
        ),
        selection.values,
    )
    connection.execute(SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(keys, names))
    connection.execute(SQL("ANALYZE {}").format(keys))
    is_approved = SQL(" AND ").join(
        SQL("k.{0} = t.{0}").format(Identifier(name)) for name in login.primary_key
    )
    # The clock is read for each row; now() is the start of the transaction. PostgreSQL pushes
    # leakproof conditions of the user below a security barrier, and EXPLAIN ANALYZE then counts
    # hidden records that meet them. It pushes no condition below OFFSET.
    _run_utility(
        connection,
        SQL(
            "CREATE VIEW {view} WITH (security_barrier = true, security_invoker = false) AS "
            "SELECT {columns} FROM {source} JOIN {keys} AS k ON {is_approved} "
            "WHERE pg_catalog.clock_timestamp() < {end}::timestamptz OFFSET 0"
        ).format(
            view=quoted(login.name, login.view),
            columns=shown_columns(login.columns, shapes),
            source=selection.source,
            keys=keys,
            is_approved=is_approved,
            end=Literal(login.expires_at.isoformat()),
        ),
    )
    return cursor.rowcount


def _create_role(connection: psycopg.Connection[Any], login: NewLogin) -> None:
    role = Identifier(login.name)
    # The server gets a SCRAM verifier, so its log never contains the password.
    verifier = connection.pgconn.encrypt_password(
        login.password.encode(), login.name.encode(), b"scram-sha-256"
    )
    _run_utility(
        connection,
        SQL(
            "CREATE ROLE {role} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION "
            "NOBYPASSRLS CONNECTION LIMIT {sessions} PASSWORD {verifier} VALID UNTIL {end}"
        ).format(
            role=role,
            sessions=Literal(login.sessions),
            verifier=Literal(verifier.decode()),
            end=Literal(login.expires_at.isoformat()),
        ),
    )
    for name, value in {  # defaults that the user may change
        "default_transaction_read_only": "on",
        "search_path": f'"{login.name}"',
        "statement_timeout": _STATEMENT_TIMEOUT,
        "idle_in_transaction_session_timeout": _IDLE_TIMEOUT,
    }.items():
        setting = SQL("ALTER ROLE {} SET {} = {}")
        value_sql: Composable = Identifier(login.name) if name == "search_path" else Literal(value)
        _run_utility(connection, setting.format(role, Identifier(name), value_sql))
    # Members may end the sessions of the login, and drop what it owns.
    connection.execute(SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE").format(role))
    database = Identifier(connection.info.dbname)
    if not may_connect(connection, login.name):
        connection.execute(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, role))
    connection.execute(SQL("GRANT USAGE ON SCHEMA {} TO {}").format(role, role))
    view = quoted(login.name, login.view)
    connection.execute(SQL("GRANT SELECT ON {} TO {}").format(view, role))


def _run_utility(connection: psycopg.Connection[Any], statement: Composed) -> None:
    """Execute a statement whose percent signs are doubled, as in a query with bound values."""
    connection.execute(statement, [])
