"""Least-privilege roles and databases of a server that is ours to set up; safe to repeat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psycopg
from psycopg import sql

from include.registry import logins

COURIER, COURIER_OWNER = "courier", "courier_owner"
COURIER_READER = "courier_reader"


def courier_roles() -> dict[str, str]:
    """Return the roles of the sample courier's database: owner, reader, one for each workflow.

    Returns:
        By role, what it may do on the whole server: nothing. Each has a password of its own.
    """
    workflows = [login.sample_role for login in logins()]
    return dict.fromkeys([COURIER_OWNER, COURIER_READER, *workflows], "")


def sample_logins() -> dict[str, str]:
    """Return the roles of the sample courier's database by the connection that uses each."""
    own = {login.connection: login.sample_role for login in logins()}
    return {"customer_db": COURIER_READER, **own}


def make_roles(
    admin: psycopg.Connection, roles: Mapping[str, str], passwords: Mapping[str, str]
) -> None:
    """Create the roles that are missing; those that are there keep their passwords.

    Args:
        admin: a superuser's connection.
        roles: by name, what each may do on the whole server (``CREATEDB``); nothing when empty.
        passwords: by role.
    """
    there = {row[0] for row in admin.execute("SELECT rolname FROM pg_roles")}
    for role, right in roles.items():
        if role not in there:
            admin.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} {}").format(
                    sql.Identifier(role), sql.Literal(passwords[role]), sql.SQL(right)
                )
            )


def make_databases(admin: psycopg.Connection, owners: Mapping[str, str]) -> None:
    """Create the databases that are missing, closed to everybody but their owners.

    Args:
        admin: a superuser's connection, in autocommit.
        owners: role by database.
    """
    there = {row[0] for row in admin.execute("SELECT datname FROM pg_database")}
    for database, owner in owners.items():
        if database not in there:
            admin.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(
                    sql.Identifier(database), sql.Identifier(owner)
                )
            )
            admin.execute(
                sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database))
            )


def let_in(admin: psycopg.Connection, database: str, roles: Iterable[str]) -> None:
    """Let roles connect to a database that `make_databases` closed."""
    admin.execute(
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
            sql.Identifier(database), sql.SQL(", ").join(map(sql.Identifier, roles))
        )
    )


def grant_courier(admin: psycopg.Connection) -> None:
    """Give the sample courier's roles what they have on its whole server."""
    admin.execute(f"GRANT pg_read_all_data TO {COURIER_READER}")
    # Only an owner drops a partition. Not inherited: used by SET ROLE, or not at all.
    admin.execute("GRANT courier_owner TO courier_retention WITH INHERIT FALSE, SET TRUE")
    let_in(admin, COURIER, [role for role in courier_roles() if role != COURIER_OWNER])
