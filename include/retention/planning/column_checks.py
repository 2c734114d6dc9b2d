"""Try new values of columns against a table's CHECK constraints, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable

from include.policy.fragments import pack_sql, quoted
from include.retention.postgres.relations import Relation

TRIED = 200  # records that are tried against each check
_CHECKS = """
SELECT k.conname::text, pg_get_expr(k.conbin, k.conrelid),
       array(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) ORDER BY a.attnum),
       array(SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
             WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) ORDER BY a.attnum)
FROM pg_constraint k WHERE k.contype = 'c' AND k.conrelid = %s AND NOT 0 = ANY (k.conkey)
ORDER BY k.conname
"""


def failing_check(
    connection: psycopg.Connection[Any],
    relation: Relation,
    assigned: Mapping[str, Composable],
    which: Composable,
) -> str | None:
    """Return the name of a CHECK constraint that refuses each tried record with its new values.

    A check that refuses only some records is not named: it refuses them when they are changed. A
    check that reads columns without a right to read them is not tried.

    Args:
        connection: inside of the plan's view of the database.
        relation: the table.
        assigned: column -> its new value, SQL over the record ``t``.
        which: condition over ``t`` that selects the records that may be changed.
    """
    for name, expression, columns, types in connection.execute(_CHECKS, [relation.oid]).fetchall():
        if not set(columns) & set(assigned):
            continue
        query = SQL(
            "SELECT count(*), count(*) FILTER (WHERE ({check}) IS NOT FALSE) FROM "
            "(SELECT {columns} FROM {table} AS t WHERE {which} LIMIT {tried}) AS t"
        ).format(
            check=pack_sql(expression),
            columns=_columns(columns, types, assigned),
            table=relation.identifier,
            which=which,
            tried=TRIED,
        )
        try:
            with connection.transaction():
                row = connection.execute(query, {}).fetchone()
        except errors.InsufficientPrivilege:
            continue
        except (psycopg.DataError, psycopg.IntegrityError):  # the column's type or domain refuses
            return str(name)
        assert row is not None
        if row[0] and not row[1]:
            return str(name)
    return None


def _columns(
    columns: Sequence[str], types: Sequence[str], assigned: Mapping[str, Composable]
) -> Composable:
    return SQL(", ").join(
        SQL("({})::{} AS {}").format(
            assigned[column] if column in assigned else quoted("t", column),
            pack_sql(kind),
            quoted(column),
        )
        for column, kind in zip(columns, types, strict=True)
    )
