"""Review: what was learned, and corrective actions in the one register of findings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection

from include.approvals.form import Field
from include.approvals.question import Question
from include.evidence.model import StepRecord
from include.findings.register import open_finding
from include.incident import timeline
from include.incident.desk import Desk, File, file_of
from include.incident.names import FINDING_KIND, Kind
from include.incident.rules import HumanStep
from include.incident.steps import answer, page
from include.incident.steps.answer import Given, Values
from include.incident.timeline import last_of
from include.messages import _
from include.policy.rules import in_languages
from include.policy.spans import later

STEP: HumanStep = "review"
REVIEWED = "Reviewed"
LESSONS = "lessons"
MOST_ACTIONS = 5


def form(desk: Desk) -> list[Field]:
    """Lessons and up to five corrective actions, each with its owner and days."""
    roles = {one.id: in_languages(one.title) for one in desk.roles.values()}
    lessons = Field(
        name=LESSONS,
        title=_("What was learned: what went well, what did not, why it could happen"),
        kind="long_text",
        required=True,
        longest=page.LONGEST,
    )
    found = [lessons]
    for number in range(1, MOST_ACTIONS + 1):
        found += [
            Field(
                name=f"action_{number}",
                title=_("Corrective action {number}", number=number),
                kind="long_text",
                longest=page.LONGEST,
            ),
            Field(
                name=f"owner_{number}",
                title=_("Who answers for action {number}", number=number),
                kind="choice",
                options=roles,
            ),
            Field(
                name=f"days_{number}",
                title=_("Days until action {number} is due; empty: by the policy", number=number),
                kind="number",
            ),
        ]
    return found


def ask(desk: Desk, number: str) -> Question | None:
    """Ask for lessons and corrective actions; None where the incident is not led."""
    file = page.led(desk, number)
    if file is None:
        return None
    return page.question(
        desk,
        file,
        STEP,
        _("review it: lessons and corrective actions"),
        [
            _("Every corrective action becomes a finding: its owner is reminded until a second "
              "test by another person closes it."),
            _("An incident without any corrective action needs reasons in the lessons."),
        ],
        choices=[REVIEWED],
        form=form(desk),
        content=content(desk, file),
    )  # fmt: skip


def content(desk: Desk, file: File) -> str:
    """Return the digest of what an answer is about: the incident, and the review so far."""
    before = last_of(file.entries, Kind.REVIEWED)
    facts = [before.place if before else None]
    return page.content_of(file, STEP, [], form=form(desk), facts=facts)


def take(desk: Desk, number: str, given: Given) -> StepRecord:
    """Take lessons and actions; every action is entered as a finding, once.

    One that is entered again after the task was cleared is the same; another one is another
    finding, beside those of before.

    Raises:
        AskAgain: nobody answered, the lessons say nothing, an action has no owner, or somebody
            reviewed it since the form was made.
    """
    file = desk.file(number)
    who = answer.person(desk, file, STEP, given)
    values = answer.read(desk, file, STEP, given, form(desk))
    if not values.says(LESSONS):
        cause = _("the lessons say nothing")
        answer.refuse(desk, file, STEP, given, cause, values)
    numbers = [n for n in range(1, MOST_ACTIONS + 1) if values.says(f"action_{n}")]
    for one in numbers:
        if not values.text(f"owner_{one}"):
            cause = _("nobody answers for action {number}", number=one)
            answer.refuse(desk, file, STEP, given, cause, values)
    record = _entered(desk, file, given, who, values, numbers)
    if record is None:
        answer.refuse(desk, file, STEP, given, answer.CHANGED, values)
    return record


def _entered(
    desk: Desk, file: File, given: Given, who: str, values: Values, numbers: Sequence[int]
) -> StepRecord | None:
    """Enter a review with its actions; return None where the form was about something else."""
    number = file.incident.number
    with desk.state.begin() as conn:
        timeline.lock_incident(conn, file.incident.id)
        if (done := answer.taken(conn, file, STEP, given)) is not None:
            return done
        file = file_of(conn, number)
        if content(desk, file) != given.content:
            return None
        actions = [_opened(conn, desk, number, given, values, one) for one in numbers]
        words = _(
            "Reviewed, {count} corrective actions. {lessons}",
            count=len(actions),
            lessons=values.text(LESSONS),
        )
        data = {"lessons": values.text(LESSONS), "actions": actions}
        return answer.enter(
            conn, desk, file, STEP, Kind.REVIEWED, words, by=who, given=given, data=data
        )


def _opened(
    conn: Connection, desk: Desk, number: str, given: Given, values: Values, place: int
) -> dict[str, Any]:
    """A corrective action, entered as a finding."""
    what, owner = values.text(f"action_{place}"), values.text(f"owner_{place}")
    found = open_finding(
        conn,
        kind=FINDING_KIND,
        reference=f"{number}/{sha256(f'{owner} {what}'.encode()).hexdigest()[:8]}",
        what=_("{number}: {action}", number=number, action=what),
        owner=owner,
        opened_at=given.at,
        due_on=_due(desk, values, place),
    )
    return {"finding": found, "owner": owner, "what": what}


def _due(desk: Desk, values: Values, number: int) -> date:
    days = values.found.get(f"days_{number}")
    today = desk.now.date()
    if isinstance(days, int):
        return today + timedelta(days=min(days, 3_650))
    due = later(desk.clock.now(), desk.rules.actions_within, desk.zone)
    return due.astimezone(desk.zone).date()
