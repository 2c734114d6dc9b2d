"""What a state database holds, so that a test can say that nothing of it changed."""

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
# Everything that has a name: what somebody made or dropped, or made otherwise, is seen here; not
# the schemas that PostgreSQL makes once for the temporary tables of a session, and keeps empty.
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
    """A state database at a moment.

    Attributes:
        tables: number of rows and hash of all of them, by ``schema.table``.
        objects: everything that has a name, with how it is defined; sequences with their number.
    """

    tables: Mapping[str, tuple[int, str]]
    objects: frozenset[str]


def snapshot(conninfo: str) -> Snapshot:
    """Read every table of every schema, in one transaction that sees one moment."""
    tables = {}
    with psycopg.connect(conninfo) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        connection.execute("SET LOCAL TimeZone = 'UTC'")
        for schema, table in connection.execute(_TABLES).fetchall():
            query = sql.SQL(_CONTENT).format(sql.Identifier(schema, table))
            count, digest = connection.execute(query).fetchone() or (0, "")
            tables[f"{schema}.{table}"] = (count, digest)
        objects = frozenset(str(one) for (one,) in connection.execute(_OBJECTS))
    return Snapshot(tables, objects)


def differences(before: Snapshot, after: Snapshot) -> dict[str, int]:
    """Return what is not as it was: tables with how many rows more they have, and objects.

    A table whose rows changed in place has 0 more. An object that is new counts 1, one that is gone
    -1.
    """
    found = {
        name: after.tables.get(name, (0, ""))[0] - before.tables.get(name, (0, ""))[0]
        for name in sorted({*before.tables, *after.tables})
        if before.tables.get(name) != after.tables.get(name)
    }
    found |= dict.fromkeys(sorted(after.objects - before.objects), 1)
    return found | dict.fromkeys(sorted(before.objects - after.objects), -1)
