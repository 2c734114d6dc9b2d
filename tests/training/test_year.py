"""A year, day by day: people come, go, learn and are away; the mail server has bad days.

Nobody hears of a rung twice, nobody hears of a course that is taken, and after every day on which
mail went through, everybody who stands on a rung has heard of it. What is due when is worked out
here a second time, in plain Python; mails are read as the server received them.
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
from include.training.notices import still_due
from include.training.plan import PLAN
from include.training.standing import COPY, DEPARTMENT, REMINDER
from tests.notify.rig import MovingClock, Post
from tests.support.contexts import step_record
from tests.support.databases import pooled
from tests.support.smtp import DROP, Received, Smtp
from tests.training import oracle
from tests.training.rig import Rig, new_rig

YEARS = int(os.environ.get("TEST_YEARS", "1"))  # simulated in a usual run
FIRST, DAYS = date(2025, 12, 29), 369
COURSES = {"ONB": (30, None), "LAW": (60, 12), "EMG": (45, 6)}  # days, months
TOPICS = {"ONB": "onboarding", "LAW": "law", "EMG": "emergency"}
RETAKE = 30  # days for the second version of LAW
_LINE = re.compile(r"“Course (\w+)” (?:is|was) due on (\d{4}-\d\d-\d\d)")
_OTHERS = re.compile(r"\(P\d+\)")  # copies and summaries name somebody


@dataclass
class Model:
    """Somebody as the test knows them."""

    joined: date
    left: date | None = None
    leave: tuple[date, date] | None = None
    passed: dict[str, tuple[date, int]] = field(default_factory=dict)  # last day and version


def after(day: date, months: int) -> date:
    years, month = divmod(day.month - 1 + months, 12)
    last = monthrange(day.year + years, month + 1)[1]
    return date(day.year + years, month + 1, min(day.day, last))


@dataclass
class Year:
    """One simulated year."""

    rig: Rig
    server: Smtp
    dice: Random
    people: dict[str, Model] = field(default_factory=dict)
    second_version: date | None = None
    heard: dict[str, set[tuple[str, date, str, int]]] = field(default_factory=dict)
    letters: set[str] = field(default_factory=set)
    seen: int = 0
    reminders: int = 0
    copies: int = 0

    # --- what is due, once more ---

    def duty(self, person: str, course: str) -> tuple[date, str] | None:
        """Due day and cycle of an obligation."""
        one, (within, months) = self.people[person], COURSES[course]
        if course not in one.passed:
            due, cycle = one.joined + timedelta(days=within), f"from {one.joined}"
        else:
            last, version = one.passed[course]
            regular = after(last, months) if months else None
            published = self.second_version
            retake = None
            if course == "LAW" and version == 1 and published and published <= self.rig.today:
                retake = published + timedelta(days=RETAKE)
            if regular is None and retake is None:
                return None
            by_version = retake is not None and (regular is None or retake < regular)
            due = retake if by_version else regular
            cycle = "version 2" if by_version else f"since {last}"
        assert due is not None
        if one.leave and one.leave[0] <= due <= one.leave[1] + timedelta(days=14):
            due = one.leave[1] + timedelta(days=14)
        return due, cycle

    def standing(self) -> Iterator[tuple[str, str, date, str, int]]:
        """Person, course, due day, cycle and rung of all who stand on one."""
        today = self.rig.today
        day = today if oracle.works(today) else oracle.before(today)
        for person, one in self.people.items():
            there = one.joined <= today and (one.left is None or one.left >= today)
            away = one.leave and one.leave[0] <= today <= one.leave[1]
            if not there or away:
                continue
            for course in COURSES:
                if duty := self.duty(person, course):
                    rung = oracle.rung(duty[0], day)
                    if rung is not None:
                        yield person, course, *duty, rung

    # --- what happens ---

    def joins(self) -> None:
        person = f"P{len(self.people)}"
        joined = self.rig.today + timedelta(days=self.dice.randint(-3, 5))
        self.people[person] = Model(joined)
        boss = self.dice.choice([*self.people, "P99"])
        self.rig.person(person, str(joined), supervisor=boss, department=self.dice.choice("NS"))

    def learns(self) -> None:
        standing = list(self.standing())
        if not standing:
            return
        person, course, *_ = self.dice.choice(standing)
        today = self.rig.today
        version = (
            2 if course == "LAW" and self.second_version and self.second_version <= today else 1
        )
        passed = self.dice.random() < 0.9
        self.rig.took(str(today), person, course, version=version, passed=passed)
        if passed:
            self.people[person].passed[course] = (today, version)

    def leaves(self) -> None:
        person, one = self.dice.choice(list(self.people.items()))
        if one.left is None and len(self.people) > 4:
            one.left = max(self.rig.today + timedelta(days=self.dice.randint(-1, 9)), one.joined)
            self._update(person, left_on=one.left)

    def goes_away(self) -> None:
        person, one = self.dice.choice(list(self.people.items()))
        first = self.rig.today + timedelta(days=self.dice.randint(0, 5))
        one.leave = (first, first + timedelta(days=self.dice.randint(3, 60)))
        self._update(person, leave_from=one.leave[0], leave_until=one.leave[1])

    def moves(self) -> None:
        person = self.dice.choice(list(self.people))
        boss = self.dice.choice([*self.people, None])
        self._update(person, department=self.dice.choice("NSW"), supervisor=boss)

    def publishes(self) -> None:
        if self.second_version is None:
            self.second_version = self.rig.today + timedelta(days=3)
            self.rig.course(
                "LAW", version=2, published_on=str(self.second_version), within_days=60,
                repeat_months=12, retake_within_days=RETAKE,
            )  # fmt: skip

    def _update(self, person: str, **values: object) -> None:
        for column, value in values.items():
            self.rig.execute(f"UPDATE people SET {column} = %s WHERE person = %s", [value, person])

    def something_happens(self) -> None:
        chances = (
            (self.joins, 0.04), (self.learns, 0.06), (self.leaves, 0.01), (self.goes_away, 0.02),
            (self.moves, 0.03), (self.publishes, 0.005),
        )  # fmt: skip
        for what, chance in chances:
            if self.dice.random() < chance:
                what()

    # --- a day ---

    def day(self) -> None:
        """One day: things happen, a run plans, things happen, it sends; perhaps again later."""
        dice, rig = self.dice, self.rig
        self.something_happens()
        works = oracle.works(rig.today)
        if not works and dice.random() < 0.8:
            return
        rig.time = time(9, 30)
        mood = dice.choices(["good", "down", "greylists", "drops"], [80, 6, 8, 6])[0]
        self.server.rule = self.rule(mood)
        step_record(PLAN, rig.context(f"{rig.today}"))
        if dice.random() < 0.15:
            step_record(PLAN, rig.context(f"again {rig.today}"))
        if dice.random() < 0.15:
            self.learns()
        if dice.random() < 0.05:
            return  # killed before anything was sent
        self.sends()
        if mood != "good" and dice.random() < 0.5:
            rig.time, mood = time(15, 30), "good"
            self.server.rule = self.rule("good")
            step_record(PLAN, rig.context(f"later {rig.today}"))
            self.sends()
        if mood == "good" and works:
            self.everybody_heard()

    def rule(self, mood: str):
        unlucky = f"p{self.dice.randrange(len(self.people) or 1)}@firm.example"
        answers = {
            "good": lambda phase, address: None,
            "down": lambda phase, address: "421 4.3.2 closing" if phase == "MAIL" else None,
            "greylists": lambda phase, address: "451 4.7.1 later" if phase == "RCPT" else None,
            "drops": lambda phase, address: (
                DROP if phase == "DATA" and unlucky in address else None
            ),
        }
        return answers[mood]

    def sends(self) -> None:
        """Deliver, and look at each mail that the server read."""
        run = self.rig.context()
        confirm = {
            kind: lambda keys, kind=kind: still_due(run, keys, kind)
            for kind in (REMINDER, COPY, DEPARTMENT)
        }
        post = Post(self.rig.engine, self.server.port, MovingClock(self.rig.now()))
        post.confirm = confirm
        deliver(post.office())
        for one in self.server.read[self.seen :]:
            self.received(one)
        self.seen = len(self.server.read)

    def received(self, one: Received) -> None:
        assert oracle.works(self.rig.today)
        standing = {(p, c): (d, cycle, rung) for p, c, d, cycle, rung in self.standing()}
        again = one.message_id in self.letters
        self.letters.add(one.message_id)
        person = one.recipient.partition("@")[0].upper()
        for line in one.text("plain").splitlines():
            if not (found := _LINE.search(line)):
                continue
            if _OTHERS.search(line):
                self.copies += 1
                continue
            course = found[1]
            now = standing.get((person, course))
            assert now is not None, f"{self.rig.today}: {person} heard of {course}, not due"
            due, cycle, rung = now
            assert found[2] == str(due)
            told = self.heard.setdefault(person, set())
            assert again or (course, due, cycle, rung) not in told, "a rung twice"
            told.add((course, due, cycle, rung))
            self.reminders += 1

    def everybody_heard(self) -> None:
        for person, course, due, cycle, rung in self.standing():
            told = self.heard.get(person, set())
            assert (course, due, cycle, rung) in told, (self.rig.today, person, course, due, rung)


@pytest.fixture(scope="module")
def firm(postgres: EmbeddedPostgres, migrated_once: str) -> Iterator[Rig]:
    """One company for every year."""
    with new_rig(postgres, migrated_once) as made:
        kept = pooled(made.state)
        yield replace(made, pool=kept)
        kept.dispose()


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
def test_a_year_forgets_nobody_and_nags_nobody(firm: Rig, seed: int):
    """More years with TEST_YEARS; a year that fails names its seed."""
    firm.empty()
    for course, (within, months) in COURSES.items():
        firm.course(course, topic=TOPICS[course], within_days=within, repeat_months=months)
    with Smtp() as server:
        year = Year(firm, server, Random(seed))
        firm.today = FIRST
        for _ in range(6):
            year.joins()
        for _ in range(DAYS):
            year.day()
            firm.today += timedelta(days=1)
        assert year.reminders > 20
        assert year.copies
