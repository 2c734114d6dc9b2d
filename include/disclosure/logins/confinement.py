"""Find the rights of a transient login beyond its view.

A role without memberships still has the rights of everybody (``PUBLIC``). A right of everybody on a
table, on a function that runs with the rights of its owner, or on a foreign server would give the
login more than was approved. Such a server is refused: the rights of the company's tables are never
changed for a login.
"""

from __future__ import annotations

from typing import Any

import psycopg

from include.services.database import LOGIN_PREFIX
from include.services.errors import UsageError

_MOST_NAMED = 5  # rights that an error message names
# Every user may read the catalogue, except these relations: they contain values of columns,
# passwords or data.
_RIGHTS = """
WITH login AS (SELECT oid FROM pg_roles WHERE rolname = %(login)s)
SELECT format('%%I.%%I', n.nspname, c.relname) AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, login
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S')
    AND (n.nspname, c.relname) <> (%(login)s, %(view)s)
    AND (n.nspname <> 'information_schema' AND n.nspname !~ '^pg_' OR n.nspname = 'pg_catalog'
        AND c.relname IN ('pg_authid', 'pg_shadow', 'pg_statistic', 'pg_statistic_ext_data',
            'pg_user_mapping', 'pg_largeobject', 'pg_hba_file_rules', 'pg_file_settings'))
    AND has_schema_privilege(login.oid, n.oid, 'USAGE')
    AND CASE WHEN c.relkind = 'S'
        THEN has_sequence_privilege(login.oid, c.oid, 'USAGE, SELECT, UPDATE')
        ELSE has_any_column_privilege(login.oid, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
            OR has_table_privilege(login.oid, c.oid, 'DELETE, TRUNCATE, TRIGGER') END
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
        AND d.objid = c.oid AND d.deptype = 'e')
UNION ALL
SELECT format('function %%s', p.oid::regprocedure)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace, login
WHERE (p.prosecdef AND n.nspname <> 'pg_catalog'
        OR p.proname IN ('pg_read_file', 'pg_read_binary_file', 'pg_ls_dir', 'lo_import',
            'lo_export') AND n.nspname = 'pg_catalog')
    AND p.prorettype <> 'event_trigger'::regtype
    -- A trigger function runs only for a table on which the login creates a trigger.
    AND (p.prorettype <> 'trigger'::regtype
        OR has_database_privilege(login.oid, current_database(), 'TEMP'))
    AND has_schema_privilege(login.oid, n.oid, 'USAGE')
    AND has_function_privilege(login.oid, p.oid, 'EXECUTE')
UNION ALL
SELECT format('CREATE on schema %%I', n.nspname) FROM pg_namespace n, login
WHERE has_schema_privilege(login.oid, n.oid, 'CREATE')
UNION ALL
SELECT 'CREATE on the database' FROM login
WHERE has_database_privilege(login.oid, current_database(), 'CREATE')
UNION ALL
SELECT format('foreign server %%I', s.srvname) FROM pg_foreign_server s, login
WHERE has_server_privilege(login.oid, s.oid, 'USAGE')
UNION ALL
SELECT format('foreign-data wrapper %%I', w.fdwname) FROM pg_foreign_data_wrapper w, login
WHERE has_foreign_data_wrapper_privilege(login.oid, w.oid, 'USAGE')
UNION ALL
SELECT format('language %%I', l.lanname) FROM pg_language l, login
WHERE l.lanispl AND NOT l.lanpltrusted AND has_language_privilege(login.oid, l.oid, 'USAGE')
UNION ALL
SELECT format('large object %%s', o.oid)
FROM pg_largeobject_metadata o JOIN pg_roles r ON r.oid = o.lomowner
WHERE NOT starts_with(r.rolname, %(prefix)s) -- other transient logins contain nothing
    AND (current_setting('lo_compat_privileges')::boolean
        OR EXISTS (SELECT FROM aclexplode(o.lomacl) a WHERE a.grantee = 0))
UNION ALL
SELECT format('role %%I', m.roleid::regrole) FROM pg_auth_members m, login
WHERE m.member = login.oid
ORDER BY name LIMIT 100
"""
_OTHER_DATABASES = """
SELECT datname FROM pg_database
WHERE datallowconn AND datname <> current_database()
    AND has_database_privilege(%s, oid, 'CONNECT')
ORDER BY datname LIMIT 100
"""


def rights_beyond_view(connection: psycopg.Connection[Any], login: str, view: str) -> list[str]:
    """Return the objects that a login can use beyond its view, by name; at most 100.

    Tables of extensions are left out: they contain no data of the company.

    Args:
        connection: connection to the database of the login.
        login: name of the login and of its schema.
        view: name of its view.
    """
    rows = connection.execute(_RIGHTS, {"login": login, "view": view, "prefix": LOGIN_PREFIX})
    return [str(row[0]) for row in rows]


def may_connect(connection: psycopg.Connection[Any], login: str) -> bool:
    """Return whether a role has the right to connect to the database of a connection."""
    query = "SELECT has_database_privilege(%s, current_database(), 'CONNECT')"
    row = connection.execute(query, [login]).fetchone()
    return row == (True,)


def require_confined(connection: psycopg.Connection[Any], login: str, view: str) -> None:
    """Raise an error if a login could read more than its view, or could not connect.

    Args:
        connection: connection to the database of the login.
        login: name of the login and of its schema.
        view: name of its view.

    Raises:
        UsageError: the login has other rights. The message names them.
    """
    if not may_connect(connection, login):
        raise UsageError(
            "The workflow may not allow a login to connect to the database.",
            "Grant the login of use.yaml CONNECT on the database WITH GRANT OPTION, or request a "
            "file instead.",
        )
    rights = rights_beyond_view(connection, login, view)
    if rights:
        named = ", ".join(rights[:_MOST_NAMED])
        named += ", ..." if len(rights) > _MOST_NAMED else ""
        raise UsageError(
            f"A login would have more than its view, by rights of everybody (PUBLIC): {named}.",
            "Revoke these rights from PUBLIC, or request a file instead.",
        )


def other_databases(connection: psycopg.Connection[Any], login: str) -> list[str]:
    """Return the other databases to which a login can connect; at most 100.

    There it has the rights that everybody has.
    """
    return [str(row[0]) for row in connection.execute(_OTHER_DATABASES, [login])]
