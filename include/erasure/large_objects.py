"""Delete the large objects of erased records in a restored copy.

Deleting a row does not delete its large objects. An application does that by a trigger, which a
replay suspends, or by a job, which never ran on the copy. As `vacuumlo` does, the replay deletes a
large object if a replayed record referred to it and no column refers to it any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from include.erasure.matching import kind_of
from include.erasure.staged import StagedKeys
from include.services.errors import ServiceError

_TABLE = Identifier("pg_temp", "parcelseal_large_objects")
# Columns of the type oid and of domains over it, such as lo of the extension lo.
_COLUMNS = """
SELECT n.nspname::text, c.relname::text, a.attname::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND NOT c.relispartition
  AND (c.relkind <> 'm' OR c.relispopulated)
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND 'oid'::regtype IN (t.oid, t.typbasetype)
ORDER BY 1, 2, 3
"""


def remember_large_objects(copy: psycopg.Connection[Any], staged: Sequence[StagedKeys]) -> None:
    """Store the ids of the large objects to which records refer, before these are erased.

    Args:
        copy: the restored database, in a transaction, which stays open.
        staged: keys of the records that are deleted or masked.

    Raises:
        ServiceError: a table cannot be read.
    """
    copy.execute(SQL("CREATE TEMP TABLE IF NOT EXISTS {} (loid oid PRIMARY KEY)").format(_TABLE))
    if copy.execute("SELECT FROM pg_largeobject_metadata LIMIT 1").fetchone() is None:
        return
    columns = copy.execute(_COLUMNS).fetchall()
    insert = SQL(
        "INSERT INTO {kept} SELECT DISTINCT t.{column}::oid FROM {table} AS t JOIN {keys} AS e "
        "ON {same} WHERE t.{column} IS NOT NULL ON CONFLICT DO NOTHING"
    )
    try:
        for keys in staged:
            place = keys.table.place
            for schema, name, column in columns:
                if (schema, name) != (place.schema, place.table):
                    continue
                for action in ("delete", "mask"):
                    copy.execute(
                        insert.format(
                            kept=_TABLE,
                            column=Identifier(column),
                            table=place.identifier,
                            keys=keys.name(action),
                            same=keys.same,
                        )
                    )
    except psycopg.Error as error:
        raise _refused(copy, error) from None


def delete_unreferenced_large_objects(copy: psycopg.Connection[Any]) -> int:
    """Delete the remembered large objects to which no column refers, and forget the others.

    Call it after the records were erased and materialized views were refreshed.

    Args:
        copy: the restored database, in a transaction, which stays open.

    Returns:
        Number of deleted large objects.

    Raises:
        ServiceError: a table cannot be read, or a large object belongs to another role.
    """
    try:
        if copy.execute(SQL("SELECT FROM {} LIMIT 1").format(_TABLE)).fetchone() is None:
            return 0
        for schema, name, column in copy.execute(_COLUMNS).fetchall():
            copy.execute(
                SQL("DELETE FROM {} k USING {} r WHERE r.{}::oid = k.loid").format(
                    _TABLE, Identifier(schema, name), Identifier(column)
                )
            )
        deleted = copy.execute(
            SQL(
                "SELECT lo_unlink(m.oid) FROM {} k JOIN pg_largeobject_metadata m ON m.oid = k.loid"
            ).format(_TABLE)
        ).rowcount
        copy.execute(SQL("TRUNCATE {}").format(_TABLE))
    except psycopg.Error as error:
        raise _refused(copy, error) from None
    return deleted


def _refused(copy: psycopg.Connection[Any], error: psycopg.Error) -> ServiceError:
    if not copy.broken:
        copy.rollback()
    return ServiceError(
        f"Large objects of erased records cannot be deleted ({kind_of(error)}).",
        "The copy is not fit for use. The log of its server tells more.",
    )
