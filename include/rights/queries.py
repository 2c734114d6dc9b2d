"""Find the rights that a login lacks for queries of the policy pack.

PostgreSQL checks rights when it explains a query, so nothing is executed. It names only the first
table without a right. Therefore the statements grant rights on each table and column whose name
occurs in the query's text, so that one check is enough.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

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
    rows_right: Right = declared.QUERY_ALL_ROWS,
) -> Iterator[MissingRight]:
    """Yield the missing rights of a login for a query.

    Args:
        login: the login that executes the query.
        query: a SELECT of the pack; parameters as ``:name``.
        schema_right: the declaration of USAGE on its schemas.
        read_right: the declaration of SELECT on its columns.
        rows_right: the declaration of BYPASSRLS.

    Raises:
        UsageError: the database lacks a table or column of the query, or the query is refused for
            another right, such as that to execute a function.
    """
    words = _words(query)
    tables = login.connection.execute(_TABLES, [sorted(words)]).fetchall()
    refusal = _refusal(login, query, hides_rows=True)
    is_explained = False
    if refusal is None:
        refusal = _refusal(login, query, hides_rows=False)
        if refusal is None:
            return
    else:
        for missing in _lacks_columns(login, query, words, tables, schema_right, read_right):
            is_explained = True
            yield missing
    for missing in login.lacks_all_rows(rows_right, [(schema, name) for schema, name, _ in tables]):
        is_explained = True
        yield missing
    if not is_explained:
        raise UsageError(
            f"{login.role} may not execute a query of the policy pack: {refusal}.",
            "Grant the right on that object.",
        )


def _words(query: str) -> set[str]:
    plain = set(re.findall(r"\w+", query))
    quoted = {name.replace('""', '"') for name in _QUOTED.findall(query)}
    return plain | quoted | {word.lower() for word in plain}


def _lacks_columns(
    login: Login,
    query: str,
    words: set[str],
    tables: Sequence[tuple[str, str, int]],
    schema_right: Right,
    read_right: Right,
) -> Iterator[MissingRight]:
    takes_all = bool(re.search(r"(?<![(\w])\*|\.\*", query))
    for schema, table, oid in tables:
        columns = [str(name) for (name,) in login.connection.execute(_COLUMNS, [oid])]
        named = columns if takes_all else [name for name in columns if name in words]
        yield from login.lacks_schema(schema_right, schema)
        yield from login.lacks_columns(read_right, schema, table, named)


def _refusal(login: Login, query: str, *, hides_rows: bool) -> str | None:
    """Return PostgreSQL's reason if the login lacks a right for a query, None if it may execute it.

    Args:
        login: the login that executes the query.
        query: a SELECT of the pack.
        hides_rows: whether row-level security may hide rows; otherwise it is a reason too.

    Raises:
        UsageError: the database lacks a table or column of the query.
    """
    text = "EXPLAIN " + _PARAMETER.sub("NULL", query.rstrip().rstrip(";"))
    connection = login.connection
    setting = "on" if hides_rows else "off"
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(sql.SQL("SET LOCAL row_security = {}").format(sql.SQL(setting)))
            connection.execute(sql.SQL(text))
    except psycopg.errors.InsufficientPrivilege as error:
        return error.diag.message_primary or ""
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise UsageError(
            f"A query of the policy pack fails: {error.diag.message_primary}.",
            "Does the connection lead to the right database? Otherwise correct the policy pack.",
        ) from None
    except psycopg.OperationalError:
        raise
    except psycopg.Error:
        return None
    return None
