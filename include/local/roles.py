"""Create databases and roles with minimal rights on a server that ParcelSeal sets up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psycopg
from psycopg import sql

from include.registry import logins

COURIER, COURIER_OWNER = "courier", "courier_owner"
COURIER_READER, COURIER_USE = "courier_reader", "courier_use"


def courier_roles() -> dict[str, str]:
    """Return the roles of the sample courier's database: role -> server-wide attributes.

    The roles are the owner, the reader and the logins of workflows. `grant_courier` gives
    ``CREATEROLE`` to the role that creates transient logins; no other role needs an attribute.
    """
    workflows = [login.sample_role for login in logins()]
    return dict.fromkeys([COURIER_OWNER, COURIER_READER, *workflows], "")


def sample_logins() -> dict[str, str]:
    """Return the logins to the sample courier's database: connection id -> role that logs in."""
    workflow_roles = {login.connection: login.sample_role for login in logins()}
    return {"customer_db": COURIER_READER, **workflow_roles}


def create_roles(
    admin: psycopg.Connection, roles: Mapping[str, str], passwords: Mapping[str, str]
) -> None:
    """Create the roles that do not exist. Existing roles keep their passwords.

    Args:
        admin: connection of a superuser.
        roles: role -> server-wide attributes, such as ``CREATEDB``; an empty text if the role has
            no attributes.
        passwords: role -> password.
    """
    existing = {row[0] for row in admin.execute("SELECT rolname FROM pg_roles")}
    for role, attributes in roles.items():
        if role not in existing:
            admin.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} {}").format(
                    sql.Identifier(role), sql.Literal(passwords[role]), sql.SQL(attributes)
                )
            )


def create_databases(admin: psycopg.Connection, owners: Mapping[str, str]) -> None:
    """Create the databases that do not exist.

    At first, only the owner of a new database can connect to it. `grant_connect` lets other roles
    connect.

    Args:
        admin: connection of a superuser, in autocommit mode.
        owners: database -> role of its owner.
    """
    existing = {row[0] for row in admin.execute("SELECT datname FROM pg_database")}
    for database, owner in owners.items():
        if database not in existing:
            admin.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(
                    sql.Identifier(database), sql.Identifier(owner)
                )
            )
            admin.execute(
                sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database))
            )


def grant_connect(admin: psycopg.Connection, database: str, roles: Iterable[str]) -> None:
    """Allow roles to connect to a database that `create_databases` created.

    Args:
        admin: connection of a superuser.
        database: name of the database.
        roles: names of the roles.
    """
    admin.execute(
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(
            sql.Identifier(database), sql.SQL(", ").join(map(sql.Identifier, roles))
        )
    )


def grant_courier(admin: psycopg.Connection) -> None:
    """Grant the sample courier's roles those rights that only a superuser can grant."""
    admin.execute(f"GRANT pg_read_all_data TO {COURIER_READER}")
    # Only an owner drops a partition. Not inherited: used by SET ROLE, or not at all.
    admin.execute("GRANT courier_owner TO courier_retention WITH INHERIT FALSE, SET TRUE")
    grant_connect(admin, COURIER, [role for role in courier_roles() if role != COURIER_OWNER])
    # For the transient logins that use.yaml allows.
    admin.execute(f"ALTER ROLE {COURIER_USE} CREATEROLE")
    admin.execute(f"GRANT CREATE ON DATABASE {COURIER} TO {COURIER_USE}")
    admin.execute(f"GRANT CONNECT ON DATABASE {COURIER} TO {COURIER_USE} WITH GRANT OPTION")
