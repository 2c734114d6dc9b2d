"""Grading: what the counts propose, confirmed or changed by a person; nothing is guessed."""

from __future__ import annotations

from functools import partial

from sqlalchemy import Connection

from include.approvals.form import Field
from include.approvals.question import Question
from include.evidence.model import StepRecord
from include.incident import register, scopes
from include.incident.desk import Desk, File
from include.incident.grading import propose
from include.incident.names import Kind
from include.incident.rules import HumanStep
from include.incident.scope_words import scope_lines
from include.incident.steps import answer, page
from include.incident.steps.answer import Given, Values
from include.incident.timeline import last_of
from include.incident.words import told
from include.messages import Message, _

STEP: HumanStep = "grade"
CONFIRM = "Confirm"
REASON = "reason"
GRADE = "grade"


def form(desk: Desk, file: File, proposed: str | None = None) -> list[Field]:
    """Grade and reasons as fields."""
    return [
        Field(
            name=GRADE,
            title=_("Grade"),
            kind="choice",
            options={one.id: one.message for one in desk.rules_of(file).grades},
            value=proposed,
            required=True,
        ),
        Field(
            name=REASON,
            title=_("Reasons; needed where it is not the proposed grade"),
            kind="long_text",
            longest=page.LONGEST,
        ),
    ]


def ask(desk: Desk, number: str) -> Question | None:
    """Ask for the grade, with what was counted; None where the incident is not led."""
    file = page.led(desk, number)
    if file is None:
        return None
    proposed = propose(scopes.newest(desk, file.incident.id), desk.rules_of(file))
    return page.question(
        desk,
        file,
        STEP,
        _("confirm the grade"),
        _lines(desk, file),
        choices=[CONFIRM],
        form=form(desk, file, proposed.grade),
        content=content(desk, file),
    )


def _lines(desk: Desk, file: File) -> list[Message]:
    scope = scopes.newest(desk, file.incident.id)
    graded = last_of(file.entries, Kind.GRADED)
    return [
        _("What happened: {what}", what=told(desk, file)),
        *scope_lines(scope),
        propose(scope, desk.rules_of(file)).words,
        *([_("So far: {words}", words=graded.words)] if graded else []),
        _("The grade says whom it is reported to, and by when. It can be changed later."),
    ]


def content(desk: Desk, file: File) -> str:
    """Return the digest of what an answer is about: counts, proposed grade, grade so far."""
    return page.content_of(
        file, STEP, _lines(desk, file), form=form(desk, file), facts=[_graded_at(file)]
    )


def _graded_at(file: File) -> int | None:
    graded = last_of(file.entries, Kind.GRADED)
    return graded.place if graded else None


def take(desk: Desk, number: str, given: Given) -> StepRecord:
    """Take the grade.

    Raises:
        AskAgain: nobody answered, there is no such grade, a change has no reasons, or the form was
            about something else.
    """
    file = desk.file(number)
    who = answer.person(desk, file, STEP, given)
    values = answer.read(desk, file, STEP, given, form(desk, file))
    chosen = values.text(GRADE)
    proposed = propose(scopes.newest(desk, file.incident.id), desk.rules_of(file))
    if (chosen != proposed.grade or not proposed.certain) and not values.says(REASON):
        cause = _("it is not what the counts propose, or not all could be counted: give reasons")
        answer.refuse(desk, file, STEP, given, cause, values)
    return _entered(desk, file, chosen, who, given, values)


def _entered(
    desk: Desk, file: File, grade: str, who: str, given: Given, values: Values
) -> StepRecord:
    """Enter a grade that a person confirmed."""
    reason = values.text(REASON)
    words = _(
        "Graded {grade}. {reason}",
        grade=desk.rules_of(file).grade(grade).message,
        reason=reason,
    )

    def keep(conn: Connection) -> None:
        register.graded(conn, file.incident.id, grade)

    data = {"grade": grade, "reason": reason}
    return answer.done(
        desk, file, STEP, Kind.GRADED, words, by=who, given=given, values=values,
        content=partial(content, desk), data=data, happened_at=given.at, also=keep,
    )  # fmt: skip
