"""Containment: the checklist of the incident's type, each item done or said why not."""

from __future__ import annotations

from functools import partial

from include.approvals.form import Field
from include.approvals.question import Question
from include.incident.incident_run import IncidentRecord, IncidentRun, rules_of, told
from include.incident.names import Kind
from include.incident.rules import CHECKLIST_FIELDS, HumanStep
from include.incident.steps import answer, page
from include.incident.steps.answer import Answered, Given
from include.incident.steps.page import human_task
from include.messages import Message, _, listed

STEP: HumanStep = "contain"
CONTAINED = "Contained"
AT, NOTES = CHECKLIST_FIELDS
WHEN = Field(name=AT, title=_("When it was contained; empty means now"), kind="moment")


def form(run: IncidentRun, record: IncidentRecord) -> list[Field]:
    """The checklist as fields."""
    boxes = [
        Field(name=one.id, title=one.message, kind="yes_no", value=False)
        for one in rules_of(run, record).type(record.incident.type).checklist
    ]
    notes = Field(
        name=NOTES,
        title=_("What was done; of each item that is not ticked, why it does not apply"),
        kind="long_text",
        longest=page.LONGEST,
    )
    return [*boxes, WHEN, notes]


def ask(run: IncidentRun, record: IncidentRecord) -> Question:
    """Contain it: the checklist of its type."""
    return page.question(
        run,
        record,
        STEP,
        _("contain it: {type}", type=rules_of(run, record).type(record.incident.type).message),
        _lines(run, record),
        choices=[CONTAINED],
        form=form(run, record),
        content=content(run, record),
    )


def _lines(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    return [
        _("What happened: {what}", what=told(run, record)),
        _("Do what the checklist says, then tick it and choose Contained."),
        _("Do not switch off or clean up what is evidence before it is secured."),
    ]


def content(run: IncidentRun, record: IncidentRecord) -> str:
    """Return the digest of what an answer is about: the incident and its checklist."""
    return page.content_of(record, STEP, _lines(run, record), form=form(run, record))


def take(run: IncidentRun, record: IncidentRecord, given: Given) -> Answered:
    """Take the checklist back.

    Raises:
        AskAgain: nobody answered, an item is neither ticked nor explained, or the form was about
            something else.
    """
    who = answer.person(run, record, STEP, given)
    kind = rules_of(run, record).type(record.incident.type)
    values = answer.read(run, record, STEP, given, form(run, record))
    left = [one for one in kind.checklist if not values.ticked(one.id)]
    if left and not values.says(NOTES):
        missing = listed([one.message for one in left])
        cause = _("not ticked, and nothing says why: {items}", items=missing)
        answer.refuse(run, record, STEP, given, cause, values)
    at = answer.moment(run, record, STEP, given, values, WHEN)
    items = [one.id for one in kind.checklist if values.ticked(one.id)]
    words = _(
        "Contained: {done} of {all} items of the checklist done. {notes}",
        done=len(items),
        all=len(kind.checklist),
        notes=values.text(NOTES),
    )
    data = {"items": items, "left": [one.id for one in left], "notes": values.text(NOTES)}
    return answer.done(
        run, record, STEP, Kind.CONTAINED, words, by=who, given=given, values=values,
        content=partial(content, run), data=data, happened_at=at,
    )  # fmt: skip


CONTAIN = human_task(STEP, _("The containment"), ask, take, (CONTAINED,))
