"""Tables, and names as people write them, in SQL over the rows of one mapped database."""

from __future__ import annotations

from psycopg.sql import SQL, Composable, Identifier

from include.incident.scope_rules import Lookup, Named
from include.policy.datamap import MappedDatabase
from include.policy.fragments import pack_sql, quoted


def table(database: MappedDatabase, collection: str) -> Composable:
    """The table of a collection, qualified."""
    found = database.collections[collection]
    return quoted(found.schema_name, found.table)


def as_text(name: Composable) -> str:
    """A name as PostgreSQL writes it, for a parameter: there a percent sign is one."""
    return name.as_string(None).replace("%%", "%")


def column(row: str, name: str) -> Composable:
    """A column of a row that a query knows by an alias."""
    return quoted(row, name)


def value(database: MappedDatabase, row: str, named: Named) -> Composable:
    """The name, as text, of a row.

    Args:
        database: in which it is looked up.
        row: alias of the row in the query.
        named: of incident.yaml.
    """
    if isinstance(named, str):
        return SQL("({})::text").format(pack_sql(named))
    return SQL("(SELECT n.{}::text FROM {} AS n WHERE n.{} = {})").format(
        quoted(named.name), table(database, named.collection), quoted(named.key),
        column(row, named.column),
    )  # fmt: skip


def among(database: MappedDatabase, row: str, named: Named, wanted: Composable) -> Composable:
    """Whether the name of a row is one of some; found by one look into the table of the names.

    Args:
        database: in which it is looked up.
        row: alias of the row in the query.
        named: of incident.yaml.
        wanted: array of texts.
    """
    if isinstance(named, str):
        return SQL("({})::text = ANY({})").format(pack_sql(named), wanted)
    return SQL("{} IN (SELECT n.{} FROM {} AS n WHERE n.{}::text = ANY({}))").format(
        column(row, named.column), quoted(named.key), table(database, named.collection),
        quoted(named.name), wanted,
    )  # fmt: skip


def joined(database: MappedDatabase, row: str, lookup: Lookup, alias: str) -> Composable:
    """A join that brings the row with the name beside each row, named by an alias."""
    return SQL(" LEFT JOIN {} AS {} ON {} = {}").format(
        table(database, lookup.collection), Identifier(alias), column(alias, lookup.key),
        column(row, lookup.column),
    )  # fmt: skip
