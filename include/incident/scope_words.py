"""Words for questions and reports: counts of what is affected, types of information."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from include.approvals.reasons import value_free_reason
from include.evidence.model import Outcome
from include.incident.scope import FICTION, Counted, Scope
from include.incident.selection import selection_line
from include.messages import Message, _, listed, verbatim
from include.reports.model import Table, table_of

_WORDS: dict[str, Message] = {
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


def types_of(categories: Iterable[str]) -> list[Message]:
    """Data categories in plain words, each once, in the order of the words above.

    A category without words of its own has those of the nearest one above it; one that has none at
    all stands as it is written, so that nothing that is affected is left out.

    Args:
        categories: fideslang data categories; those of systems are nobody's.
    """
    order = list(_WORDS)
    found: dict[str, Message] = {}
    for one in categories:
        if one == "user" or one.startswith("user."):
            known = _nearest(one)
            words = _WORDS[known] if known else verbatim(one)
            found.setdefault(words.text if known else one, words)
    places = {words.text: at for at, words in reversed(list(enumerate(_WORDS.values())))}
    return [found[key] for key in sorted(found, key=lambda key: (places.get(key, len(order)), key))]


def _nearest(category: str) -> str | None:
    while category:
        if category in _WORDS:
            return category
        category = category.rpartition(".")[0]
    return None


def scope_lines(scope: Scope) -> list[Message]:
    """What is affected, a line each; what could not be counted first and loudly."""
    lines = [
        _(
            "NOT COUNTED: {database}. {reason} Nobody knows how many people are affected there.",
            database=unknown.database,
            reason=unknown.reason,
        )
        for unknown in scope.unknown
    ]
    if scope.nobody:
        lines.append(
            _("Nobody was found by what was entered: rather a slip of the pen than good news.")
        )
    lines += [
        _(
            "{database}: {people} people, {records} records",
            database=_name(count.database),
            people=count.subjects,
            records=sum(count.records.values()),
        )
        for count in scope.counted
    ]
    lines.append(_("Sensitive information of {count} people", count=scope.sensitive))
    lines.append(
        _("Under 14: not known")
        if scope.minors is None
        else _(
            "Under 14: {count} people; of {unknown} nobody knows the age",
            count=scope.minors,
            unknown=scope.age_unknown,
        )
    )
    if scope.first and scope.last:
        lines.append(_("Records from {first} to {last}", first=scope.first, last=scope.last))
    return [*lines, *scope_notes(scope)]


def scope_notes(scope: Scope) -> list[Message]:
    """What figures do not say: what was entered, types of information, what to look at."""
    types = types_of(scope.categories)
    drilled = any(count.database == FICTION for count in scope.counted)
    entered = [] if drilled else [selection_line(scope.selection)]
    said = [_("Types of information: {types}", types=listed(types))] if types else []
    return [*entered, *said, *_warnings(scope)]


def scope_table(scope: Scope) -> Table:
    """What is affected, by database."""
    rows: list[tuple[Message, Counted | None]] = [
        *((_name(count.database), count) for count in scope.counted),
        *((verbatim(unknown.database), None) for unknown in scope.unknown),
    ]
    return table_of(
        _("By database; whoever stands in two of them counts twice"),
        rows,
        [
            (_("Database"), "text", lambda row: row[0]),
            (_("People affected"), "number", lambda row: row[1].subjects if row[1] else None),
            (_("Records"), "number", lambda row: sum(row[1].records.values()) if row[1] else None),
            (_("Of them sensitive"), "number", lambda row: row[1].sensitive if row[1] else None),
            (_("Under 14"), "number", lambda row: row[1].minors if row[1] else None),
            (_("From"), "datetime", lambda row: row[1].first if row[1] else None),
            (_("Until"), "datetime", lambda row: row[1].last if row[1] else None),
            (_("Counted"), "outcome", lambda row: Outcome.PASS if row[1] else Outcome.FAIL),
        ],
    )


def _name(database: str) -> Message:
    return _("scenario of the drill") if database == FICTION else verbatim(database)


def _warnings(scope: Scope) -> list[Message]:
    chosen = scope.selection
    windowed = bool(chosen.since or chosen.until) and not chosen.by_log
    return [one for each in scope.counted for one in _warnings_of(each, windowed=windowed)]


def _warnings_of(count: Counted, *, windowed: bool) -> Iterator[Message]:
    name = count.database
    if count.everything and name != FICTION:
        yield _("{database}: nothing narrowed it down, so everything counts.", database=name)
    if count.not_found:
        yield _(
            "{database}: {count} of {listed} listed keys are not there; in the list: {places}.",
            database=name,
            count=count.not_found,
            listed=count.listed,
            places=", ".join(map(str, count.not_found_at))
            + ("…" if count.not_found > len(count.not_found_at) else ""),
        )
    if idle := [account for account, people in count.accounts.items() if not people]:
        yield _(
            "{database}: these accounts opened nobody's records then: {accounts}. Are they spelt "
            "right?",
            database=name,
            accounts=value_free_reason(", ".join(idle)),
        )
    if count.not_narrowed:
        yield _(
            "{database}: {collections} could not be narrowed down by moment or department, so all "
            "of that counts.",
            database=name,
            collections=", ".join(count.not_narrowed),
        )
    if count.undated and windowed:
        yield _(
            "{database}: {count} records without a moment count too; they may be of that time.",
            database=name,
            count=count.undated,
        )
    if count.unseen:
        yield _(
            "{database}: {count} people of the list were found before, or came since; the last "
            "count does not find them. Figures of people are upper bounds, those of records lower "
            "ones.",
            database=name,
            count=count.unseen,
        )
    if count.unlisted:
        yield _(
            "{database}: {count} people stand on records, but not among the people: they cannot "
            "be told by mail.",
            database=name,
            count=count.unlisted,
        )
