"""What is affected, as a person says it without SQL; what it means in tables, `scope` knows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, model_validator

from include.policy.incident import IncidentRules
from include.services.errors import UsageError

MOST_KEYS = 100_000


class Selection(BaseModel):
    """What is affected.

    Databases and collections say where, everything else narrows it down; what is left empty does
    not. Keys that were listed are affected in any case: they add to what the rest selects, and
    where nothing else is said they are all.

    Attributes:
        databases: of the data map; empty means all that incident.yaml can count in.
        collections: of records, ``courier.waybill``; empty means all of a database.
        since: records made, or opened by the accounts, from then on.
        until: before then.
        departments: that answer for the records.
        accounts: whose doing it was: the log of accesses says what they opened.
        partner: number of the partner that was given the records.
        keys_of: collection of the listed keys; the data subjects' where nothing is said.
        keys: ``<database>/<key>``, or the key alone where one database is named.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
        """Whether listed keys are all that is said."""
        said = (self.collections, self.since, self.until, self.departments, self.accounts)
        return bool(self.keys) and not any(said) and self.partner is None

    def as_json(self) -> dict[str, Any]:
        """For the state database and reports."""
        return self.model_dump(mode="json", exclude_defaults=True)


def checked(selection: Selection, rules: IncidentRules) -> Selection:
    """Return the selection with the databases that it means.

    Raises:
        UsageError: it names what the pack does not have; names every such thing.
    """
    known = {one.database: one for one in rules.scope}
    faults = [f"no database {one}" for one in selection.databases if one not in known]
    for one in selection.collections:
        database, _, collection = one.partition(".")
        if database not in known:
            faults.append(f"no database {database} (of {one})")
        elif collection not in {records.collection for records in known[database].records}:
            faults.append(f"no records {one}")
    if len(selection.keys) > MOST_KEYS:
        faults.append(f"more than {MOST_KEYS:,} keys: narrow it down otherwise")
    if faults:
        raise UsageError(
            f"What is affected cannot be found: {'; '.join(faults)}.",
            f"incident.yaml counts in: {', '.join(known)}.",
        )
    named = selection.databases or tuple(
        dict.fromkeys(one.partition(".")[0] for one in selection.collections)
    )
    return selection.model_copy(update={"databases": named or tuple(known)})


def moment(value: str | None, zone: Any) -> datetime | None:
    """Read a moment of a form; one without offset is in the pack's timezone.

    Raises:
        ValueError: it is none.
    """
    if value is None or not value.strip():
        return None
    found = datetime.fromisoformat(value.strip())
    return found if found.tzinfo else found.replace(tzinfo=zone)
