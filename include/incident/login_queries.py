"""Build queries over all columns that incident.yaml names, to find the login's missing rights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from psycopg.sql import Identifier

from include.incident.rules import IncidentRules
from include.incident.scope_rules import Lookup, Named, ScopeRule
from include.policy import PolicyPack
from include.policy.datamap import MappedDatabase


def incident_queries(pack: PolicyPack, rules: IncidentRules) -> Iterator[tuple[str, str, str]]:
    """Yield the queries of the incident workflows, each with its connection and database.

    Args:
        pack: the policy pack.
        rules: incident.yaml.
    """
    for scope in rules.scope:
        database = pack.database(scope.database)
        for query in _scope_queries(scope, database):
            yield scope.connection or rules.connection, database.name, query
    holder = pack.database_of(rules.staff.collection, rules.staff.database)
    groups = [group for duty in rules.team for group in (duty.people, duty.deputies)]
    conditions = [group.where for group in groups if group.where]
    account = [Identifier("p", rules.staff.account).as_string()]
    for where in conditions or ["true"]:
        yield (
            rules.connection,
            holder.name,
            _query(holder, rules.staff.collection, "p", account, where),
        )


def _scope_queries(scope: ScopeRule, database: MappedDatabase) -> Iterator[str]:
    people = scope.subject
    key = database.collections[people.collection].fields.get(people.key)
    subjects = key.subjects if key else ()

    def personal(collection: str, row: str) -> list[str]:
        return _columns(row, database.collections[collection].fields_about(subjects))

    lookups: list[Named | None] = [people.department]
    read = _columns("s", [people.key, *([people.mail] if people.mail else [])])
    read += [*_expressions("s", people.department), *([people.minor] if people.minor else [])]
    yield _query(database, people.collection, "s", [*read, *personal(people.collection, "s")])
    for records in scope.records:
        read = [*records.subjects, *records.named, *([records.at] if records.at else [])]
        read += _columns("r", database.collections[records.collection].primary_key)
        read += [*_expressions("r", records.department), *personal(records.collection, "r")]
        lookups.append(records.department)
        yield _query(database, records.collection, "r", read)
    if log := scope.access:
        read = [log.subject, *_expressions("a", log.account)]
        read += _columns("a", [log.at, *log.columns])
        lookups.append(log.account)
        yield _query(database, log.collection, "a", read)
    if shares := scope.shares:
        read = [shares.subject, shares.partner, *_columns("g", [shares.at, *shares.columns])]
        yield _query(database, shares.collection, "g", read)
    for lookup in lookups:
        if isinstance(lookup, Lookup):
            names = _columns("n", [lookup.key, lookup.name])
            yield _query(database, lookup.collection, "n", names)


def _expressions(row: str, named: Named | None) -> list[str]:
    if named is None:
        return []
    return _columns(row, [named.column]) if isinstance(named, Lookup) else [named]


def _columns(row: str, names: Iterable[str]) -> list[str]:
    return [Identifier(row, name).as_string() for name in names]


def _query(
    database: MappedDatabase, collection: str, row: str, read: Iterable[str], where: str = "true"
) -> str:
    mapped = database.collections[collection]
    table = Identifier(mapped.schema_name, mapped.table).as_string()
    expressions = ", ".join(f"({text})" for text in read)
    return f"SELECT {expressions} FROM {table} {row} WHERE {where}"  # noqa: S608 - of the pack
