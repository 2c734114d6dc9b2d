"""Find the rights that the login of `enforce_retention` lacks.

The statements are derived from retention.yaml, the data map and the live foreign keys.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from psycopg.sql import Identifier

from include.policy.datamap import MappedDatabase
from include.policy.retention import Clock, RetentionRule, SqlClock
from include.rights import declared
from include.rights.missing import Login, MissingRight

_SYSTEM = ("ctid", "tableoid")
_OF_RECORD = re.compile(r'\bt\s*\.\s*(?:"((?:[^"]|"")+)"|(\w+))')
_KEY = """
SELECT a.attname::text FROM pg_index x JOIN pg_attribute a
  ON a.attrelid = x.indrelid AND a.attnum = ANY (x.indkey)
WHERE x.indrelid = %s AND x.indisprimary ORDER BY a.attnum
"""
_REFERRING = """
SELECT n.nspname::text, c.relname::text, array(
    SELECT a.attname::text FROM pg_attribute a
    WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = %s ORDER BY 1, 2
"""
_CAN_BECOME_OWNER = """
SELECT pg_has_role(c.relowner, CASE WHEN current_setting('server_version_num')::int < 160000
                                    THEN 'MEMBER' ELSE 'SET' END)
FROM pg_class c WHERE c.oid = %s
"""
# Statements of a run name partitions, which rights on the partitioned table do not cover.
_LACKS_PARTITION = """
SELECT EXISTS (SELECT FROM pg_partition_tree(%s::oid) WHERE isleaf AND level > 0
               AND NOT has_table_privilege(relid, 'DELETE'))
"""
_OWNER = "SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE oid = %s"
Table = tuple[str, str]  # schema and name


def lacks_retention(
    login: Login, database: MappedDatabase, rules: Sequence[RetentionRule]
) -> Iterator[MissingRight]:
    """Yield the missing rights of a login to dispose of the expired records of a database.

    Args:
        login: the login of the disposition's connection.
        database: the database in the data map.
        rules: its record classes.
    """
    mapped = {(each.schema_name, each.table) for each in database.collections.values()}
    read: dict[Table, set[str]] = defaultdict(set)
    changed: dict[Table, set[str]] = defaultdict(set)
    deleted: dict[Table, int] = {}
    locked: dict[Table, int] = {}
    owned: dict[Table, int] = {}
    for rule in rules:
        collection = database.collections[rule.collection]
        table = collection.schema_name, collection.table
        oid = login.table(*table)
        if oid is None:
            continue
        read[table].update(_SYSTEM, _key(login, oid), _named(rule))
        if rule.action == "keep":  # it may keep records of other classes: it is planned too
            continue
        for schema, name, columns in login.connection.execute(_REFERRING, [oid]).fetchall():
            read[schema, name].update(_SYSTEM, columns)
            child = login.table(schema, name) if (schema, name) in mapped else None
            read[schema, name].update(_key(login, child) if child else ())
        locked[table] = oid
        if rule.deletes:
            deleted[table] = oid
        if rule.action == "drop_partition" or login.ask(_LACKS_PARTITION, oid):
            owned[table] = oid
        changed[table].update(rule.mask, [rule.stamp] if rule.stamp else [])
        for detached in rule.detach:
            other, _dot, field = detached.partition(".")
            referring = database.collections[other]
            changed[referring.schema_name, referring.table].add(field)
    for schema in sorted({schema for schema, _name in read}):
        yield from login.lacks_schema(declared.RETENTION_SCHEMA, schema)
    for table, columns in sorted(read.items()):
        yield from login.lacks_columns(declared.RETENTION_READ, *table, sorted(columns))
    yield from login.lacks_all_rows(declared.RETENTION_ALL_ROWS, sorted(read))
    for table, oid in sorted(deleted.items()):
        if not login.ask("SELECT has_table_privilege(%s::oid, 'DELETE')", oid):
            yield login.lacks(
                declared.RETENTION_DELETE,
                f"DELETE on {'.'.join(table)}",
                table=Identifier(*table),
            )
    for table, oid in sorted(locked.items()):
        if changed[table]:
            continue  # its columns are granted below
        if not login.ask("SELECT has_any_column_privilege(%s::oid, 'UPDATE')", oid):
            keys = _key(login, oid) or sorted(read[table] - set(_SYSTEM))
            yield from login.lacks_columns(declared.RETENTION_LOCK, *table, keys[:1])
    for table, columns in sorted(changed.items()):
        yield from login.lacks_columns(declared.RETENTION_CHANGE, *table, sorted(columns))
    for table, oid in sorted(owned.items()):
        if not login.ask(_CAN_BECOME_OWNER, oid):
            row = login.connection.execute(_OWNER, [oid]).fetchone()
            assert row is not None
            is_old = login.connection.info.server_version < 160_000
            yield login.lacks(
                declared.RETENTION_OWNER_15 if is_old else declared.RETENTION_OWNER,
                f"membership in {row[0]}, the owner of {'.'.join(table)} and its partitions",
                owner=Identifier(row[0]),
            )


def _key(login: Login, oid: int) -> list[str]:
    return [str(name) for (name,) in login.connection.execute(_KEY, [oid])]


def _named(rule: RetentionRule) -> set[str]:
    """Return the columns of the class's own table that a rule names."""
    texts = [*rule.keys.subject, *rule.keys.waybill, *rule.keys.case]
    texts += [text for text in (rule.where, rule.suspended and rule.suspended.where) if text]
    names = {*rule.mask, *([rule.stamp] if rule.stamp else [])}
    clocks: list[Clock | None] = [rule.clock, *(minimum.clock for minimum in rule.minimum)]
    for clock in clocks:
        if isinstance(clock, SqlClock):
            texts.append(clock.sql)
        elif clock:
            names.update(clock)
    for text in texts:
        for quoted, plain in _OF_RECORD.findall(text):
            names.add(quoted.replace('""', '"') or plain.lower())
    return names
