"""Snapshots of a database, with which tests show that nothing has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psycopg
from psycopg import sql

_TABLES = """
SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND n.nspname NOT LIKE 'pg_toast%' ORDER BY 1, 2
"""
# All named objects with their definitions, to notice created, dropped and changed ones. The schemas
# that PostgreSQL creates for temporary tables and keeps empty are left out.
_OBJECTS = """
SELECT format('schema %s %s', nspname, obj_description(oid, 'pg_namespace')) FROM pg_namespace
WHERE nspname !~ '^pg_(toast_)?temp_[0-9]+$'
UNION ALL SELECT format('%s %s.%s', relkind, relnamespace::regnamespace, relname) FROM pg_class
WHERE relkind <> 't' AND relnamespace <> 'pg_toast'::regnamespace
UNION ALL SELECT format('column %s.%s %s', attrelid::regclass, attname, format_type(atttypid, NULL))
FROM pg_attribute WHERE attnum > 0 AND attrelid >= 16384 AND NOT attisdropped
    AND attrelid NOT IN (SELECT oid FROM pg_class WHERE relnamespace = 'pg_toast'::regnamespace)
UNION ALL SELECT format('constraint %s %s %s', conrelid::regclass, conname,
    pg_get_constraintdef(oid)) FROM pg_constraint WHERE connamespace <> 'pg_catalog'::regnamespace
UNION ALL SELECT format('trigger %s', pg_get_triggerdef(oid)) FROM pg_trigger
WHERE NOT tgisinternal
UNION ALL SELECT format('function %s.%s %s', pronamespace::regnamespace, proname, prosrc)
FROM pg_proc WHERE oid >= 16384
UNION ALL SELECT format('sequence %s.%s %s', schemaname, sequencename, last_value)
FROM pg_sequences
UNION ALL SELECT format('extension %s', extname) FROM pg_extension
UNION ALL SELECT format('large object %s', oid) FROM pg_largeobject_metadata
"""
_CONTENT = (
    "SELECT count(*), coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))), '')"
    " FROM {} AS t"
)


@dataclass(frozen=True)
class Snapshot:
    """The content of a database at one point in time.

    Attributes:
        tables: number of rows, and hash of all rows, by ``schema.table``.
        objects: names and definitions of database objects, and values of sequences.
    """

    tables: Mapping[str, tuple[int, str]]
    objects: frozenset[str]


def snapshot(conninfo: str) -> Snapshot:
    """Return the content of all tables and schemas, read in one consistent transaction."""
    tables = {}
    with psycopg.connect(conninfo) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute("SET LOCAL TimeZone = 'UTC'")
        for schema, table in connection.execute(_TABLES).fetchall():
            query = sql.SQL(_CONTENT).format(sql.Identifier(schema, table))
            count, digest = connection.execute(query).fetchone() or (0, "")
            tables[f"{schema}.{table}"] = (count, digest)
        objects = frozenset(str(object_name) for (object_name,) in connection.execute(_OBJECTS))
    return Snapshot(tables, objects)


def differences(before: Snapshot, after: Snapshot) -> dict[str, int]:
    """Return the tables and objects that differ between two snapshots.

    Returns:
        For a table the number of added rows, which is 0 if rows only changed. For a new object 1,
        and for a removed object -1.
    """
    changes = {
        name: after.tables.get(name, (0, ""))[0] - before.tables.get(name, (0, ""))[0]
        for name in sorted({*before.tables, *after.tables})
        if before.tables.get(name) != after.tables.get(name)
    }
    changes |= dict.fromkeys(sorted(after.objects - before.objects), 1)
    return changes | dict.fromkeys(sorted(before.objects - after.objects), -1)
