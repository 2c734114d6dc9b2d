"""The summary that is due some time after the closing: handed in, or approved here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from include.approvals.form import Field
from include.approvals.question import Question
from include.documents.words import missing
from include.incident.incident_run import IncidentRecord, IncidentRun
from include.incident.names import Kind
from include.incident.rules import HumanStep
from include.incident.steps import answer, page
from include.incident.steps.answer import Answered, Given
from include.incident.steps.page import human_task
from include.incident.telling.authority_report import document_version, sealed_document, summary_of
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


def question(
    run: IncidentRun, record: IncidentRecord, documents: str, lacking: Sequence[Message]
) -> Question:
    """Return the question that hands the summary in.

    Args:
        run: the run or command.
        record: the incident.
        documents: path of the sealed bundle that holds the document.
        lacking: required fields of the document that say nothing.
    """
    return page.question(
        run,
        record,
        STEP,
        _("hand in the summary"),
        [
            *page.blocked(lacking),
            _("The document (HTML, PDF, Word; Chinese and English) lies in {path}", path=documents),
            _("From the grade that the law names it goes to the authority, else to management."),
        ],
        choices=[DONE],
        form=form(),
        content=page.with_version(content(lacking, record), document_version(record)),
    )


def ask(run: IncidentRun, record: IncidentRecord) -> Question:
    """Hand in the summary, or have it approved; due 30 days after the closing."""
    document = summary_of(run, record)
    lacking = missing(document)
    path = "" if lacking else sealed_document(run, record, document, "summary")
    return question(run, record, path, lacking)


def content(lacking: Sequence[Message], record: IncidentRecord) -> str:
    """Return the digest of what an answer is about: the incident, and missing fields."""
    return page.content_of(record, STEP, page.blocked(lacking), form=form())


def take(run: IncidentRun, record: IncidentRecord, given: Given) -> Answered:
    """Take that it was handed in.

    Raises:
        AskAgain: nobody answered, the document lacks a field, there is no receipt, or the form was
            about something else.
    """
    lacking = missing(summary_of(run, record))
    who = answer.person(run, record, STEP, given)
    values = answer.read(run, record, STEP, given, form())
    answer.refuse_lacking(run, record, STEP, given, lacking, values)
    at = answer.moment(run, record, STEP, given, values, WHEN, record.incident.ended_at)
    words = _("The summary was handed in. Receipt: {receipt}", receipt=values.text(RECEIPT))
    return answer.done(
        run, record, STEP, Kind.SUMMARISED, words, by=who, given=given, values=values,
        content=partial(content, lacking), happened_at=at,
        data={"document": page.version_of(given.content)},
    )  # fmt: skip


SUMMARY = human_task(STEP, _("The summary"), ask, take, (DONE,), patience=48, seals_document=True)
