"""The sample database, reminded through a year: exactly the right people, rungs and copies.

The answer sheet says what was due when the sample was made; `tests.training.oracle` who hears of it
on which day. Nobody takes a course meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime

import psycopg
import pytest
from sqlalchemy import select, update

from include.local.postgres import EmbeddedPostgres
from include.notify.outbox import Run
from include.notify.tables import notice
from include.policy import SHIPPED
from include.registry import load_pack
from include.sample_company import load
from include.sample_company.answers import AnswerSheet
from include.services.clock import FixedClock
from include.training.plan import PLAN
from include.training.rules import TRAINING
from include.training.standing import COPY, REMINDER, read
from tests.support.contexts import run_context, step_record
from tests.support.databases import fresh
from tests.training import oracle
from tests.training.rig import Rig

AS_OF = datetime(2025, 12, 20, 4, tzinfo=UTC)
# Year's ends, make-up days (Sunday, Saturday), first days after holidays, days before them.
DATES = (
    "2026-01-04", "2026-02-14", "2026-02-24", "2026-04-07", "2026-05-09", "2026-06-18",
    "2026-09-20", "2026-10-08", "2026-10-10", "2026-12-31",
)  # fmt: skip
OFF = ("2026-01-01", "2026-02-20", "2026-10-03", "2026-11-28")
PACK = load_pack(SHIPPED)


@pytest.fixture(scope="module")
def sample(postgres: EmbeddedPostgres) -> Iterator[tuple[str, AnswerSheet]]:
    """A sample that was loaded before the year began."""
    with fresh(postgres) as name:
        with psycopg.connect(postgres.conninfo(name)) as connection:
            sheet = load(connection, customers=300, as_of=AS_OF)
        yield postgres.conninfo(name), sheet


def on(rig: Rig, sample: str, day: date) -> tuple[set[tuple[str, str, int]], set[object]]:
    """Plan a day by the shipped pack, deliver it, and say what was told."""
    rig.today = day
    clock, run = FixedClock(rig.now()), Run("remind_training", f"r{day}")
    step_record(PLAN, run_context(TRAINING, PACK, {"courier": sample}, rig.engine, clock, run))
    with rig.engine.begin() as conn:
        waiting = select(notice.c.kind, notice.c.key, notice.c.recipient)
        found = conn.execute(waiting.where(notice.c.state == "pending")).all()
        conn.execute(update(notice).where(notice.c.state == "pending").values(state="sent"))
    told = [(kind, read(key), to) for kind, key, to in found if kind in (REMINDER, COPY)]
    assert all(to == one.person for kind, one, to in told if kind == REMINDER)
    return (
        {(one.person, one.course, one.rung) for kind, one, _ in told if kind == REMINDER},
        {(to, one.person, one.course, one.rung) for kind, one, to in told if kind == COPY},
    )


def test_ten_dates_of_a_year_tell_exactly_the_right_people(
    rig: Rig, sample: tuple[str, AnswerSheet]
):
    """Each after the workday before it, so that what is new on the date stands alone."""
    conninfo, sheet = sample
    expected = oracle.Expected(sheet.duties, "role:human_resources")
    told = {}
    for date_of in map(date.fromisoformat, DATES):
        for day in (oracle.before(date_of), date_of):
            told[day] = expected.on(day)
            assert on(rig, conninfo, day) == told[day], day
        assert on(rig, conninfo, date_of) == (set(), set()), "a second run the same day"
    rungs = {one[2] for reminders, _ in told.values() for one in reminders}
    assert {-30, -7, -1, 1, 7, 14, 28} <= rungs
    above = {one[0] for _, copies in told.values() for one in copies}
    assert "role:human_resources" in above
    assert len(above) > 10
    assert sum(bool(told[date.fromisoformat(one)][0]) for one in DATES) >= 8


@pytest.mark.parametrize("day", OFF)
def test_on_a_day_off_nobody_is_told(rig: Rig, sample: tuple[str, AnswerSheet], day: str):
    """Holidays, and a Saturday that is none of the worked ones."""
    conninfo, _ = sample
    assert on(rig, conninfo, date.fromisoformat(day)) == (set(), set())


def test_the_duties_are_those_of_the_other_rules_of_the_sheet(
    sample: tuple[str, AnswerSheet],
):
    """What the sheet calls overdue on its day is overdue by its duties, and nothing else."""
    _, sheet = sample
    codes = {"ONB": 1, "LAW": 2, "SKL": 3, "EMG": 4}
    late = {
        (int(one.person[1:]), codes[one.course])
        for one in sheet.duties
        if one.due_on < AS_OF.date()
    }
    assert late == set(sheet.planted["training_overdue"].rows)
