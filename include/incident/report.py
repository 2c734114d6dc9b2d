"""What the evidence of an incident says: by when what was due and done, what, whom, and the end."""

from __future__ import annotations

import json
from collections.abc import Sequence

from include.approvals import registry
from include.evidence.model import Metric, Outcome, StepRecord
from include.incident import register, report_findings
from include.incident import report_sections as sections
from include.incident import timeline as timelines
from include.incident.clocks.clock import Clock, Why
from include.incident.clocks.milestones import declined
from include.incident.clocks.standing import clocks_of
from include.incident.desk import Desk, File, file_of
from include.incident.names import STEP_PRESERVE, Kind, State
from include.incident.scope import Scope
from include.incident.telling import reached
from include.incident.timeline import last_of
from include.messages import Message, _
from include.reports.conclusion import Conclusion, nothing_done, worst
from include.reports.model import Fact

TIMELINE = "timeline.jsonl"
_TITLE = _("Incident response")
_DRILL = _("DRILL of the incident response")
_UPDATE = _("Addition to an incident")
_MENDED = {"incident.not_counted", "incident.list_not_frozen", "incident.not_extracted"}
_STATES = {
    State.OPEN: _("open"),
    State.CLOSED: _("closed"),
    State.CANCELLED: _("cancelled"),
    State.DUPLICATE: _("duplicate"),
}


def conclude(
    desk: Desk, number: str, scope: Scope | None, records: Sequence[StepRecord]
) -> Conclusion:
    """Judge the run of an incident from its timeline and what its steps left.

    Args:
        desk: of the incident.
        number: of the incident.
        scope: what is affected, as it was counted last; None where nobody counted.
        records: of the run.
    """
    with desk.state.connect() as conn:
        file = file_of(conn, number)
        approvals = registry.approvals_of(conn, desk.run.dag_id, desk.run.run_id)
        delivered = reached.delivery(conn, number)
        every = [file_of(conn, one.number) for one in register.listed(conn)]
    led_elsewhere = file.incident.state is State.DUPLICATE
    clocks = [] if led_elsewhere else clocks_of(desk, file)
    records = [_mended(one, file, scope) for one in records]
    told = [finding for record in records for finding in record.findings]
    told += [
        *report_findings.late(clocks),
        *report_findings.not_needed(desk, file),
        *report_findings.broken(file),
        *report_findings.unfinished(file),
        *report_findings.mistakes(file),
    ]
    if led_elsewhere:
        told.append(report_findings.duplicate(file))
    return Conclusion(
        title=_TITLE if desk.scenario is None else _DRILL,
        summary=_summary(desk, file, clocks),
        outcome=worst(records, told),
        findings=told,
        metrics=[*_measured(records), *_metrics(file, clocks)],
        facts=_facts(desk, file, clocks, scope),
        sections=[
            sections.about(desk, file),
            *sections.score_of(desk, clocks),
            *([] if led_elsewhere else [sections.times(clocks)]),
            *sections.affected(scope),
            *sections.delivery(delivered),
            *sections.learned(desk, file),
            sections.timeline_of(file),
            *sections.register_of(desk, every),
        ],
        approvals=approvals,
    )


def _measured(records: Sequence[StepRecord]) -> list[Metric]:
    """What steps measured; how many people are affected, the frozen list says if there is one."""
    listed = {one.name for record in records if record.step == STEP_PRESERVE
              for one in record.metrics}  # fmt: skip
    return [
        one
        for record in records
        for one in record.metrics
        if record.step == STEP_PRESERVE or one.name not in listed
    ]


def _mended(record: StepRecord, file: File, scope: Scope | None) -> StepRecord:
    """What a step could not do and an addition did since needs a look, and is no failure."""
    secured = last_of(file.entries, Kind.PRESERVED)
    done = scope is not None and scope.complete and secured is not None and secured.data["complete"]
    red = [one for one in record.findings if one.severity is Outcome.FAIL]
    if not done or not red or any(one.code not in _MENDED for one in red):
        return record
    findings = [
        one.model_copy(
            update={
                "severity": Outcome.ATTENTION,
                "message": _("{message} It was done later.", message=one.message),
                "action": _("Nothing; see the timeline for when."),
            }
        )
        if one in red
        else one
        for one in record.findings
    ]
    return record.model_copy(update={"findings": findings, "outcome": Outcome.ATTENTION})


def nothing_opened(records: Sequence[StepRecord]) -> Conclusion:
    """Say that no incident was opened: the form could not be used, or the pack has no rules."""
    summary = _("No incident was opened. See the findings, then trigger it again.")
    return nothing_done(_TITLE, summary, records)


def conclude_update(
    desk: Desk, file: File, scope: Scope | None, entry: int, records: Sequence[StepRecord]
) -> Conclusion:
    """Judge what was added to an incident.

    Args:
        desk: of the incident.
        file: the incident.
        scope: what is affected, as it was counted last.
        entry: place of the entry that was made.
        records: of the run.
    """
    made = next(one for one in file.entries if one.place == entry)
    told = [finding for record in records for finding in record.findings]
    told += [*report_findings.corrected(file, made), *report_findings.broken(file)]
    clocks = clocks_of(desk, file)
    return Conclusion(
        title=_UPDATE,
        summary=_("{number}, entry {place}: {words}", number=file.incident.number, place=entry,
                  words=made.words),
        outcome=worst(records, told),
        findings=told,
        metrics=_measured(records),
        facts=_facts(desk, file, clocks, scope),
        sections=[
            sections.times(clocks),
            *sections.affected(scope),
            sections.timeline_of(file),
        ],
    )  # fmt: skip


def nothing_entered(records: Sequence[StepRecord]) -> Conclusion:
    """Say that an update was not entered."""
    summary = _("Nothing was entered. See the findings, then trigger it again.")
    return nothing_done(_UPDATE, summary, records)


def timeline_file(file: File) -> bytes:
    """The timeline as a file of the bundle: one entry a line, with the digests that chain them."""
    lines = []
    for one in file.entries:
        row = timelines.as_row(one) | {"sha256": one.sha256, "incident": file.incident.number}
        row["recorded_at"] = timelines.in_utc(one.recorded_at)
        row["happened_at"] = timelines.in_utc(one.happened_at)
        lines.append(json.dumps(row, ensure_ascii=False, sort_keys=True))
    return ("\n".join(lines) + "\n").encode()


def _summary(desk: Desk, file: File, clocks: Sequence[Clock]) -> Message:
    one, late = file.incident, [clock for clock in clocks if clock.is_late]
    values = {"number": one.number, "type": desk.rules_of(file).type(one.type).message}
    if desk.scenario is not None:
        return _(
            "DRILL {number}, {type}: {late} of {all} periods ran out. Nothing left the sandbox.",
            late=len(late),
            all=len([clock for clock in clocks if clock.due_at]),
            **values,
        )
    if one.state is State.DUPLICATE:
        return _(
            "{number} is the same as {first}.", number=one.number, first=one.duplicate_of or ""
        )
    if one.state is State.CANCELLED:
        return _("{number}, {type}: cancelled, it was none.", **values)
    if late:
        return _("{number}, {type}: {late} periods ran out.", late=len(late), **values)
    if one.state is State.OPEN:
        return _("{number}, {type}: not closed yet; nothing ran out so far.", **values)
    if running := [clock for clock in clocks if clock.is_open]:
        return _(
            "{number}, {type}: nothing ran out so far, but {count} periods still run.",
            count=len(running),
            **values,
        )
    if unneeded := declined(file.entries):
        return _(
            "{number}, {type}: nothing ran out, but {count} reports were said not to be needed.",
            count=len(unneeded),
            **values,
        )
    return _("{number}, {type}: everything that was due was done in time.", **values)


def _metrics(file: File, clocks: Sequence[Clock]) -> list[Metric]:
    if file.incident.state is State.DUPLICATE:  # what is led elsewhere is judged there
        return []
    reports = [one for one in clocks if one.rule.ends == "reported"]
    people = [one for one in clocks if one.rule.ends == "individuals_told"]
    return [
        Metric(name="incident.clocks_ran_out", value=_shown_late(clocks), unit="1"),
        Metric(name="incident.reports_late", value=_reports_late(reports), unit="1"),
        Metric(name="incident.people_told_late", value=_shown_late(people), unit="1"),
    ]


def _reports_late(reports: Sequence[Clock]) -> int | None:
    """How many; None where none was, and one was not handed in because a person said so.

    Then nobody has shown that authorities were told in time.
    """
    late = _shown_late(reports)
    return None if not late and any(one.why is Why.NOT_NEEDED for one in reports) else late


def _shown_late(clocks: Sequence[Clock]) -> int | None:
    """How many ran out; None where none did and one still runs: nobody knows yet."""
    late = _ran_out(clocks)
    return None if not late and any(one.is_open for one in clocks) else late


def _ran_out(clocks: Sequence[Clock]) -> int:
    return sum(one.is_late for one in clocks)


def _facts(desk: Desk, file: File, clocks: Sequence[Clock], scope: Scope | None) -> list[Fact]:
    one = file.incident
    ran_out = _ran_out(clocks)
    return [
        Fact(
            label=_("Grade"),
            value=desk.rules_of(file).grade(file.grade).message if file.grade else None,
            note=_STATES[one.state],
        ),
        Fact(label=_("People affected"), value=scope.subjects if scope and scope.counted else None),
        Fact(
            label=_("Periods that ran out"),
            value=ran_out,
            status=Outcome.FAIL if ran_out else Outcome.PASS,
        ),
        Fact(label=_("Became known"), value=one.aware_at),
    ]
