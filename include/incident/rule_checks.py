"""Check the names in incident.yaml against the data maps, and the rights of its login."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from psycopg.sql import Identifier

from include.incident.rules import (
    CHECKLIST_FIELDS,
    FIGURES,
    Grade,
    IncidentRules,
    Lookup,
    Named,
    ScopeRule,
)
from include.policy import PolicyPack
from include.policy.datamap import MappedDatabase
from include.policy.mapping import Inventory, staff_faults
from include.policy.section import Loc, PackNames, RuleSection, twice


def check_rules(rules: IncidentRules, pack: PackNames) -> Iterator[tuple[Loc, str]]:
    """Yield the names of incident.yaml that nothing defines, or that it defines twice."""
    yield from staff_faults(rules.staff, pack.inventory)
    for place in ("team", "types", "grades", "authorities", "clocks", "scenarios"):
        yield from twice(place, "id", [item.id for item in getattr(rules, place)])
    yield from twice("scope", "database", [scope.database for scope in rules.scope])
    for at, kind in enumerate(rules.types):
        ids = [one.id for one in kind.checklist]
        for loc, message in twice("checklist", "id", ids):
            yield ("types", at, *loc), message
        for number, name in enumerate(ids):
            if name in CHECKLIST_FIELDS:
                message = f"{name} is another field of the form: give it another id"
                yield ("types", at, "checklist", number, "id"), message
    yield from _rising(rules.grades)
    yield from _people(rules, pack.roles)
    yield from _names(rules)
    yield from _scope(rules, pack.inventory)
    yield from unconfirmed_categories(rules, pack.databases)


def unconfirmed_categories(
    rules: IncidentRules, databases: Mapping[str, MappedDatabase]
) -> Iterator[tuple[Loc, str]]:
    """Yield a problem for each collection with unconfirmed categories, with its location.

    Notices tell people which types of their information are affected (PIPL (2021-11-01) 57). A
    guessed category there may state a wrong fact, and leaving it out may conceal a true one.

    Args:
        rules: incident.yaml.
        databases: the mapped databases, by name.
    """
    for at, scope in enumerate(rules.scope):
        collections = databases[scope.database].collections if scope.database in databases else {}
        named: dict[str, Loc] = {scope.subject.collection: ("subject", "collection")}
        for number, records in enumerate(scope.records):
            named.setdefault(records.collection, ("records", number, "collection"))
        for name, place in named.items():
            if name in collections and (fields := collections[name].unconfirmed):
                message = (
                    f"notices to customers would name unconfirmed categories of "
                    f"{', '.join(fields)}: check them in the data map of {scope.database}, and "
                    "delete the fields from its meta.parcelseal.unconfirmed"
                )
                yield ("scope", at, *place), message


def _rising(grades: Iterable[Grade]) -> Iterator[tuple[Loc, str]]:
    """Grades are least first: a worse one is reached by more, or nothing would ever reach it."""
    for figure in FIGURES:
        before: tuple[str, int] | None = None
        for at, one in enumerate(grades):
            value: int | None = getattr(one, figure)
            if value is None:
                continue
            if before is not None and value <= before[1]:
                message = f"should be more than the {before[1]} of {before[0]}: least comes first"
                yield ("grades", at, figure), message
            before = one.id, value


def _people(rules: IncidentRules, roles: Collection[str]) -> Iterator[tuple[Loc, str]]:
    duties = {one.id for one in rules.team}
    for at, duty in enumerate(rules.team):
        if duty.role not in roles:
            yield ("team", at, "role"), f"roles.yaml has no role {duty.role!r}"
        if not duty.people.accounts and duty.people.where is None:
            yield ("team", at, "people"), "should name accounts, or a condition where"
    if rules.management not in duties:
        yield ("management",), f"the team has no duty {rules.management!r}"
    for step, named in rules.steps.items():
        if named not in duties:
            yield ("steps", step), f"the team has no duty {named!r}"
    if rules.steps["decide"] == rules.steps["impact"]:
        message = "whoever decides must not be who wrote the impact: name another duty"
        yield ("steps", "decide"), message


def _names(rules: IncidentRules) -> Iterator[tuple[Loc, str]]:
    grades, types = {grade.id for grade in rules.grades}, {kind.id for kind in rules.types}
    authorities = {one.id for one in rules.authorities}
    for place in ("authorities", "clocks"):
        for at, one in enumerate(getattr(rules, place)):
            yield from _unknown((place, at, "grades"), "grade", one.grades, grades)
            yield from _unknown((place, at, "types"), "type", one.types, types)
    for at, clock in enumerate(rules.clocks):
        if clock.authority is not None and clock.authority not in authorities:
            yield ("clocks", at, "authority"), f"there is no authority {clock.authority!r}"
    for at, scenario in enumerate(rules.scenarios):
        if scenario.type not in types:
            yield ("scenarios", at, "type"), f"there is no type {scenario.type!r}"
    for at, authority in enumerate(rules.authorities):
        if not any(one.authority == authority.id for one in rules.clocks):
            yield ("authorities", at, "id"), f"no clock is for {authority.id!r}"


def _unknown(
    place: Loc, what: str, named: Iterable[str], known: set[str]
) -> Iterator[tuple[Loc, str]]:
    for name in named:
        if name not in known:
            yield place, f"there is no {what} {name!r}"


def _scope(rules: IncidentRules, inventory: Inventory) -> Iterator[tuple[Loc, str]]:
    for at, one in enumerate(rules.scope):
        if one.database not in inventory:
            yield ("scope", at, "database"), f"the pack maps no database {one.database!r}"
            continue
        columns: list[tuple[Loc, str, str]] = [
            (("subject", "key"), one.subject.collection, one.subject.key)
        ]
        if one.subject.mail is not None:
            columns.append((("subject", "mail"), one.subject.collection, one.subject.mail))
        if one.access is not None:
            named = (one.access.at, *one.access.columns)
            columns += [(("access", "columns"), one.access.collection, name) for name in named]
        if one.shares is not None:
            columns.append((("shares", "at"), one.shares.collection, one.shares.at))
            columns += [
                (("shares", "columns"), one.shares.collection, name) for name in one.shares.columns
            ]
        for place, collection, column in columns:
            if not inventory.has_column(one.database, collection, column):
                message = f"{one.database} has no field {collection}.{column}"
                yield ("scope", at, *place), message
        for number, records in enumerate(one.records):
            if not inventory.has_collection(one.database, records.collection):
                message = f"{one.database} has no collection {records.collection!r}"
                yield ("scope", at, "records", number, "collection"), message
        for place, message in twice("records", "collection", [r.collection for r in one.records]):
            yield ("scope", at, *place), message
        for place, message in _lookups(one, inventory):
            yield ("scope", at, *place), message


def _lookups(rule: ScopeRule, inventory: Inventory) -> Iterator[tuple[Loc, str]]:
    """Names that are looked up in a table which is not there, or by a column that is not."""
    named: list[tuple[Loc, str, Named | None]] = [
        (("subject", "department"), rule.subject.collection, rule.subject.department)
    ]
    for at, records in enumerate(rule.records):
        named.append((("records", at, "department"), records.collection, records.department))
    if rule.access is not None:
        named.append((("access", "account"), rule.access.collection, rule.access.account))
    for place, collection, one in named:
        if not isinstance(one, Lookup):
            continue
        for key, holder, column in (
            ("column", collection, one.column),
            ("key", one.collection, one.key),
            ("name", one.collection, one.name),
        ):
            if not inventory.has_column(rule.database, holder, column):
                yield (*place, key), f"{rule.database} has no field {holder}.{column}"


INCIDENT = RuleSection("incident.yaml", IncidentRules, check_rules, page="incidents.md")


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
