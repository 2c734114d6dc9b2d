"""Short timelines for tests of time limits, and the rules of the shipped policy pack."""

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
from include.incident.incident_ids import Kind
from include.incident.rules import IncidentRules, TimeLimitRule
from include.incident.time_limits.milestones import milestones
from include.incident.time_limits.time_limit import TimeLimit, build_facts, compute_time_limits
from include.incident.timeline import FIRST_PREVIOUS, Entry
from include.messages import verbatim
from include.policy.rules import Role

SHANGHAI = ZoneInfo("Asia/Shanghai")


@cache
def shipped() -> IncidentRules:
    """Return incident.yaml of the shipped policy pack."""
    return TypeAdapter(IncidentRules).validate_python(_pack("incident.yaml"))


@cache
def roles() -> dict[str, Role]:
    """Return the roles in roles.yaml of the shipped policy pack, by id."""
    role_list = TypeAdapter(list[Role]).validate_python(_pack("roles.yaml"))
    return {role.id: role for role in role_list}


def _pack(name: str) -> Any:
    path = Path(include.policy.__file__).parent / "pack" / name
    return yaml.safe_load(path.read_text("utf-8"))


def rule(name: str, ends: str = "contained", **fields: Any) -> TimeLimitRule:
    """Return the rule of a time limit. By default, the company itself sets the time limit.

    Args:
        name: id of the time limit.
        ends: milestone to reach within the time limit.
        fields: other keys of the rule in incident.yaml.
    """
    values = {
        "id": name,
        "title": {"en": name, "zh-CN": name},
        "ends": ends,
        "basis": "business",
    } | fields
    return TimeLimitRule.model_validate(values)


def entry(
    position: int, kind: Kind, at: datetime, *, recorded: datetime | None = None, **data: Any
) -> Entry:
    """Return a timeline entry with an invalid digest, for tests that do not verify digests.

    Args:
        position: position in the timeline, from 1.
        kind: kind of event that the entry records.
        at: time of the event.
        recorded: time of recording; default: the time of the event.
        data: data of the entry.
    """
    return Entry(
        position,
        kind,
        recorded or at,
        at,
        "1001",
        verbatim("said"),
        data,
        FIRST_PREVIOUS,
        FIRST_PREVIOUS,
    )


def timeline(*events: tuple[Kind, datetime, dict[str, Any]]) -> list[Entry]:
    """Return timeline entries in order, each recorded at the time of its event.

    Args:
        events: kind, time and data of each entry.
    """
    return [
        entry(position, kind, at, **data) for position, (kind, at, data) in enumerate(events, 1)
    ]


def look(
    entries: Sequence[Entry],
    now: datetime,
    *,
    rules: Sequence[TimeLimitRule] = (),
    aware_at: datetime,
    zone: ZoneInfo = SHANGHAI,
    critical: bool = False,
    proposed: str | None = "general",
) -> dict[str, TimeLimit]:
    """Return the time limits of an incident at the time `now`, by id.

    Args:
        entries: entries of the timeline, oldest first.
        now: current time.
        rules: rules of the time limits; default: those of the shipped policy pack.
        aware_at: time of awareness.
        zone: timezone of the policy pack.
        critical: whether the systems are critical information infrastructure.
        proposed: id of the proposed grade, or None.
    """
    facts = build_facts(
        entries,
        aware_at=aware_at,
        type="misdelivery",
        critical=critical,
        order=[grade.id for grade in shipped().grades],
        proposed=proposed,
    )
    time_limits = compute_time_limits(
        rules or shipped().clocks, facts, milestones(entries), now, zone
    )
    return {time_limit.id: time_limit for time_limit in time_limits}


def lines_of(path: Path) -> Iterator[list[str]]:
    """Yield the cells of each row of a table in a text file. Comment lines are left out."""
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            yield [cell.strip() for cell in line.split("|")]
