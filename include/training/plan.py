"""The step of `remind_training` that queues reminders and measures the training coverage."""

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
from include.notify.notification import NO_LONGER_DUE, Notification
from include.policy.rules import translated_message
from include.state.locks import hold_exclusive_lock
from include.training import checks, notifications, waivers
from include.training.notifications import Roster
from include.training.obligations import Department, Due, Topic, Untrained, course_codes
from include.training.rules import TrainingRules, notifies_supervisor
from include.training.sources import open_sources
from include.training.training_status import (
    CLAUSE,
    COPY,
    DEPARTMENT,
    OVERDUE_FILE,
    REMINDER,
    STEP_PLAN,
    TrainingStatus,
    compute_status,
    last_people_count,
    reminder_id,
    store_coverage,
    week_of,
)
from include.workflow.run_context import RunContext
from include.workflow.step import Step

_LOCK_TIMEOUT = timedelta(minutes=10)  # time to wait for a concurrent run
_BATCH_SIZE = 1000  # reminders read and queued together
_MAX_LISTED = 200  # rows in the report; overdue.csv has all rows


class NotificationCounts(BaseModel):
    """The numbers of notifications that a run withdrew and queued.

    Attributes:
        withdrawn: number of queued reminders and copies that were withdrawn.
        reminders: number of reminders that were queued.
        copies: number of copies to superiors that were queued.
        summaries: number of lines of weekly summaries that were queued.
    """

    withdrawn: int = 0
    reminders: int = 0
    copies: int = 0
    summaries: int = 0


class WaivedCourse(BaseModel):
    """A waiver in the report.

    Attributes:
        person: staff number of the exempt person.
        course: code of the course.
        until: last day of the waiver.
        reason: reason for the waiver.
        waives: whether the waiver has an effect. It has none if its person is not in the roster or
            its course does not exist.
    """

    person: str
    course: str
    until: date
    reason: str
    waives: bool


class TrainingPlan(StepResult):
    """The reminders and the training coverage of a day.

    Attributes:
        day: today in the policy pack's timezone.
        workday: whether the day is a workday. People receive notifications only on workdays.
        told: numbers of notifications that the run queued or withdrew.
        whole: whether the training records are complete enough to measure the coverage.
        people: number of people who need training, without people on leave.
        covered: number of these people who have no overdue course.
        departments: coverage of each department.
        topics: coverage of each topic.
        untrained: the first 200 people who may access customer records but have no valid training.
        untrained_all: number of all people who may access customer records but have no valid
            training.
        not_employed: number of people who have access to customer records but are not employed.
        overdue: the first 200 overdue obligations, oldest first.
        overdue_all: number of all overdue obligations.
        waived: waivers that have not expired and were not ended.
    """

    day: date
    workday: bool
    told: NotificationCounts
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
    """Compute today's obligations, queue new reminders, and withdraw those that are no longer due.

    Args:
        run: context of the run.
        findings: findings of the step.

    Raises:
        UsageError: the rows of a query in training.yaml cannot be read.
        ServiceError: the connection to a database was lost, or the wait for another run that plans
            reminders timed out.
    """
    findings.subject_titles |= checks.SUBJECT_TITLES | {
        run.rules.owner: _(
            "Training (responsible: {owner})",
            owner=translated_message(run.roles[run.rules.owner].title),
        )
    }
    with run.state.connect() as conn:
        waivers_granted = waivers.list_waivers(conn, run.today)
    with (
        hold_exclusive_lock(run.state, "training:plan", "the reminders of training", _LOCK_TIMEOUT),
        open_sources(run) as sources,
    ):
        faults = checks.check_records(findings, sources, run.today)
        status = compute_status(run, sources, [waiver.waiver for waiver in waivers_granted])
        overdue = status.overdue(run.today)
        roster = Roster(sources, run.today)
        with run.state.begin() as conn:
            people_before = last_people_count(conn, run.clock.now())
            counts = _queue_notifications(conn, run, status, roster)
            store_coverage(conn, run.run, run.today, run.clock.now(), status.departments)
            listing = _overdue_csv(overdue, run.today)
            keep_artifact(conn, run.run.dag_id, run.run.run_id, OVERDUE_FILE, listing)
        people, courses = (
            roster.find(waiver.person for waiver in waivers_granted),
            course_codes(sources),
        )
        unknown = [
            waiver
            for waiver in waivers_granted
            if waiver.person not in people or waiver.course not in courses
        ]
    is_complete = checks.report_breaches(findings, run, status, overdue, faults)
    checks.report_unknown_waivers(findings, unknown)
    checks.report_shrunk_roster(findings, status.people, people_before)
    return TrainingPlan(
        day=run.today,
        workday=run.workdays.is_workday(run.today),
        told=counts,
        whole=is_complete,
        people=status.people,
        covered=status.covered,
        departments=status.departments,
        topics=status.topics,
        untrained=status.untrained[:_MAX_LISTED],
        untrained_all=len(status.untrained),
        not_employed=faults["training.access_not_employed"],
        overdue=overdue[:_MAX_LISTED],
        overdue_all=len(overdue),
        waived=[
            WaivedCourse(
                person=waiver.person,
                course=waiver.course,
                until=waiver.until,
                reason=waiver.reason,
                waives=waiver not in unknown,
            )
            for waiver in waivers_granted
        ],
    )


PLAN = Step(
    name=STEP_PLAN,
    title=_("The plan of reminders"),
    clause=CLAUSE,
    work=plan_reminders,
    result=TrainingPlan,
)


def _queue_notifications(
    conn: Connection, run: RunContext[TrainingRules], status: TrainingStatus, roster: Roster
) -> NotificationCounts:
    """Withdraw reminders and copies that are no longer due; queue new ones, and weekly summaries.

    On a day off, notifications are only withdrawn and none is queued.

    Args:
        conn: connection to the state database, in a transaction.
        run: context of the run.
        status: today's training obligations and coverage.
        roster: people of the roster.
    """
    copied = {
        key: due
        for key, due in status.due_courses.items()
        if notifies_supervisor(run.rules.ladder, due.rung)
    }
    at = run.clock.now()
    withdrawn = 0
    for kind, due_now in ((REMINDER, status.due_courses), (COPY, copied)):
        stale = [key for key in outbox.pending(conn, kind) if key.partition("#")[0] not in due_now]
        withdrawn += outbox.withdraw(conn, kind, stale, NO_LONGER_DUE, at)
    new_reminders = _unqueued(conn, REMINDER, status.due_courses)
    new_copies = _unqueued(conn, COPY, copied)
    counts = NotificationCounts(withdrawn=withdrawn)
    if not run.workdays.is_workday(run.today):
        return counts  # these reminders were queued on the last workday
    for block in _batches(new_reminders):
        people = roster.find(due.person for due in block)
        reminders = [
            notifications.reminder(due, people[due.person]) for due in block if due.person in people
        ]
        counts.reminders += _queue(conn, run, reminders)
    role = run.roles[run.rules.owner]
    copies_queued: set[tuple[str, str]] = set()
    for block in _batches(new_copies):
        people = roster.find(due.person for due in block)
        superiors = roster.superiors(due.person for due in block)
        copied_to = [
            notification
            for due in block
            if due.person in people
            for notification in notifications.supervisor_copy(
                due, people[due.person], superiors[due.person], role
            )
        ]
        counts.copies += _queue(conn, run, copied_to)
        copies_queued |= {(notification.recipient, notification.key) for notification in copied_to}
    summaries = _summaries(conn, run, status, roster, copies_queued)
    counts.summaries = _queue(conn, run, summaries)
    return counts


def _queue(
    conn: Connection, run: RunContext[TrainingRules], notifications: Iterable[Notification]
) -> int:
    result = outbox.queue_notifications(conn, notifications, run.run, run.clock.now(), run.notices)
    return result.new + result.again


def _summaries(
    conn: Connection,
    run: RunContext[TrainingRules],
    status: TrainingStatus,
    roster: Roster,
    copies_queued: Collection[tuple[str, str]],
) -> list[Notification]:
    """Return the lines of this week's department summaries, for heads who have no summary yet.

    A summary is left out if an earlier run of the week has already queued it for the head. An
    obligation is left out of the summary for a head if this run queued a copy of its reminder to
    the head.

    Args:
        conn: connection to the state database.
        run: context of the run.
        status: today's training obligations and coverage.
        roster: people of the roster.
        copies_queued: recipient and key of each copy that this run queued.
    """
    week = week_of(run.today)
    overdue_by_department: dict[str, list[Due]] = {}
    for due in status.overdue(run.today):
        overdue_by_department.setdefault(due.department, []).append(due)
    summaries: list[Notification] = []
    for department in status.departments:
        for head in roster.heads().get(department.name, []):
            overdue = [
                due
                for due in overdue_by_department.get(department.name, [])
                if (head.person, reminder_id(due).key) not in copies_queued
            ]
            first = overdue[: notifications.MAX_SUMMARY_LINES]
            people = roster.find(due.person for due in first)
            names = {key: person.name for key, person in people.items()}
            lines = list(
                notifications.summary_lines(
                    notifications.WeeklySummary(department, overdue, names), head, week
                )
            )
            # All lines of a week are queued together, because a later line would be a second mail
            if outbox.unqueued_keys(conn, DEPARTMENT, [lines[0].key]):
                summaries += lines
    return summaries


def _unqueued(conn: Connection, kind: str, due: dict[str, Due]) -> list[Due]:
    unqueued = outbox.unqueued_keys(conn, kind, due)
    return [obligation for key, obligation in due.items() if key in unqueued]


def _batches(due: Sequence[Due]) -> Iterable[Sequence[Due]]:
    return (due[start : start + _BATCH_SIZE] for start in range(0, len(due), _BATCH_SIZE))


def _overdue_csv(overdue: Sequence[Due], day: date) -> bytes:
    """Return all overdue obligations as a CSV file that Excel can open.

    Args:
        overdue: the overdue obligations.
        day: today, from which the number of days overdue is counted.
    """
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(("person", "department", "course", "due_on", "days_overdue", "rung"))
    for due in overdue:
        days = (day - due.due_on).days
        cells = (_escape_formula(text) for text in (due.person, due.department, due.course))
        rows.writerow((*cells, due.due_on, days, due.rung))
    return text.getvalue().encode("utf-8-sig")


def _escape_formula(text: str) -> str:
    """Return a text in a form that a spreadsheet does not read as a formula.

    If the text begins like a formula, an apostrophe is added in front of it.
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
