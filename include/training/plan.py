"""The step of `remind_training` that queues reminders and measures the coverage."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from datetime import date, timedelta

from pydantic import BaseModel
from sqlalchemy import Connection

from include.evidence.step_findings import StepFindings, StepResult, keep_artifact
from include.messages import _
from include.notify import outbox
from include.notify.notice import NOT_WANTED, Notice
from include.state.locks import exclusive
from include.training import checks, notices, waivers
from include.training.notices import Roster
from include.training.obligations import Department, Due, Topic, Untrained, codes
from include.training.rules import TrainingRules, is_copied
from include.training.sources import open_sources
from include.training.standing import (
    CLAUSE,
    COPY,
    DEPARTMENT,
    OVERDUE_FILE,
    REMINDER,
    STEP_PLAN,
    Standing,
    keep,
    last,
    standing,
    told_of,
    week_of,
)
from include.workflow.run_context import RunContext
from include.workflow.step import Step

_PATIENCE = timedelta(minutes=10)  # with a run that plans at the same time
_BLOCK = 1000  # reminders looked up and queued together
_LISTED = 200  # overdue obligations and people in the report; the file has all


class NoticeCounts(BaseModel):
    """Notifications that a run queued or withdrew."""

    withdrawn: int = 0
    reminders: int = 0
    copies: int = 0
    summaries: int = 0


class WaivedCourse(BaseModel):
    """A waiver; `waives` is False if there is no such person or course."""

    person: str
    course: str
    until: date
    reason: str
    waives: bool


class TrainingPlan(StepResult):
    """The reminders and the coverage of a day.

    Attributes:
        day: in the policy pack's timezone.
        workday: whether people are notified on it.
        told: notifications that the run queued.
        whole: whether the records are complete enough for a coverage.
        people: number of people who have to be trained.
        covered: number of them without an overdue course.
        departments: coverage by department.
        topics: courses in force, by topic.
        untrained: people with access to customer records and no valid training; the first 200.
        untrained_all: number of all of them.
        not_employed: accounts with access that belong to nobody employed.
        overdue: overdue courses, the oldest first; the first 200.
        overdue_all: number of all of them.
        waived: waivers in force.
    """

    day: date
    workday: bool
    told: NoticeCounts
    whole: bool
    people: int
    covered: int
    departments: list[Department]
    topics: list[Topic]
    untrained: list[Untrained]
    untrained_all: int
    not_employed: int
    overdue: list[Due]
    overdue_all: int
    waived: list[WaivedCourse]


def plan_reminders(run: RunContext[TrainingRules], findings: StepFindings) -> TrainingPlan:
    """Work out the obligations of the day, queue each reminder once, withdraw settled ones.

    Raises:
        UsageError: training.yaml's queries cannot be read.
        ServiceError: a database was lost, or another run plans for too long.
    """
    with run.state.connect() as conn:
        waived = waivers.listed(conn, run.today)
    with (
        exclusive(run.state, "training:plan", "the reminders of training", _PATIENCE),
        open_sources(run) as sources,
    ):
        faults = checks.check(findings, sources, run.today)
        current = standing(run, sources, [waiver.waives for waiver in waived])
        late = current.overdue(run.today)
        roster = Roster(sources, run.today)
        with run.state.begin() as conn:
            before = last(conn, run.clock.now())
            told = _tell(conn, run, current, roster)
            keep(conn, run.run, run.today, run.clock.now(), current.departments)
            listing = _listing(late, run.today)
            keep_artifact(conn, run.run.dag_id, run.run.run_id, OVERDUE_FILE, listing)
        people, courses = roster.find(waiver.person for waiver in waived), codes(sources)
        unknown = [
            waiver
            for waiver in waived
            if waiver.person not in people or waiver.course not in courses
        ]
    whole = checks.judge(findings, run, current, late, faults)
    checks.waivers_of_nothing(findings, unknown)
    checks.shrunk(findings, current.people, before)
    return TrainingPlan(
        day=run.today,
        workday=run.workdays.is_workday(run.today),
        told=told,
        whole=whole,
        people=current.people,
        covered=current.covered,
        departments=current.departments,
        topics=current.topics,
        untrained=current.untrained[:_LISTED],
        untrained_all=len(current.untrained),
        not_employed=faults["training.access_not_employed"],
        overdue=late[:_LISTED],
        overdue_all=len(late),
        waived=[
            WaivedCourse(
                person=waiver.person,
                course=waiver.course,
                until=waiver.until,
                reason=waiver.reason,
                waives=waiver not in unknown,
            )
            for waiver in waived
        ],
    )


PLAN = Step(
    name=STEP_PLAN,
    title=_("The plan"),
    clause=CLAUSE,
    work=plan_reminders,
    result=TrainingPlan,
)


def _tell(
    conn: Connection, run: RunContext[TrainingRules], current: Standing, roster: Roster
) -> NoticeCounts:
    """Queue each reminder that was not queued before, and withdraw those that are settled."""
    copied = {key: due for key, due in current.due.items() if is_copied(run.rules.ladder, due.rung)}
    at = run.clock.now()
    gone = 0
    for kind, standing_now in ((REMINDER, current.due), (COPY, copied)):
        stale = [
            key for key in outbox.pending(conn, kind) if key.partition("#")[0] not in standing_now
        ]
        gone += outbox.withdraw(conn, kind, stale, NOT_WANTED, at)
    own = _new(conn, REMINDER, current.due)
    copies = _new(conn, COPY, copied)
    counts = NoticeCounts(withdrawn=gone)
    if not run.workdays.is_workday(run.today):
        return counts  # the rungs are those of the workday before, and nobody is told today
    for block in _blocks(own):
        people = roster.find(due.person for due in block)
        reminders = [
            notices.reminder(due, people[due.person]) for due in block if due.person in people
        ]
        counts.reminders += _queued(conn, run, reminders)
    role = run.roles[run.rules.owner]
    said: set[tuple[str, str]] = set()
    for block in _blocks(copies):
        people = roster.find(due.person for due in block)
        above = roster.above(due.person for due in block)
        copied_to = [
            notice
            for due in block
            if due.person in people
            for notice in notices.copy(due, people[due.person], above[due.person], role)
        ]
        counts.copies += _queued(conn, run, copied_to)
        said |= {(notice.recipient, notice.key) for notice in copied_to}
    summaries = _summaries(conn, run, current, roster, said)
    counts.summaries = _queued(conn, run, summaries)
    return counts


def _queued(conn: Connection, run: RunContext[TrainingRules], queued: Iterable[Notice]) -> int:
    done = outbox.queue(conn, queued, run.run, run.clock.now(), run.notices)
    return done.new + done.again


def _summaries(
    conn: Connection,
    run: RunContext[TrainingRules],
    current: Standing,
    roster: Roster,
    said: Collection[tuple[str, str]],
) -> list[Notice]:
    """Return the lines of this week's summaries, for heads who did not get them yet.

    They leave out what the same mail tells a head as a supervisor (``said``).
    """
    week = week_of(run.today)
    late: dict[str, list[Due]] = {}
    for due in current.overdue(run.today):
        late.setdefault(due.department, []).append(due)
    summaries: list[Notice] = []
    for of in current.departments:
        for head in roster.heads().get(of.name, []):
            overdue = [
                due for due in late.get(of.name, []) if (head.person, told_of(due).key) not in said
            ]
            first = overdue[: notices.MOST_LINES]
            found = roster.find(due.person for due in first)
            names = {key: person.name for key, person in found.items()}
            lines = list(notices.summary(notices.Week(of, overdue, names), head, week))
            # All of a week's lines are told together: one more would be a second summary.
            if outbox.untold(conn, DEPARTMENT, [lines[0].key]):
                summaries += lines
    return summaries


def _new(conn: Connection, kind: str, due: dict[str, Due]) -> list[Due]:
    untold = outbox.untold(conn, kind, due)
    return [obligation for key, obligation in due.items() if key in untold]


def _blocks(due: Sequence[Due]) -> Iterable[Sequence[Due]]:
    return (due[at : at + _BLOCK] for at in range(0, len(due), _BLOCK))


def _listing(late: Sequence[Due], day: date) -> bytes:
    """Every overdue obligation as CSV; a byte order mark lets Excel read it."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(("person", "department", "course", "due_on", "days_overdue", "rung"))
    for due in late:
        days = (day - due.due_on).days
        named = (_harmless(text) for text in (due.person, due.department, due.course))
        rows.writerow((*named, due.due_on, days, due.rung))
    return text.getvalue().encode("utf-8-sig")


def _harmless(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
