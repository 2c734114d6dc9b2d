"""Reports to authorities: a person hands the document in and enters when, and the receipt.

Nothing is sent to an authority by itself: portals, hotlines and counters want a person, and a first
report that nobody read does more harm than one that is ten minutes later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from include.approvals.form import Field
from include.approvals.question import Question
from include.evidence.model import StepRecord
from include.incident.clocks.clock import Bearing, bearing
from include.incident.clocks.milestones import COMPLETE, is_declined, outgrown
from include.incident.clocks.standing import facts_from
from include.incident.incident_run import IncidentRecord, IncidentRun, record_of, rules_of
from include.incident.names import Kind
from include.incident.rules import Authority, HumanStep
from include.incident.steps import answer, page
from include.incident.steps.answer import Given
from include.incident.telling.authority_report import Phase, document_version
from include.incident.timeline import Entry, of_kind
from include.incident.words import told
from include.messages import Message, _, verbatim
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


def ask(
    run: IncidentRun,
    number: str,
    authority: str,
    phase: Phase,
    documents: str,
    missing: Sequence[Message],
) -> Question | None:
    """Ask to hand a report in; None where the incident is not led, or it was handed in.

    Whoever clears the task of one that was said not to be needed is asked again.

    Args:
        run: the run or command.
        number: of the incident.
        authority: id of incident.yaml.
        phase: which report.
        documents: path of the sealed bundle that holds the document.
        missing: required fields of the document that say nothing.
    """
    record = page.led(run, number)
    if record is None or handed_in(record, authority, phase):
        return None
    named = rules_of(run, record).authority(authority)
    return page.question(
        run,
        record,
        STEPS[phase],
        title_of(run, record, authority, phase),
        [
            *page.blocked(missing),
            _("What happened: {what}", what=told(run, record)),
            _("The document (HTML, PDF, Word; Chinese and English) lies in {path}", path=documents),
            in_languages(named.how),
            _("Nothing is sent by itself: hand it in, then enter when, and the receipt."),
        ],
        choices=[HANDED_IN, NOT_NEEDED],
        form=form(),
        part=authority,
        content=page.with_version(
            content(run, authority, phase, missing, record), document_version(record, phase)
        ),
    )


def content(
    run: IncidentRun,
    authority: str,
    phase: Phase,
    missing: Sequence[Message],
    record: IncidentRecord,
) -> str:
    """Return the digest of what an answer is about: the incident, and missing fields.

    The version of the document is left out: it was handed in, whatever was entered since.
    """
    lines = [*page.blocked(missing), _("What happened: {what}", what=told(run, record))]
    return page.content_of(record, STEPS[phase], lines, form=form(), part=authority)


def take(
    run: IncidentRun,
    number: str,
    authority: str,
    phase: Phase,
    given: Given,
    missing: Sequence[Message],
) -> StepRecord:
    """Take that it was handed in.

    Raises:
        AskAgain: nobody answered, the document lacks a field, there is no receipt, no reasons, or
            the form was about something else.
    """
    step = STEPS[phase]
    record = record_of(run, number)
    given = replace(given, part=authority)
    who = answer.person(run, record, step, given)
    values = answer.read(run, record, step, given, form())
    handed = given.option == HANDED_IN
    if handed:
        answer.refuse_lacking(run, record, step, given, missing, values)
    if handed and not values.text(RECEIPT):
        answer.refuse(run, record, step, given, _("the receipt is missing"), values)
    if not handed and not values.says(REASON):
        answer.refuse(run, record, step, given, _("the reasons say nothing"), values)
    at = answer.moment(run, record, step, given, values, WHEN, record.incident.aware_at)
    title = title_of(run, record, authority, phase)
    words = (
        _("Handed in: {report}. Receipt: {receipt}", report=title, receipt=values.text(RECEIPT))
        if handed
        else _("Not handed in: {report}. {why}", report=title, why=values.text(REASON))
    )
    data = {"authority": authority, "phase": str(phase), COMPLETE: handed}
    data |= {"document": page.version_of(given.content)}
    return answer.done(
        run, record, step, Kind.REPORTED, words, by=who, given=given, values=values,
        content=partial(content, run, authority, phase, missing), data=data, happened_at=at,
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
        if one.data.get("authority") == authority and one.data.get("phase") == phase
    ]


def title_of(run: IncidentRun, record: IncidentRecord, authority: str, phase: str) -> Message:
    """Which report it is, in words."""
    named = {one.id: one.message for one in rules_of(run, record).authorities}
    to = named.get(authority, verbatim(authority))
    if phase == Phase.FIRST:
        return _("first report to: {authority}", authority=to)
    return _("follow-up report to: {authority}", authority=to)
