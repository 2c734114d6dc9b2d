"""How an incident's clocks stand, from its file."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from include.incident.as_opened import as_opened
from include.incident.clocks.clock import Clock, Facts, clocks, facts_of
from include.incident.clocks.milestones import milestones
from include.incident.entries import Opened, Scoped
from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.names import Kind
from include.incident.rules import IncidentRules
from include.incident.timeline import last_of


def facts_from(today: IncidentRules, record: IncidentRecord) -> Facts:
    """What clocks have to know of an incident.

    Args:
        today: incident.yaml.
        record: the incident.
    """
    scoped = last_of(record.entries, Kind.SCOPED)
    count = scoped.as_(Scoped) if scoped is not None else None
    opened = last_of(record.entries, Kind.OPENED)
    critical = opened.as_(Opened).critical if opened is not None else None
    rules = as_opened(today, record.incident.kept, record.incident.clocks)
    return facts_of(
        record.entries,
        aware_at=record.incident.aware_at,
        type=record.incident.type,
        # Incidents opened before this was kept have today's.
        critical=today.critical if critical is None else critical,
        order=[one.id for one in rules.grades],
        proposed=count.proposed if count is not None and count.certain else None,
    )


def clocks_of(run: IncidentRun, record: IncidentRecord) -> list[Clock]:
    """How its clocks stand now, by the rules as they were when it was opened.

    Args:
        run: the run or command.
        record: the incident.
    """
    return clocks_at(run.rules, record, run.clock.now(), run.zone)


def clocks_at(
    today: IncidentRules, record: IncidentRecord, now: datetime, zone: ZoneInfo
) -> list[Clock]:
    """How its clocks stand at a moment, for who has nothing to work on the incident with.

    Args:
        today: incident.yaml.
        record: the incident.
        now: the moment.
        zone: of the pack.
    """
    return clocks(
        record.incident.clocks, facts_from(today, record), milestones(record.entries), now, zone
    )
