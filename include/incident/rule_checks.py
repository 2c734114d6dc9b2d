"""Check the names in incident.yaml against the data maps, and list the SQL queries of the file."""

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
from include.policy.section import Loc, PackNames, RuleSection, find_duplicates


def check_rules(rules: IncidentRules, pack: PackNames) -> Iterator[tuple[Loc, str]]:
    """Yield the problems of incident.yaml, each as a location in the file and a message.

    Problems are undefined names, names that are defined twice, and unconfirmed data categories. It
    is also a problem if a number of a grade, such as the number of people, is not greater than the
    same number of a less severe grade, or if company.yaml names another company.

    Args:
        rules: content of incident.yaml.
        pack: names that the other files of the policy pack define.
    """
    if pack.company is not None and dict(pack.company) != rules.company:
        yield ("company",), "differs from the name in company.yaml: letters would show both"
    yield from staff_faults(rules.staff, pack.inventory)
    for section in ("team", "types", "grades", "authorities", "clocks", "scenarios"):
        yield from find_duplicates(section, "id", [item.id for item in getattr(rules, section)])
    yield from find_duplicates("scope", "database", [scope.database for scope in rules.scope])
    for index, incident_type in enumerate(rules.types):
        ids = [item.id for item in incident_type.checklist]
        for loc, message in find_duplicates("checklist", "id", ids):
            yield ("types", index, *loc), message
        for number, name in enumerate(ids):
            if name in CHECKLIST_FIELDS:
                message = f"{name} is another field of the form: give it another id"
                yield ("types", index, "checklist", number, "id"), message
    yield from _check_rising_figures(rules.grades)
    yield from _check_people(rules, pack.roles)
    yield from _check_names(rules)
    yield from _check_scope(rules, pack.inventory)
    yield from unconfirmed_categories(rules, pack.databases)


def unconfirmed_categories(
    rules: IncidentRules, databases: Mapping[str, MappedDatabase]
) -> Iterator[tuple[Loc, str]]:
    """Yield a location and a message for each collection with unconfirmed data categories.

    Notices tell people which types of their information are affected: PIPL (2021-11-01), article
    57. If a category was only guessed, a notice might name a type that is not affected, or omit a
    type that is affected.

    Args:
        rules: content of incident.yaml.
        databases: mapped databases, by name.
    """
    for index, scope in enumerate(rules.scope):
        collections = databases[scope.database].collections if scope.database in databases else {}
        named: dict[str, Loc] = {scope.subject.collection: ("subject", "collection")}
        for number, records in enumerate(scope.records):
            named.setdefault(records.collection, ("records", number, "collection"))
        for name, location in named.items():
            if name in collections and (fields := collections[name].unconfirmed):
                message = (
                    f"notices to customers would name unconfirmed categories of "
                    f"{', '.join(fields)}: check them in the data map of {scope.database}, and "
                    "delete the fields from its meta.parcelseal.unconfirmed"
                )
                yield ("scope", index, *location), message


def _check_rising_figures(grades: Iterable[Grade]) -> Iterator[tuple[Loc, str]]:
    """Yield a problem for each number of a grade that does not exceed that of a less severe grade.

    An incident that reaches the number of the less severe grade would then always reach the number
    of the more severe grade too.
    """
    for figure in FIGURES:
        previous: tuple[str, int] | None = None
        for index, grade in enumerate(grades):
            value: int | None = getattr(grade, figure)
            if value is None:
                continue
            if previous is not None and value <= previous[1]:
                message = (
                    f"should be greater than {previous[1]} (grade {previous[0]}): list the "
                    "grades from the least to the most severe"
                )
                yield ("grades", index, figure), message
            previous = grade.id, value


def _check_people(rules: IncidentRules, roles: Collection[str]) -> Iterator[tuple[Loc, str]]:
    duties = {duty.id for duty in rules.team}
    for index, duty in enumerate(rules.team):
        if duty.role not in roles:
            yield ("team", index, "role"), f"roles.yaml has no role {duty.role!r}"
        if not duty.people.accounts and duty.people.where is None:
            yield ("team", index, "people"), "should name accounts, or a condition where"
    if rules.management not in duties:
        yield ("management",), f"the team has no duty {rules.management!r}"
    for step, duty_name in rules.steps.items():
        if duty_name not in duties:
            yield ("steps", step), f"the team has no duty {duty_name!r}"
    if rules.steps["decide"] == rules.steps["impact"]:
        message = "the steps `decide` and `impact` must have different duties"
        yield ("steps", "decide"), message


def _check_names(rules: IncidentRules) -> Iterator[tuple[Loc, str]]:
    grades, types = {grade.id for grade in rules.grades}, {kind.id for kind in rules.types}
    authorities = {authority.id for authority in rules.authorities}
    for section in ("authorities", "clocks"):
        for index, rule in enumerate(getattr(rules, section)):
            yield from _unknown_names((section, index, "grades"), "grade", rule.grades, grades)
            yield from _unknown_names((section, index, "types"), "type", rule.types, types)
    for index, time_limit in enumerate(rules.clocks):
        if time_limit.authority is not None and time_limit.authority not in authorities:
            yield ("clocks", index, "authority"), f"there is no authority {time_limit.authority!r}"
    for index, scenario in enumerate(rules.scenarios):
        if scenario.type not in types:
            yield ("scenarios", index, "type"), f"there is no type {scenario.type!r}"
    for index, authority in enumerate(rules.authorities):
        if not any(time_limit.authority == authority.id for time_limit in rules.clocks):
            yield ("authorities", index, "id"), f"no time limit is for {authority.id!r}"


def _unknown_names(
    location: Loc, kind: str, named: Iterable[str], defined: set[str]
) -> Iterator[tuple[Loc, str]]:
    for name in named:
        if name not in defined:
            yield location, f"there is no {kind} {name!r}"


def _check_scope(rules: IncidentRules, inventory: Inventory) -> Iterator[tuple[Loc, str]]:
    for index, scope in enumerate(rules.scope):
        if scope.database not in inventory:
            yield ("scope", index, "database"), f"the pack maps no database {scope.database!r}"
            continue
        columns: list[tuple[Loc, str, str]] = [
            (("subject", "key"), scope.subject.collection, scope.subject.key)
        ]
        if scope.subject.mail is not None:
            columns.append((("subject", "mail"), scope.subject.collection, scope.subject.mail))
        if scope.access is not None:
            named = (scope.access.at, *scope.access.columns)
            columns += [(("access", "columns"), scope.access.collection, name) for name in named]
        if scope.shares is not None:
            columns.append((("shares", "at"), scope.shares.collection, scope.shares.at))
            columns += [
                (("shares", "columns"), scope.shares.collection, name)
                for name in scope.shares.columns
            ]
        for location, collection, column in columns:
            if not inventory.has_column(scope.database, collection, column):
                message = f"{scope.database} has no field {collection}.{column}"
                yield ("scope", index, *location), message
        for number, records in enumerate(scope.records):
            if not inventory.has_collection(scope.database, records.collection):
                message = f"{scope.database} has no collection {records.collection!r}"
                yield ("scope", index, "records", number, "collection"), message
        for location, message in find_duplicates(
            "records", "collection", [r.collection for r in scope.records]
        ):
            yield ("scope", index, *location), message
        for location, message in _check_lookups(scope, inventory):
            yield ("scope", index, *location), message


def _check_lookups(rule: ScopeRule, inventory: Inventory) -> Iterator[tuple[Loc, str]]:
    """Yield a problem for each lookup that names a table or column that the data map lacks.

    Args:
        rule: rule of a database in incident.yaml.
        inventory: names in the data maps.
    """
    lookups: list[tuple[Loc, str, Named | None]] = [
        (("subject", "department"), rule.subject.collection, rule.subject.department)
    ]
    for index, records in enumerate(rule.records):
        lookups.append((("records", index, "department"), records.collection, records.department))
    if rule.access is not None:
        lookups.append((("access", "account"), rule.access.collection, rule.access.account))
    for location, collection, name in lookups:
        if not isinstance(name, Lookup):
            continue
        for key, holder, column in (
            ("column", collection, name.column),
            ("key", name.collection, name.key),
            ("name", name.collection, name.name),
        ):
            if not inventory.has_column(rule.database, holder, column):
                yield (*location, key), f"{rule.database} has no field {holder}.{column}"


INCIDENT = RuleSection("incident.yaml", IncidentRules, check_rules, page="explanation/incidents.md")


def incident_queries(pack: PolicyPack, rules: IncidentRules) -> Iterator[tuple[str, str, str]]:
    """Yield the queries of the incident workflows, to check that the logins may run them.

    Args:
        pack: policy pack.
        rules: content of incident.yaml.

    Yields:
        The id of the Airflow connection, the name of the database, and the SQL query.
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
