"""Tests that the watch notifies the leaders of failed tasks while the incident is open."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from include.approvals.required_action import InvalidAnswer
from include.incident import watch
from include.incident.form import Action
from tests.incident.incident_fixtures import BOSS, Case, Company


def failed_task_keys(case: Case) -> list[str]:
    """Return the keys of notifications about failed tasks of an incident."""
    query = "SELECT key FROM notification WHERE key LIKE :mine ORDER BY id"
    with case.company.state.connect() as conn:
        keys = conn.scalars(text(query), {"mine": f"{case.number}/failed/%"}).all()
    return [key.removeprefix(f"{case.number}/failed/") for key in keys]


def test_leaders_are_notified_once_of_each_failed_task(company: Company) -> None:
    case = company.open(1).counted()
    for _look in range(2):
        assert watch.report_failed_tasks(case.context, ["decide"])
    assert watch.report_failed_tasks(case.context, ["decide", "preserve"])
    keys = failed_task_keys(case)
    assert len(keys) == len(set(keys))
    assert {key.partition("/")[0] for key in keys} == {"decide", "preserve"}


def test_people_are_notified_once_each_time_a_step_is_not_answered(
    company: Company,
) -> None:
    case = company.open(1).counted()
    for _silence in range(2):
        with pytest.raises(InvalidAnswer):
            case.answer("contain", "", "")
        for _look in range(2):
            watch.watch_once(case.context)
    query = "SELECT key FROM notification WHERE key LIKE :mine ORDER BY id"
    with company.state.connect() as conn:
        keys = conn.scalars(text(query), {"mine": f"{case.number}/silent/%"}).all()
    recipients = [key.removeprefix(f"{case.number}/silent/contain/") for key in keys]
    assert len(recipients) == len(set(recipients))
    assert [recipient.partition("/")[0] for recipient in recipients] == ["1", "1", "2", "2"]


def test_nobody_is_notified_of_failed_task_after_end_of_incident(company: Company) -> None:
    case = company.open(1).counted()
    case.update(Action.CANCEL, by=BOSS)
    assert not watch.report_failed_tasks(case.context, ["decide"])
    done = company.open(2).until("summary")
    assert not watch.report_failed_tasks(done.context, ["decide"])
    assert failed_task_keys(case) == failed_task_keys(done) == []
