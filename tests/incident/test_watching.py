"""Whoever leads is told of a task that failed; the incident goes on until it is over."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from include.approvals.question import AskAgain
from include.incident import watching
from include.incident.form import Action
from tests.incident.desk_rig import BOSS, Case, Company


def failed(case: Case) -> list[str]:
    """Who is told of which failed task of it."""
    query = "SELECT key FROM notice WHERE key LIKE :mine ORDER BY id"
    with case.company.state.connect() as conn:
        keys = conn.scalars(text(query), {"mine": f"{case.number}/failed/%"}).all()
    return [key.removeprefix(f"{case.number}/failed/") for key in keys]


def test_those_who_lead_are_told_of_each_failed_task_once(company: Company) -> None:
    """However often somebody looks, and of another one when that fails."""
    case = company.open(1).counted()
    for _look in range(2):
        assert watching.goes_on(case.context, ["decide"])
    assert watching.goes_on(case.context, ["decide", "preserve"])
    told = failed(case)
    assert len(told) == len(set(told))
    assert {one.partition("/")[0] for one in told} == {"decide", "preserve"}


def test_each_silence_is_told_once_to_whose_step_it_is_and_to_management(
    company: Company,
) -> None:
    """In the same night, not first when a clock is about to run out."""
    case = company.open(1).counted()
    for _silence in range(2):
        with pytest.raises(AskAgain):
            case.answer("contain", "", "")
        for _look in range(2):
            watching.look(case.context)
    query = "SELECT key FROM notice WHERE key LIKE :mine ORDER BY id"
    with company.state.connect() as conn:
        keys = conn.scalars(text(query), {"mine": f"{case.number}/silent/%"}).all()
    told = [key.removeprefix(f"{case.number}/silent/contain/") for key in keys]
    assert len(told) == len(set(told))
    assert [one.partition("/")[0] for one in told] == ["1", "1", "2", "2"]


def test_when_it_is_over_nobody_is_told_and_the_run_may_end(company: Company) -> None:
    """Cancelled, a duplicate, or summarised."""
    case = company.open(1).counted()
    case.update(Action.CANCEL, by=BOSS)
    assert not watching.goes_on(case.context, ["decide"])
    done = company.open(2).until("summary")
    assert not watching.goes_on(done.context, ["decide"])
    assert failed(case) == failed(done) == []
