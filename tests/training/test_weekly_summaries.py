"""Tests of the weekly summaries for heads of departments."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from include.notify.tables import notification
from include.training.notifications import still_due
from include.training.plan import PLAN
from include.training.training_status import COPY, DEPARTMENT
from tests.support.contexts import step_record
from tests.training.test_plan import add_trained_person, mark_sent, queued_lines
from tests.training.training_fixtures import TrainingCompany


def test_head_of_department_receives_one_summary_per_week(company: TrainingCompany):
    add_trained_person(company)
    company.execute("UPDATE people SET head = true")
    company.add_person("P1", "2026-01-30")
    company.add_person("P2", "2026-03-01")
    step_record(PLAN, company.context())
    lines = queued_lines(company, DEPARTMENT)
    assert lines[0] == (
        "P0",
        "2 of 3 people (66.66%) have no overdue course. 4 courses are overdue, and 4 are due "
        "in the next 30 days. 0 people are on leave.",
    )
    assert len(lines) == 5
    assert lines[1][1].startswith("Name of P1 (P1): “Course EMG”")
    mark_sent(company)
    company.add_person("P3", "2025-01-20")
    company.today += timedelta(days=4)
    step_record(PLAN, company.context("r2"))
    assert queued_lines(company, DEPARTMENT) == []
    company.today += timedelta(days=3)
    step_record(PLAN, company.context("r3"))
    assert len(queued_lines(company, DEPARTMENT)) == 5  # the head receives copies about P1


def test_summary_for_head_omits_courses_whose_reminder_was_copied_to_head(company: TrainingCompany):
    add_trained_person(company)
    company.execute("UPDATE people SET head = true")
    company.add_person("P1", "2026-01-20", supervisor="P0")
    company.add_person(
        "P2", "2026-01-20", supervisor="P9"
    )  # unknown, so the head receives the copies
    company.add_person("P3", "2026-01-30")  # at the first overdue stage, without a copy
    step_record(PLAN, company.context())
    assert len(queued_lines(company, COPY)) == 8
    lines = [line for _, line in queued_lines(company, DEPARTMENT)]
    assert lines[0].startswith("1 of 4 people")
    assert [line.split(" (")[0] for line in lines[1:]] == ["Name of P3"] * 4


def test_summary_contains_first_twenty_overdue_courses_and_number_of_further_courses(
    company: TrainingCompany,
):
    add_trained_person(company)
    company.execute("UPDATE people SET head = true")
    for number in range(30):
        company.add_person(f"Q{number:02d}", "2026-01-30")
    step_record(PLAN, company.context())
    lines = [line for _, line in queued_lines(company, DEPARTMENT)]
    assert len(lines) == 22
    assert lines[-1] == "100 more courses are overdue."


def test_still_due_omits_summary_lines_of_an_earlier_week(company: TrainingCompany):
    add_trained_person(company)
    company.execute("UPDATE people SET head = true")
    company.add_person("P1", "2026-01-30")
    step_record(PLAN, company.context())
    with company.engine.connect() as conn:
        keys = list(
            conn.scalars(select(notification.c.key).where(notification.c.kind == DEPARTMENT))
        )
    company.add_completion("2026-03-02", "P1", "LAW")
    assert len(still_due(company.context(), keys, DEPARTMENT)) == len(keys) - 1
    company.today += timedelta(days=7)
    assert still_due(company.context(), keys, DEPARTMENT) == set()
