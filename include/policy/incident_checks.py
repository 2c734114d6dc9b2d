"""What incident.yaml says and the data maps or other files of the pack do not have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from include.policy.incident import CHECKLIST_FIELDS, FIGURES, Grade, IncidentRules
from include.policy.incident_scope import Lookup, Named, ScopeRule
from include.policy.people import staff_faults

if TYPE_CHECKING:
    from include.policy.datamap import MappedDatabase
    from include.policy.mapping import Inventory

Loc = tuple[str | int, ...]


def faults(
    rules: IncidentRules | None, inventory: Inventory, roles: set[str]
) -> Iterator[tuple[Loc, str]]:
    """Say what of incident.yaml nothing else knows, or what stands twice; each with its place."""
    if rules is None:
        return
    yield from staff_faults(rules.staff, inventory)
    for place in ("team", "types", "grades", "authorities", "clocks", "scenarios"):
        yield from _twice(place, "id", [one.id for one in getattr(rules, place)])
    yield from _twice("scope", "database", [one.database for one in rules.scope])
    for at, kind in enumerate(rules.types):
        ids = [one.id for one in kind.checklist]
        for loc, message in _twice("checklist", "id", ids):
            yield ("types", at, *loc), message
        for number, name in enumerate(ids):
            if name in CHECKLIST_FIELDS:
                message = f"{name} is another field of the form: give it another id"
                yield ("types", at, "checklist", number, "id"), message
    yield from _rising(rules.grades)
    yield from _people(rules, roles)
    yield from _names(rules)
    yield from _scope(rules, inventory)


def unconfirmed_categories(
    rules: IncidentRules | None, databases: Mapping[str, MappedDatabase]
) -> Iterator[tuple[Loc, str]]:
    """Yield a problem for each collection with unconfirmed categories, with its location.

    Notices tell people which types of their information are affected (PIPL (2021-11-01) 57). A
    guessed category there may state a wrong fact, and leaving it out may conceal a true one.

    Args:
        rules: incident.yaml.
        databases: the mapped databases, by name.
    """
    for at, scope in enumerate(rules.scope if rules else ()):
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


def _people(rules: IncidentRules, roles: set[str]) -> Iterator[tuple[Loc, str]]:
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
    grades, types = {one.id for one in rules.grades}, {one.id for one in rules.types}
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
        for place, message in _twice("records", "collection", [r.collection for r in one.records]):
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


def _twice(place: str, key: str, names: list[str]) -> Iterator[tuple[Loc, str]]:
    for at, name in enumerate(names):
        if name in names[:at]:
            yield (place, at, key), f"{name} stands twice"
