"""Findings in the evidence report of an incident, such as missed time limits and mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from include.evidence.model import Finding, attention_finding, failure_finding
from include.incident import register
from include.incident import timeline as timelines
from include.incident.entries import EntryData, Reported
from include.incident.incident_ids import CLAUSE, Kind, State
from include.incident.incident_run import IncidentRecord, IncidentRun, report_title
from include.incident.step_titles import recorder_title, step_title
from include.incident.time_limits import time_limit_texts
from include.incident.time_limits.milestones import declined_reports
from include.incident.time_limits.time_limit import TimeLimit, TimeLimitState
from include.incident.timeline import Entry, last_of
from include.messages import Message, _, listed, verbatim

_failure = partial(failure_finding, clause=CLAUSE)
_attention = partial(attention_finding, clause=CLAUSE)

_FIELD_TITLES = {
    "type": _("type of the incident"),
    "aware_at": _("time of awareness"),
    "began_at": _("start of the incident"),
    "selection": _("scope entered by the team"),
    "duplicate_of": _("number of the incident that this entry duplicates"),
    "rules_sha256": _("incident rules that apply"),
    "clocks_sha256": _("time limits that apply"),
    "state": _("state of the incident"),
}
"""Titles of the compared fields of the register."""


def _incident(record: IncidentRecord) -> Message:
    return _("Incident {number}", number=record.incident.number)


def missed_time_limit_findings(time_limits: Sequence[TimeLimit]) -> list[Finding]:
    """Return a finding for each time limit that was missed."""
    return [
        _failure(
            code="incident.clock_ran_out",
            subject=time_limit.id,
            subject_title=time_limit.rule.message,
            message=_(
                "This action was due by {due}: {state}.",
                due=time_limit.due_at,
                state=time_limit_texts.state_text(time_limit),
            ),
            action=_("Complete this action now, then enter the time of completion.")
            if time_limit.state is TimeLimitState.OVERDUE
            else _(
                "Explain in the summary of the incident why this time limit was missed, and "
                "how the company will prevent a repetition."
            ),
        )
        for time_limit in time_limits
        if time_limit.is_late
    ]


def declined_report_findings(run: IncidentRun, record: IncidentRecord) -> list[Finding]:
    """Return a finding for each report to an authority that a person declared not needed.

    The declaration ends the time limit of the report. Only this finding shows that the report is
    missing.
    """
    return [
        _attention(
            code="incident.report_not_needed",
            subject=f"{report.authority}/{report.phase}",
            subject_title=_incident(record),
            message=_(
                "A report was not handed in, because {person} declared it not required: "
                "{report}. {reason}",
                person=entry.by,
                report=report_title(run, record, report.authority, str(report.phase)),
                reason=entry.words,
            ),
            action=_(
                "Have management confirm with the authority in writing that the report is not "
                "required, and keep the answer. Otherwise hand in the report."
            ),
        )
        for entry in declined_reports(record.entries)
        for report in [entry.as_(Reported)]
    ]


def corrected_step_findings(record: IncidentRecord, correction: Entry) -> list[Finding]:
    """Return a finding for each timeline entry that a correction declares to be a mistake.

    The work that such an entry records has to be done again. If the entry is the answer to a step,
    the finding asks to clear the task of the step in Airflow, because Airflow does not repeat the
    step otherwise.

    Args:
        record: incident with its timeline.
        correction: timeline entry of the correction.
    """
    voided = [entry for entry in record.entries if entry.place in correction.as_(EntryData).voids]
    return [
        _attention(
            code="incident.corrected",
            subject=f"{record.incident.number}/{entry.place}",
            subject_title=_incident(record),
            message=_(
                "An entry was declared a mistake, so the work that it records counts as "
                "not done: {entry}",
                entry=entry.words,
            ),
            action=_(
                "Ask the data engineers to repeat the step “{step}” in Airflow, then answer "
                "“{step}” again.",
                step=step_title(step),
            )
            if step
            else _(
                "Notify the people concerned, then trigger “Addition to an incident” and "
                "choose “People were notified in another way”."
            ),
            for_engineers=_(
                "In Airflow, open the run that handles this incident, and clear its task `{task}`.",
                task=step,
            )
            if step
            else None,
        )
        for entry in voided
        for step in [entry.as_(EntryData).step]
        if entry.kind is not Kind.TOLD
    ]


def mistake_findings(record: IncidentRecord) -> list[Finding]:
    """Return a finding for each timeline entry that any correction declares to be a mistake."""
    by_place = {entry.place: entry for entry in record.entries}
    return [
        _attention(
            code="incident.mistake",
            subject=f"{record.incident.number}/{wrong.place}",
            subject_title=_incident(record),
            message=_(
                "{corrector} recorded at {later} that an entry of {author}, made at {at}, was "
                "a mistake: {entry}",
                author=recorder_title(wrong.by),
                at=wrong.recorded_at,
                entry=wrong.words,
                corrector=entry.by,
                later=entry.recorded_at,
            ),
            action=_(
                "Review the mistaken entry, the entry that declares the mistake, and any "
                "later entry that replaces it."
            ),
        )
        for entry in record.entries
        if entry.kind is Kind.CORRECTED
        for wrong in (by_place[void] for void in entry.as_(EntryData).voids)
        if wrong.kind is not Kind.TOLD
    ]


def integrity_findings(record: IncidentRecord) -> list[Finding]:
    """Return a finding for each sign that the timeline or the register was changed.

    A changed timeline does not match its digests. A changed row of the register differs from the
    first timeline entry.

    Args:
        record: incident with its timeline.
    """
    number = record.incident.number
    messages: dict[str, Message] = {}
    if (fault := timelines.verify_timeline(number, record.entries)) is not None:
        messages["incident.timeline_broken"] = _(
            "The verification of the timeline failed at entry {position}: {reason}.",
            position=fault.place,
            reason=fault.reason,
        )
    if fields := register.changed_fields(record.incident, record.entries):
        messages["incident.register_changed"] = _(
            "The register of incidents differs from the first entry of the timeline: {fields}.",
            fields=listed([_FIELD_TITLES.get(field) or verbatim(field) for field in fields]),
        )
    action = _(
        "Find out who changed the state database. Ask the data engineers to restore a backup "
        "into a separate database, and to compare the two."
    )
    return [
        _failure(code=code, subject=number, message=message, action=action)
        for code, message in messages.items()
    ]


def unfinished_findings(record: IncidentRecord) -> list[Finding]:
    """Return a finding if the run of an incident ended too early.

    This is the case if the incident is not closed, or if its summary is missing. Otherwise, and for
    a duplicate or cancelled incident, return an empty list.

    Args:
        record: incident that the run handles, with its timeline.
    """
    incident = record.incident
    summarised = last_of(record.entries, Kind.SUMMARISED)
    if not incident.requires_steps or (incident.state is State.CLOSED and summarised):
        return []
    return [
        _failure(
            code="incident.not_finished",
            subject=incident.number,
            message=_(
                "The run ended, but incident {number} is not closed, or its summary is missing.",
                number=incident.number,
            ),
            action=_(
                "Ask the data engineers to correct the cause of the failed step, and to repeat "
                "the step in Airflow."
            ),
            for_engineers=_(
                "After the cause is corrected, clear the failed task of the run in Airflow."
            ),
        )
    ]


def duplicate_finding(record: IncidentRecord) -> Finding:
    """Return the finding that an incident is a duplicate of an incident of another run."""
    return _attention(
        code="incident.duplicate",
        subject=record.incident.number,
        message=_(
            "The same form was submitted twice. The incident is handled under {number}.",
            number=record.incident.duplicate_of or "",
        ),
        action=_(
            "If this is another incident, tick “This is another incident” and trigger the "
            "workflow again."
        ),
    )
