"""Tests of the sample company's reminders on ten dates of a year, against its answer sheet.

The answer sheet lists the courses that are due. `tests.training.oracle` computes the expected
reminders from it. Nobody completes a course in that year.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

import psycopg
import pytest
from sqlalchemy import select, update

from include.local.postgres import EmbeddedPostgres
from include.notify.outbox import Run
from include.notify.tables import notification
from include.policy import SHIPPED
from include.registry import load_pack
from include.sample_company import load
from include.sample_company.answers import AnswerSheet
from include.services.clock import FixedClock
from include.training.plan import PLAN
from include.training.rules import TRAINING
from include.training.training_status import COPY, REMINDER, parse_key
from tests.support.contexts import run_context, step_record
from tests.support.databases import temporary_database
from tests.training import oracle
from tests.training.training_fixtures import TrainingCompany

AS_OF = datetime(2025, 12, 20, 4, tzinfo=UTC)
# End of years, make-up workdays (Sunday, Saturday), first and last workdays around holidays.
DATES = (
    "2026-01-04", "2026-02-14", "2026-02-24", "2026-04-07", "2026-05-09", "2026-06-18",
    "2026-09-20", "2026-10-08", "2026-10-10", "2026-12-31",
)  # fmt: skip
OFF = ("2026-01-01", "2026-02-20", "2026-10-03", "2026-11-28")
PACK = load_pack(SHIPPED)


@pytest.fixture(scope="module")
def sample(postgres: EmbeddedPostgres) -> Iterator[tuple[str, AnswerSheet]]:
    """Provide the sample company's database and answer sheet, loaded before the year starts."""
    with temporary_database(postgres) as name:
        with psycopg.connect(postgres.conninfo(name)) as connection:
            sheet = load(connection, customers=300, as_of=AS_OF)
        yield postgres.conninfo(name), sheet


def plan_and_deliver(
    company: TrainingCompany, sample: str, day: date
) -> tuple[set[tuple[str, str, int]], set[object]]:
    """Plan a day with the shipped policy pack, deliver, and return reminders and copies."""
    company.today = day
    clock, run = FixedClock(company.now()), Run("remind_training", f"r{day}")
    step_record(PLAN, run_context(TRAINING, PACK, {"courier": sample}, company.engine, clock, run))
    with company.engine.begin() as conn:
        columns = select(notification.c.kind, notification.c.key, notification.c.recipient)
        rows = conn.execute(columns.where(notification.c.state == "pending")).all()
        conn.execute(
            update(notification).where(notification.c.state == "pending").values(state="sent")
        )
    reminders = [
        (kind, parse_key(key), recipient)
        for kind, key, recipient in rows
        if kind in (REMINDER, COPY)
    ]
    assert all(
        recipient == reminder.person for kind, reminder, recipient in reminders if kind == REMINDER
    )
    return (
        {
            (reminder.person, reminder.course, reminder.rung)
            for kind, reminder, _ in reminders
            if kind == REMINDER
        },
        {
            (recipient, reminder.person, reminder.course, reminder.rung)
            for kind, reminder, recipient in reminders
            if kind == COPY
        },
    )


def test_reminders_on_ten_dates_match_expected_results_of_sample_company(
    company: TrainingCompany, sample: tuple[str, AnswerSheet]
):
    conninfo, sheet = sample
    expected = oracle.Expected(sheet.duties, "role:human_resources")
    expected_by_day = {}
    for date_of in map(date.fromisoformat, DATES):
        for day in (oracle.workday_before(date_of), date_of):
            expected_by_day[day] = expected.on(day)
            assert plan_and_deliver(company, conninfo, day) == expected_by_day[day], day
        assert plan_and_deliver(company, conninfo, date_of) == (set(), set()), (
            "a second run the same day"
        )
    rungs = {item[2] for reminders, _ in expected_by_day.values() for item in reminders}
    assert {-30, -7, -1, 1, 7, 14, 28} <= rungs
    superiors = {item[0] for _, copies in expected_by_day.values() for item in copies}
    assert "role:human_resources" in superiors
    assert len(superiors) > 10
    assert sum(bool(expected_by_day[date.fromisoformat(item)][0]) for item in DATES) >= 8


@pytest.mark.parametrize("day", OFF)
def test_no_reminder_is_planned_on_day_off(
    company: TrainingCompany, sample: tuple[str, AnswerSheet], day: str
):
    conninfo, _ = sample
    assert plan_and_deliver(company, conninfo, date.fromisoformat(day)) == (set(), set())


def test_answer_sheet_lists_exactly_the_courses_whose_due_date_is_past_as_overdue(
    sample: tuple[str, AnswerSheet],
):
    _, sheet = sample
    codes = {"ONB": 1, "LAW": 2, "SKL": 3, "EMG": 4}
    overdue = {
        (int(duty.person[1:]), codes[duty.course])
        for duty in sheet.duties
        if duty.due_on < AS_OF.date()
    }
    assert overdue == set(sheet.planted["training_overdue"].rows)
