"""The weekly summaries of heads: once a week, figures first, each overdue course named once."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from include.notify.tables import notice
from include.training.notices import still_due
from include.training.plan import PLAN
from include.training.standing import COPY, DEPARTMENT
from tests.support.contexts import step_record
from tests.training.rig import Rig
from tests.training.test_plan import delivered, told, trained


def test_heads_get_a_summary_once_a_week(rig: Rig):
    """In the first run of a workday of the week; what is overdue is named."""
    trained(rig)
    rig.execute("UPDATE people SET head = true")
    rig.person("P1", "2026-01-30")
    rig.person("P2", "2026-03-01")
    step_record(PLAN, rig.context())
    lines = told(rig, DEPARTMENT)
    assert lines[0] == (
        "P0",
        "Trained: 2 of 3 people (66.67%). Courses overdue: 4, due in the next 30 days: 4; people "
        "on leave: 0.",
    )
    assert len(lines) == 5
    assert lines[1][1].startswith("Name of P1 (P1): “Course EMG”")
    delivered(rig)
    rig.person("P3", "2025-01-20")
    rig.today += timedelta(days=4)
    step_record(PLAN, rig.context("r2"))
    assert told(rig, DEPARTMENT) == []
    rig.today += timedelta(days=3)
    step_record(PLAN, rig.context("r3"))
    assert len(told(rig, DEPARTMENT)) == 5  # of P1 the copies of this day tell


def test_a_head_who_is_the_supervisor_is_told_of_each_course_once(rig: Rig):
    """The copy names it; the summary of the same mail has the figures."""
    trained(rig)
    rig.execute("UPDATE people SET head = true")
    rig.person("P1", "2026-01-20", supervisor="P0")
    rig.person("P2", "2026-01-20", supervisor="P9")  # leads to the head too
    rig.person("P3", "2026-01-30")  # on the first rung: no copy yet
    step_record(PLAN, rig.context())
    assert len(told(rig, COPY)) == 8
    lines = [line for _, line in told(rig, DEPARTMENT)]
    assert lines[0].startswith("Trained: 1 of 4 people")
    assert [one.split(" (")[0] for one in lines[1:]] == ["Name of P3"] * 4


def test_a_summary_has_an_end(rig: Rig):
    """The report has everything; a mail does not."""
    trained(rig)
    rig.execute("UPDATE people SET head = true")
    for number in range(30):
        rig.person(f"Q{number:02d}", "2026-01-30")
    step_record(PLAN, rig.context())
    lines = [line for _, line in told(rig, DEPARTMENT)]
    assert len(lines) == 22
    assert lines[-1] == "And 100 more."


def test_a_summary_of_an_earlier_week_is_not_sent_any_more(rig: Rig):
    """The mail server was down over the weekend; people of it who are trained now are left out."""
    trained(rig)
    rig.execute("UPDATE people SET head = true")
    rig.person("P1", "2026-01-30")
    step_record(PLAN, rig.context())
    with rig.engine.connect() as conn:
        keys = list(conn.scalars(select(notice.c.key).where(notice.c.kind == DEPARTMENT)))
    rig.took("2026-03-02", "P1", "LAW")
    assert len(still_due(rig.context(), keys, DEPARTMENT)) == len(keys) - 1
    rig.today += timedelta(days=7)
    assert still_due(rig.context(), keys, DEPARTMENT) == set()
