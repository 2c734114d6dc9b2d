"""The report of an incident: events, affected people, clocks, lessons and timeline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from include.approvals import registry
from include.evidence.model import Metric, Outcome, StepRecord
from include.incident import incident_run, register, report_findings
from include.incident import timeline as timelines
from include.incident.clocks import clock_words, response_times
from include.incident.clocks.clock import Clock, Why, clocks_of
from include.incident.clocks.milestones import declined, milestones
from include.incident.clocks.response_times import Figures, Handled, score, score_sheet
from include.incident.entries import Preserved, UpdateEntered
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    action_lines,
    record_in,
    record_of,
    rules_of,
    scenario_of,
    what_happened,
)
from include.incident.names import CLAUSE, STEP_PRESERVE, TIMELINE_FILE, Kind, State
from include.incident.scope import Scope
from include.incident.scope_words import scope_notes, scope_table
from include.incident.telling import notifying
from include.incident.timeline import last_of, of_kind
from include.incident.updating import enter_update
from include.messages import Message, _
from include.reports.conclusion import Conclusion
from include.reports.model import Fact, Paragraph, Section, Steps, must_be_zero, table_of
from include.workflow.run_records import RunRecords
from include.workflow.step import Step

_NOT_NAMED, _COMMAND = _("not named"), _("a command, in nobody's name,")


def about(run: IncidentRun, record: IncidentRecord) -> Section:
    """What happened, who noticed, who opened it."""
    one = record.incident
    lines = [
        _("What happened: {what}", what=what_happened(run, record)),
        _("Noticed by: {who}", who=one.noticed_by or _NOT_NAMED),
        _("Opened by {who} at {at}", who=one.opened_by or _COMMAND, at=one.opened_at),
    ]
    if scenario_of(run) is not None:
        lines.insert(0, _("DRILL: this is not a real incident."))
    return Section(heading=_("What happened"), blocks=[Paragraph(text=line) for line in lines])


def score_of(run: IncidentRun, clocks: Sequence[Clock]) -> list[Section]:
    """A drill's score sheet; nothing of a real incident."""
    if scenario_of(run) is None:
        return []
    points, most = score(clocks)
    words = _("{points} of {most} clocks were met.", points=points, most=most)
    return [Section(heading=_("Score sheet"), blocks=[Paragraph(text=words), score_sheet(clocks)])]


def times(clocks: Sequence[Clock]) -> Section:
    """Return the section of due times and of when they were met."""
    heading = _("Time limits and when they were met")
    return Section(heading=heading, blocks=[clock_words.clock_table(clocks)])


def affected(scope: Scope | None) -> list[Section]:
    """Whom and what it hit; nothing where nobody counted."""
    if scope is None:
        return []
    notes = [Paragraph(text=one) for one in scope_notes(scope)]
    return [Section(heading=_("What is affected"), blocks=[scope_table(scope), *notes])]


def delivery(delivered: Mapping[str, int]) -> list[Section]:
    """What became of the notices to people; nothing where there are none."""
    if not delivered:
        return []
    titles = {
        "pending": _("wait to be sent"),
        "sent": _("sent"),
        "withdrawn": _("taken back"),
        "undeliverable": _("could not be delivered"),
        "in_doubt": _("may have arrived"),
    }
    table = table_of(
        _("Notices to people"),
        delivered.items(),
        [
            (_("State"), "text", lambda row: titles[row[0]]),
            (_("People affected"), "number", lambda row: row[1]),
        ],
    )
    return [Section(heading=_("Notices to people"), blocks=[table])]


def learned(run: IncidentRun, record: IncidentRecord) -> list[Section]:
    """Lessons and corrective actions; nothing before the review."""
    found = of_kind(record.entries, Kind.REVIEWED)
    if not found:
        return []
    actions = [line for entry in found for line in action_lines(run, entry)]
    blocks: list[Paragraph | Steps] = [Paragraph(text=entry.words) for entry in found]
    return [
        Section(
            heading=_("Lessons and corrective actions"),
            blocks=[*blocks, *([Steps(items=actions)] if actions else [])],
        )
    ]


def timeline_of(record: IncidentRecord) -> Section:
    """Every entry, with the beginning of its digest; of a mistake that it is one."""
    counting = {one.place for one in record.valid}
    table = table_of(
        _("Each entry holds the digest of the one before"),
        record.entries,
        [
            (_("Entry"), "number", lambda entry: entry.place),
            (
                _("Happened"),
                "text",
                lambda entry: clock_words.happened(entry.happened_at, entry.recorded_at),
            ),
            (_("By"), "code", lambda entry: entry.by),
            (
                _("What was entered"),
                "text",
                lambda entry: (
                    entry.words
                    if entry.place in counting
                    else _("(does not count) {words}", words=entry.words)
                ),
            ),
            (_("Digest"), "code", lambda entry: entry.sha256[:12]),
        ],
    )
    return Section(heading=_("Timeline"), blocks=[table])


def register_of(run: IncidentRun, records: Sequence[IncidentRecord]) -> list[Section]:
    """How long all incidents took, by year; a drill knows of itself only, and says nothing."""
    if scenario_of(run) is not None:
        return []
    return [
        Section(heading=_("All incidents"), blocks=response_times.blocks(*_figures(run, records)))
    ]


def _figures(
    run: IncidentRun, records: Sequence[IncidentRecord]
) -> tuple[list[Figures], list[Handled]]:
    found = [
        response_times.handled(
            record.incident.number,
            record.incident.state,
            began_at=record.incident.began_at,
            aware_at=record.incident.aware_at,
            reached=milestones(record.entries),
            clocks=clocks_of(run, record),
        )
        for record in records
    ]
    return response_times.figures(found, run.zone), found


_TITLE = _("Incident response")
_DRILL = _("DRILL of the incident response")
_UPDATE = _("Addition to an incident")
NOTHING_OPENED = _("No incident was opened. See the findings, then trigger it again.")
NOTHING_ENTERED = _("Nothing was entered. See the findings, then trigger it again.")
_MENDED = {"incident.not_counted", "incident.list_not_frozen", "incident.not_extracted"}
ENTER = Step(
    name="enter",
    title=_("The update"),
    clause=CLAUSE,
    work=enter_update,
    result=UpdateEntered,
)
_STATES = {
    State.OPEN: _("open"),
    State.CLOSED: _("closed"),
    State.CANCELLED: _("cancelled"),
    State.DUPLICATE: _("duplicate"),
}


def conclude(run: IncidentRun, records: RunRecords) -> Conclusion:
    """Conclude the run of an incident, or of a drill."""
    with run.state.connect() as conn:
        opened = register.of_run(conn, run.run)
    if opened is None:  # the form, or the scenario, cannot be used
        return records.conclude(_TITLE, NOTHING_OPENED, lists_messages=False)
    return conclude_incident(run, opened.number, records.records)


def conclude_update(run: IncidentRun, records: RunRecords) -> Conclusion:
    """Conclude the run of an update."""
    entered = records.result(ENTER)
    if entered is None:
        return records.conclude(_UPDATE, NOTHING_ENTERED, lists_messages=False)
    return conclude_entry(run, record_of(run, entered.number), entered.entry, records.records)


def conclude_incident(run: IncidentRun, number: str, records: Sequence[StepRecord]) -> Conclusion:
    """Judge the run of an incident from its timeline and what its steps left.

    Args:
        run: the run or command.
        number: of the incident.
        records: of the run.
    """
    with run.state.connect() as conn:
        record = record_in(conn, number)
        approvals = registry.approvals_of(conn, run.run.dag_id, run.run.run_id)
        delivered = notifying.delivery(conn, number)
        every = [record_in(conn, incident.number) for incident in register.listed(conn)]
    scope = incident_run.latest_scope(run, record.incident.id)
    led_elsewhere = record.incident.state is State.DUPLICATE
    clocks = [] if led_elsewhere else clocks_of(run, record)
    findings = [
        *report_findings.late(clocks),
        *report_findings.not_needed(run, record),
        *report_findings.broken(record),
        *report_findings.unfinished(record),
        *report_findings.mistakes(record),
        *([report_findings.duplicate(record)] if led_elsewhere else []),
    ]
    return _measured([_mended(step, record, scope) for step in records]).conclude(
        _TITLE if scenario_of(run) is None else _DRILL,
        _summary(run, record, clocks),
        findings=findings,
        metrics=_metrics(record, clocks),
        facts=_facts(run, record, clocks, scope),
        sections=[
            about(run, record),
            *score_of(run, clocks),
            *([] if led_elsewhere else [times(clocks)]),
            *affected(scope),
            *delivery(delivered),
            *learned(run, record),
            timeline_of(record),
            *register_of(run, every),
        ],
        approvals=approvals,
        files={TIMELINE_FILE: timeline_file(record)},
        lists_messages=False,
    )


def _measured(records: Sequence[StepRecord]) -> RunRecords:
    """Return the records; if the list of people is frozen, only it says how many are affected."""
    listed = {metric.name for record in records if record.step == STEP_PRESERVE
              for metric in record.metrics}  # fmt: skip
    return RunRecords(
        [
            record
            if record.step == STEP_PRESERVE
            else record.model_copy(
                update={"metrics": [each for each in record.metrics if each.name not in listed]}
            )
            for record in records
        ]
    )


def _mended(step: StepRecord, record: IncidentRecord, scope: Scope | None) -> StepRecord:
    """What a step could not do and an addition did since needs a look, and is no failure."""
    secured = last_of(record.entries, Kind.PRESERVED)
    done = (
        scope is not None
        and scope.complete
        and secured is not None
        and secured.as_(Preserved).complete
    )
    red = [finding for finding in step.findings if finding.severity is Outcome.FAIL]
    if not done or not red or any(one.code not in _MENDED for one in red):
        return step
    findings = [
        finding.model_copy(
            update={
                "severity": Outcome.ATTENTION,
                "message": _("{message} It was done later.", message=finding.message),
                "action": _("Nothing; see the timeline for when."),
            }
        )
        if finding in red
        else finding
        for finding in step.findings
    ]
    return step.model_copy(update={"findings": findings, "outcome": Outcome.ATTENTION})


def conclude_entry(
    run: IncidentRun,
    record: IncidentRecord,
    entry: int,
    records: Sequence[StepRecord],
) -> Conclusion:
    """Judge what was added to an incident.

    Args:
        run: the run or command.
        record: the incident.
        entry: place of the entry that was made.
        records: of the run.
    """
    made = next(one for one in record.entries if one.place == entry)
    scope = incident_run.latest_scope(run, record.incident.id)
    clocks = clocks_of(run, record)
    return _measured(records).conclude(
        _UPDATE,
        _("{number}, entry {place}: {words}", number=record.incident.number, place=entry,
          words=made.words),
        findings=[*report_findings.corrected(record, made), *report_findings.broken(record)],
        facts=_facts(run, record, clocks, scope),
        sections=[
            times(clocks),
            *affected(scope),
            timeline_of(record),
        ],
        files={TIMELINE_FILE: timeline_file(record)},
        lists_messages=False,
    )  # fmt: skip


def timeline_file(record: IncidentRecord) -> bytes:
    """The timeline as a file of the bundle: one entry a line, with the digests that chain them."""
    lines = []
    for entry in record.entries:
        row = timelines.as_row(entry) | {"sha256": entry.sha256, "incident": record.incident.number}
        row["recorded_at"] = timelines.in_utc(entry.recorded_at)
        row["happened_at"] = timelines.in_utc(entry.happened_at)
        lines.append(json.dumps(row, ensure_ascii=False, sort_keys=True))
    return ("\n".join(lines) + "\n").encode()


def _summary(run: IncidentRun, record: IncidentRecord, clocks: Sequence[Clock]) -> Message:
    one, late = record.incident, [clock for clock in clocks if clock.is_late]
    values = {"number": one.number, "type": rules_of(run, record).type(one.type).message}
    if scenario_of(run) is not None:
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
    if unneeded := declined(record.entries):
        return _(
            "{number}, {type}: nothing ran out, but {count} reports were said not to be needed.",
            count=len(unneeded),
            **values,
        )
    return _("{number}, {type}: everything that was due was done in time.", **values)


def _metrics(record: IncidentRecord, clocks: Sequence[Clock]) -> list[Metric]:
    if record.incident.state is State.DUPLICATE:  # what is led elsewhere is judged there
        return []
    reports = [clock for clock in clocks if clock.rule.ends == "reported"]
    people = [clock for clock in clocks if clock.rule.ends == "individuals_told"]
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
    return None if not late and any(clock.why is Why.NOT_NEEDED for clock in reports) else late


def _shown_late(clocks: Sequence[Clock]) -> int | None:
    """Return how many ran out; None where none did and one still runs: nobody knows yet."""
    late = _ran_out(clocks)
    return None if not late and any(clock.is_open for clock in clocks) else late


def _ran_out(clocks: Sequence[Clock]) -> int:
    return sum(clock.is_late for clock in clocks)


def _facts(
    run: IncidentRun, record: IncidentRecord, clocks: Sequence[Clock], scope: Scope | None
) -> list[Fact]:
    one = record.incident
    ran_out = _ran_out(clocks)
    return [
        Fact(
            label=_("Grade"),
            value=rules_of(run, record).grade(record.grade).message if record.grade else None,
            note=_STATES[one.state],
        ),
        Fact(label=_("People affected"), value=scope.subjects if scope and scope.counted else None),
        Fact(
            label=_("Periods that ran out"),
            value=ran_out,
            status=must_be_zero(ran_out),
        ),
        Fact(label=_("Became known"), value=one.aware_at),
    ]
