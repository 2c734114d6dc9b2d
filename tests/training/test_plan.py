"""Tests of planning a day's reminders: queueing, withdrawing, metrics and findings."""

from __future__ import annotations

import threading
from datetime import date, time, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import artifacts_of
from include.messages import Message
from include.notify.tables import notification
from include.policy.rules import Calendar
from include.reports.i18n import Translator
from include.training import training_status, waivers
from include.training.notifications import still_due
from include.training.plan import PLAN
from include.training.training_status import COPY, DEPARTMENT, REMINDER
from tests.support.contexts import step_record
from tests.training.training_fixtures import DAG, HR, TrainingCompany


def queued_lines(
    company: TrainingCompany, kind: str, state: str = "pending"
) -> list[tuple[str, str]]:
    """Return recipient and English text of the notifications of a kind in a state."""
    columns = (notification.c.recipient, notification.c.line)
    query = select(*columns).where(notification.c.kind == kind, notification.c.state == state)
    with company.engine.connect() as conn:
        rows = conn.execute(query.order_by(notification.c.id)).all()
    english = Translator("en")
    return [(recipient, english.text(Message.model_validate(line))) for recipient, line in rows]


def mark_sent(company: TrainingCompany) -> None:
    """Mark all queued notifications as sent."""
    with company.engine.begin() as conn:
        conn.execute(
            notification.update().where(notification.c.state == "pending").values(state="sent")
        )


def codes(record: StepRecord) -> set[str]:
    return {finding.code for finding in record.findings}


def metrics(record: StepRecord) -> dict[str, Any]:
    return {metric.name: metric.value for metric in record.metrics}


def add_trained_person(company: TrainingCompany) -> None:
    """Add courses of every topic and a person who passed all of them."""
    for course, topic, months in (
        ("ONB", "onboarding", None),
        ("LAW", "law", 12),
        ("SKL", "protection", 12),
        ("EMG", "emergency", 12),
    ):
        company.add_course(course, topic=topic, repeat_months=months, within_days=30)
    company.add_person("P0")
    for course in ("ONB", "LAW", "SKL", "EMG"):
        company.add_completion("2025-12-01", "P0", course)


def test_training_plan_step_passes_if_everyone_is_trained(company: TrainingCompany):
    add_trained_person(company)
    record = step_record(PLAN, company.context())
    assert record.outcome is Outcome.PASS
    assert metrics(record) == {
        "training_coverage": 1.0,
        "people_with_access_untrained": 0,
        "people_overdue_beyond_ladder": 0,
        "training.people": 1,
        "training.overdue": 0,
    }
    assert queued_lines(company, REMINDER) == []


def test_repeated_runs_queue_each_reminder_once(company: TrainingCompany):
    add_trained_person(company)
    company.add_person("P1", "2026-02-02")
    for run in ("r1", "r1", "r2"):
        step_record(PLAN, company.context(run))
    assert len(queued_lines(company, REMINDER)) == 4
    assert queued_lines(company, REMINDER)[0] == ("P1", "“Course EMG” is due by 2026-03-04.")
    mark_sent(company)
    company.today += timedelta(days=1)  # one day before the due date
    assert step_record(PLAN, company.context("r3")).data["told"]["reminders"] == 4
    mark_sent(company)
    assert step_record(PLAN, company.context("r4")).data["told"]["reminders"] == 0


def test_concurrent_runs_queue_each_reminder_once(company: TrainingCompany):
    add_trained_person(company)
    company.add_person("P1", "2026-02-02")
    runs = [
        threading.Thread(target=step_record, args=(PLAN, company.context(f"r{n}")))
        for n in range(3)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert len(queued_lines(company, REMINDER)) == 4


def test_plan_withdraws_reminders_if_course_is_passed_or_waived_or_person_left(
    company: TrainingCompany,
):
    add_trained_person(company)
    for person in ("P1", "P2", "P3", "P4"):
        company.add_person(person, "2026-02-02")
        for course in ("ONB", "SKL", "EMG"):
            company.add_completion("2026-02-03", person, course)
    step_record(PLAN, company.context())
    assert [recipient for recipient, _ in queued_lines(company, REMINDER)] == [
        "P1",
        "P2",
        "P3",
        "P4",
    ]
    company.add_completion("2026-03-02", "P1")
    with company.engine.begin() as conn:
        until, by = date(2026, 6, 30), "E1"
        waivers.grant_waiver(
            conn, "P2", "LAW", reason="parental leave soon", until=until, by=by, at=company.now()
        )
    company.execute("UPDATE people SET left_on = '2026-03-01' WHERE person = 'P3'")
    record = step_record(PLAN, company.context("r2"))
    assert record.data["told"]["withdrawn"] == 3
    assert [recipient for recipient, _ in queued_lines(company, REMINDER)] == ["P4"]
    assert [item["person"] for item in record.data["waived"]] == ["P2"]
    company.today += timedelta(days=1)
    step_record(PLAN, company.context("r3"))
    [(_, line)] = queued_lines(company, REMINDER)  # only the last reminder stage, not both
    assert len(queued_lines(company, REMINDER, "withdrawn")) == 4
    assert line.startswith("“Course LAW”")


def test_system_clock_set_back_or_ahead_neither_repeats_nor_suppresses_reminders(
    company: TrainingCompany,
):
    add_trained_person(company)
    company.add_person("P1", "2026-02-02")
    counts = []
    for number, day in enumerate(("2026-03-03", "2026-02-25", "2026-03-03", "2026-03-05")):
        company.today = date.fromisoformat(day)
        counts.append(step_record(PLAN, company.context(f"r{number}")).data["told"]["reminders"])
        mark_sent(company)
    assert counts == [4, 4, 0, 4]  # 1 day before, 7 days before, nothing, overdue
    company.add_person("P2", "2026-02-09")
    for day in ("2026-09-01", "2026-03-06"):
        company.today = date.fromisoformat(day)
        record = step_record(PLAN, company.context(f"ahead {day}"))
        mark_sent(company)
    assert record.data["told"]["reminders"] == 4  # a week before the due date of P2
    with company.engine.connect() as conn:
        assert (
            max(item.at for item in training_status.coverage_trend(conn, company.now()))
            == company.now()
        )


def test_reminder_is_queued_again_if_a_leave_moves_the_due_date(company: TrainingCompany):
    add_trained_person(company)
    company.add_person("P1", "2026-01-29")
    for course in ("ONB", "SKL", "EMG"):
        company.add_completion("2026-02-03", "P1", course)
    company.today = date(2026, 3, 3)
    step_record(PLAN, company.context())
    mark_sent(company)
    assert queued_lines(company, REMINDER, "sent")[0][1].startswith(
        "“Course LAW” was due by 2026-02-28"
    )
    company.execute("UPDATE people SET leave_from = '2026-02-27', leave_until = '2026-03-27'")
    company.today = date(2026, 4, 3)  # a week before 10 April, the end of the grace period
    step_record(PLAN, company.context("r2"))
    assert queued_lines(company, REMINDER) == [("P1", "“Course LAW” is due by 2026-04-10.")]


def test_withdrawn_reminder_is_queued_again_if_course_is_due_again(company: TrainingCompany):
    add_trained_person(company)
    company.add_person("P1", "2026-02-02")
    for course in ("ONB", "SKL", "EMG"):
        company.add_completion("2026-02-03", "P1", course)
    step_record(PLAN, company.context())
    company.add_completion("2026-03-02", "P1")
    step_record(PLAN, company.context("r2"))
    assert queued_lines(company, REMINDER) == []
    company.execute("DELETE FROM completions WHERE completed_on = '2026-03-02'")
    step_record(PLAN, company.context("r3"))
    assert [recipient for recipient, _ in queued_lines(company, REMINDER)] == ["P1"]


def test_still_due_omits_reminders_if_course_was_completed_or_person_left_or_is_on_leave(
    company: TrainingCompany,
):
    add_trained_person(company)
    for person in ("P1", "P2", "P3", "P4", "P/5#%"):
        company.add_person(person, "2026-01-20", supervisor="P0")
    step_record(PLAN, company.context())
    with company.engine.connect() as conn:
        kinds = {kind: [] for kind in (REMINDER, COPY)}
        for kind, key in conn.execute(select(notification.c.kind, notification.c.key)):
            kinds.setdefault(kind, []).append(key)
    company.add_completion("2026-03-02", "P1", "LAW")
    company.execute("UPDATE people SET left_on = '2026-03-01' WHERE person = 'P2'")
    company.execute("UPDATE people SET leave_from = '2026-03-02' WHERE person = 'P3'")
    still_due_courses = {
        key.split("/", 2)[0] + "/" + key.split("/", 2)[1]
        for kind in (REMINDER, COPY)
        for key in still_due(company.context("r2"), kinds[kind], kind)
    }
    others = {
        f"{number}/{course}"
        for number in ("P4", "P%2F5%23%25")
        for course in ("ONB", "LAW", "SKL", "EMG")
    }
    assert still_due_courses == {"P1/ONB", "P1/SKL", "P1/EMG"} | others
    company.today += timedelta(
        days=14
    )  # further reminder stages are reached; the plan queues their reminders
    assert still_due(company.context("r3"), kinds[REMINDER], REMINDER) == set()
    assert still_due(company.context("r3"), [], REMINDER) == set()


def test_supervisor_receives_copy_of_reminder_from_second_overdue_reminder_stage(
    company: TrainingCompany,
):
    add_trained_person(company)
    company.add_person(
        "P1", "2026-01-20", supervisor="P0"
    )  # due on 19 February, so at the stage of 7 days
    step_record(PLAN, company.context())
    assert queued_lines(company, COPY)[0] == (
        "P0",
        "Name of P1 (P1): “Course EMG” was due by 2026-02-19 and is overdue.",
    )
    assert len(queued_lines(company, COPY)) == 4
    assert queued_lines(company, REMINDER)[0][1] == (
        "“Course EMG” was due by 2026-02-19 and is overdue. Please take the course now."
    )


def test_reminders_are_queued_in_order_of_due_dates(company: TrainingCompany):
    add_trained_person(company)
    for person, joined_on in (("P2", "2026-01-20"), ("P1", "2026-01-20"), ("P3", "2026-01-12")):
        company.add_person(person, joined_on)
    step_record(PLAN, company.context())
    queued = [(person, line.split("”")[0][-3:]) for person, line in queued_lines(company, REMINDER)]
    courses = ("EMG", "LAW", "ONB", "SKL")
    assert queued == [(person, course) for person in ("P3", "P1", "P2") for course in courses]


def test_owner_role_receives_copies_of_reminders_if_no_superior_can_be_notified(
    company: TrainingCompany,
):
    add_trained_person(company)
    company.add_person("P1", "2026-01-20", supervisor="P9")
    company.owner = HR.model_copy(update={"mail": ("a@firm.example", "b@firm.example")})
    step_record(PLAN, company.context())
    assert {recipient for recipient, _ in queued_lines(company, COPY)} == {
        "role:human_resources",
        "role:human_resources:2",
    }
    company.reset()
    add_trained_person(company)
    company.add_person("P1", "2026-01-20", supervisor="P9")
    company.owner = HR.model_copy(update={"mail": ()})
    step_record(PLAN, company.context())
    assert {recipient for recipient, _ in queued_lines(company, COPY, "undeliverable")} == {
        "role:human_resources"
    }


def test_plan_on_day_off_reports_findings_but_queues_no_notifications(company: TrainingCompany):
    add_trained_person(company)
    company.add_person("P1", "2026-01-20", access=True)
    company.today = date(2026, 3, 1)
    record = step_record(PLAN, company.context())
    assert record.data["workday"] is False
    assert "training.access_untrained" in codes(record)
    assert (
        queued_lines(company, REMINDER)
        == queued_lines(company, COPY)
        == queued_lines(company, DEPARTMENT)
        == []
    )


def test_plan_fails_if_person_with_access_is_untrained_and_has_long_overdue_courses(
    company: TrainingCompany,
):
    add_trained_person(company)
    company.add_person("P1", "2026-01-05", access=True)
    record = step_record(PLAN, company.context())
    assert codes(record) == {"training.access_untrained", "training.beyond_ladder"}
    assert record.outcome is Outcome.FAIL
    assert metrics(record)["training_coverage"] == 0.5
    assert metrics(record)["people_overdue_beyond_ladder"] == 1
    english = Translator("en")
    texts = sorted(english.text(finding.message) for finding in record.findings)
    assert texts == [
        "1 people can access customer records although they have no valid training: P1.",
        "1 people have courses that are overdue by more than 14 days: P1.",
    ]
    files = artifacts_of_run(company, "r1")
    lines = files["overdue.csv"].decode("utf-8-sig").splitlines()
    assert lines[0] == "person,department,course,due_on,days_overdue,rung"
    assert lines[1] == "P1,North,EMG,2026-02-04,26,14"
    assert len(lines) == 5


def artifacts_of_run(company: TrainingCompany, run: str) -> dict[str, bytes]:
    with company.engine.connect() as conn:
        return artifacts_of(conn, DAG, run)


def test_plan_with_empty_roster_reports_findings_and_has_no_coverage(company: TrainingCompany):
    company.add_course()
    record = step_record(PLAN, company.context())
    assert {"training.nobody", "training.topic_missing"} <= codes(record)
    assert metrics(record)["training_coverage"] is None


@pytest.mark.parametrize("topic", ["onboarding", "law", "protection", "emergency"])
def test_plan_reports_finding_if_required_topic_has_no_course(company: TrainingCompany, topic: str):
    add_trained_person(company)
    company.execute("DELETE FROM courses WHERE topic = %s", [topic])
    record = step_record(PLAN, company.context())
    assert codes(record) == {"training.topic_missing"} | {"training.of_no_course"}
    [finding] = [finding for finding in record.findings if finding.code == "training.topic_missing"]
    assert topic in Translator("en").text(finding.message)


def test_plan_reports_finding_if_course_of_required_topic_is_never_repeated(
    company: TrainingCompany,
):
    add_trained_person(company)
    company.execute("UPDATE courses SET repeat_months = NULL WHERE topic = 'law'")
    assert codes(step_record(PLAN, company.context())) == {"training.topic_missing"}


def test_plan_reports_finding_if_holidays_of_next_year_are_not_announced_by_mid_november(
    company: TrainingCompany,
):
    add_trained_person(company)
    for course in ("ONB", "LAW", "SKL", "EMG"):
        company.add_completion("2029-10-01", "P0", course)
    company.calendar = Calendar(announced=(2029,))
    company.today = date(2029, 10, 15)
    assert "training.year_not_announced" not in codes(step_record(PLAN, company.context()))
    company.today = date(2029, 11, 15)
    assert "training.year_not_announced" in codes(step_record(PLAN, company.context("r2")))
    company.calendar = Calendar(announced=(2029, 2030))
    assert "training.year_not_announced" not in codes(step_record(PLAN, company.context("r3")))


def test_coverage_trend_contains_only_the_last_run_of_each_day(company: TrainingCompany):
    add_trained_person(company)
    step_record(PLAN, company.context("r1"))
    company.add_person("P1", "2025-01-20", department="South")
    company.time = time(15)
    step_record(PLAN, company.context("r2"))
    step_record(PLAN, company.context("r2"))
    company.today += timedelta(days=1)
    step_record(PLAN, company.context("r3"))
    with company.engine.connect() as conn:
        points = training_status.coverage_trend(conn, company.now())
    assert [(point.people, point.covered) for point in points] == [(2, 1), (2, 1)]
    assert points[0].at < points[1].at
