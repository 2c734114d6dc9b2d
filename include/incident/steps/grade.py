"""Grading: what the counts propose, confirmed or changed by a person; nothing is guessed."""

from __future__ import annotations

from functools import partial

from sqlalchemy import Connection

from include.approvals.form import Field
from include.approvals.question import Question
from include.incident import incident_run, register
from include.incident.assessing import propose
from include.incident.incident_run import IncidentRecord, IncidentRun, rules_of, told
from include.incident.names import Kind
from include.incident.rules import HumanStep
from include.incident.scope_words import scope_lines
from include.incident.steps import answer, page
from include.incident.steps.answer import Answered, Given, Values
from include.incident.steps.page import human_task
from include.incident.timeline import last_of
from include.messages import Message, _

STEP: HumanStep = "grade"
CONFIRM = "Confirm"
REASON = "reason"
GRADE = "grade"


def form(run: IncidentRun, record: IncidentRecord, proposed: str | None = None) -> list[Field]:
    """Grade and reasons as fields."""
    return [
        Field(
            name=GRADE,
            title=_("Grade"),
            kind="choice",
            options={one.id: one.message for one in rules_of(run, record).grades},
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


def ask(run: IncidentRun, record: IncidentRecord) -> Question:
    """Confirm the grade that the counts propose, or another one with reasons."""
    proposed = propose(incident_run.newest(run, record.incident.id), rules_of(run, record))
    return page.question(
        run,
        record,
        STEP,
        _("confirm the grade"),
        _lines(run, record),
        choices=[CONFIRM],
        form=form(run, record, proposed.grade),
        content=content(run, record),
    )


def _lines(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    scope = incident_run.newest(run, record.incident.id)
    graded = last_of(record.entries, Kind.GRADED)
    return [
        _("What happened: {what}", what=told(run, record)),
        *scope_lines(scope),
        propose(scope, rules_of(run, record)).words,
        *([_("So far: {words}", words=graded.words)] if graded else []),
        _("The grade says whom it is reported to, and by when. It can be changed later."),
    ]


def content(run: IncidentRun, record: IncidentRecord) -> str:
    """Return the digest of what an answer is about: counts, proposed grade, grade so far."""
    return page.content_of(
        record, STEP, _lines(run, record), form=form(run, record), facts=[_graded_at(record)]
    )


def _graded_at(record: IncidentRecord) -> int | None:
    graded = last_of(record.entries, Kind.GRADED)
    return graded.place if graded else None


def take(run: IncidentRun, record: IncidentRecord, given: Given) -> Answered:
    """Take the grade.

    Raises:
        AskAgain: nobody answered, there is no such grade, a change has no reasons, or the form was
            about something else.
    """
    who = answer.person(run, record, STEP, given)
    values = answer.read(run, record, STEP, given, form(run, record))
    chosen = values.text(GRADE)
    proposed = propose(incident_run.newest(run, record.incident.id), rules_of(run, record))
    if (chosen != proposed.grade or not proposed.certain) and not values.says(REASON):
        cause = _("it is not what the counts propose, or not all could be counted: give reasons")
        answer.refuse(run, record, STEP, given, cause, values)
    return _entered(run, record, chosen, who, given, values)


def _entered(
    run: IncidentRun, record: IncidentRecord, grade: str, who: str, given: Given, values: Values
) -> Answered:
    """Enter a grade that a person confirmed."""
    reason = values.text(REASON)
    words = _(
        "Graded {grade}. {reason}",
        grade=rules_of(run, record).grade(grade).message,
        reason=reason,
    )

    def keep(conn: Connection) -> None:
        register.graded(conn, record.incident.id, grade)

    data = {"grade": grade, "reason": reason}
    return answer.done(
        run, record, STEP, Kind.GRADED, words, by=who, given=given, values=values,
        content=partial(content, run), data=data, happened_at=given.at, also=keep,
    )  # fmt: skip


GRADING = human_task(STEP, _("The grading"), ask, take, (CONFIRM,))
