"""The summary that is due some time after the closing: handed in, or approved here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from include.approvals.form import Field
from include.approvals.question import Question
from include.evidence.model import StepRecord
from include.incident.incident_run import IncidentRecord, IncidentRun, record_of
from include.incident.names import Kind
from include.incident.rules import HumanStep
from include.incident.steps import answer, page
from include.incident.steps.answer import Given
from include.incident.telling.authority_report import document_version
from include.messages import Message, _

STEP: HumanStep = "summary"
DONE = "Handed in or approved"
RECEIPT = "receipt"
WHEN = Field(name="handed_in_at", title=_("When it was handed in; empty means now"), kind="moment")


def form() -> list[Field]:
    """When, and the receipt."""
    return [
        WHEN,
        Field(
            name=RECEIPT,
            title=_("Number of the receipt, or who approved it"),
            required=True,
            longest=100,
            exact=True,
        ),
    ]


def ask(
    run: IncidentRun, number: str, documents: str, missing: Sequence[Message]
) -> Question | None:
    """Ask to hand the summary in; None where the incident is not led.

    Args:
        run: the run or command.
        number: of the incident.
        documents: path of the sealed bundle that holds the document.
        missing: required fields of the document that say nothing.
    """
    record = page.led(run, number)
    if record is None:
        return None
    return page.question(
        run,
        record,
        STEP,
        _("hand in the summary"),
        [
            *page.blocked(missing),
            _("The document (HTML, PDF, Word; Chinese and English) lies in {path}", path=documents),
            _("From the grade that the law names it goes to the authority, else to management."),
        ],
        choices=[DONE],
        form=form(),
        content=page.with_version(content(missing, record), document_version(record)),
    )


def content(missing: Sequence[Message], record: IncidentRecord) -> str:
    """Return the digest of what an answer is about: the incident, and missing fields."""
    return page.content_of(record, STEP, page.blocked(missing), form=form())


def take(run: IncidentRun, number: str, given: Given, missing: Sequence[Message]) -> StepRecord:
    """Take that it was handed in.

    Raises:
        AskAgain: nobody answered, the document lacks a field, there is no receipt, or the form was
            about something else.
    """
    record = record_of(run, number)
    who = answer.person(run, record, STEP, given)
    values = answer.read(run, record, STEP, given, form())
    answer.refuse_lacking(run, record, STEP, given, missing, values)
    at = answer.moment(run, record, STEP, given, values, WHEN, record.incident.ended_at)
    words = _("The summary was handed in. Receipt: {receipt}", receipt=values.text(RECEIPT))
    return answer.done(
        run, record, STEP, Kind.SUMMARISED, words, by=who, given=given, values=values,
        content=partial(content, missing), happened_at=at,
        data={"document": page.version_of(given.content)},
    )  # fmt: skip
