"""The criteria that define which records an incident affects: their check and display text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, model_validator

from include.approvals.reasons import REDACTED, has_personal_number
from include.frozen import StrictModel
from include.holds.keys import refuse_personal_key
from include.incident.rules import IncidentRules, ScopeRule
from include.messages import Message, _, listed, verbatim
from include.policy.datamap import MappedDatabase
from include.services.errors import UsageError

MAX_KEYS = 100_000
MAX_NAMES = 1_000  # per list of databases, collections, departments or accounts
_MAX_FAULTS = 20


class Selection(StrictModel):
    """The criteria that a person entered in a form to define which records an incident affects.

    An empty field does not narrow the scope, so criteria without any value cover all records. A
    record is affected if it is in an entered collection, has a time in the time window, and belongs
    to an entered department. All people whom an affected record names are affected.

    With accounts or a partner, logs determine the affected people. A person is affected if one of
    the accounts opened the person's records within the time window, or if the person's records were
    shared with the partner within the time window. If accounts and a partner are entered, both have
    to be true. The time window then applies to the log entries, and all records about the affected
    people are affected.

    Listed keys are affected in addition to the records that the other fields cover. If only keys
    are entered, nothing else is affected. The key of a person stands for all records about the
    person in the collections. The key of a record stands for this record and all people whom it
    names.

    Attributes:
        databases: names of databases in the data map. If empty, the databases of `collections` are
            used, or all databases in the scope of incident.yaml.
        collections: collections of records, such as ``courier.waybill``; empty means all
            collections.
        since: start of the time window.
        until: end of the time window, exclusive.
        departments: responsible departments.
        accounts: accounts whose entries in the access log determine the affected people.
        partner: number of the partner whose entries in the sharing log determine the affected
            people.
        keys_of: collection whose records the keys identify, such as ``courier.waybill``; None if
            the keys identify people.
        keys: keys as ``<database>/<key>``, or only ``<key>`` if a single database was entered.
    """

    databases: tuple[str, ...] = ()
    collections: tuple[str, ...] = ()
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    departments: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    partner: str | None = None
    keys_of: str | None = None
    keys: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _in_order(self) -> Selection:
        if self.since and self.until and self.until <= self.since:
            raise ValueError("until should be after since")
        return self

    @property
    def is_only_keys(self) -> bool:
        """Whether the criteria contain listed keys and no filter.

        Filters are the time window, departments, accounts and the partner.
        """
        return bool(self.keys) and not (
            self.uses_log or self.departments or self.since or self.until
        )

    @property
    def uses_log(self) -> bool:
        """Whether accounts or a partner were entered. A log then determines the affected people."""
        return bool(self.accounts) or self.partner is not None

    @property
    def is_narrowed(self) -> bool:
        """Whether the criteria contain a filter or listed keys.

        Filters are the time window, departments, accounts and the partner. Databases and
        collections do not count as filters.
        """
        return bool(self.uses_log or self.departments or self.since or self.until or self.keys)

    def collections_of(self, rule: ScopeRule) -> list[str]:
        """Return the names of the collections of one database that the criteria cover.

        If no collection of this database was entered, return all collections of the rule.

        Args:
            rule: rule of the database in incident.yaml.
        """
        named = [
            record.collection
            for record in rule.records
            if f"{rule.database}.{record.collection}" in self.collections
        ]
        return named or [record.collection for record in rule.records]

    def as_json(self) -> dict[str, Any]:
        """Return the criteria as JSON values, for the state database and reports."""
        return self.model_dump(mode="json", exclude_defaults=True)


def check_selection(selection: Selection, rules: IncidentRules) -> Selection:
    """Check entered criteria against incident.yaml, and return them with `databases` filled in.

    Args:
        selection: criteria as a person entered them.
        rules: content of incident.yaml.

    Raises:
        UsageError: a name is not in incident.yaml, a key looks like a phone or ID number, or
            another value is not allowed; the message lists the faults.
    """
    scopes = {scope.database: scope for scope in rules.scope}
    faults = [
        f"no database {database}" for database in selection.databases if database not in scopes
    ]
    for qualified_name in selection.collections:
        database, _, collection = qualified_name.partition(".")
        if database not in scopes:
            faults.append(f"no database {database} (of {qualified_name})")
        elif collection not in {records.collection for records in scopes[database].records}:
            faults.append(f"no records {qualified_name}")
    faults += [
        f"more than {MAX_NAMES:,} {name}"
        for name in ("databases", "collections", "departments", "accounts")
        if len(getattr(selection, name)) > MAX_NAMES
    ]
    named = selection.databases or tuple(
        dict.fromkeys(collection.partition(".")[0] for collection in selection.collections)
    )
    checked = selection.model_copy(update={"databases": named or tuple(scopes)})
    faults += _character_faults(checked)
    if len(selection.keys) > MAX_KEYS:
        faults.append(f"more than {MAX_KEYS:,} keys: narrow the scope down in another way")
    elif not faults:
        faults = [*_keys_of_faults(checked, scopes), *_key_faults(checked, set(scopes))]
    if faults:
        note = [f"and {len(faults) - _MAX_FAULTS:,} more"] if len(faults) > _MAX_FAULTS else []
        raise UsageError(
            f"The entered scope is invalid: {'; '.join([*faults[:_MAX_FAULTS], *note])}.",
            f"Databases in incident.yaml: {', '.join(scopes)}.",
        )
    return checked


def locate_keys(selection: Selection) -> Iterator[tuple[int, str, str]]:
    """Yield for each listed key its position in the list (from 1), its database, and the key.

    Args:
        selection: criteria that `check_selection` returned.
    """
    default_database = _default_database(selection)
    for position, entered_key in enumerate(selection.keys, 1):
        database, slash, key = entered_key.partition("/")
        if slash and database in selection.databases:
            yield position, database, key
        elif default_database is not None:
            yield position, default_database, entered_key


_FIRST_YEAR, _LAST_YEAR = 1900, 9000


def parse_moment(value: str | None, zone: Any) -> datetime | None:
    """Parse a time that a person entered in a form.

    Args:
        value: ISO 8601 time; None or a blank text for no time.
        zone: timezone of a time without UTC offset.

    Raises:
        ValueError: the value is not a valid time, or its year is outside 1900-9000.
    """
    if value is None or not value.strip():
        return None
    parsed = datetime.fromisoformat(value.strip())
    parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=zone)
    if (
        not _FIRST_YEAR <= parsed.year <= _LAST_YEAR
    ):  # else it cannot be represented in every timezone
        raise ValueError(f"{value} is not a valid time of an incident")
    return parsed


def _default_database(selection: Selection) -> str | None:
    """Return the database to which keys without a database prefix belong.

    Return None if every key needs a prefix because several databases were entered.

    Args:
        selection: criteria that a person entered.
    """
    if selection.keys_of is not None:
        return selection.keys_of.partition(".")[0]
    return selection.databases[0] if len(selection.databases) == 1 else None


def _keys_of_faults(selection: Selection, scopes: dict[str, ScopeRule]) -> Iterator[str]:
    if selection.keys_of is None:
        return
    if not selection.keys:
        yield f"no keys of {selection.keys_of} are listed"
        return
    database, _, collection = selection.keys_of.partition(".")
    if database not in selection.databases:
        yield f"keys_of {selection.keys_of}: its database is not selected"
        return
    rule = scopes[database]
    records = {record.collection: record for record in rule.records}.get(collection)
    if records is None:
        yield f"incident.yaml has no records {selection.keys_of}, but keys of them are listed"
    elif not records.named:
        yield f"incident.yaml has no `named` for records of {selection.keys_of}"


def _key_faults(selection: Selection, database_names: set[str]) -> Iterator[str]:
    """Yield an error message for each listed key that is invalid.

    The messages do not contain the keys.

    Args:
        selection: criteria that a person entered.
        database_names: names of the databases in the scope of incident.yaml.
    """
    default_database = _default_database(selection)
    for position, entered_key in enumerate(selection.keys, 1):
        database, slash, key = entered_key.partition("/")
        has_database = slash and database in selection.databases
        if slash and not has_database and database in database_names:
            yield f"key {position} belongs to a database that is not selected"
        elif not has_database and default_database is None:
            yield f"key {position} names no database: write <database>/KEY"
        elif has_database and selection.keys_of is not None and database != default_database:
            yield f"key {position} belongs to another database than keys_of"
        elif not (key if has_database else entered_key).strip():
            yield f"key {position} is empty"
        else:
            try:
                refuse_personal_key(f"key {position}", entered_key)
            except UsageError as error:
                yield error.message.rstrip(".")


def _character_faults(selection: Selection) -> Iterator[str]:
    """Yield an error message for each value with a NUL character or a lone surrogate.

    PostgreSQL cannot store these characters.

    Args:
        selection: criteria that a person entered.
    """
    values = [("partner", selection.partner or ""), ("keys_of", selection.keys_of or "")]
    for name in ("departments", "accounts", "keys"):
        values += [
            (f"{name}, {position},", value)
            for position, value in enumerate(getattr(selection, name), 1)
        ]
    for name, value in values:
        if "\x00" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            yield f"{name} has a character that no database can store"


NAMES_SHOWN = 20  # accounts or departments shown by name; the rest is a number


def selection_text(selection: Selection, databases: Mapping[str, MappedDatabase]) -> Message:
    """Return the entered criteria as a single line of text for forms and reports.

    Args:
        selection: criteria that `check_selection` returned.
        databases: mapped databases by name, whose titles the text contains.
    """
    systems = [
        databases[name].title if name in databases else _name(name) for name in selection.databases
    ]
    parts = [_("systems: {names}", names=listed(systems, NAMES_SHOWN))]
    if selection.collections:
        tables = [collection_title(label, databases) for label in selection.collections]
        parts.append(_("tables: {names}", names=listed(tables, NAMES_SHOWN)))
    if selection.since is not None:
        parts.append(_("records from {moment} on", moment=selection.since))
    if selection.until is not None:
        parts.append(_("records before {moment}", moment=selection.until))
    if selection.departments:
        parts.append(_("departments: {names}", names=_names(selection.departments)))
    if selection.accounts:
        parts.append(
            _("records that these accounts opened: {names}", names=_names(selection.accounts))
        )
    if selection.partner is not None:
        parts.append(
            _(
                "records that were shared with the partner: {partner}",
                partner=_names([selection.partner]),
            )
        )
    if selection.keys:
        parts.append(
            _("{count} records or people, listed by their keys", count=len(selection.keys))
        )
    return _("Entered scope: {scope}", scope=listed(parts))


def collection_title(label: str, databases: Mapping[str, MappedDatabase]) -> Message:
    """Return the title of a collection, or its name if no data map contains it.

    Args:
        label: names of the database and of the collection, separated by a dot.
        databases: mapped databases by name.
    """
    for name, database in databases.items():
        collection = label.removeprefix(f"{name}.")
        if collection != label and not database.is_faulty and collection in database.collections:
            return (
                database.title_of(collection)
                if len(databases) == 1
                else database.collection_title(collection)
            )
    return _name(label)


def _name(entered_name: str) -> Message:
    return verbatim(REDACTED if has_personal_number(entered_name) else entered_name)


def _names(values: Iterable[str]) -> Message:
    return listed([_name(name) for name in values], NAMES_SHOWN)
