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
from include.services.errors import UsageError

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)\b")
_QUOTED = re.compile(r'"((?:[^"]|"")+)"')
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

    Raises:
        UsageError: the query is refused for another right, such as that to execute a function.
    """
    refusal = _refusal(login, query)
    if refusal is None:
        return
    is_explained = False
    for missing in _lacks_reading(login, query, schema_right, read_right):
        is_explained = True
        yield missing
    if not is_explained:
        raise UsageError(
            f"{login.role} may not execute a query of the policy pack: {refusal}.",
            "Grant the right on that object.",
        )


def _lacks_reading(
    login: Login, query: str, schema_right: Right, read_right: Right
) -> Iterator[MissingRight]:
    plain = set(re.findall(r"\w+", query))
    quoted = {name.replace('""', '"') for name in _QUOTED.findall(query)}
    words = plain | quoted | {word.lower() for word in plain}
    takes_all = bool(re.search(r"(?<![(\w])\*|\.\*", query))
    for schema, table, oid in login.connection.execute(_TABLES, [sorted(words)]).fetchall():
        columns = [str(name) for (name,) in login.connection.execute(_COLUMNS, [oid])]
        named = columns if takes_all else [name for name in columns if name in words]
        yield from login.lacks_schema(schema_right, schema)
        yield from login.lacks_columns(read_right, schema, table, named)


def _refusal(login: Login, query: str) -> str | None:
    """Return PostgreSQL's reason if the login lacks a right; None also for other errors."""
    text = "EXPLAIN " + _PARAMETER.sub("NULL", query.rstrip().rstrip(";"))
    connection = login.connection
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(sql.SQL(text))
    except psycopg.errors.InsufficientPrivilege as error:
        return error.diag.message_primary or ""
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        return None
    return None
