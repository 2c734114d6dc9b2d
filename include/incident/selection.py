"""Selections of affected records: read from what a person entered, and shown in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, model_validator

from include.approvals.reasons import BLOTTED, names_a_person
from include.frozen import StrictModel
from include.holds.keys import refuse_personal_key
from include.incident.rules import IncidentRules, ScopeRule
from include.messages import Message, _, listed
from include.services.errors import UsageError

MOST_KEYS = 100_000
MOST_NAMES = 1_000  # of databases, collections, departments, accounts
_MOST_TOLD = 20


class Selection(StrictModel):
    """What is affected.

    Databases and collections say where, everything else narrows it down; what is left empty does
    not, so that an empty selection is everything: the worst case. A record is affected that stands
    in one of the collections, was made in the window, and for which one of the departments answers;
    so is everybody whom it is about, for papers name all who stand on them. Accounts and a partner
    narrow down people, not records: those whose records the log says were opened, or shared, in the
    window, which then is not about when records were made; and of the records those about them.

    Keys that were listed are affected in any case: they add to what window, departments, accounts
    and partner select, and where none of these is said they are all. Of a person that means all
    records in the collections, of a record just that one and everybody whom it is about.

    Attributes:
        databases: of the data map; empty means those of the collections, or all that incident.yaml
            can count in.
        collections: of records, ``courier.waybill``; empty means all of a database.
        since: records made, or opened by the accounts, from then on.
        until: before then.
        departments: that answer for the records.
        accounts: whose doing it was: the log of accesses says whose records they opened.
        partner: number of the partner that was given the records, by the log of sharing.
        keys_of: collection of the listed keys, ``courier.waybill``; people's where nothing is said.
        keys: ``<database>/<key>``, or the key alone where one database is named.
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
    def only_keys(self) -> bool:
        """Return whether listed keys are all that is said, beside where."""
        return bool(self.keys) and not (self.by_log or self.departments or self.since or self.until)

    @property
    def by_log(self) -> bool:
        """Return whether a log says who is affected; then the window is about its entries."""
        return bool(self.accounts) or self.partner is not None

    @property
    def narrowed(self) -> bool:
        """Return whether anything narrows it down beside databases and collections."""
        return bool(self.by_log or self.departments or self.since or self.until or self.keys)

    def collections_of(self, rule: ScopeRule) -> list[str]:
        """The collections of a database in which it looks."""
        named = [
            record.collection
            for record in rule.records
            if f"{rule.database}.{record.collection}" in self.collections
        ]
        return named or [record.collection for record in rule.records]

    def as_json(self) -> dict[str, Any]:
        """For the state database and reports."""
        return self.model_dump(mode="json", exclude_defaults=True)


def checked(selection: Selection, rules: IncidentRules) -> Selection:
    """Return the selection with the databases that it means.

    Raises:
        UsageError: it names what the pack does not have, or keys that look like a person's mobile
            or ID number; says every such thing.
    """
    known = {scope.database: scope for scope in rules.scope}
    faults = [f"no database {one}" for one in selection.databases if one not in known]
    for one in selection.collections:
        database, _, collection = one.partition(".")
        if database not in known:
            faults.append(f"no database {database} (of {one})")
        elif collection not in {records.collection for records in known[database].records}:
            faults.append(f"no records {one}")
    faults += [
        f"more than {MOST_NAMES:,} {name}"
        for name in ("databases", "collections", "departments", "accounts")
        if len(getattr(selection, name)) > MOST_NAMES
    ]
    named = selection.databases or tuple(
        dict.fromkeys(one.partition(".")[0] for one in selection.collections)
    )
    found = selection.model_copy(update={"databases": named or tuple(known)})
    faults += _unkeepable(found)
    if len(selection.keys) > MOST_KEYS:
        faults.append(f"more than {MOST_KEYS:,} keys: narrow it down otherwise")
    elif not faults:
        faults = [*_of_keys(found, known), *_keys(found, set(known))]
    if faults:
        more = [f"and {len(faults) - _MOST_TOLD:,} more"] if len(faults) > _MOST_TOLD else []
        raise UsageError(
            f"What is affected cannot be found: {'; '.join([*faults[:_MOST_TOLD], *more])}.",
            f"incident.yaml counts in: {', '.join(known)}.",
        )
    return found


def located(selection: Selection) -> Iterator[tuple[int, str, str]]:
    """Each listed key with its place from 1 and its database; the selection has been `checked`."""
    only = _only(selection)
    for place, given in enumerate(selection.keys, 1):
        database, slash, key = given.partition("/")
        if slash and database in selection.databases:
            yield place, database, key
        elif only is not None:
            yield place, only, given


_FIRST_YEAR, _LAST_YEAR = 1900, 9000


def moment(value: str | None, zone: Any) -> datetime | None:
    """Read a moment of a form; one without offset is in the pack's timezone.

    Raises:
        ValueError: it is none.
    """
    if value is None or not value.strip():
        return None
    found = datetime.fromisoformat(value.strip())
    found = found if found.tzinfo else found.replace(tzinfo=zone)
    if not _FIRST_YEAR <= found.year <= _LAST_YEAR:  # else it cannot be said in every timezone
        raise ValueError(f"{value} is no moment of an incident")
    return found


def _only(selection: Selection) -> str | None:
    """The database of keys that name none; None where they have to."""
    if selection.keys_of is not None:
        return selection.keys_of.partition(".")[0]
    return selection.databases[0] if len(selection.databases) == 1 else None


def _of_keys(selection: Selection, known: dict[str, ScopeRule]) -> Iterator[str]:
    if selection.keys_of is None:
        return
    if not selection.keys:
        yield f"no keys of {selection.keys_of} are listed"
        return
    database, _, collection = selection.keys_of.partition(".")
    if database not in selection.databases:
        yield f"keys_of {selection.keys_of}: its database is none of those where it is looked"
        return
    rule = known[database]
    records = {record.collection: record for record in rule.records}.get(collection)
    if records is None:
        yield f"no records {selection.keys_of}, of which keys are listed"
    elif not records.named:
        yield f"incident.yaml does not say how records of {selection.keys_of} are named"


def _keys(selection: Selection, known: set[str]) -> Iterator[str]:
    """What is wrong with listed keys; what they say is not repeated."""
    only = _only(selection)
    for place, given in enumerate(selection.keys, 1):
        database, slash, key = given.partition("/")
        named = slash and database in selection.databases
        if slash and not named and database in known:
            yield f"key {place} is of a database in which it is not looked"
        elif not named and only is None:
            yield f"key {place} names no database: write <database>/KEY"
        elif named and selection.keys_of is not None and database != only:
            yield f"key {place} is of another database than keys_of"
        elif not (key if named else given).strip():
            yield f"key {place} is empty"
        else:
            try:
                refuse_personal_key(f"key {place}", given)
            except UsageError as error:
                yield error.message.rstrip(".")


def _unkeepable(selection: Selection) -> Iterator[str]:
    """What no column of a database can hold, and no JSON of ours: NUL, half of a character."""
    given = [("partner", selection.partner or ""), ("keys_of", selection.keys_of or "")]
    for name in ("departments", "accounts", "keys"):
        given += [(f"{name}, {at},", one) for at, one in enumerate(getattr(selection, name), 1)]
    for name, one in given:
        if "\x00" in one or any("\ud800" <= letter <= "\udfff" for letter in one):
            yield f"{name} has a character that no database holds"


NAMES_SHOWN = 20  # of accounts or departments; the others are counted


def selection_line(chosen: Selection) -> Message:
    """What was entered, in a line.

    Args:
        chosen: `selection.checked`.
    """
    said = [_("systems: {names}", names=_names(chosen.databases))]
    if chosen.collections:
        said.append(_("tables: {names}", names=_names(chosen.collections)))
    if chosen.since is not None:
        said.append(_("from {moment}", moment=chosen.since))
    if chosen.until is not None:
        said.append(_("before {moment}", moment=chosen.until))
    if chosen.departments:
        said.append(_("departments: {names}", names=_names(chosen.departments)))
    if chosen.accounts:
        said.append(_("opened by the accounts: {names}", names=_names(chosen.accounts)))
    if chosen.partner is not None:
        said.append(_("given to the partner: {names}", names=_names([chosen.partner])))
    if chosen.keys:
        said.append(_("{count} listed keys", count=len(chosen.keys)))
    return _("Entered as affected: {what}", what=listed(said))


def _names(found: Iterable[str]) -> str:
    names = list(found)
    shown = ", ".join(BLOTTED if names_a_person(name) else name for name in names[:NAMES_SHOWN])
    more = len(names) - NAMES_SHOWN
    return f"{shown} +{more}" if more > 0 else shown
