"""The summary that is due some time after the closing: handed in, or approved here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from include.approvals.form import Field
from include.approvals.question import Question
from include.evidence.model import StepRecord
from include.incident.desk import Desk, File
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


def ask(desk: Desk, number: str, documents: str, missing: Sequence[Message]) -> Question | None:
    """Ask to hand the summary in; None where the incident is not led.

    Args:
        desk: of the incident.
        number: of the incident.
        documents: path of the sealed bundle that holds the document.
        missing: required fields of the document that say nothing.
    """
    file = page.led(desk, number)
    if file is None:
        return None
    return page.question(
        desk,
        file,
        STEP,
        _("hand in the summary"),
        [
            *page.blocked(missing),
            _("The document (HTML, PDF, Word; Chinese and English) lies in {path}", path=documents),
            _("From the grade that the law names it goes to the authority, else to management."),
        ],
        choices=[DONE],
        form=form(),
        content=page.with_version(content(missing, file), document_version(file)),
    )


def content(missing: Sequence[Message], file: File) -> str:
    """Return the digest of what an answer is about: the incident, and missing fields."""
    return page.content_of(file, STEP, page.blocked(missing), form=form())


def take(desk: Desk, number: str, given: Given, missing: Sequence[Message]) -> StepRecord:
    """Take that it was handed in.

    Raises:
        AskAgain: nobody answered, the document lacks a field, there is no receipt, or the form was
            about something else.
    """
    file = desk.file(number)
    who = answer.person(desk, file, STEP, given)
    values = answer.read(desk, file, STEP, given, form())
    answer.refuse_lacking(desk, file, STEP, given, missing, values)
    at = answer.moment(desk, file, STEP, given, values, WHEN, file.incident.ended_at)
    words = _("The summary was handed in. Receipt: {receipt}", receipt=values.text(RECEIPT))
    return answer.done(
        desk, file, STEP, Kind.SUMMARISED, words, by=who, given=given, values=values,
        content=partial(content, missing), happened_at=at,
        data={"document": page.version_of(given.content)},
    )  # fmt: skip
