"""Least-privilege roles and databases of a server that is ours to set up; safe to repeat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psycopg
from psycopg import sql

COURIER, COURIER_OWNER = "courier", "courier_owner"
# role -> what it may do on the whole server; each logs in with a password of its own
COURIER_ROLES = {
    COURIER_OWNER: "",
    "courier_reader": "",
    "courier_intake": "",
    "courier_retention": "",
    "courier_audit": "",
    "courier_training": "",
    "courier_partners": "",
    "courier_incident": "",
}


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
    admin.execute("GRANT pg_read_all_data TO courier_reader")
    # Only an owner drops a partition. Not inherited: used by SET ROLE, or not at all.
    admin.execute("GRANT courier_owner TO courier_retention WITH INHERIT FALSE, SET TRUE")
    let_in(admin, COURIER, [role for role in COURIER_ROLES if role != COURIER_OWNER])
