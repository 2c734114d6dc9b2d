"""Findings of the evidence report of an incident: late, changed, or unfinished."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from include.evidence.model import Finding, attention_finding, failure_finding
from include.incident import register
from include.incident import timeline as timelines
from include.incident.clocks import clock_words
from include.incident.clocks.clock import Clock, ClockState
from include.incident.clocks.milestones import declined
from include.incident.entries import EntryData, Reported
from include.incident.incident_run import IncidentRecord, IncidentRun, report_title
from include.incident.names import CLAUSE, Kind, State
from include.incident.timeline import Entry, last_of
from include.messages import Message, _

_failure = partial(failure_finding, clause=CLAUSE)
_attention = partial(attention_finding, clause=CLAUSE)


def late(clocks: Sequence[Clock]) -> list[Finding]:
    """Return a finding for each clock that ran out before its step was done."""
    return [
        _failure(
            code="incident.clock_ran_out",
            subject=clock.id,
            message=_(
                "“{title}” was due by {due}: {state}.",
                title=clock.rule.message,
                due=clock.due_at,
                state=clock_words.state(clock),
            ),
            action=_("Do it now, and enter when it was done.")
            if clock.state is ClockState.OVERDUE
            else _("Say in the summary why, and what is changed so that it does not come again."),
        )
        for clock in clocks
        if clock.is_late
    ]


def not_needed(run: IncidentRun, record: IncidentRecord) -> list[Finding]:
    """Return a finding for each report that a person said is not needed: no clock shows it now."""
    return [
        _attention(
            code="incident.report_not_needed",
            subject=f"{report.authority}/{report.phase}",
            message=_(
                "Not handed in, because {who} said that it is not needed: {report}. {words}",
                who=entry.by,
                report=report_title(run, record, report.authority, str(report.phase)),
                words=entry.words,
            ),
            action=_(
                "Have management confirm with the authority in writing that it is not needed, and "
                "keep the answer; else hand it in."
            ),
        )
        for entry in declined(record.entries)
        for report in [entry.as_(Reported)]
    ]


def corrected(record: IncidentRecord, made: Entry) -> list[Finding]:
    """Return a finding for each step that has to be done again: it does not ask by itself."""
    wrong = [entry for entry in record.entries if entry.place in made.as_(EntryData).voids]
    return [
        _attention(
            code="incident.corrected",
            subject=f"{record.incident.number}/{one.place}",
            message=_("It counts as not done: {words}", words=one.words),
            action=_(
                "Clear the task {step} in the incident's run in Airflow: it asks again.",
                step=one.as_(EntryData).step or "",
            )
            if one.as_(EntryData).step
            else _("Tell them, then enter it again (update_incident, action told_otherwise)."),
        )
        for one in wrong
        if one.kind is not Kind.TOLD
    ]


def mistakes(record: IncidentRecord) -> list[Finding]:
    """Return a finding for each entry that was corrected."""
    by_place = {entry.place: entry for entry in record.entries}
    return [
        _attention(
            code="incident.mistake",
            subject=f"{record.incident.number}/{wrong.place}",
            message=_(
                "{who} entered at {at}: {wrong} {by} entered at {later} that this was a mistake.",
                who=wrong.by,
                at=wrong.recorded_at,
                wrong=wrong.words,
                by=entry.by,
                later=entry.recorded_at,
            ),
            action=_("Look at both entries, and at what was entered in its place and when."),
        )
        for entry in record.entries
        if entry.kind is Kind.CORRECTED
        for wrong in (by_place[place] for place in entry.as_(EntryData).voids)
        if wrong.kind is not Kind.TOLD
    ]


def broken(record: IncidentRecord) -> list[Finding]:
    """Return a finding if the timeline, or the register that clocks start from, was changed."""
    number = record.incident.number
    messages: dict[str, Message] = {}
    if (fault := timelines.verify(number, record.entries)) is not None:
        messages["incident.timeline_broken"] = _(
            "The timeline does not hold at entry {place}: {reason}.",
            place=fault.place,
            reason=fault.reason,
        )
    if fields := register.changed(record.incident, record.entries):
        messages["incident.register_changed"] = _(
            "The register says otherwise than the first entry of the timeline: {fields}.",
            fields=", ".join(fields),
        )
    action = _("Somebody changed the state database: find out who; restore a copy beside it.")
    return [
        _failure(code=code, subject=number, message=message, action=action)
        for code, message in messages.items()
    ]


def unfinished(record: IncidentRecord) -> list[Finding]:
    """Return a finding if the run ends while its incident goes on."""
    one = record.incident
    summarised = last_of(record.entries, Kind.SUMMARISED)
    if not one.is_led or (one.state is State.CLOSED and summarised):
        return []
    return [
        _failure(
            code="incident.not_finished",
            subject=one.number,
            message=_(
                "The run ends, but {number} is not closed and summarised.", number=one.number
            ),
            action=_("Find the task that failed in Airflow, remove the cause, clear that task."),
        )
    ]


def duplicate(record: IncidentRecord) -> Finding:
    """Return the finding that another run leads the incident."""
    return _attention(
        code="incident.duplicate",
        subject=record.incident.number,
        message=_(
            "The same form was sent twice: it is {number}, and led there.",
            number=record.incident.duplicate_of or "",
        ),
        action=_("Was it another incident? Trigger it with “This is another incident”."),
    )
