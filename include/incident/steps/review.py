"""Review: what was learned, and corrective actions in the one register of findings."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection

from include.approvals.form import Field
from include.approvals.question import Question
from include.findings.register import open_finding
from include.incident import timeline
from include.incident.incident_run import IncidentRecord, IncidentRun, record_in
from include.incident.names import FINDING_KIND, Kind
from include.incident.rules import HumanStep
from include.incident.steps import answer, page
from include.incident.steps.answer import Answered, Given, Values
from include.incident.steps.page import human_task
from include.incident.timeline import last_of
from include.messages import _
from include.policy.period import later
from include.policy.rules import in_languages

STEP: HumanStep = "review"
REVIEWED = "Reviewed"
LESSONS = "lessons"
MOST_ACTIONS = 5


def form(run: IncidentRun) -> list[Field]:
    """Lessons and up to five corrective actions, each with its owner and days."""
    roles = {one.id: in_languages(one.title) for one in run.roles.values()}
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


def ask(run: IncidentRun, record: IncidentRecord) -> Question:
    """Review it: lessons and corrective actions, which become findings."""
    return page.question(
        run,
        record,
        STEP,
        _("review it: lessons and corrective actions"),
        [
            _("Every corrective action becomes a finding: its owner is reminded until a second "
              "test by another person closes it."),
            _("An incident without any corrective action needs reasons in the lessons."),
        ],
        choices=[REVIEWED],
        form=form(run),
        content=content(run, record),
    )  # fmt: skip


def content(run: IncidentRun, record: IncidentRecord) -> str:
    """Return the digest of what an answer is about: the incident, and the review so far."""
    before = last_of(record.entries, Kind.REVIEWED)
    facts = [before.place if before else None]
    return page.content_of(record, STEP, [], form=form(run), facts=facts)


def take(run: IncidentRun, record: IncidentRecord, given: Given) -> Answered:
    """Take lessons and actions; every action is entered as a finding, once.

    One that is entered again after the task was cleared is the same; another one is another
    finding, beside those of before.

    Raises:
        AskAgain: nobody answered, the lessons say nothing, an action has no owner, or somebody
            reviewed it since the form was made.
    """
    who = answer.person(run, record, STEP, given)
    values = answer.read(run, record, STEP, given, form(run))
    if not values.says(LESSONS):
        cause = _("the lessons say nothing")
        answer.refuse(run, record, STEP, given, cause, values)
    numbers = [n for n in range(1, MOST_ACTIONS + 1) if values.says(f"action_{n}")]
    for one in numbers:
        if not values.text(f"owner_{one}"):
            cause = _("nobody answers for action {number}", number=one)
            answer.refuse(run, record, STEP, given, cause, values)
    answered = _entered(run, record, given, who, values, numbers)
    if answered is None:
        answer.refuse(run, record, STEP, given, answer.CHANGED, values)
    return answered


def _entered(
    run: IncidentRun,
    record: IncidentRecord,
    given: Given,
    who: str,
    values: Values,
    numbers: Sequence[int],
) -> Answered | None:
    """Enter a review with its actions; return None where the form was about something else."""
    number = record.incident.number
    with run.state.begin() as conn:
        timeline.lock_incident(conn, record.incident.id)
        if (done := answer.taken(conn, record, STEP, given)) is not None:
            return done
        record = record_in(conn, number)
        if content(run, record) != given.content:
            return None
        actions = [_opened(conn, run, number, given, values, one) for one in numbers]
        words = _(
            "Reviewed, {count} corrective actions. {lessons}",
            count=len(actions),
            lessons=values.text(LESSONS),
        )
        data = {"lessons": values.text(LESSONS), "actions": actions}
        return answer.enter(
            conn, run, record, STEP, Kind.REVIEWED, words, by=who, given=given, data=data
        )


def _opened(
    conn: Connection, run: IncidentRun, number: str, given: Given, values: Values, place: int
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
        due_on=_due(run, values, place),
    )
    return {"finding": found, "owner": owner, "what": what}


def _due(run: IncidentRun, values: Values, number: int) -> date:
    days = values.found.get(f"days_{number}")
    today = run.now.date()
    if isinstance(days, int):
        return today + timedelta(days=min(days, 3_650))
    due = later(run.clock.now(), run.rules.actions_within, run.zone)
    return due.astimezone(run.zone).date()


REVIEW = human_task(STEP, _("The review of the incident"), ask, take, (REVIEWED,), patience=48)
