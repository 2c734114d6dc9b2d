"""Find the rights that the login of `review_intake` lacks for the tables of intake.yaml."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import Identifier

from include.policy.datamap import MappedDatabase
from include.policy.intake import IntakeRule, Target
from include.rights import declared
from include.rights.missing import Login, MissingRight
from include.rights.queries import lacks_query

_SEQUENCE = """
SELECT n.nspname::text, c.relname::text, has_sequence_privilege(c.oid, 'USAGE')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = pg_get_serial_sequence(%s, %s)::regclass
"""


def lacks_intake(
    login: Login, database: MappedDatabase, rule: IntakeRule
) -> Iterator[MissingRight]:
    """Yield the missing rights of a login to accept incoming records of a table.

    Rights for the rules of the quality suite, which may read other tables, are not checked.

    Args:
        login: the login of the rule's connection.
        database: the database in the data map.
        rule: the rule of the incoming table.
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
        *rights,
    )
    for target in rule.targets:
        yield from lacks_query(login, _source(database, rule, target), *rights)
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
    """Return the query for the rows of a target, with null for new keys and the reviewer."""
    columns = [
        Identifier(name).as_string() for name in database.collections[rule.collection].fields
    ]
    keys = [f"NULL::bigint AS {Identifier(name).as_string()}" for name in rule.keys]
    each = f" CROSS JOIN {target.each}" if target.each else ""
    return (
        f"SELECT {', '.join(f'({text})' for text in target.columns.values())} "  # noqa: S608 - of the pack
        f"FROM (SELECT {', '.join([*columns, *keys])} FROM {_table(database, rule.collection)}) i "
        f"CROSS JOIN (SELECT NULL::bigint AS reviewer, now() AS at) r{each} "
        f"WHERE {target.where or 'true'}"
    )


def _table(database: MappedDatabase, collection: str) -> str:
    mapped = database.collections[collection]
    return Identifier(mapped.schema_name, mapped.table).as_string()
