"""An incident as a run or a command works on it: timeline, rules, counted versions, words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection, select

from include.incident import register, timeline
from include.incident.clocks.milestones import grades, valid
from include.incident.entries import Reviewed
from include.incident.names import UPDATES, Phase
from include.incident.register import Incident, as_opened
from include.incident.rules import IncidentRules, Scenario
from include.incident.scope import Scope
from include.incident.tables import incident_scope
from include.incident.timeline import Entry
from include.messages import Message, _, verbatim
from include.policy.rules import in_languages
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


def store_scope(conn: Connection, run: IncidentRun, incident_id: int, counted: Scope) -> None:
    """Store a count; the version has to be new.

    Args:
        conn: the state database, in a transaction that holds the incident's lock.
        run: the run or command.
        incident_id: of the incident.
        counted: what is affected.
    """
    conn.execute(
        incident_scope.insert().values(
            incident_id=incident_id,
            version=counted.version,
            made_at=run.clock.now(),
            selection=counted.selection.as_json(),
            counts=counted.as_json(),
        )
    )


def scopes(conn: Connection, incident_id: int) -> list[Scope]:
    """Return all counts of an incident, oldest first."""
    query = (
        select(incident_scope.c.counts)
        .where(incident_scope.c.incident_id == incident_id)
        .order_by(incident_scope.c.version)
    )
    return [Scope.model_validate(counts) for counts in conn.scalars(query)]


def latest_scope(run: IncidentRun, incident_id: int) -> Scope | None:
    """Return the newest count of what is affected; None if there is none."""
    with run.state.connect() as conn:
        counted = scopes(conn, incident_id)
    return counted[-1] if counted else None


def require_scope(run: IncidentRun, incident_id: int) -> Scope:
    """Return the newest count of what is affected.

    Raises:
        ControlFailed: there is none.
    """
    counted = latest_scope(run, incident_id)
    if counted is None:
        raise ControlFailed(
            "Nobody counted what is affected.", "Clear the task `assess` of this run."
        )
    return counted


def what_happened(run: IncidentRun, record: IncidentRecord) -> Message:
    """Return what happened; in a drill, the story of the scenario in both languages."""
    scenario = scenario_of(run)
    return in_languages(scenario.story) if scenario else verbatim(record.incident.what)


def action_lines(run: IncidentRun, reviewed: Entry) -> list[Message]:
    """Corrective actions of a review, a line each: what, who answers for it, which finding.

    Args:
        run: the run or command.
        reviewed: the entry of the review.
    """
    return [
        _(
            "{action} (finding {finding}, answered for by {owner})",
            action=action.what,
            finding=action.finding,
            owner=in_languages(run.roles[action.owner].title)
            if action.owner in run.roles
            else action.owner,
        )
        for action in reviewed.as_(Reviewed).actions
    ]


def drill_mark(run: IncidentRun) -> Message | None:
    """Return the mark on every page of a drill's documents; None outside of drills."""
    if scenario_of(run) is None:
        return None
    return _("DRILL: this is not a real incident. Do not hand it in.")


def report_title(run: IncidentRun, record: IncidentRecord, authority: str, phase: str) -> Message:
    """Return the title of a report to an authority."""
    named = {one.id: one.message for one in rules_of(run, record).authorities}
    to = named.get(authority, verbatim(authority))
    if phase == Phase.FIRST:
        return _("first report to: {authority}", authority=to)
    return _("follow-up report to: {authority}", authority=to)
