"""Tests of the metrics of controls if records are incomplete or faulty."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from sqlalchemy import select

from include.notify.tables import notification
from include.reports.i18n import Translator
from include.training import waivers
from include.training.notifications import still_due
from include.training.plan import PLAN
from include.training.training_status import REMINDER
from tests.support.contexts import step_record
from tests.training.test_plan import add_trained_person, artifacts_of_run, codes, metrics
from tests.training.training_fixtures import TrainingCompany


def test_plan_reports_waivers_of_unknown_people_or_courses(company: TrainingCompany):
    add_trained_person(company)
    with company.engine.begin() as conn:
        for person, course in (("P0", "LAW"), ("PO", "LAW"), ("P0", "law")):
            waivers.grant_waiver(
                conn, person, course, reason="long illness", until=date(2026, 6, 30), by="E1",
                at=company.now(),
            )  # fmt: skip
    record = step_record(PLAN, company.context())
    [finding] = record.findings
    assert Translator("en").text(finding.message) == (
        "2 waivers name a person or a course that does not exist: P0 law, PO LAW."
    )
    waives = {
        (waiver["person"], waiver["course"]): waiver["waives"] for waiver in record.data["waived"]
    }
    assert waives == {("P0", "LAW"): True, ("PO", "LAW"): False, ("P0", "law"): False}


@pytest.mark.parametrize(
    "fault",
    [
        "UPDATE people SET person = NULL WHERE person = 'P1'",
        "UPDATE people SET joined_on = NULL WHERE person = 'P1'",
        "UPDATE courses SET topic = 'dancing' WHERE course = 'LAW'",
        "DELETE FROM courses WHERE course = 'LAW'",
        "DELETE FROM people",
    ],
)
def test_control_metrics_are_missing_if_records_are_incomplete(
    company: TrainingCompany, fault: str
):
    """The metrics of incomplete records could be better than those of complete records."""
    add_trained_person(company)
    company.add_person("P1", "2025-01-20", access=True)
    company.execute(fault)
    values = metrics(step_record(PLAN, company.context()))
    controls = ("training_coverage", "people_with_access_untrained", "people_overdue_beyond_ladder")
    assert [values[control] for control in controls] == [None, None, None]


def test_former_employees_with_access_are_counted_as_untrained(company: TrainingCompany):
    add_trained_person(company)
    company.add_person("P1", left_on="2026-02-01", access=True)
    record = step_record(PLAN, company.context())
    assert metrics(record)["people_with_access_untrained"] == 1
    assert codes(record) == {"training.access_not_employed"}


def test_roster_that_lost_more_than_half_of_its_people_is_reported_only_by_the_first_run(
    company: TrainingCompany,
):
    add_trained_person(company)
    for number in range(10):
        company.add_person(f"Q{number}", "2026-02-27")
    assert "training.shrunk" not in codes(step_record(PLAN, company.context()))
    company.execute("DELETE FROM people WHERE person > 'Q3'")
    company.today += timedelta(days=1)
    assert "training.shrunk" in codes(step_record(PLAN, company.context("r2")))
    company.today += timedelta(days=1)
    assert "training.shrunk" not in codes(step_record(PLAN, company.context("r3")))  # not again


def test_csv_of_overdue_courses_escapes_formulas(company: TrainingCompany):
    add_trained_person(company)
    company.add_person("@SUM(1)", "2025-01-20", department="=HYPERLINK(1)")
    step_record(PLAN, company.context())
    text = artifacts_of_run(company, "r1")["overdue.csv"].decode("utf-8-sig")
    assert text.splitlines()[1].startswith("'@SUM(1),'=HYPERLINK(1),EMG")


def test_reminder_is_still_due_if_staff_number_has_invisible_character(company: TrainingCompany):
    add_trained_person(company)
    company.add_person("P1\u200e", "2026-02-02")
    step_record(PLAN, company.context())
    with company.engine.connect() as conn:
        keys = list(conn.scalars(select(notification.c.key).where(notification.c.kind == REMINDER)))
    assert len(keys) == 4
    assert still_due(company.context(), keys, REMINDER) == set(keys)
