"""What the evidence report of an incident finds: what came late, was changed, or is not done."""

from __future__ import annotations

from collections.abc import Sequence

from include.evidence.model import Finding, Outcome
from include.incident import register
from include.incident import timeline as timelines
from include.incident.clocks import clock_words
from include.incident.clocks.clock import Clock, ClockState
from include.incident.clocks.milestones import declined
from include.incident.entries import EntryData, Reported
from include.incident.incident_run import IncidentRecord, IncidentRun, report_title
from include.incident.names import CLAUSE, Kind, State
from include.incident.timeline import Entry, last_of
from include.messages import _


def late(clocks: Sequence[Clock]) -> list[Finding]:
    """Each clock that ran out before its step was done."""
    return [
        Finding(
            code="incident.clock_ran_out",
            severity=Outcome.FAIL,
            subject=one.id,
            message=_(
                "“{title}” was due by {due}: {state}.",
                title=one.rule.message,
                due=one.due_at,
                state=clock_words.state(one),
            ),
            action=_("Do it now, and enter when it was done.")
            if one.state is ClockState.OVERDUE
            else _("Say in the summary why, and what is changed so that it does not come again."),
            clause=CLAUSE,
        )
        for one in clocks
        if one.is_late
    ]


def not_needed(run: IncidentRun, record: IncidentRecord) -> list[Finding]:
    """Each report that one person said need not be handed in: no clock shows it any more."""
    return [
        Finding(
            code="incident.report_not_needed",
            severity=Outcome.ATTENTION,
            subject=f"{report.authority}/{report.phase}",
            message=_(
                "Not handed in, because {who} said that it is not needed: {report}. {words}",
                who=one.by,
                report=report_title(run, record, report.authority, str(report.phase)),
                words=one.words,
            ),
            action=_(
                "Have management confirm with the authority in writing that it is not needed, and "
                "keep the answer; else hand it in."
            ),
            clause=CLAUSE,
        )
        for one in declined(record.entries)
        for report in [one.as_(Reported)]
    ]


def corrected(record: IncidentRecord, made: Entry) -> list[Finding]:
    """That a step whose answer was a mistake has to be done again: it does not ask by itself."""
    wrong = [one for one in record.entries if one.place in made.as_(EntryData).voids]
    return [
        Finding(
            code="incident.corrected",
            severity=Outcome.ATTENTION,
            subject=f"{record.incident.number}/{one.place}",
            message=_("It counts as not done: {words}", words=one.words),
            action=_(
                "Clear the task {step} in the incident's run in Airflow: it asks again.",
                step=one.as_(EntryData).step or "",
            )
            if one.as_(EntryData).step
            else _("Tell them, then enter it again (update_incident, action told_otherwise)."),
            clause=CLAUSE,
        )
        for one in wrong
        if one.kind is not Kind.TOLD
    ]


def mistakes(record: IncidentRecord) -> list[Finding]:
    """Each entry that was corrected: somebody should look why, and at what was entered since."""
    by_place = {one.place: one for one in record.entries}
    return [
        Finding(
            code="incident.mistake",
            severity=Outcome.ATTENTION,
            subject=f"{record.incident.number}/{wrong.place}",
            message=_(
                "{who} entered at {at}: {wrong} {by} entered at {later} that this was a mistake.",
                who=wrong.by,
                at=wrong.recorded_at,
                wrong=wrong.words,
                by=one.by,
                later=one.recorded_at,
            ),
            action=_("Look at both entries, and at what was entered in its place and when."),
            clause=CLAUSE,
        )
        for one in record.entries
        if one.kind is Kind.CORRECTED
        for wrong in (by_place[place] for place in one.as_(EntryData).voids)
        if wrong.kind is not Kind.TOLD
    ]


def broken(record: IncidentRecord) -> list[Finding]:
    """That somebody changed the timeline, or what clocks start from."""
    return [*_chain(record), *_register(record)]


def _register(record: IncidentRecord) -> list[Finding]:
    """What clocks start from, where the register has it otherwise than the timeline."""
    fields = register.changed(record.incident, record.entries)
    if not fields:
        return []
    return [
        Finding(
            code="incident.register_changed",
            severity=Outcome.FAIL,
            subject=record.incident.number,
            message=_(
                "The register says otherwise than the first entry of the timeline: {fields}.",
                fields=", ".join(fields),
            ),
            action=_(
                "Somebody changed the state database: find out who; restore a copy beside it."
            ),
            clause=CLAUSE,
        )
    ]


def _chain(record: IncidentRecord) -> list[Finding]:
    broken = timelines.verify(record.incident.number, record.entries)
    if broken is None:
        return []
    return [
        Finding(
            code="incident.timeline_broken",
            severity=Outcome.FAIL,
            subject=record.incident.number,
            message=_(
                "The timeline does not hold at entry {place}: {reason}.",
                place=broken.place,
                reason=broken.reason,
            ),
            action=_(
                "Somebody changed the state database: find out who; restore a copy beside it."
            ),
            clause=CLAUSE,
        )
    ]


def unfinished(record: IncidentRecord) -> list[Finding]:
    """That a run ends though its incident does not."""
    one = record.incident
    summarised = last_of(record.entries, Kind.SUMMARISED)
    if not one.is_led or (one.state is State.CLOSED and summarised):
        return []
    return [
        Finding(
            code="incident.not_finished",
            severity=Outcome.FAIL,
            subject=one.number,
            message=_(
                "The run ends, but {number} is not closed and summarised.", number=one.number
            ),
            action=_("Find the task that failed in Airflow, remove the cause, clear that task."),
            clause=CLAUSE,
        )
    ]


def duplicate(record: IncidentRecord) -> Finding:
    """That it is led elsewhere."""
    return Finding(
        code="incident.duplicate",
        severity=Outcome.ATTENTION,
        subject=record.incident.number,
        message=_(
            "The same form was sent twice: it is {number}, and led there.",
            number=record.incident.duplicate_of or "",
        ),
        action=_("Was it another incident? Trigger it with “This is another incident”."),
        clause=CLAUSE,
    )
