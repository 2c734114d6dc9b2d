"""Reports to authorities: first report, follow-up and summary, each sealed before it is handed in.

First unit and system, time, place, type, grade, impact, measures; then trend, preliminary cause,
leads, next steps and the evidence that is kept: National Cybersecurity Incident Reporting Measures
(2025-11-01) 7; at the end cause, measures, harm, accountability, rectification and lessons: 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from hashlib import sha256

from include.documents.model import Document, Entry, EntryValue, Form, Section
from include.documents.render import render_forms
from include.evidence.model import Outcome
from include.incident import incident_run
from include.incident.clocks.clock import Clock, ClockState, clocks_of
from include.incident.clocks.clock_words import document_table
from include.incident.entries import Reported, Reviewed
from include.incident.evidence import kept
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    action_lines,
    drill_mark,
    rules_of,
    what_happened,
)
from include.incident.names import WORKFLOW, Kind, Phase
from include.incident.rules import Authority
from include.incident.scope import Scope
from include.incident.scope_words import types_of
from include.incident.telling.letter import texts_of
from include.incident.timeline import last_of, of_kind
from include.messages import Message, _, listed, verbatim
from include.policy.rules import in_languages
from include.reports.conclusion import Conclusion
from include.reports.model import Paragraph

_NOT_KNOWN = _("not known yet")


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
    """Return eight hex digits that change with the timeline entries that a document reads.

    Args:
        record: the incident.
        phase: which report to an authority it is; None for other documents.
    """
    read = [*_READ_BY_DOCUMENTS, *(() if phase is Phase.FIRST else (Kind.REPORTED,))]
    places = [str(getattr(last_of(record.entries, kind), "place", "")) for kind in read]
    return sha256(":".join(places).encode()).hexdigest()[:8]


def report_of(run: IncidentRun, record: IncidentRecord, authority: str, phase: Phase) -> Document:
    """Return a report to an authority as it is now.

    Args:
        run: the run or command.
        record: the incident.
        authority: id of incident.yaml.
        phase: the first report has what is known at once, the other one the rest too.
    """
    addressee, is_first = rules_of(run, record).authority(authority), phase is Phase.FIRST
    scope = incident_run.require_scope(run, record.incident.id)
    sections = [
        _what(run, record, scope),
        _affected(scope),
        _measures(record, required=not is_first),
    ]
    if not is_first:
        sections += [_rest(run, record), _reported_before(record, addressee)]
    sections.append(_clocks(clocks_of(run, record), addressee))
    return Document(
        title=_("Report on a personal information security incident"),
        subtitle=_("First report; what is not known yet follows")
        if is_first
        else _("Follow-up report"),
        dated=_dated(record),
        reference=record.incident.number,
        addressee=addressee.message,
        sender=in_languages(run.rules.company),
        sections=tuple(sections),
        signature=(
            Entry(label=_("Contact"), value=in_languages(run.rules.letter.contact)),
            Entry(label=_("For the company"), required=False),
        ),
        footer=_("How it is handed in: {how}", how=in_languages(addressee.how)),
        marked=drill_mark(run),
    )


def summary_of(run: IncidentRun, record: IncidentRecord) -> Document:
    """Return the summary as it is now."""
    scope = incident_run.require_scope(run, record.incident.id)
    reviewed = last_of(record.entries, Kind.REVIEWED)
    lessons = verbatim(reviewed.as_(Reviewed).lessons) if reviewed else None
    actions = tuple(action_lines(run, reviewed)) if reviewed else ()
    learned = _form(
        _("Accountability, rectification, lessons"),
        [
            (_("Lessons and accountability"), lessons, True),
            (
                _("Corrective actions in the register"),
                actions or (_("none; see the lessons") if reviewed else None),
                True,
            ),
        ],
    )
    return Document(
        title=_("Summary of a personal information security incident"),
        dated=_dated(record),
        reference=record.incident.number,
        sender=in_languages(run.rules.company),
        sections=(
            _what(run, record, scope),
            _affected(scope),
            _measures(record, required=True),
            _rest(run, record),
            learned,
            _clocks(clocks_of(run, record)),
        ),
        signature=(Entry(label=_("For the company"), required=False),),
        marked=drill_mark(run),
    )


def _dated(record: IncidentRecord) -> datetime:
    return record.entries[-1].recorded_at if record.entries else record.incident.opened_at


def _form(heading: Message, entries: Iterable[tuple[Message, EntryValue, bool]]) -> Section:
    rows = [Entry(label=label, value=value, required=needed) for label, value, needed in entries]
    return Section(heading=heading, blocks=(Form(entries=tuple(rows)),))


def _what(run: IncidentRun, record: IncidentRecord, scope: Scope) -> Section:
    one, rules = record.incident, rules_of(run, record)
    mapped = [each.database for each in rules.scope]
    hit = [name for name in mapped if name in scope.affected()]
    systems = listed([verbatim(run.database(name).title) for name in hit or mapped])
    grade = rules.grade(record.grade).message if record.grade else None
    return _form(
        _("What happened"),
        [
            (_("Unit"), in_languages(rules.company), True),
            (_("Systems"), systems, True),
            (_("Place"), in_languages(rules.place), True),
            (_("Type"), rules.type(one.type).message, True),
            (_("Grade"), grade, True),
            (_("Became known"), one.aware_at, True),
            (_("Began"), one.began_at or _NOT_KNOWN, True),
            (_("What happened"), what_happened(run, record), True),
            (_("Noticed by"), verbatim(one.noticed_by) if one.noticed_by else None, False),
        ],
    )


def _affected(scope: Scope) -> Section:
    unknown = [verbatim(one.database) for one in scope.unknown]
    counted = bool(scope.counted)
    entries: list[tuple[Message, EntryValue, bool]] = [
        (_("People affected"), scope.subjects if counted else _NOT_KNOWN, True),
        (_("Records"), scope.records if counted else _NOT_KNOWN, True),
        (_("Types of information"), tuple(types_of(scope.categories)) or _NOT_KNOWN, True),
        (_("People of whom sensitive information is affected"), scope.sensitive, False),
        (_("People under 14"), _NOT_KNOWN if scope.minors is None else scope.minors, False),
    ]
    if unknown:
        entries.append((_("Could not be counted yet"), listed(unknown), True))
    return _form(_("What is affected"), entries)


def _measures(record: IncidentRecord, *, required: bool) -> Section:
    contained = last_of(record.valid, Kind.CONTAINED)
    texts = texts_of(record.entries)
    done = contained.words if contained else _("being contained; no result yet")
    # Measures 7: both belong to the first report, which nobody waits with until all is known
    pending = None if required else _("being assessed; the follow-up report has it")
    return _form(
        _("Measures and effect"),
        [
            (_("Containment"), done, True),
            (_("Measures taken and their effect"), texts["measures"] or pending, True),
            (_("Possible harm to people"), texts["harm"] or pending, True),
        ],
    )


def _rest(run: IncidentRun, record: IncidentRecord) -> Section:
    texts = texts_of(record.entries)
    decided = of_kind(record.entries, Kind.DECIDED)
    said = tuple(_("{at}: {words}", at=entry.happened_at, words=entry.words) for entry in decided)
    telling = decided[0].words if len(decided) == 1 else said or None
    return _form(
        _("Cause, leads and evidence"),
        [
            (_("Preliminary cause"), texts["cause"], True),
            (_("Trend, leads and next steps"), texts["next_steps"], True),
            (_("Evidence that is kept"), tuple(kept.lines(run, record)) or None, True),
            (_("Whether affected people are told"), telling, True),
        ],
    )


def _reported_before(record: IncidentRecord, authority: Authority) -> Section:
    before = [
        _("{at}: {words}", at=entry.happened_at, words=entry.words)
        for entry in of_kind(record.valid, Kind.REPORTED)
        if entry.as_(Reported).authority == authority.id
    ]
    return _form(_("Reported before"), [(_("Reports"), tuple(before) or None, False)])


def _clocks(clocks: Sequence[Clock], authority: Authority | None = None) -> Section:
    shown = [
        clock
        for clock in clocks
        if (authority is None or clock.rule.authority == authority.id)
        and clock.state is not ClockState.NOT_APPLICABLE
    ]
    if not shown:
        none = Paragraph(text=_("No period runs for this authority."))
        return Section(heading=_("Time limits and when they were met"), blocks=(none,))
    return Section(heading=_("Time limits and when they were met"), blocks=(document_table(shown),))


def sealed_document(run: IncidentRun, record: IncidentRecord, document: Document, name: str) -> str:
    """Seal a document once for each version of its content, and return its path in the store.

    A document that somebody may have handed in is not made again; after another grade or count
    there is another one beside it. The document of a drill is a file of the drill's own bundle.

    Args:
        run: the run that asks for it.
        record: the incident.
        document: the document.
        name: of its files: ``first-cac``.
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
        records = [kept.timeline_record(record)]
        row = run.task.seal_interim(workflow, conclusion, files, records=records, pdf=False)
    return f"{run.services.store('evidence_store').description}/{row.bundle}"
