"""Reports to authorities: a person hands the document in and enters when, and the receipt.

Nothing is sent to an authority by itself: portals, hotlines and counters want a person, and a first
report that nobody read does more harm than one that is ten minutes later.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from include.approvals.form import Field
from include.approvals.question import Question
from include.documents.words import missing
from include.incident.clocks.clock import Bearing, bearing, facts_from
from include.incident.clocks.milestones import is_declined, outgrown
from include.incident.entries import Reported
from include.incident.incident_run import IncidentRecord, IncidentRun, report_title, rules_of, told
from include.incident.names import Kind, Phase
from include.incident.rules import Authority, HumanStep
from include.incident.steps import answer, page
from include.incident.steps.answer import Answered, Given
from include.incident.steps.page import human_task_by_part
from include.incident.telling.authority_report import document_version, report_of, sealed_document
from include.incident.timeline import Entry, of_kind
from include.messages import Message, _
from include.policy.rules import in_languages

HANDED_IN, NOT_NEEDED = "Handed in", "Not needed"
RECEIPT, REASON = "receipt", "reason"
WHEN = Field(name="handed_in_at", title=_("When it was handed in; empty means now"), kind="moment")
STEPS: dict[Phase, HumanStep] = {Phase.FIRST: "report", Phase.REST: "report_rest"}


def form() -> list[Field]:
    """When, the receipt, and reasons where it is not needed."""
    return [
        WHEN,
        Field(
            name=RECEIPT,
            title=_("Number of the receipt, or who took it"),
            longest=100,
            exact=True,
        ),
        Field(
            name=REASON,
            title=_("Reasons, where it is not needed"),
            kind="long_text",
            longest=page.LONGEST,
        ),
    ]


def authorities(run: IncidentRun, record: IncidentRecord) -> list[Authority]:
    """Authorities that an incident is reported to now, in the order of the pack."""
    facts = facts_from(run.rules, record)
    return [
        one
        for one in rules_of(run, record).authorities
        if bearing(one, facts) in (Bearing.YES, Bearing.PROVISIONAL)
    ]


def question(
    run: IncidentRun,
    record: IncidentRecord,
    authority: str,
    phase: Phase,
    documents: str,
    lacking: Sequence[Message],
) -> Question:
    """Return the question that hands a report in.

    Args:
        run: the run or command.
        record: the incident.
        authority: id of incident.yaml.
        phase: which report.
        documents: path of the sealed bundle that holds the document.
        lacking: required fields of the document that say nothing.
    """
    named = rules_of(run, record).authority(authority)
    return page.question(
        run,
        record,
        STEPS[phase],
        report_title(run, record, authority, phase),
        [
            *page.blocked(lacking),
            _("What happened: {what}", what=told(run, record)),
            _("The document (HTML, PDF, Word; Chinese and English) lies in {path}", path=documents),
            in_languages(named.how),
            _("Nothing is sent by itself: hand it in, then enter when, and the receipt."),
        ],
        choices=[HANDED_IN, NOT_NEEDED],
        form=form(),
        part=authority,
        content=page.with_version(
            content(run, authority, phase, lacking, record), document_version(record, phase)
        ),
    )


def ask_first(run: IncidentRun, record: IncidentRecord, authority: str) -> Question | None:
    """Hand the first report to an authority, then enter when and the receipt."""
    return _ask(run, record, authority, Phase.FIRST)


def ask_rest(run: IncidentRun, record: IncidentRecord, authority: str) -> Question | None:
    """Hand the follow-up report to an authority, then enter when and the receipt."""
    return _ask(run, record, authority, Phase.REST)


def _ask(run: IncidentRun, record: IncidentRecord, authority: str, phase: Phase) -> Question | None:
    """Return the question; None if the report was handed in.

    A person who clears the task of a report that was said not to be needed is asked again.
    """
    if handed_in(record, authority, phase):
        return None
    document = report_of(run, record, authority, phase)
    lacking = missing(document)
    name = f"{phase}-{authority}"
    path = "" if lacking else sealed_document(run, record, document, name)
    return question(run, record, authority, phase, path, lacking)


def content(
    run: IncidentRun,
    authority: str,
    phase: Phase,
    lacking: Sequence[Message],
    record: IncidentRecord,
) -> str:
    """Return the digest of what an answer is about: the incident, and missing fields.

    The version of the document is left out: it was handed in, whatever was entered since.
    """
    lines = [*page.blocked(lacking), _("What happened: {what}", what=told(run, record))]
    return page.content_of(record, STEPS[phase], lines, form=form(), part=authority)


def take(phase: Phase, run: IncidentRun, record: IncidentRecord, given: Given) -> Answered:
    """Take that it was handed in.

    Raises:
        AskAgain: nobody answered, the document lacks a field, there is no receipt, no reasons, or
            the form was about something else.
    """
    step, authority = STEPS[phase], given.part
    lacking = missing(report_of(run, record, authority, phase))
    who = answer.person(run, record, step, given)
    values = answer.read(run, record, step, given, form())
    handed = given.option == HANDED_IN
    if handed:
        answer.refuse_lacking(run, record, step, given, lacking, values)
    if handed and not values.text(RECEIPT):
        answer.refuse(run, record, step, given, _("the receipt is missing"), values)
    if not handed and not values.says(REASON):
        answer.refuse(run, record, step, given, _("the reasons say nothing"), values)
    at = answer.moment(run, record, step, given, values, WHEN, record.incident.aware_at)
    title = report_title(run, record, authority, phase)
    words = (
        _("Handed in: {report}. Receipt: {receipt}", report=title, receipt=values.text(RECEIPT))
        if handed
        else _("Not handed in: {report}. {why}", report=title, why=values.text(REASON))
    )
    data = {"authority": authority, "phase": str(phase), "complete": handed}
    data |= {"document": page.version_of(given.content)}
    return answer.done(
        run, record, step, Kind.REPORTED, words, by=who, given=given, values=values,
        content=partial(content, run, authority, phase, lacking), data=data, happened_at=at,
    )  # fmt: skip


def handed_in(record: IncidentRecord, authority: str, phase: Phase) -> bool:
    """Whether a report was handed in."""
    return any(not is_declined(one) for one in _answers(record, authority, phase))


def answered(run: IncidentRun, record: IncidentRecord, authority: str, phase: Phase) -> bool:
    """Whether an answer to a report stands: handed in, or said not to be needed.

    That it is not needed stands until a worse grade is confirmed.
    """
    order = [one.id for one in rules_of(run, record).grades]
    return any(
        not (is_declined(one) and outgrown(one, record.entries, order))
        for one in _answers(record, authority, phase)
    )


def _answers(record: IncidentRecord, authority: str, phase: Phase) -> list[Entry]:
    return [
        one
        for one in of_kind(record.valid, Kind.REPORTED)
        if one.as_(Reported).authority == authority and one.as_(Reported).phase == phase
    ]


_CHOICES = (HANDED_IN, NOT_NEEDED)
REPORT = human_task_by_part(
    "report",
    _("The report to {part}", part=""),
    ask_first,
    partial(take, Phase.FIRST),
    _CHOICES,
    seals_document=True,
)
REPORT_REST = human_task_by_part(
    "report_rest",
    _("The report to {part}", part=""),
    ask_rest,
    partial(take, Phase.REST),
    _CHOICES,
    patience=8,
    seals_document=True,
)
