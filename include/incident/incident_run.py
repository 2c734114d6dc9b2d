"""The run or command that works on an incident, and the incident with its timeline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection

from include.incident import register, timeline
from include.incident.as_opened import as_opened
from include.incident.clocks.milestones import grades, valid
from include.incident.names import UPDATES
from include.incident.register import Incident
from include.incident.rules import IncidentRules, Scenario
from include.incident.timeline import Entry
from include.services.errors import ControlFailed, UsageError
from include.workflow.run_context import RunContext

IncidentRun: TypeAlias = RunContext[IncidentRules]

SCENARIO = "tabletop"
"""Parameter of `respond_to_incident`: the scenario of a drill; empty for a real incident."""

NUMBER = "incident"
"""Parameter of `update_incident`: number of the incident."""


@dataclass(frozen=True)
class IncidentRecord:
    """An incident with its timeline.

    Attributes:
        incident: the incident.
        entries: its timeline, oldest entry first.
    """

    incident: Incident
    entries: Sequence[Entry]

    @property
    def valid(self) -> list[Entry]:
        """The entries that no later entry corrected, oldest first."""
        return valid(self.entries)

    @property
    def grade(self) -> str | None:
        """The last confirmed grade by the timeline; None before one was confirmed.

        The register's column is for lists alone: it is in no chain of digests.
        """
        confirmed = grades(self.entries)
        return confirmed[-1].grade if confirmed else None


def record_in(conn: Connection, number: str) -> IncidentRecord:
    """Return an incident as of this transaction.

    Raises:
        UsageError: there is none of that number.
    """
    incident = register.get(conn, number)
    return IncidentRecord(incident, timeline.entries(conn, incident.id))


def record_of(run: IncidentRun, number: str) -> IncidentRecord:
    """Return an incident as it is now.

    Raises:
        UsageError: there is none of that number.
    """
    with run.state.connect() as conn:
        return record_in(conn, number)


def incident_number(run: IncidentRun) -> str:
    """Return the number of the incident that an update is about, as people write it."""
    return str(run.parameters.get(NUMBER) or "").strip().upper()


def incident_of(run: IncidentRun) -> IncidentRecord:
    """Return the incident that a run leads, or that an update is about.

    Raises:
        ControlFailed: the run opened no incident.
        UsageError: there is none of the number that the update names.
    """
    if run.run.dag_id == UPDATES:
        return record_of(run, incident_number(run))
    with run.state.connect() as conn:
        opened = register.of_run(conn, run.run)
        if opened is None:
            raise ControlFailed("This run opened no incident.", "Trigger the workflow again.")
        return record_in(conn, opened.number)


def rules_of(run: IncidentRun, record: IncidentRecord) -> IncidentRules:
    """Return the rules that an incident is measured by; see `as_opened`."""
    return as_opened(run.rules, record.incident.kept, record.incident.clocks)


def scenario_of(run: IncidentRun) -> Scenario | None:
    """Return the scenario of a drill; None for a real incident.

    Raises:
        UsageError: incident.yaml has no such scenario.
    """
    name = str(run.parameters.get(SCENARIO) or "")
    if not name:
        return None
    scenario = next((each for each in run.rules.scenarios if each.id == name), None)
    if scenario is None:
        raise UsageError(f"incident.yaml has no scenario {name}.")
    return scenario
