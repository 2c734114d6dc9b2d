"""Words about an incident that pages, reports and documents share."""

from __future__ import annotations

from include.incident.entries import Reviewed
from include.incident.incident_run import IncidentRecord, IncidentRun, rules_of, scenario_of
from include.incident.names import Phase
from include.incident.timeline import Entry
from include.messages import Message, _, verbatim
from include.policy.rules import in_languages


def told(run: IncidentRun, record: IncidentRecord) -> Message:
    """What happened; in a drill the story, which the pack has in both languages."""
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


def marked(run: IncidentRun) -> Message | None:
    """What stands on every page of a drill's documents."""
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
