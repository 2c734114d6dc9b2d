"""The trigger form as it was filled in: read, checked, and made comparable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from include.approvals.reasons import says_something, value_free_reason
from include.holds.keys import refuse_personal_key
from include.incident.rules import IncidentRules, Scenario
from include.incident.selection import Selection, checked, moment
from include.incident.timeline import canonical
from include.policy.period import earlier
from include.services.errors import UsageError

LONGEST = 2_000  # characters of what happened


@dataclass(frozen=True)
class Form:
    """What the on-call person entered.

    Attributes:
        type: of the incident.
        what: what happened, value-free.
        noticed_by: who noticed, value-free; empty where nobody said.
        aware_at: when the company became aware; clocks begin here.
        began_at: when the leak began, None where nobody knows.
        selection: what is affected; with the databases that it means.
        another: that it is another incident though the form is the same.
        scenario: of a drill; empty for a real incident.
    """

    type: str
    what: str
    noticed_by: str
    aware_at: datetime
    began_at: datetime | None
    selection: Selection
    another: bool
    scenario: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what makes it the same incident: type, words and what is affected.

        Not the moment of awareness: whoever leaves it empty means now, and presses twice.
        """
        said = {"type": self.type, "what": self.what, "selection": self.selection.as_json()}
        return hashlib.sha256(canonical(said)).hexdigest()


def read(
    given: Mapping[str, Any], rules: IncidentRules, pressed_at: datetime, zone: ZoneInfo
) -> Form:
    """Read the form.

    Args:
        given: parameters of the run.
        rules: incident.yaml.
        pressed_at: when the run was triggered; that is when the company became aware, where
            nothing is said.
        zone: of moments without offset.

    Raises:
        UsageError: a field cannot be used; names all that cannot.
    """
    faults: list[str] = []

    def at(field: str) -> datetime | None:
        try:
            return moment(given.get(field), zone)
        except ValueError:
            faults.append(f"{field} is no moment (2026-11-26T03:15:00+08:00)")
            return None

    if (scenario := str(given.get("tabletop") or "")) and scenario not in {
        one.id for one in rules.scenarios
    }:
        faults.append(f"tabletop: there is no scenario {scenario}")
    drill = next((one for one in rules.scenarios if one.id == scenario), None)
    kind = drill.type if drill else str(given.get("type") or "")
    if not faults and kind not in {one.id for one in rules.types}:
        faults.append(f"type: there is none called {kind or '(nothing)'}")
    aware, began = at("aware_at") or pressed_at, at("began_at")
    if aware > pressed_at:
        faults.append("aware_at is yet to come: enter when the company became aware")
    if began and began > aware:
        faults.append("began_at is after aware_at: nobody knows of a leak before it begins")
    what = value_free_reason(drill.story["en"] if drill else str(given.get("what") or ""), LONGEST)
    if not drill and not says_something(what):
        faults.append("what says nothing: write in a sentence what happened")
    affected = _selection(given, at, faults)
    if faults:
        raise UsageError(f"The form cannot be used: {'; '.join(faults)}.", "Trigger it again.")
    return Form(
        type=kind,
        what=what,
        noticed_by=value_free_reason(str(given.get("noticed_by") or "")),
        aware_at=_drilled(drill, aware, pressed_at, given, zone),
        began_at=began,
        selection=checked(affected, rules),
        another=bool(given.get("another")),
        scenario=scenario,
    )


def selection(given: Mapping[str, Any], rules: IncidentRules, zone: ZoneInfo) -> Selection:
    """Read what is affected alone, with the databases that it means.

    Args:
        given: parameters of the run.
        rules: incident.yaml.
        zone: of moments without offset.

    Raises:
        UsageError: a field cannot be used; names all that cannot.
    """
    faults: list[str] = []

    def at(field: str) -> datetime | None:
        try:
            return moment(given.get(field), zone)
        except ValueError:
            faults.append(f"{field} is no moment (2026-11-26T03:15:00+08:00)")
            return None

    found = _selection(given, at, faults)
    if faults:
        raise UsageError(f"The form cannot be used: {'; '.join(faults)}.", "Trigger it again.")
    return checked(found, rules)


def _drilled(
    drill: Scenario | None,
    aware: datetime,
    pressed_at: datetime,
    given: Mapping[str, Any],
    zone: ZoneInfo,
) -> datetime:
    """A drill's awareness lies where the scenario says, unless the form does."""
    if drill is None or drill.aware_before is None or given.get("aware_at"):
        return aware.astimezone(UTC)
    return earlier(pressed_at, drill.aware_before, zone)


def _selection(given: Mapping[str, Any], at: Any, faults: list[str]) -> Selection:
    said = {
        name: _lines(given.get(name))
        for name in ("databases", "collections", "departments", "accounts", "keys")
    }
    one = {name: str(given.get(name) or "").strip() or None for name in ("partner", "keys_of")}
    typed = [
        (f"{name}, line {number},", value)
        for name in ("keys", "departments")
        for number, value in enumerate(said[name], 1)
    ]
    for name, value in (*typed, ("partner", one["partner"] or "")):
        try:
            refuse_personal_key(name, value)
        except UsageError as error:
            faults.append(error.message.rstrip("."))
    try:
        return Selection(**said, **one, since=at("since"), until=at("until"))
    except ValidationError as error:
        faults += [str(one["msg"]).removeprefix("Value error, ") for one in error.errors()]
        return Selection()


def _lines(value: Any) -> tuple[str, ...]:
    """A list, or lines of a text; without blanks around, empty ones and repetitions."""
    parts = str(value or "").splitlines() if not isinstance(value, list | tuple) else value
    return tuple(dict.fromkeys(text for one in parts if (text := str(one).strip())))
