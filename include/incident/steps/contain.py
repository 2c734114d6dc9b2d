"""Containment: the checklist of the incident's type, each item done or said why not."""

from __future__ import annotations

from include.approvals.question import Field, Question
from include.evidence.model import StepRecord
from include.incident.desk import Desk
from include.incident.names import Kind
from include.incident.steps import common
from include.incident.steps.common import Given
from include.messages import _, listed

STEP = "contain"
CONTAINED = "Contained"
NOTES = "notes"


def ask(desk: Desk, number: str) -> Question | None:
    """Ask for the checklist; None where the incident is not led."""
    file = common.led(desk, number)
    if file is None:
        return None
    kind = desk.rules.type(file.incident.type)
    boxes = [
        Field(name=one.id, title=one.message, kind="yes_no", value=False)
        for one in kind.checklist
    ]
    notes = Field(
        name=NOTES,
        title=_("What was done; of each item that is not ticked, why it does not apply"),
        kind="long_text",
        longest=common.LONGEST,
    )
    when = Field(
        name="contained_at",
        title=_("When it was contained; empty means now"),
        kind="moment",
    )
    return common.question(
        desk,
        file,
        STEP,
        _("contain it: {type}", type=kind.message),
        [
            _("What happened: {what}", what=file.incident.what),
            _("Do what the checklist says, then tick it and choose Contained."),
            _("Do not switch off or clean up what is evidence before it is secured."),
        ],
        choices=[CONTAINED],
        form=[*boxes, when, notes],
    )


def take(desk: Desk, number: str, given: Given) -> StepRecord:
    """Take the checklist back.

    Raises:
        AskAgain: nobody answered, or an item is neither ticked nor explained.
    """
    file = desk.file(number)
    who = common.person(desk, file, STEP, given)
    kind = desk.rules.type(file.incident.type)
    left = [one for one in kind.checklist if not given.ticked(one.id)]
    if left and not common.says(given, NOTES):
        missing = listed([one.message for one in left])
        cause = _("not ticked, and nothing says why: {items}", items=missing)
        common.refuse(desk, file, STEP, given, cause, NOTES)
    at = common.moment(desk, file, STEP, given, "contained_at", keep=(NOTES,))
    items = [one.id for one in kind.checklist if given.ticked(one.id)]
    words = _(
        "Contained: {done} of {all} items of the checklist done. {notes}",
        done=len(items),
        all=len(kind.checklist),
        notes=given.text(NOTES),
    )
    data = {"items": items, "left": [one.id for one in left], "notes": given.text(NOTES)}
    return common.done(
        desk, file, STEP, Kind.CONTAINED, words, by=who, given=given, data=data, happened_at=at
    )
