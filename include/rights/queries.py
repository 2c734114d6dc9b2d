"""Find the rights that a login lacks for queries of the policy pack.

PostgreSQL checks rights when it explains a query, so nothing is executed. It names only the first
table without a right. Therefore the statements grant rights on each table and column whose name
occurs in the query's text, so that one check is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import psycopg
from psycopg import sql

from include.rights import declared
from include.rights.declared import Right
from include.rights.missing import Login, MissingRight

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)\b")
_TABLES = """
SELECT n.nspname::text, c.relname::text, c.oid::bigint FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relname = ANY (%s)
ORDER BY 1, 2
"""
_COLUMNS = """
SELECT attname::text FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
"""


def lacks_query(
    login: Login,
    query: str,
    schema_right: Right = declared.QUERY_SCHEMA,
    read_right: Right = declared.QUERY_READ,
) -> Iterator[MissingRight]:
    """Yield the missing rights of a login for a query; other errors of the query are ignored.

    Args:
        login: the login that executes the query.
        query: a SELECT of the pack; parameters as ``:name``.
        schema_right: the declaration of USAGE on its schemas.
        read_right: the declaration of SELECT on its columns.
    """
    if not _is_refused(login, query):
        return
    words = set(re.findall(r"\w+", query))
    takes_all = bool(re.search(r"(?<![(\w])\*|\.\*", query))
    for schema, table, oid in login.connection.execute(_TABLES, [sorted(words)]).fetchall():
        columns = [str(name) for (name,) in login.connection.execute(_COLUMNS, [oid])]
        named = columns if takes_all else [name for name in columns if name in words]
        yield from login.lacks_schema(schema_right, schema)
        yield from login.lacks_columns(read_right, schema, table, named)


def _is_refused(login: Login, query: str) -> bool:
    text = "EXPLAIN " + _PARAMETER.sub("NULL", query.rstrip().rstrip(";"))
    connection = login.connection
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(sql.SQL(text))
    except psycopg.errors.InsufficientPrivilege:
        return True
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        return False
    return False
