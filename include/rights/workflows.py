"""Find the database rights that the logins of `enforce_retention` and `review_intake` lack.

The needed rights are derived from retention.yaml or intake.yaml, the data map, and the foreign keys
of the database.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from psycopg.sql import Identifier

from include.policy.datamap import MappedDatabase
from include.policy.intake import IntakeRule, Target
from include.policy.retention import Clock, RetentionRule, SqlClock
from include.rights import declared
from include.rights.missing import Login, MissingRight, lacks_query
from include.services.database import scalar

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
    """Yield the rights that a login lacks to dispose of expired records of a database.

    Args:
        login: login of the connection that disposition.yaml names.
        database: the database in the data map.
        rules: record classes of the database.
    """
    mapped = {
        (collection.schema_name, collection.table) for collection in database.collections.values()
    }
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
        if rule.action == "keep":  # a `keep` class may keep records of other classes
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
            owner = scalar(login.connection, _OWNER, [oid])
            is_old = login.connection.info.server_version < 160_000
            yield login.lacks(
                declared.RETENTION_OWNER_15 if is_old else declared.RETENTION_OWNER,
                f"membership in {owner}, the owner of {'.'.join(table)} and its partitions",
                owner=Identifier(owner),
            )


def _key(login: Login, oid: int) -> list[str]:
    return [str(name) for (name,) in login.connection.execute(_KEY, [oid])]


def _named(rule: RetentionRule) -> set[str]:
    """Return the columns of a record class's table that occur in the definition of the class.

    Args:
        rule: the record class.
    """
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


_SEQUENCE = """
SELECT n.nspname::text, c.relname::text, has_sequence_privilege(c.oid, 'USAGE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_get_serial_sequence(%s, %s)::regclass
"""


def lacks_intake(
    login: Login, database: MappedDatabase, rule: IntakeRule
) -> Iterator[MissingRight]:
    """Yield the rights that a login lacks to insert reviewed incoming records as formal records.

    Rights that are needed only by the expectations of the quality suite are not checked.

    Args:
        login: login of the connection that the intake rule names.
        database: the database in the data map.
        rule: rule of the incoming table in intake.yaml.
    """
    incoming = database.collections[rule.collection]
    table = incoming.schema_name, incoming.table
    for name in sorted(
        {database.collections[target.collection].schema_name for target in rule.targets}
    ):
        yield from login.lacks_schema(declared.INTAKE_SCHEMA, name)
    yield from login.lacks_columns(declared.INTAKE_READ, *table, incoming.fields)
    staff = rule.people
    key, account = Identifier("p", staff.key), Identifier("p", staff.account)
    people = f"{_table(database, staff.collection)} p WHERE {staff.reviewers}"
    rights = declared.INTAKE_SCHEMA, declared.INTAKE_READ, declared.INTAKE_ALL_ROWS
    yield from lacks_query(
        login,
        f"SELECT {key.as_string()}, {account.as_string()} FROM {people}",  # noqa: S608 - of the pack
        rights,
    )
    for target in rule.targets:
        yield from lacks_query(login, _source(database, rule, target), rights)
    settled = [rule.state.column, rule.reviewed.by, rule.reviewed.at, rule.back_reference.column]
    yield from login.lacks_columns(declared.INTAKE_UPDATE, *table, settled)
    for target in rule.targets:
        formal = database.collections[target.collection]
        yield from login.lacks_columns(
            declared.INTAKE_INSERT, formal.schema_name, formal.table, target.columns
        )
    for collection, column in rule.keys.values():
        yield from _lacks_sequence(login, _table(database, collection), column)


def _lacks_sequence(login: Login, table: str, column: str) -> Iterator[MissingRight]:
    row = login.connection.execute(_SEQUENCE, [table, column]).fetchone()
    if row and not row[2]:
        yield login.lacks(
            declared.INTAKE_NUMBER,
            f"USAGE on sequence {row[0]}.{row[1]}",
            sequence=Identifier(row[0], row[1]),
        )


def _source(database: MappedDatabase, rule: IntakeRule, target: Target) -> str:
    """Return the query that selects the rows of an incoming table for a formal table.

    The query is used only to check rights. It therefore has null for the keys of new rows and for
    the reviewer.

    Args:
        database: the database in the data map.
        rule: rule of the incoming table in intake.yaml.
        target: the formal table and its columns, as defined in the rule.
    """
    columns = [
        Identifier(name).as_string() for name in database.collections[rule.collection].fields
    ]
    keys = [f"NULL::bigint AS {Identifier(name).as_string()}" for name in rule.keys]
    cross_join = f" CROSS JOIN {target.each}" if target.each else ""
    return (
        f"SELECT {', '.join(f'({text})' for text in target.columns.values())} "  # noqa: S608 - of the pack
        f"FROM (SELECT {', '.join([*columns, *keys])} FROM {_table(database, rule.collection)}) i "
        f"CROSS JOIN (SELECT NULL::bigint AS reviewer, now() AS at) r{cross_join} "
        f"WHERE {target.where or 'true'}"
    )


def _table(database: MappedDatabase, collection: str) -> str:
    mapped = database.collections[collection]
    return Identifier(mapped.schema_name, mapped.table).as_string()
