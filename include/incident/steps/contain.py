"""Containment: the checklist of the incident's type, each item done or said why not."""

from __future__ import annotations

from functools import partial

from include.approvals.form import Field
from include.approvals.question import Question
from include.evidence.model import StepRecord
from include.incident.desk import Desk, File
from include.incident.names import Kind
from include.incident.rules import CHECKLIST_FIELDS, HumanStep
from include.incident.steps import answer, page
from include.incident.steps.answer import Given
from include.incident.words import told
from include.messages import Message, _, listed

STEP: HumanStep = "contain"
CONTAINED = "Contained"
AT, NOTES = CHECKLIST_FIELDS
WHEN = Field(name=AT, title=_("When it was contained; empty means now"), kind="moment")


def form(desk: Desk, file: File) -> list[Field]:
    """The checklist as fields."""
    boxes = [
        Field(name=one.id, title=one.message, kind="yes_no", value=False)
        for one in desk.rules_of(file).type(file.incident.type).checklist
    ]
    notes = Field(
        name=NOTES,
        title=_("What was done; of each item that is not ticked, why it does not apply"),
        kind="long_text",
        longest=page.LONGEST,
    )
    return [*boxes, WHEN, notes]


def ask(desk: Desk, number: str) -> Question | None:
    """Ask for the checklist; None where the incident is not led."""
    file = page.led(desk, number)
    if file is None:
        return None
    return page.question(
        desk,
        file,
        STEP,
        _("contain it: {type}", type=desk.rules_of(file).type(file.incident.type).message),
        _lines(desk, file),
        choices=[CONTAINED],
        form=form(desk, file),
        content=content(desk, file),
    )


def _lines(desk: Desk, file: File) -> list[Message]:
    return [
        _("What happened: {what}", what=told(desk, file)),
        _("Do what the checklist says, then tick it and choose Contained."),
        _("Do not switch off or clean up what is evidence before it is secured."),
    ]


def content(desk: Desk, file: File) -> str:
    """Return the digest of what an answer is about: the incident and its checklist."""
    return page.content_of(file, STEP, _lines(desk, file), form=form(desk, file))


def take(desk: Desk, number: str, given: Given) -> StepRecord:
    """Take the checklist back.

    Raises:
        AskAgain: nobody answered, an item is neither ticked nor explained, or the form was about
            something else.
    """
    file = desk.file(number)
    who = answer.person(desk, file, STEP, given)
    kind = desk.rules_of(file).type(file.incident.type)
    values = answer.read(desk, file, STEP, given, form(desk, file))
    left = [one for one in kind.checklist if not values.ticked(one.id)]
    if left and not values.says(NOTES):
        missing = listed([one.message for one in left])
        cause = _("not ticked, and nothing says why: {items}", items=missing)
        answer.refuse(desk, file, STEP, given, cause, values)
    at = answer.moment(desk, file, STEP, given, values, WHEN)
    items = [one.id for one in kind.checklist if values.ticked(one.id)]
    words = _(
        "Contained: {done} of {all} items of the checklist done. {notes}",
        done=len(items),
        all=len(kind.checklist),
        notes=values.text(NOTES),
    )
    data = {"items": items, "left": [one.id for one in left], "notes": values.text(NOTES)}
    return answer.done(
        desk, file, STEP, Kind.CONTAINED, words, by=who, given=given, values=values,
        content=partial(content, desk), data=data, happened_at=at,
    )  # fmt: skip
