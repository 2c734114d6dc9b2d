"""Create the evidence report of an incident from its timeline and step records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from include.approvals import registry
from include.evidence.model import Metric, Outcome, StepRecord
from include.incident import incident_run, register, report_findings
from include.incident import timeline as timelines
from include.incident.communication import notices
from include.incident.entries import Preserved, UpdateEntered
from include.incident.incident_ids import CLAUSE, STEP_PRESERVE, TIMELINE_FILE, Kind, State
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
from include.incident.scope import Scope
from include.incident.scope_texts import scope_notes, scope_table
from include.incident.step_titles import recorder_title
from include.incident.time_limits import response_times, time_limit_texts
from include.incident.time_limits.milestones import declined_reports, milestones
from include.incident.time_limits.response_times import (
    IncidentTimes,
    YearStatistics,
    drill_score,
    score_sheet,
)
from include.incident.time_limits.time_limit import InactiveReason, TimeLimit, time_limits_of
from include.incident.timeline import last_of, of_kind
from include.incident.updates import enter_update
from include.messages import Message, _
from include.policy.datamap import MappedDatabase
from include.reports.conclusion import Conclusion
from include.reports.model import (
    Fact,
    Paragraph,
    Section,
    SignatureLine,
    Steps,
    must_be_zero,
    signature_section,
    table_of,
)
from include.workflow.run_records import RunRecords
from include.workflow.step import Step

_NOT_NAMED, _COMMAND = _("name not stated"), _("command line; the name was not stated")


def event_section(run: IncidentRun, record: IncidentRecord) -> Section:
    """Return the report section about what happened, who noticed it and who opened the incident."""
    incident = record.incident
    lines = [
        _("Description: {description}", description=what_happened(run, record)),
        _("Noticed by: {source}", source=incident.noticed_by or _NOT_NAMED),
        _(
            "Registered by: {person}, at {at}",
            person=incident.opened_by or _COMMAND,
            at=incident.opened_at,
        ),
    ]
    if scenario_of(run) is not None:
        lines.insert(0, _("DRILL: this is not a real incident."))
    return Section(
        heading=_("Description of the incident"), blocks=[Paragraph(text=line) for line in lines]
    )


def score_sections(run: IncidentRun, time_limits: Sequence[TimeLimit]) -> list[Section]:
    """Return the report section with the score of a drill; an empty list for a real incident."""
    if scenario_of(run) is None:
        return []
    points, maximum = drill_score(time_limits)
    words = _("{met} of {total} time limits of the drill were met.", met=points, total=maximum)
    return [
        Section(
            heading=_("Score sheet of the drill"),
            blocks=[Paragraph(text=words), score_sheet(time_limits)],
        )
    ]


def deadline_section(time_limits: Sequence[TimeLimit]) -> Section:
    """Return the report section with a table of all time limits, their deadlines and outcomes."""
    heading = _("Time limits, and when each was met")
    return Section(heading=heading, blocks=[time_limit_texts.time_limit_table(time_limits)])


def affected_sections(
    scope: Scope | None, databases: Mapping[str, MappedDatabase]
) -> list[Section]:
    """Return the report section about affected people and records, as a list with one element.

    The list is empty if nothing was counted yet.

    Args:
        scope: scope of the incident; None if nothing was counted yet.
        databases: mapped databases by name, whose titles the section contains.
    """
    if scope is None:
        return []
    notes = [Paragraph(text=note) for note in scope_notes(scope, databases)]
    return [
        Section(heading=_("Scope of the incident"), blocks=[scope_table(scope, databases), *notes])
    ]


def delivery_sections(delivered: Mapping[str, int]) -> list[Section]:
    """Return the report section with the delivery of notices to affected people.

    Return an empty list if the incident has no notices.

    Args:
        delivered: number of notices by delivery state.
    """
    if not delivered:
        return []
    titles = {
        "pending": _("waiting to be sent"),
        "sent": _("sent"),
        "withdrawn": _("withdrawn"),
        "undeliverable": _("could not be delivered"),
        "in_doubt": _("delivery could not be confirmed"),
    }
    table = table_of(
        _("Notices to affected people"),
        delivered.items(),
        [
            (_("State"), "text", lambda row: titles[row[0]]),
            (_("People affected"), "number", lambda row: row[1]),
        ],
    )
    return [Section(heading=_("Notices to affected people"), blocks=[table])]


def lesson_sections(run: IncidentRun, record: IncidentRecord) -> list[Section]:
    """Return the report section with the lessons and corrective actions of the review.

    Return an empty list before the review.
    """
    reviews = of_kind(record.entries, Kind.REVIEWED)
    if not reviews:
        return []
    actions = [line for entry in reviews for line in action_lines(run, entry)]
    blocks: list[Paragraph | Steps] = [Paragraph(text=entry.words) for entry in reviews]
    return [
        Section(
            heading=_("Lessons and corrective actions"),
            blocks=[*blocks, *([Steps(items=actions)] if actions else [])],
        )
    ]


def timeline_section(record: IncidentRecord) -> Section:
    """Return the report section with every timeline entry and the first characters of its digest.

    Entries that a correction declares to be mistakes are marked.

    Args:
        record: incident with its timeline.
    """
    valid_places = {entry.place for entry in record.valid}
    table = table_of(
        _("Each entry contains the digest of the previous entry"),
        record.entries,
        [
            (_("Entry"), "number", lambda entry: entry.place),
            (
                _("Time of the event"),
                "text",
                lambda entry: time_limit_texts.occurrence_text(
                    entry.happened_at, entry.recorded_at
                ),
            ),
            (_("Recorded by"), "text", lambda entry: recorder_title(entry.by)),
            (
                _("Entered text"),
                "text",
                lambda entry: (
                    entry.words
                    if entry.place in valid_places
                    else _("(declared a mistake; no longer valid) {entry}", entry=entry.words)
                ),
            ),
            (_("Digest"), "code", lambda entry: entry.sha256[:12]),
        ],
    )
    return Section(heading=_("Timeline"), blocks=[table])


def statistics_sections(run: IncidentRun, records: Sequence[IncidentRecord]) -> list[Section]:
    """Return the report section with statistics of all incidents: response times by year.

    Return an empty list for a drill.
    """
    if scenario_of(run) is not None:
        return []
    return [
        Section(
            heading=_("All incidents"),
            blocks=response_times.report_blocks(*_incident_statistics(run, records)),
        )
    ]


def _incident_statistics(
    run: IncidentRun, records: Sequence[IncidentRecord]
) -> tuple[list[YearStatistics], list[IncidentTimes]]:
    times = [
        response_times.measure_incident(
            record.incident.number,
            record.incident.state,
            began_at=record.incident.began_at,
            aware_at=record.incident.aware_at,
            reached=milestones(record.entries),
            time_limits=time_limits_of(run, record),
        )
        for record in records
    ]
    return response_times.yearly_statistics(times, run.zone), times


_TITLE = _("Incident response")
_DRILL = _("DRILL of an incident response")
_UPDATE = _("Addition to an incident")
_SIGNATURES = signature_section(
    SignatureLine(role=_("Head of the incident team")), SignatureLine(role=_("Management"))
)
NOTHING_OPENED = _(
    "No incident was opened. Read the findings of this run for the reason, then "
    "trigger the workflow again."
)
NOTHING_ENTERED = _(
    "Nothing was added to the incident. Read the findings of this run for the "
    "reason, then trigger the workflow again."
)
_REPAIRABLE_CODES = {"incident.not_counted", "incident.list_not_frozen", "incident.not_extracted"}
ENTER = Step(
    name="enter",
    title=_("Recording of the addition to the incident"),
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
    """Return the report of a run of `respond_to_incident`, for a real incident or a drill.

    If the run opened no incident, the report says so.
    """
    with run.state.connect() as conn:
        opened = register.find_by_run(conn, run.run)
    if opened is None:  # the form was invalid, or the scenario does not exist
        return records.conclude(_TITLE, NOTHING_OPENED, lists_messages=False)
    return conclude_incident(run, opened.number, records.records)


def conclude_update(run: IncidentRun, records: RunRecords) -> Conclusion:
    """Return the report of a run of `update_incident`.

    If the run recorded no update, the report says so.
    """
    entered = records.result(ENTER)
    if entered is None:
        return records.conclude(_UPDATE, NOTHING_ENTERED, lists_messages=False)
    return conclude_entry(run, record_of(run, entered.number), entered.entry, records.records)


def conclude_incident(run: IncidentRun, number: str, records: Sequence[StepRecord]) -> Conclusion:
    """Return the report of a run of `respond_to_incident` that registered a given incident.

    Args:
        run: the run that registered the incident, with its services and rules.
        number: number of the incident.
        records: step records of the run.
    """
    with run.state.connect() as conn:
        record = record_in(conn, number)
        approvals = registry.approvals_of(conn, run.run.dag_id, run.run.run_id)
        delivered = notices.count_by_state(conn, number)
        all_records = [
            record_in(conn, incident.number) for incident in register.list_incidents(conn)
        ]
    scope = incident_run.latest_scope(run, record.incident.id)
    is_duplicate = record.incident.state is State.DUPLICATE
    time_limits = [] if is_duplicate else time_limits_of(run, record)
    findings = [
        *report_findings.missed_time_limit_findings(time_limits),
        *report_findings.declined_report_findings(run, record),
        *report_findings.integrity_findings(record),
        *report_findings.unfinished_findings(record),
        *report_findings.mistake_findings(record),
        *([report_findings.duplicate_finding(record)] if is_duplicate else []),
    ]
    conclusion = _with_list_metrics(
        [_downgrade_repaired(step, record, scope) for step in records]
    ).conclude(
        _TITLE if scenario_of(run) is None else _DRILL,
        _summary(run, record, time_limits),
        findings=findings,
        metrics=_metrics(record, time_limits),
        facts=_facts(run, record, time_limits, scope),
        sections=[
            event_section(run, record),
            *score_sections(run, time_limits),
            *([] if is_duplicate else [deadline_section(time_limits)]),
            *affected_sections(scope, run.pack.databases),
            *delivery_sections(delivered),
            *lesson_sections(run, record),
            timeline_section(record),
            *statistics_sections(run, all_records),
            *([] if is_duplicate else [_SIGNATURES]),
        ],
        approvals=approvals,
        files={TIMELINE_FILE: timeline_file(record)},
        lists_messages=False,
    )
    # The run of the first incident does the work, so this run says nothing about a control.
    return replace(conclusion, could_not_run=is_duplicate)


def _with_list_metrics(records: Sequence[StepRecord]) -> RunRecords:
    """Return step records in which each metric of the preservation step appears only once.

    The step that preserves evidence calculates these metrics from the stored list of affected
    people, which is more exact than a count. Therefore the metrics are removed from all other step
    records.

    Args:
        records: step records of the run.
    """
    listed = {metric.name for record in records if record.step == STEP_PRESERVE
              for metric in record.metrics}  # fmt: skip
    return RunRecords(
        [
            record
            if record.step == STEP_PRESERVE
            else record.model_copy(
                update={
                    "metrics": [metric for metric in record.metrics if metric.name not in listed]
                }
            )
            for record in records
        ]
    )


def _downgrade_repaired(
    step: StepRecord, record: IncidentRecord, scope: Scope | None
) -> StepRecord:
    """Return a copy of a step record with the outcome *needs attention* for repaired failures.

    Failures are repaired if a later step or update counted all databases and preserved all
    evidence. If the failures are not repaired, or one of them cannot be repaired in this way,
    return the step record unchanged.

    Args:
        step: step record.
        record: incident with its timeline.
        scope: newest scope; None if nothing was counted yet.
    """
    preserved = last_of(record.entries, Kind.PRESERVED)
    is_repaired = (
        scope is not None
        and scope.is_complete
        and preserved is not None
        and preserved.as_(Preserved).complete
    )
    failures = [finding for finding in step.findings if finding.severity is Outcome.FAIL]
    if (
        not is_repaired
        or not failures
        or any(failure.code not in _REPAIRABLE_CODES for failure in failures)
    ):
        return step
    findings = [
        finding.model_copy(
            update={
                "severity": Outcome.ATTENTION,
                "message": _("{message} This was corrected later.", message=finding.message),
                "action": _(
                    "No action is required. The timeline states the time of the correction."
                ),
            }
        )
        if finding in failures
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
    """Return the report of a run of `update_incident` that recorded an update.

    Args:
        run: the run that recorded the update, with its services and rules.
        record: incident with its timeline.
        entry: position of the update in the timeline.
        records: step records of the run.
    """
    new_entry = next(item for item in record.entries if item.place == entry)
    scope = incident_run.latest_scope(run, record.incident.id)
    time_limits = time_limits_of(run, record)
    return _with_list_metrics(records).conclude(
        _UPDATE,
        _(
            "{number}, entry {position}: {text}",
            number=record.incident.number,
            position=entry,
            text=new_entry.words,
        ),
        findings=[
            *report_findings.corrected_step_findings(record, new_entry),
            *report_findings.integrity_findings(record),
        ],
        facts=_facts(run, record, time_limits, scope),
        sections=[
            deadline_section(time_limits),
            *affected_sections(scope, run.pack.databases),
            timeline_section(record),
        ],
        files={TIMELINE_FILE: timeline_file(record)},
        lists_messages=False,
    )


def timeline_file(record: IncidentRecord) -> bytes:
    """Return the timeline as a file for the evidence bundle, with one JSON entry per line.

    Each line also has the digest of its entry.
    """
    lines = []
    for entry in record.entries:
        row = timelines.as_row(entry) | {"sha256": entry.sha256, "incident": record.incident.number}
        row["recorded_at"] = timelines.in_utc(entry.recorded_at)
        row["happened_at"] = timelines.in_utc(entry.happened_at)
        lines.append(json.dumps(row, ensure_ascii=False, sort_keys=True))
    return ("\n".join(lines) + "\n").encode()


def _summary(run: IncidentRun, record: IncidentRecord, time_limits: Sequence[TimeLimit]) -> Message:
    incident, late = (
        record.incident,
        [time_limit for time_limit in time_limits if time_limit.is_late],
    )
    values = {"number": incident.number, "type": rules_of(run, record).type(incident.type).message}
    if scenario_of(run) is not None:
        return _(
            "DRILL {number}, {type}: {late} of {total} time limits were missed. The drill ran "
            "in an isolated environment, and no message left it.",
            late=len(late),
            total=len([time_limit for time_limit in time_limits if time_limit.due_at]),
            **values,
        )
    if incident.state is State.DUPLICATE:
        return _(
            "{number} is a duplicate of {first}.",
            number=incident.number,
            first=incident.duplicate_of or "",
        )
    if incident.state is State.CANCELLED:
        return _("{number}, {type}: cancelled, because it was not an incident.", **values)
    if late:
        return _("{number}, {type}: {late} time limits were missed.", late=len(late), **values)
    if incident.state is State.OPEN:
        return _("{number}, {type}: not closed yet; no time limit was missed so far.", **values)
    if running := [time_limit for time_limit in time_limits if time_limit.is_open]:
        return _(
            "{number}, {type}: no time limit was missed so far, but {count} time limits are "
            "still running.",
            count=len(running),
            **values,
        )
    if unneeded := declined_reports(record.entries):
        return _(
            "{number}, {type}: no time limit was missed, but {count} reports were declared not "
            "required.",
            count=len(unneeded),
            **values,
        )
    return _("{number}, {type}: every time limit was met.", **values)


def _metrics(record: IncidentRecord, time_limits: Sequence[TimeLimit]) -> list[Metric]:
    if record.incident.state is State.DUPLICATE:  # the incident that it duplicates has the metrics
        return []
    reports = [time_limit for time_limit in time_limits if time_limit.rule.ends == "reported"]
    people = [
        time_limit for time_limit in time_limits if time_limit.rule.ends == "individuals_told"
    ]
    return [
        Metric(name="incident.clocks_ran_out", value=_late_count(time_limits), unit="1"),
        Metric(name="incident.reports_late", value=_reports_late(reports), unit="1"),
        Metric(name="incident.people_told_late", value=_late_count(people), unit="1"),
    ]


def _reports_late(reports: Sequence[TimeLimit]) -> int | None:
    """Return the number of reports to authorities that were late.

    If no report was late so far, return None in two cases: a time limit is still running, or a
    person declared a report not needed. In these cases it is not certain that all authorities were
    informed in time.

    Args:
        reports: time limits of the reports to authorities.
    """
    late = _late_count(reports)
    return (
        None
        if not late
        and any(time_limit.inactive_reason is InactiveReason.NOT_NEEDED for time_limit in reports)
        else late
    )


def _late_count(time_limits: Sequence[TimeLimit]) -> int | None:
    """Return the number of missed time limits.

    Return None if no time limit was missed so far, but at least one is still running.
    """
    late = _count_late(time_limits)
    return None if not late and any(time_limit.is_open for time_limit in time_limits) else late


def _count_late(time_limits: Sequence[TimeLimit]) -> int:
    return sum(time_limit.is_late for time_limit in time_limits)


def _facts(
    run: IncidentRun, record: IncidentRecord, time_limits: Sequence[TimeLimit], scope: Scope | None
) -> list[Fact]:
    incident = record.incident
    ran_out = _count_late(time_limits)
    return [
        Fact(
            label=_("Grade"),
            value=rules_of(run, record).grade(record.grade).message if record.grade else None,
            note=_STATES[incident.state],
        ),
        Fact(label=_("People affected"), value=scope.subjects if scope and scope.counted else None),
        Fact(
            label=_("Missed time limits"),
            value=ran_out,
            status=must_be_zero(ran_out),
        ),
        Fact(label=_("Time of awareness"), value=incident.aware_at),
    ]
