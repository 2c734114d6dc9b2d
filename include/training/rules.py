"""The rules of training.yaml: courses, the people who must pass them, and the reminder stages.

The author of the policy pack writes the SQL of the sources, and is trusted like the author of a
migration. docs/reference/policy-pack/training.md explains every key.

A reminder stage (``rung``) is a number of days from the due date of a course, negative before the
due date. If a stage before the due date falls on a day off, it is reached on the last workday
before that day, so that a holiday does not delay the reminder. If a stage after the due date falls
on a day off, it is reached on the next workday.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from include.policy.rules import Identifier, Name, Rule, Sql, Text, Unit, require_items
from include.policy.section import Loc, PackNames, RuleSection, SectionRules
from include.workdays.calendar import Workdays

Days = Annotated[int, Field(ge=1, le=366), Unit("days")]
TOPICS = ("onboarding", "law", "protection", "emergency")
"""The topics of policy clause 6.2; courses name them."""


class TrainingSource(Rule):
    """The source of people, courses or completions: a query, or uploaded files.

    Attributes:
        database: Database of the data map that the query reads.
        sql: SELECT that returns the columns of people, courses or completions. The explanation of
            training lists these columns.
        upload: ``true`` if the data comes from CSV files (``./parcelseal training upload``), not
            from a query.
    """

    database: Name | None = None
    sql: Sql | None = None
    upload: Literal[True] | None = None

    @model_validator(mode="after")
    def _query_or_upload(self) -> TrainingSource:
        has_query = self.database is not None and self.sql is not None
        if has_query == bool(self.upload) or (self.upload and (self.database or self.sql)):
            raise ValueError("should have database and sql, or upload: true")
        return self


class Ladder(Rule):
    """The reminder stages of a course. Days are counted from the due date of the course.

    A reminder before the due date that falls on a day off is sent on the last workday before that
    day. A reminder after the due date that falls on a day off is sent on the next workday.

    Attributes:
        before: Numbers of days before the due date on which reminders are sent, in falling order.
        overdue: Numbers of days after the due date on which reminders are sent, in rising order. If
            a course is overdue by more days than the last of these numbers, the run reports a
            finding and the control fails.
        then_every: Number of days between the further reminders that follow the last reminder of
            ``overdue``.
        copy_from: Number of the first overdue reminder that the supervisor receives as well: 1 for
            the first overdue reminder, 2 for the second, and so on.
    """

    before: Annotated[tuple[Days, ...], AfterValidator(require_items)] = (30, 7, 1)
    overdue: Annotated[tuple[Days, ...], AfterValidator(require_items)] = (1, 7, 14)
    then_every: Days = 14
    copy_from: Annotated[int, Field(ge=1, le=100)] = 2

    @model_validator(mode="after")
    def _in_order(self) -> Ladder:
        if list(self.before) != sorted(set(self.before), reverse=True):
            raise ValueError("before should fall: [30, 7, 1]")
        if list(self.overdue) != sorted(set(self.overdue)):
            raise ValueError("overdue should rise: [1, 7, 14]")
        return self


class TrainingRules(SectionRules):
    """The courses, the people who need training, and the reminders.

    Attributes:
        connection: Id of the Airflow connection through which sources that have a query are read.
            If this connection does not exist, the connection that the data map names is used.
        people: Source of the roster: all people, including those who left.
        courses: Source of the courses and their versions.
        completions: Source of the completions: which person completed which course.
        topics: Topics for which a regularly repeated course has to exist (clause 6.2). An
            onboarding course is always required.
        ladder: Schedule of reminders.
        leave_grace: Number of days after a person's leave within which the person may take courses
            that fell due during the leave.
        owner: Role of roles.yaml that is responsible for training. The role is notified about an
            overdue course if the person has no superior to notify.
    """

    connection: Text = "training_db"
    people: TrainingSource
    courses: TrainingSource
    completions: TrainingSource
    topics: tuple[Literal["law", "protection", "emergency"], ...] = (
        "law",
        "protection",
        "emergency",
    )
    ladder: Ladder = Ladder()
    leave_grace: Days = 14
    owner: Identifier

    @property
    def sources(self) -> dict[str, TrainingSource]:
        """Return the three sources of training.yaml.

        The keys are ``people``, ``courses`` and ``completions``.
        """
        return {
            "people": self.people,
            "courses": self.courses,
            "completions": self.completions,
        }


def check_rules(rules: TrainingRules, pack: PackNames) -> Iterator[tuple[Loc, str]]:
    """Yield errors for databases and roles in training.yaml that the policy pack does not define.

    Yields:
        The path of the faulty value in training.yaml, and the error message.
    """
    for name, source in rules.sources.items():
        if source.database is not None and source.database not in pack.inventory:
            yield (name, "database"), f"the pack maps no database {source.database!r}"
    if rules.owner not in pack.roles:
        yield ("owner",), f"roles.yaml has no role {rules.owner!r}"


TRAINING = RuleSection("training.yaml", TrainingRules, check_rules, page="explanation/training.md")


_MAX_DAYS_OVERDUE = 10 * 366  # days; after a longer delay, the last reminder stage stays reached


@dataclass(frozen=True)
class DueThresholds:
    """The reminder stages on one day, each with the latest due date for which it is reached.

    Attributes:
        stages: reminder stages as numbers of days after the due date, negative before the due date.
            The largest number, which is the latest stage, comes first.
        latest: for each stage in ``stages``, a due date. An obligation has reached the stage if its
            due date is this date or earlier. The dates are in rising order. An obligation is at the
            first stage in ``stages`` that it has reached.
    """

    stages: tuple[int, ...]
    latest: tuple[date, ...]

    def stage_of(self, due_on: date) -> int | None:
        """Return the reminder stage of an obligation; None if it has not reached a stage yet.

        Args:
            due_on: due date of the obligation.
        """
        for stage, latest in zip(self.stages, self.latest, strict=True):
            if due_on <= latest:
                return stage
        return None


def thresholds_on(ladder: Ladder, workdays: Workdays, today: date) -> DueThresholds:
    """Return, for each reminder stage, which due dates count as having reached it on a given day.

    For example, stage ``-7`` is the reminder 7 days before the due date. On Friday 2026-07-10,
    courses that are due on 2026-07-19 or earlier have reached it. For the due dates 18 and 19 July,
    this reminder would fall on the weekend, so it is reached on Friday.

    If the given day is a day off, the result is that of the last workday before it.

    Args:
        ladder: reminder stages of training.yaml.
        workdays: workdays of calendar.yaml.
        today: the given day.
    """
    day = workdays.on_or_before(today)
    # A stage before the due date is reached if no workday is left between today and its day
    before_next = workdays.after(day) - timedelta(days=1)
    stages = [-days for days in ladder.before] + overdue_stages(ladder)
    latest = {
        stage: (before_next if stage < 0 else day) - timedelta(days=stage)
        for stage in sorted(stages)
    }
    falling = tuple(sorted(latest, reverse=True))
    return DueThresholds(falling, tuple(latest[stage] for stage in falling))


def overdue_stages(ladder: Ladder) -> list[int]:
    """Return the numbers of days after the due date on which overdue reminders are sent.

    These are the numbers in ``overdue``, followed by further numbers at intervals of ``then_every``
    days, up to ten years.

    Args:
        ladder: reminder stages of training.yaml.
    """
    last = ladder.overdue[-1]
    return [*ladder.overdue, *range(last + ladder.then_every, _MAX_DAYS_OVERDUE, ladder.then_every)]


def notifies_supervisor(ladder: Ladder, stage: int) -> bool:
    """Return whether the supervisor receives a copy of a reminder.

    Args:
        ladder: reminder stages of training.yaml.
        stage: stage of the reminder, in days from the due date; negative before the due date.
    """
    if stage <= 0:
        return False
    number = sum(days <= stage for days in overdue_stages(ladder))
    return number >= ladder.copy_from


def is_past_last_overdue_stage(ladder: Ladder, due_on: date, today: date) -> bool:
    """Return whether an obligation is overdue by more days than the last number in ``overdue``.

    Args:
        ladder: reminder stages of training.yaml, which contain ``overdue``.
        due_on: due date of the obligation.
        today: today's date.
    """
    return (today - due_on).days > ladder.overdue[-1]
