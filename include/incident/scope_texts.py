"""Texts about the scope and the affected types of information, for approval forms and reports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from include.approvals.reasons import redact_reason
from include.evidence.model import Outcome
from include.incident.scope import DRILL_DATABASE, DatabaseCount, Scope
from include.incident.selection import collection_title, selection_text
from include.messages import Message, _, listed, verbatim
from include.policy.datamap import MappedDatabase
from include.reports.model import Table, table_of

_CATEGORY_NAMES: dict[str, Message] = {
    "user.name": _("name"),
    "user.contact.phone_number": _("phone number"),
    "user.contact.email": _("e-mail address"),
    "user.contact.address": _("address"),
    "user.contact": _("contact details"),
    "user.government_id.national_identification_number": _("resident ID number"),
    "user.government_id": _("identity document number"),
    "user.demographic.date_of_birth": _("date of birth"),
    "user.demographic.religious_belief": _("religious belief"),
    "user.demographic": _("personal characteristics"),
    "user.biometric": _("biometric information"),
    "user.health_and_medical": _("health information"),
    "user.financial": _("bank or payment information"),
    "user.payment": _("bank or payment information"),
    "user.location": _("whereabouts"),
    "user.account.settings": _("delivery preferences"),
    "user.account.password": _("password"),
    "user.authorization": _("access credentials"),
    "user.account": _("account information"),
    "user.privacy_preferences": _("consents and privacy choices"),
    "user.unique_id": _("customer or waybill number"),
    "user.behavior": _("use of services"),
    "user.content": _("texts, pictures or signatures"),
    "user.workplace": _("information about work"),
    "user.job_title": _("information about work"),
    "user.device": _("device information"),
}


def category_names(categories: Iterable[str]) -> list[Message]:
    """Return the names of data categories in words for customers, in the order used in notices.

    Each name is returned once. If a category has no name, the name of its nearest ancestor is
    returned. If no ancestor has a name, the id of the category is returned. So every affected
    category is listed.

    Args:
        categories: Fides data categories. Categories that are not personal are ignored.
    """
    order = list(_CATEGORY_NAMES)
    names: dict[str, Message] = {}
    for category in categories:
        if category == "user" or category.startswith("user."):
            named = _named_ancestor(category)
            name = _CATEGORY_NAMES[named] if named else verbatim(category)
            names.setdefault(name.text if named else category, name)
    positions = {
        name.text: index for index, name in reversed(list(enumerate(_CATEGORY_NAMES.values())))
    }
    return [
        names[key] for key in sorted(names, key=lambda key: (positions.get(key, len(order)), key))
    ]


def _named_ancestor(category: str) -> str | None:
    while category:
        if category in _CATEGORY_NAMES:
            return category
        category = category.rpartition(".")[0]
    return None


def scope_lines(scope: Scope, databases: Mapping[str, MappedDatabase]) -> list[Message]:
    """Return the counts of a scope as display texts.

    The first texts are about databases that could not be counted.

    Args:
        scope: scope of an incident.
        databases: mapped databases by name, whose titles the texts contain.
    """
    lines = [
        _(
            "NOT COUNTED: {database}. {reason} The number of affected people in this database "
            "is unknown.",
            database=database_title(unknown.database, databases),
            reason=unknown.reason,
        )
        for unknown in scope.unknown
    ]
    if scope.is_empty:
        lines.append(
            _(
                "The count found no people in the entered scope. Probably the form contains a "
                "mistake: an incident without affected people is unlikely."
            )
        )
    lines += [
        _(
            "{database}: {people} people, {records} records",
            database=database_title(count.database, databases),
            people=count.subjects,
            records=sum(count.records.values()),
        )
        for count in scope.counted
    ]
    lines.append(_("Sensitive information of {count} people", count=scope.sensitive))
    lines.append(
        _("People under 14: number unknown")
        if scope.minors is None
        else _(
            "People under 14: {count}; people whose age is unknown: {unknown}",
            count=scope.minors,
            unknown=scope.age_unknown,
        )
    )
    if scope.first and scope.last:
        lines.append(_("Records from {first} to {last}", first=scope.first, last=scope.last))
    return [*lines, *scope_notes(scope, databases)]


def scope_notes(scope: Scope, databases: Mapping[str, MappedDatabase]) -> list[Message]:
    """Return display texts about the criteria of a scope and the affected types of information.

    The texts also contain warnings about the counts.

    Args:
        scope: scope of an incident.
        databases: mapped databases by name, whose titles the texts contain.
    """
    types = category_names(scope.categories)
    is_drill = any(count.database == DRILL_DATABASE for count in scope.counted)
    selection_lines = [] if is_drill else [selection_text(scope.selection, databases)]
    type_lines = [_("Types of information: {types}", types=listed(types))] if types else []
    return [*selection_lines, *type_lines, *_warnings(scope, databases)]


def scope_table(scope: Scope, databases: Mapping[str, MappedDatabase]) -> Table:
    """Return a table with the number of affected people and records in each database.

    Args:
        scope: scope of an incident.
        databases: mapped databases by name, whose titles the table contains.
    """
    rows: list[tuple[Message, DatabaseCount | None]] = [
        *((database_title(count.database, databases), count) for count in scope.counted),
        *((database_title(unknown.database, databases), None) for unknown in scope.unknown),
    ]
    return table_of(
        _(
            "Affected people and records by database. A person who is in two databases is "
            "counted twice."
        ),
        rows,
        [
            (_("Database"), "text", lambda row: row[0]),
            (_("People affected"), "number", lambda row: row[1].subjects if row[1] else None),
            (_("Records"), "number", lambda row: sum(row[1].records.values()) if row[1] else None),
            (
                _("People with sensitive information"),
                "number",
                lambda row: row[1].sensitive if row[1] else None,
            ),
            (_("People under 14"), "number", lambda row: row[1].minors if row[1] else None),
            (_("Oldest record"), "datetime", lambda row: row[1].first if row[1] else None),
            (_("Newest record"), "datetime", lambda row: row[1].last if row[1] else None),
            (_("Counted"), "outcome", lambda row: Outcome.PASS if row[1] else Outcome.FAIL),
        ],
    )


def database_title(name: str, databases: Mapping[str, MappedDatabase]) -> Message:
    """Return the title of a database, or its name if the policy pack does not map it any more."""
    if name == DRILL_DATABASE:
        return _("scenario of the drill")
    return databases[name].title if name in databases else verbatim(name)


def _warnings(scope: Scope, databases: Mapping[str, MappedDatabase]) -> list[Message]:
    selection = scope.selection
    has_window = bool(selection.since or selection.until) and not selection.uses_log
    return [
        warning
        for count in scope.counted
        for warning in _database_warnings(count, databases, has_window=has_window)
    ]


def _database_warnings(
    count: DatabaseCount, databases: Mapping[str, MappedDatabase], *, has_window: bool
) -> Iterator[Message]:
    name = database_title(count.database, databases)
    if count.everything and count.database != DRILL_DATABASE:
        yield _(
            "{database}: the form does not restrict the scope, so all records of the "
            "database are counted as affected.",
            database=name,
        )
    if count.not_found:
        yield _(
            "{database}: {count} of the {listed} keys that were entered in the form do not "
            "exist. Positions of these keys in the form: {positions}.",
            database=name,
            count=count.not_found,
            listed=count.listed,
            positions=listed(
                [
                    *map(str, count.not_found_at),
                    *(["…"] if count.not_found > len(count.not_found_at) else []),
                ]
            ),
        )
    if idle := [account for account, people in count.accounts.items() if not people]:
        yield _(
            "{database}: these accounts opened no records in the entered period: {accounts}. "
            "Check that the account names are correct.",
            database=name,
            accounts=listed([redact_reason(account) for account in idle]),
        )
    if count.not_narrowed:
        yield _(
            "{database}: records of {collections} have no time or department by which the "
            "scope could be restricted, so all of them are counted as affected.",
            database=name,
            collections=listed(
                collection_title(f"{count.database}.{collection}", databases)
                for collection in count.not_narrowed
            ),
        )
    if count.undated and has_window:
        yield _(
            "{database}: {count} records without a time are counted as affected too, because "
            "they may belong to the entered period.",
            database=name,
            count=count.undated,
        )
    if count.unseen:
        yield _(
            "{database}: the newest count did not find {count} people on the list: they were "
            "found earlier or were added later. Therefore the stated number of people may be "
            "too high, and the stated number of records too low.",
            database=name,
            count=count.unseen,
        )
    if count.unlisted:
        yield _(
            "{database}: {count} affected people appear in records, but not in the table with "
            "the addresses of people. They cannot be notified by mail.",
            database=name,
            count=count.unlisted,
        )
