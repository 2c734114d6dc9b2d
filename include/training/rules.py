"""The rules of training.yaml: courses, who must pass them, and the ladder of reminders.

SQL of sources is that of the pack's author, who is trusted as the author of a migration is;
docs/training.md explains every key.

A rung is a number of days from the day on which a course is due, negative before it. A rung before
that day comes on the last workday up to it, so that nobody's notice gets shorter by a holiday; one
after it on the first workday from it on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from include.policy.rules import Identifier, Name, Rule, Sql, Text, some
from include.policy.section import Loc, PackNames, RuleSection, SectionRules
from include.workdays.calendar import Workdays

Days = Annotated[int, Field(ge=1, le=366)]
TOPICS = ("onboarding", "law", "protection", "emergency")
"""The topics of policy clause 6.2; courses name them."""


class TrainingSource(Rule):
    """Where people, courses or completions come from: a query, or files that were uploaded.

    Attributes:
        database: database of the data map that the query reads.
        sql: SELECT with the columns of its kind (`include.training.sources`).
        upload: that they come from CSV files (`./parcelseal training upload`).
    """

    database: Name | None = None
    sql: Sql | None = None
    upload: Literal[True] | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> TrainingSource:
        queried = self.database is not None and self.sql is not None
        if queried == bool(self.upload) or (self.upload and (self.database or self.sql)):
            raise ValueError("should have database and sql, or upload: true")
        return self


class Ladder(Rule):
    """The schedule of reminders of a course; days count from its due date.

    A rung before that day that falls on a day off comes on the workday before, one after it on the
    next workday.

    Attributes:
        before: days before it is due.
        overdue: days after it was due.
        then_every: days between further reminders after the last of these.
        copy_from: the overdue rung, from 1, from which the supervisor is told too.
    """

    before: Annotated[tuple[Days, ...], AfterValidator(some)] = (30, 7, 1)
    overdue: Annotated[tuple[Days, ...], AfterValidator(some)] = (1, 7, 14)
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
    """training.yaml.

    Attributes:
        connection: id of the Airflow connection that reads mapped sources; the database's own where
            it is not configured.
        people: everybody, leavers too.
        courses: what has to be taken.
        completions: who took what.
        topics: that repeated courses have to cover (policy clause 6.2).
        ladder: when people are reminded.
        leave_grace: days after a leave in which what fell due meanwhile may be done.
        owner: role of roles.yaml that follows up, and is told where no supervisor can be.
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
        """The three sources by their key."""
        return {
            "people": self.people,
            "courses": self.courses,
            "completions": self.completions,
        }


def check_rules(rules: TrainingRules, pack: PackNames) -> Iterator[tuple[Loc, str]]:
    """Yield what training.yaml names and the rest of the pack does not have."""
    for name, source in rules.sources.items():
        if source.database is not None and source.database not in pack.inventory:
            yield (name, "database"), f"the pack maps no database {source.database!r}"
    if rules.owner not in pack.roles:
        yield ("owner",), f"roles.yaml has no role {rules.owner!r}"


TRAINING = RuleSection("training.yaml", TrainingRules, check_rules, page="training.md")


_YEARS = 10 * 366  # days; who is overdue for longer stands on the last rung


@dataclass(frozen=True)
class Reached:
    """The rungs as they stand on one day.

    Attributes:
        rungs: days from the due day, falling.
        latest: for each rung the latest due day whose obligation has reached it; rising. An
            obligation stands on the first of them that is not before its due day, and on none
            where it is due after the last.
    """

    rungs: tuple[int, ...]
    latest: tuple[date, ...]

    def rung(self, due_on: date) -> int | None:
        """The rung on which an obligation stands; None before the first."""
        for rung, latest in zip(self.rungs, self.latest, strict=True):
            if due_on <= latest:
                return rung
        return None


def reached(ladder: Ladder, workdays: Workdays, today: date) -> Reached:
    """Say which rungs are reached on a day; on a day off those of the workday before it.

    Args:
        ladder: of training.yaml.
        workdays: of calendar.yaml.
        today: the day.
    """
    day = workdays.on_or_before(today)
    # A rung before the due day has come once no workday is left between today and it.
    before_next = workdays.after(day) - timedelta(days=1)
    rungs = [-days for days in ladder.before] + overdue_rungs(ladder)
    latest = {
        rung: (before_next if rung < 0 else day) - timedelta(days=rung) for rung in sorted(rungs)
    }
    falling = tuple(sorted(latest, reverse=True))
    return Reached(falling, tuple(latest[rung] for rung in falling))


def overdue_rungs(ladder: Ladder) -> list[int]:
    """The rungs after the due day, those that repeat included."""
    last = ladder.overdue[-1]
    return [*ladder.overdue, *range(last + ladder.then_every, _YEARS, ladder.then_every)]


def is_copied(ladder: Ladder, rung: int) -> bool:
    """Return whether the supervisor is told of a rung too."""
    if rung <= 0:
        return False
    place = sum(days <= rung for days in overdue_rungs(ladder))
    return place >= ladder.copy_from


def is_beyond(ladder: Ladder, due_on: date, today: date) -> bool:
    """Whether an obligation is overdue for longer than the last rung that training.yaml lists."""
    return (today - due_on).days > ladder.overdue[-1]
