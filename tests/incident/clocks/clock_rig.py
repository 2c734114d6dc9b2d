"""Incidents made of a few moments, for tests of clocks; and the pack's own rules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import yaml
from pydantic import TypeAdapter

import include.policy
from include.incident.clocks.clock import Clock, clocks, facts_of
from include.incident.clocks.milestones import milestones
from include.incident.names import Kind
from include.incident.rules import ClockRule, IncidentRules
from include.incident.timeline import FIRST, Entry
from include.messages import verbatim
from include.policy.rules import Role

SHANGHAI = ZoneInfo("Asia/Shanghai")


@cache
def shipped() -> IncidentRules:
    """incident.yaml of the pack."""
    return TypeAdapter(IncidentRules).validate_python(_pack("incident.yaml"))


@cache
def roles() -> dict[str, Role]:
    """roles.yaml of the pack, by id."""
    found = TypeAdapter(list[Role]).validate_python(_pack("roles.yaml"))
    return {one.id: one for one in found}


def _pack(name: str) -> Any:
    path = Path(include.policy.__file__).parent / "pack" / name
    return yaml.safe_load(path.read_text("utf-8"))


def rule(name: str, ends: str = "contained", **said: Any) -> ClockRule:
    """A clock of a pack, business where nothing else is said."""
    given = {
        "id": name,
        "title": {"en": name, "zh-CN": name},
        "ends": ends,
        "basis": "business",
    } | said
    return ClockRule.model_validate(given)


def entry(
    place: int, kind: Kind, at: datetime, *, recorded: datetime | None = None, **data: Any
) -> Entry:
    """One entry of a timeline; its digest is of no use."""
    return Entry(place, kind, recorded or at, at, "1001", verbatim("said"), data, FIRST, FIRST)


def timeline(*said: tuple[Kind, datetime, dict[str, Any]]) -> list[Entry]:
    """Entries one after the other, each recorded when it happened."""
    return [entry(place, kind, at, **data) for place, (kind, at, data) in enumerate(said, 1)]


def look(
    entries: Sequence[Entry],
    now: datetime,
    *,
    rules: Sequence[ClockRule] = (),
    aware_at: datetime,
    zone: ZoneInfo = SHANGHAI,
    critical: bool = False,
    proposed: str | None = "general",
) -> dict[str, Clock]:
    """The clocks of an incident at a moment, by their ids."""
    facts = facts_of(
        entries,
        aware_at=aware_at,
        type="misdelivery",
        critical=critical,
        order=[one.id for one in shipped().grades],
        proposed=proposed,
    )
    found = clocks(rules or shipped().clocks, facts, milestones(entries), now, zone)
    return {one.id: one for one in found}


def lines_of(path: Path) -> Iterator[list[str]]:
    """Cells of the rows of a table of text; lines that begin with # are for readers."""
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            yield [cell.strip() for cell in line.split("|")]
