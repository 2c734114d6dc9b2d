"""Access to an incident from a run or command: its timeline, rules, counts and texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection, select

from include.incident import register, timeline
from include.incident.entries import Reviewed
from include.incident.incident_ids import UPDATES, Phase
from include.incident.register import Incident, apply_snapshot
from include.incident.rules import IncidentRules, Scenario
from include.incident.scope import Scope
from include.incident.tables import incident_scope
from include.incident.time_limits.milestones import confirmed_grades, valid_entries
from include.incident.timeline import Entry
from include.messages import Message, _, verbatim
from include.policy.rules import translated_message
from include.services.errors import ControlFailed, UsageError
from include.workflow.run_context import RunContext

IncidentRun: TypeAlias = RunContext[IncidentRules]

SCENARIO = "tabletop"
"""Parameter of `respond_to_incident`: the scenario of a drill; empty for a real incident."""

NUMBER = "incident"
"""Parameter of `update_incident`: number of the incident."""


@dataclass(frozen=True)
class IncidentRecord:
    """An incident of the register with its timeline.

    Attributes:
        incident: row of the register.
        entries: entries of the timeline, oldest first.
    """

    incident: Incident
    entries: Sequence[Entry]

    @property
    def valid(self) -> list[Entry]:
        """The timeline entries without those that a correction declares to be mistakes.

        The oldest entry comes first.
        """
        return valid_entries(self.entries)

    @property
    def grade(self) -> str | None:
        """The grade that was last confirmed on the timeline; None before the first confirmation.

        `Incident.grade` comes from the register, where no digest protects it. So it is used only
        for lists.
        """
        confirmed = confirmed_grades(self.entries)
        return confirmed[-1].grade if confirmed else None


def record_in(conn: Connection, number: str) -> IncidentRecord:
    """Read an incident with its timeline in the transaction of a connection.

    Raises:
        UsageError: the incident does not exist.
    """
    incident = register.get_incident(conn, number)
    return IncidentRecord(incident, timeline.entries(conn, incident.id))


def record_of(run: IncidentRun, number: str) -> IncidentRecord:
    """Read an incident with its timeline in a new transaction.

    Raises:
        UsageError: the incident does not exist.
    """
    with run.state.connect() as conn:
        return record_in(conn, number)


def incident_number(run: IncidentRun) -> str:
    """Return the incident number entered in the form of an update, trimmed and in capitals."""
    return str(run.parameters.get(NUMBER) or "").strip().upper()


def incident_of(run: IncidentRun) -> IncidentRecord:
    """Return the incident that a run registered, or the incident that the form of an update names.

    Raises:
        ControlFailed: the run registered no incident.
        UsageError: the incident that the form names does not exist.
    """
    if run.run.dag_id == UPDATES:
        return record_of(run, incident_number(run))
    with run.state.connect() as conn:
        opened = register.find_by_run(conn, run.run)
        if opened is None:
            raise ControlFailed("This run opened no incident.", "Trigger the workflow again.")
        return record_in(conn, opened.number)


def rules_of(run: IncidentRun, record: IncidentRecord) -> IncidentRules:
    """Return the rules that apply to an incident.

    These are the current rules, but parts of them are replaced by the rules that were stored when
    the incident was opened; see `apply_snapshot`.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
    """
    return apply_snapshot(run.rules, record.incident.kept, record.incident.clocks)


def scenario_of(run: IncidentRun) -> Scenario | None:
    """Return the scenario of a drill; None for a real incident.

    Raises:
        UsageError: incident.yaml has no such scenario.
    """
    name = str(run.parameters.get(SCENARIO) or "")
    if not name:
        return None
    scenario = next((item for item in run.rules.scenarios if item.id == name), None)
    if scenario is None:
        raise UsageError(f"incident.yaml has no scenario {name}.")
    return scenario


def store_scope(conn: Connection, run: IncidentRun, incident_id: int, counted: Scope) -> None:
    """Store a new version of an incident's scope.

    Args:
        conn: connection to the state database, in a transaction that holds the incident's lock.
        run: services and rules of the current run or command.
        incident_id: id of the incident.
        counted: scope with a version number that is not stored yet.
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
    """Return all versions of an incident's scope, oldest first."""
    query = (
        select(incident_scope.c.counts)
        .where(incident_scope.c.incident_id == incident_id)
        .order_by(incident_scope.c.version)
    )
    return [Scope.model_validate(counts) for counts in conn.scalars(query)]


def latest_scope(run: IncidentRun, incident_id: int) -> Scope | None:
    """Return the newest version of an incident's scope, or None before the first count."""
    with run.state.connect() as conn:
        counted = scopes(conn, incident_id)
    return counted[-1] if counted else None


def require_scope(run: IncidentRun, incident_id: int) -> Scope:
    """Return the newest version of an incident's scope.

    Raises:
        ControlFailed: the affected records were never counted.
    """
    counted = latest_scope(run, incident_id)
    if counted is None:
        raise ControlFailed(
            "The affected records were not counted.", "Clear the task `assess` of this run."
        )
    return counted


def sender_address(run: IncidentRun) -> Message | None:
    """Return the postal address of the company for letters; None if the policy pack states none.

    The rules of an incident are those that applied when it opened. If they name another company
    than the present policy pack, the address is left out.
    """
    company = run.pack.company
    if company is None or company.name != run.rules.company:
        return None
    return company.address_message


def what_happened(run: IncidentRun, record: IncidentRecord) -> Message:
    """Return the description of an incident. In a drill, it is the story of the scenario."""
    scenario = scenario_of(run)
    return translated_message(scenario.story) if scenario else verbatim(record.incident.what)


def action_lines(run: IncidentRun, reviewed: Entry) -> list[Message]:
    """Return a display text for each corrective action that was entered in a review.

    Each text has the action, the finding and the owner.

    Args:
        run: services and rules of the current run or command.
        reviewed: timeline entry of the review.
    """
    return [
        _(
            "{action} (finding {finding}, owner: {owner})",
            action=action.what,
            finding=action.finding,
            owner=translated_message(run.roles[action.owner].title)
            if action.owner in run.roles
            else action.owner,
        )
        for action in reviewed.as_(Reviewed).actions
    ]


def drill_mark(run: IncidentRun) -> Message | None:
    """Return the text that is printed on every page of a drill's documents.

    It says that the document belongs to a drill. Return None if the run is not a drill.
    """
    if scenario_of(run) is None:
        return None
    return _("DRILL: this is not a real incident. Do not hand it in.")


def report_title(run: IncidentRun, record: IncidentRecord, authority: str, phase: str) -> Message:
    """Return the title of a first or follow-up report to an authority."""
    titles = {authority.id: authority.message for authority in rules_of(run, record).authorities}
    title = titles.get(authority, verbatim(authority))
    if phase == Phase.FIRST:
        return _("first report to: {authority}", authority=title)
    return _("follow-up report to: {authority}", authority=title)
