"""Create the reports to authorities: first report, follow-up report and summary.

Each document is sealed before a person hands it in. The first report contains organization and
system, time, place, type, grade, impact and measures. The follow-up report adds trend, preliminary
cause, leads, next steps and preserved evidence: National Cybersecurity Incident Reporting Measures
(2025-11-01), article 7. The summary contains cause, measures, harm, accountability, rectification
and lessons: article 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256

from include.documents.model import Document, Entry, EntryValue, Form, Section
from include.documents.render import render_forms
from include.evidence.model import Outcome
from include.incident import incident_run
from include.incident.communication.notice_text import impact_texts
from include.incident.entries import Reported, Reviewed
from include.incident.evidence import evidence_check
from include.incident.incident_ids import WORKFLOW, Kind, Phase
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    action_lines,
    drill_mark,
    rules_of,
    what_happened,
)
from include.incident.rules import Authority
from include.incident.scope import Scope
from include.incident.scope_texts import category_names, database_title
from include.incident.time_limits.time_limit import TimeLimit, TimeLimitState, time_limits_of
from include.incident.time_limits.time_limit_texts import document_table
from include.incident.timeline import last_of, of_kind
from include.messages import Message, _, listed, verbatim
from include.policy.rules import translated_message
from include.reports.conclusion import Conclusion
from include.reports.model import Paragraph

_UNKNOWN_YET = _("not known yet")


_READ_BY_DOCUMENTS = (
    Kind.SCOPED,
    Kind.PRESERVED,
    Kind.CONTAINED,
    Kind.CORRECTED,
    Kind.GRADED,
    Kind.IMPACT,
    Kind.DECIDED,
    Kind.REVIEWED,
)


def document_version(record: IncidentRecord, phase: Phase | None = None) -> str:
    """Return the version of a document, as eight hex digits.

    The version changes if the timeline entries from which the document is created change.

    Args:
        record: incident with its timeline.
        phase: first or follow-up report to an authority; None for other documents.
    """
    read = [*_READ_BY_DOCUMENTS, *(() if phase is Phase.FIRST else (Kind.REPORTED,))]
    places = [str(getattr(last_of(record.entries, kind), "place", "")) for kind in read]
    return sha256(":".join(places).encode()).hexdigest()[:8]


def report_of(run: IncidentRun, record: IncidentRecord, authority: str, phase: Phase) -> Document:
    """Create a report to an authority from the current facts about an incident.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        authority: id of an authority in incident.yaml.
        phase: first report or follow-up report.
    """
    addressee, is_first = rules_of(run, record).authority(authority), phase is Phase.FIRST
    scope = incident_run.require_scope(run, record.incident.id)
    sections = [
        _event_section(run, record, scope),
        _affected_section(run, scope, is_final=False),
        _measures_section(record, required=not is_first),
    ]
    if not is_first:
        sections += [_cause_section(run, record), _earlier_reports_section(record, addressee)]
    sections.append(_deadline_section(time_limits_of(run, record), addressee))
    return Document(
        title=_("Report on a personal information security incident"),
        subtitle=_("First report; a follow-up report will contain the facts that are not known yet")
        if is_first
        else _("Follow-up report"),
        dated=_dated(record),
        reference=record.incident.number,
        addressee=addressee.message,
        sender=translated_message(run.rules.company),
        sender_address=incident_run.sender_address(run),
        sections=tuple(sections),
        signature=(
            Entry(label=_("Contact"), value=translated_message(run.rules.letter.contact)),
            Entry(label=_("Signature and seal of the company"), required=False),
        ),
        footer=_("How to submit this report: {how}", how=translated_message(addressee.how)),
        warning=drill_mark(run),
    )


def summary_of(run: IncidentRun, record: IncidentRecord) -> Document:
    """Create the summary of an incident from its current facts."""
    scope = incident_run.require_scope(run, record.incident.id)
    reviewed = last_of(record.entries, Kind.REVIEWED)
    lessons = verbatim(reviewed.as_(Reviewed).lessons) if reviewed else None
    actions = tuple(action_lines(run, reviewed)) if reviewed else ()
    learned = _form_section(
        _("Accountability, corrective actions and lessons learned"),
        [
            (_("Lessons learned and accountability"), lessons, True),
            (
                _("Corrective actions that were registered as findings"),
                actions or (_("none; the lessons learned state the reason") if reviewed else None),
                True,
            ),
        ],
    )
    return Document(
        title=_("Summary of a personal information security incident"),
        dated=_dated(record),
        reference=record.incident.number,
        sender=translated_message(run.rules.company),
        sender_address=incident_run.sender_address(run),
        sections=(
            _event_section(run, record, scope),
            _affected_section(run, scope, is_final=True),
            _measures_section(record, required=True),
            _cause_section(run, record),
            learned,
            _deadline_section(time_limits_of(run, record)),
        ),
        signature=(Entry(label=_("Signature and seal of the company"), required=False),),
        warning=drill_mark(run),
    )


def _dated(record: IncidentRecord) -> datetime:
    return record.entries[-1].recorded_at if record.entries else record.incident.opened_at


def _form_section(heading: Message, entries: Iterable[tuple[Message, EntryValue, bool]]) -> Section:
    rows = [Entry(label=label, value=value, required=needed) for label, value, needed in entries]
    return Section(heading=heading, blocks=(Form(entries=tuple(rows)),))


def _event_section(run: IncidentRun, record: IncidentRecord, scope: Scope) -> Section:
    incident, rules = record.incident, rules_of(run, record)
    database_names = [scope_rule.database for scope_rule in rules.scope]
    affected_names = [name for name in database_names if name in scope.people_by_database()]
    systems = listed([run.database(name).title for name in affected_names or database_names])
    grade = rules.grade(record.grade).message if record.grade else None
    return _form_section(
        _("Description of the incident"),
        [
            (_("Company"), translated_message(rules.company), True),
            (_("Systems"), systems, True),
            (_("Place of the incident"), translated_message(rules.place), True),
            (_("Type"), rules.type(incident.type).message, True),
            (_("Grade"), grade, True),
            (_("Time of awareness"), incident.aware_at, True),
            (_("Start of the incident"), incident.began_at or _UNKNOWN_YET, True),
            (_("Description of the incident"), what_happened(run, record), True),
            (
                _("Noticed by"),
                verbatim(incident.noticed_by) if incident.noticed_by else None,
                False,
            ),
        ],
    )


def _affected_section(run: IncidentRun, scope: Scope, *, is_final: bool) -> Section:
    """Return the section with the numbers of affected people and records.

    Numbers that are not limited to the affected records say that they are upper bounds.

    Args:
        run: services and rules of the current run or command.
        scope: newest scope of the incident.
        is_final: whether no further report follows in which numbers are corrected.
    """
    unknown = [database_title(database.database, run.pack.databases) for database in scope.unknown]
    counted = bool(scope.counted)

    def figure(number: int, *, is_upper_bound: bool = scope.is_upper_bound) -> EntryValue:
        if not is_upper_bound:
            return number
        return _upper_bound(number, is_final=is_final, is_partial=bool(unknown))

    # If people of an earlier count are included, the number of records may be too low.
    records_bounded = scope.is_upper_bound and not any(count.unseen for count in scope.counted)
    records = figure(scope.records, is_upper_bound=records_bounded)
    minors = _UNKNOWN_YET if scope.minors is None else figure(scope.minors)
    entries: list[tuple[Message, EntryValue, bool]] = [
        (_("People affected"), figure(scope.subjects) if counted else _UNKNOWN_YET, True),
        (_("Records"), records if counted else _UNKNOWN_YET, True),
        (_("Types of information"), tuple(category_names(scope.categories)) or _UNKNOWN_YET, True),
        (_("People whose sensitive information is affected"), figure(scope.sensitive), False),
        (_("People under 14"), minors, False),
    ]
    if unknown:
        entries.append(
            (_("Databases in which the affected people are not counted yet"), listed(unknown), True)
        )
    return _form_section(_("Scope of the incident"), entries)


def _upper_bound(number: int, *, is_final: bool, is_partial: bool) -> Message:
    """Return a number with the statement that it is an upper bound.

    Args:
        number: number of people or records.
        is_final: whether no further report follows in which the number is corrected.
        is_partial: whether databases are not counted yet, so the bound does not cover them.
    """
    if is_final:
        return _(
            "{number} (not limited to the affected records; this is an upper bound)", number=number
        )
    if is_partial:
        return _(
            "{number} (only in the databases counted so far, and not yet limited to the affected "
            "records; this is an upper bound for these databases and will be corrected in a "
            "follow-up report)",
            number=number,
        )
    return _(
        "{number} (not yet limited to the affected records; this is an upper bound and will be "
        "corrected in a follow-up report)",
        number=number,
    )


def _measures_section(record: IncidentRecord, *, required: bool) -> Section:
    contained = last_of(record.valid, Kind.CONTAINED)
    texts = impact_texts(record.entries)
    containment = contained.words if contained else _("containment in progress; no result yet")
    # Measures 7 require both in the first report, which must not wait for complete facts.
    pending = (
        None
        if required
        else _("impact assessment in progress; the follow-up report will contain the result")
    )
    return _form_section(
        _("Measures and their effect"),
        [
            (_("Containment of the incident"), containment, True),
            (_("Measures taken and their effect"), texts["measures"] or pending, True),
            (_("Possible harm to people"), texts["harm"] or pending, True),
        ],
    )


def _cause_section(run: IncidentRun, record: IncidentRecord) -> Section:
    texts = impact_texts(record.entries)
    decided = of_kind(record.entries, Kind.DECIDED)
    decision_lines = tuple(
        _("{at}: {words}", at=entry.happened_at, words=entry.words) for entry in decided
    )
    notified = decided[0].words if len(decided) == 1 else decision_lines or None
    return _form_section(
        _("Cause, next steps and evidence"),
        [
            (_("Preliminary cause"), texts["cause"], True),
            (
                _("Expected development of the incident, traces of its cause, and next steps"),
                texts["next_steps"],
                True,
            ),
            (
                _("Preserved evidence"),
                tuple(evidence_check.evidence_lines(run, record)) or None,
                True,
            ),
            (_("Notification of affected people"), notified, True),
        ],
    )


def _earlier_reports_section(record: IncidentRecord, authority: Authority) -> Section:
    earlier_reports = [
        _("{at}: {words}", at=entry.happened_at, words=entry.words)
        for entry in of_kind(record.valid, Kind.REPORTED)
        if entry.as_(Reported).authority == authority.id
    ]
    return _form_section(
        _("Earlier reports"), [(_("Reports"), tuple(earlier_reports) or None, False)]
    )


def _deadline_section(
    time_limits: Sequence[TimeLimit], authority: Authority | None = None
) -> Section:
    applicable = [
        time_limit
        for time_limit in time_limits
        if (authority is None or time_limit.rule.authority == authority.id)
        and time_limit.state is not TimeLimitState.NOT_APPLICABLE
    ]
    if not applicable:
        empty_text = Paragraph(text=_("No time limit applies to reports to this authority."))
        return Section(heading=_("Time limits, and when each was met"), blocks=(empty_text,))
    return Section(
        heading=_("Time limits, and when each was met"), blocks=(document_table(applicable),)
    )


def sealed_document(run: IncidentRun, record: IncidentRecord, document: Document, name: str) -> str:
    """Seal a document as an interim bundle, and return the address of the bundle's page.

    If the address is not known, return the bundle's path in the evidence store instead.

    Each version of the content is sealed once. A version that is already sealed is not created
    again, because a person may have handed it in. If the grade or the counts change, a new version
    is sealed. In a drill, the document becomes a file of the run's own bundle, and the path is
    ``-``.

    Args:
        run: current run.
        record: incident with its timeline.
        document: document to seal.
        name: base name of the document's files, such as ``first-cac``.
    """
    if run.services.is_drill:
        for file_name, content in render_forms(document, run.zone.key, name).files.items():
            run.keep_file(file_name, content)
        return "-"
    phase = Phase.FIRST if name.startswith(Phase.FIRST) else None
    workflow = f"{WORKFLOW}.{name}-{document_version(record, phase)}"
    row = run.task.find_interim(workflow)
    if row is None:
        conclusion = Conclusion(
            title=document.title,
            summary=_("{title}, {reference}", title=document.title, reference=document.reference),
            outcome=Outcome.PASS,
            findings=[],
            metrics=[],
        )
        files = render_forms(document, run.zone.key, name).files
        records = [evidence_check.timeline_record(record)]
        row = run.task.seal_interim(workflow, conclusion, files, records=records, pdf=False)
    path = f"{run.services.store('evidence_store').description}/{row.bundle}"
    return run.task.bundle_address(row) or path
