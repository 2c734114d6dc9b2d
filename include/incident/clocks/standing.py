"""How an incident's clocks stand, from its file."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from include.incident.as_opened import as_opened
from include.incident.beginning import CRITICAL
from include.incident.clocks.clock import Clock, Facts, clocks, facts_of
from include.incident.clocks.milestones import milestones
from include.incident.desk import Desk, File
from include.incident.names import Kind
from include.incident.rules import IncidentRules
from include.incident.timeline import last_of


def facts_from(today: IncidentRules, file: File) -> Facts:
    """What clocks have to know of an incident.

    Args:
        today: incident.yaml.
        file: the incident.
    """
    scoped = last_of(file.entries, Kind.SCOPED)
    certain = scoped is not None and scoped.data.get("certain") is True
    opened = last_of(file.entries, Kind.OPENED)
    critical = opened.data.get(CRITICAL) if opened is not None else None
    rules = as_opened(today, file.incident.kept, file.incident.clocks)
    return facts_of(
        file.entries,
        aware_at=file.incident.aware_at,
        type=file.incident.type,
        # Incidents opened before this was kept have today's.
        critical=today.critical if critical is None else critical is True,
        order=[one.id for one in rules.grades],
        proposed=str(scoped.data["proposed"]) if scoped is not None and certain else None,
    )


def clocks_of(desk: Desk, file: File) -> list[Clock]:
    """How its clocks stand now, by the rules as they were when it was opened.

    Args:
        desk: of the incident.
        file: the incident.
    """
    return clocks_at(desk.rules, file, desk.clock.now(), desk.zone)


def clocks_at(today: IncidentRules, file: File, now: datetime, zone: ZoneInfo) -> list[Clock]:
    """How its clocks stand at a moment, for who has nothing to work on the incident with.

    Args:
        today: incident.yaml.
        file: the incident.
        now: the moment.
        zone: of the pack.
    """
    return clocks(
        file.incident.clocks, facts_from(today, file), milestones(file.entries), now, zone
    )
