"""A simulated year: people join, leave, learn and take leave, and the mail server fails at times.

No reminder stage is sent twice, and no reminder of a passed course is sent. After each day on which
mail works, every person has a reminder of each stage that was reached. Expected obligations are
computed in plain Python, and mails are read as the SMTP server received them.
"""

from __future__ import annotations

import os
import re
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, time, timedelta
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from include.local.postgres import EmbeddedPostgres
from include.notify.delivery import deliver
from include.training.notifications import still_due
from include.training.plan import PLAN
from include.training.training_status import COPY, DEPARTMENT, REMINDER
from tests.notify.notify_fixtures import MovingClock, Post
from tests.support.contexts import step_record
from tests.support.databases import pooled
from tests.support.smtp import DROP, Received, Smtp
from tests.training import oracle
from tests.training.training_fixtures import TrainingCompany, new_company

YEARS = int(os.environ.get("TEST_YEARS", "1"))  # number of simulated years
FIRST, DAYS = date(2025, 12, 29), 369
COURSES = {
    "ONB": (30, None),
    "LAW": (60, 12),
    "EMG": (45, 6),
}  # days to take the course, months until it is repeated
TOPICS = {"ONB": "onboarding", "LAW": "law", "EMG": "emergency"}
RETAKE = 30  # days to take the second version of LAW
_LINE = re.compile(r"“Course (\w+)” (?:is|was) due by (\d{4}-\d\d-\d\d)")
_NAMED_PERSON = re.compile(r"\(P\d+\)")  # copies and summaries name a person


@dataclass
class Model:
    """A person in the simulation, with the last pass of each course."""

    joined: date
    left: date | None = None
    leave: tuple[date, date] | None = None
    passed: dict[str, tuple[date, int]] = field(
        default_factory=dict
    )  # date of the last pass, and its version


def add_months(day: date, months: int) -> date:
    years, month = divmod(day.month - 1 + months, 12)
    last = monthrange(day.year + years, month + 1)[1]
    return date(day.year + years, month + 1, min(day.day, last))


@dataclass
class Year:
    """The simulation of a year, with counts of the mails that the server received."""

    company: TrainingCompany
    server: Smtp
    dice: Random
    people: dict[str, Model] = field(default_factory=dict)
    second_version: date | None = None
    reminded: dict[str, set[tuple[str, date, str, int]]] = field(default_factory=dict)
    message_ids: set[str] = field(default_factory=set)
    mails_checked: int = 0
    reminders: int = 0
    copies: int = 0

    # --- expected obligations ---

    def duty(self, person: str, course: str) -> tuple[date, str] | None:
        """Return the due date and the cycle of a person's obligation to take a course.

        The cycle is a text that names the day or version from which the due date is counted. Return
        None if the person has no obligation to take the course.
        """
        model, (within, months) = self.people[person], COURSES[course]
        if course not in model.passed:
            due, cycle = model.joined + timedelta(days=within), f"from {model.joined}"
        else:
            last, version = model.passed[course]
            regular = add_months(last, months) if months else None
            published = self.second_version
            retake = None
            if course == "LAW" and version == 1 and published and published <= self.company.today:
                retake = published + timedelta(days=RETAKE)
            if regular is None and retake is None:
                return None
            by_version = retake is not None and (regular is None or retake < regular)
            due = retake if by_version else regular
            cycle = "version 2" if by_version else f"since {last}"
        assert due is not None
        if model.leave and model.leave[0] <= due <= model.leave[1] + timedelta(days=14):
            due = model.leave[1] + timedelta(days=14)
        return due, cycle

    def due_stages(self) -> Iterator[tuple[str, str, date, str, int]]:
        """Yield each obligation that has reached a reminder stage.

        Yields:
            Person, course, due date, cycle and reminder stage.
        """
        today = self.company.today
        day = today if oracle.is_workday(today) else oracle.workday_before(today)
        for person, model in self.people.items():
            is_employed = model.joined <= today and (model.left is None or model.left >= today)
            is_on_leave = model.leave and model.leave[0] <= today <= model.leave[1]
            if not is_employed or is_on_leave:
                continue
            for course in COURSES:
                if duty := self.duty(person, course):
                    stage = oracle.stage(duty[0], day)
                    if stage is not None:
                        yield person, course, *duty, stage

    # --- events ---

    def person_joins(self) -> None:
        person = f"P{len(self.people)}"
        joined = self.company.today + timedelta(days=self.dice.randint(-3, 5))
        self.people[person] = Model(joined)
        boss = self.dice.choice([*self.people, "P99"])
        self.company.add_person(
            person, str(joined), supervisor=boss, department=self.dice.choice("NS")
        )

    def person_learns(self) -> None:
        due = list(self.due_stages())
        if not due:
            return
        person, course, *_ = self.dice.choice(due)
        today = self.company.today
        version = (
            2 if course == "LAW" and self.second_version and self.second_version <= today else 1
        )
        passed = self.dice.random() < 0.9
        self.company.add_completion(str(today), person, course, version=version, passed=passed)
        if passed:
            self.people[person].passed[course] = (today, version)

    def person_leaves(self) -> None:
        person, model = self.dice.choice(list(self.people.items()))
        if model.left is None and len(self.people) > 4:
            model.left = max(
                self.company.today + timedelta(days=self.dice.randint(-1, 9)), model.joined
            )
            self._update(person, left_on=model.left)

    def person_takes_leave(self) -> None:
        person, model = self.dice.choice(list(self.people.items()))
        first = self.company.today + timedelta(days=self.dice.randint(0, 5))
        model.leave = (first, first + timedelta(days=self.dice.randint(3, 60)))
        self._update(person, leave_from=model.leave[0], leave_until=model.leave[1])

    def person_moves(self) -> None:
        person = self.dice.choice(list(self.people))
        boss = self.dice.choice([*self.people, None])
        self._update(person, department=self.dice.choice("NSW"), supervisor=boss)

    def course_is_published(self) -> None:
        if self.second_version is None:
            self.second_version = self.company.today + timedelta(days=3)
            self.company.add_course(
                "LAW", version=2, published_on=str(self.second_version), within_days=60,
                repeat_months=12, retake_within_days=RETAKE,
            )  # fmt: skip

    def _update(self, person: str, **values: object) -> None:
        for column, value in values.items():
            self.company.execute(
                f"UPDATE people SET {column} = %s WHERE person = %s", [value, person]
            )

    def simulate_events(self) -> None:
        chances = (
            (self.person_joins, 0.04), (self.person_learns, 0.06), (self.person_leaves, 0.01),
            (self.person_takes_leave, 0.02),
            (self.person_moves, 0.03), (self.course_is_published, 0.005),
        )  # fmt: skip
        for event, chance in chances:
            if self.dice.random() < chance:
                event()

    # --- a day ---

    def simulate_day(self) -> None:
        """Simulate a day: events, planning, further events and sending, sometimes twice."""
        dice, company = self.dice, self.company
        self.simulate_events()
        works = oracle.is_workday(company.today)
        if not works and dice.random() < 0.8:
            return
        company.time = time(9, 30)
        server_state = dice.choices(["good", "down", "greylists", "drops"], [80, 6, 8, 6])[0]
        self.server.rule = self.smtp_rule(server_state)
        step_record(PLAN, company.context(f"{company.today}"))
        if dice.random() < 0.15:
            step_record(PLAN, company.context(f"again {company.today}"))
        if dice.random() < 0.15:
            self.person_learns()
        if dice.random() < 0.05:
            return  # as if the run were killed before it sends
        self.send()
        if server_state != "good" and dice.random() < 0.5:
            company.time, server_state = time(15, 30), "good"
            self.server.rule = self.smtp_rule("good")
            step_record(PLAN, company.context(f"later {company.today}"))
            self.send()
        if server_state == "good" and works:
            self.check_everyone_was_reminded()

    def smtp_rule(self, server_state: str):
        unlucky = f"p{self.dice.randrange(len(self.people) or 1)}@firm.example"
        answers = {
            "good": lambda phase, address: None,
            "down": lambda phase, address: "421 4.3.2 closing" if phase == "MAIL" else None,
            "greylists": lambda phase, address: "451 4.7.1 later" if phase == "RCPT" else None,
            "drops": lambda phase, address: (
                DROP if phase == "DATA" and unlucky in address else None
            ),
        }
        return answers[server_state]

    def send(self) -> None:
        """Deliver the queued mails, and check each mail that the server received."""
        run = self.company.context()
        confirm = {
            kind: lambda keys, kind=kind: still_due(run, keys, kind)
            for kind in (REMINDER, COPY, DEPARTMENT)
        }
        mail_delivery = Post(self.company.engine, self.server.port, MovingClock(self.company.now()))
        mail_delivery.confirm = confirm
        deliver(mail_delivery.office())
        for mail in self.server.read[self.mails_checked :]:
            self.check_mail(mail)
        self.mails_checked = len(self.server.read)

    def check_mail(self, mail: Received) -> None:
        assert oracle.is_workday(self.company.today)
        due_stages = {(p, c): (d, cycle, stage) for p, c, d, cycle, stage in self.due_stages()}
        is_repeated = mail.message_id in self.message_ids
        self.message_ids.add(mail.message_id)
        person = mail.recipient.partition("@")[0].upper()
        for line in mail.text("plain").splitlines():
            if not (match := _LINE.search(line)):
                continue
            if _NAMED_PERSON.search(line):
                self.copies += 1
                continue
            course = match[1]
            due_stage = due_stages.get((person, course))
            assert due_stage is not None, (
                f"{self.company.today}: {person} was reminded of {course}, which is not due"
            )
            due, cycle, stage = due_stage
            assert match[2] == str(due)
            reminders = self.reminded.setdefault(person, set())
            assert is_repeated or (course, due, cycle, stage) not in reminders, "a stage twice"
            reminders.add((course, due, cycle, stage))
            self.reminders += 1

    def check_everyone_was_reminded(self) -> None:
        for person, course, due, cycle, stage in self.due_stages():
            reminders = self.reminded.get(person, set())
            assert (course, due, cycle, stage) in reminders, (
                self.company.today,
                person,
                course,
                due,
                stage,
            )


@pytest.fixture(scope="module")
def firm(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[TrainingCompany]:
    """Provide the company that all simulated years share."""
    with new_company(postgres, migrated_once) as created:
        pool = pooled(created.state)
        yield replace(created, pool=pool)
        pool.dispose()


@settings(
    max_examples=YEARS,
    deadline=None,
    database=None,
    derandomize=YEARS == 1,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(seed=st.integers(0, 2**32))
@pytest.mark.timeout(900 * YEARS)
def test_reminder_of_each_stage_is_sent_once_in_a_simulated_year(firm: TrainingCompany, seed: int):
    firm.reset()
    for course, (within, months) in COURSES.items():
        firm.add_course(course, topic=TOPICS[course], within_days=within, repeat_months=months)
    with Smtp() as server:
        year = Year(firm, server, Random(seed))
        firm.today = FIRST
        for _ in range(6):
            year.person_joins()
        for _ in range(DAYS):
            year.simulate_day()
            firm.today += timedelta(days=1)
        assert year.reminders > 20
        assert year.copies
