"""Tests that an incident cannot be closed while required tasks are not done.

The refusal names these tasks.
"""

from __future__ import annotations

import pytest

from include.approvals.required_action import InvalidAnswer
from include.incident.form import Action
from include.incident.incident_ids import State
from include.incident.selection import Selection
from include.incident.steps.closing import open_points
from include.incident.time_limits.time_limit import time_limits_of
from tests.incident.incident_fixtures import COMP, Case, Company, assess, english, widen

CAC, POSTAL = "Provincial cyberspace administration", "Local postal administration"


def left(case: Case) -> list[str]:
    return [english(point) for point in open_points(case.context, case.record)]


def test_completed_step_no_longer_prevents_closing_of_incident(company: Company) -> None:
    case = company.open(1, 2).counted()
    missing = "parts of the notice to affected people are missing: "
    parts = "What happened, What this may mean for you, What we have done, What you can do"
    expected = [
        "the incident is not contained", "the grade is not confirmed", "the impact is not assessed",
        f"first report to: {CAC}", f"first report to: {POSTAL}", f"follow-up report to: {CAC}",
        f"follow-up report to: {POSTAL}", f"{missing}{parts}",
    ]  # fmt: skip
    assert left(case) == expected
    assert "Not done yet: the incident is not contained" in case.page("close").body
    with pytest.raises(
        InvalidAnswer,
        match="the incident cannot be closed yet, because this work is not complete: the incident "
        "is not",
    ):
        case.answer("close")
    case.answer("contain")
    case.answer("grade")
    assert left(case) == expected[2:]
    case.answer("report", authority="cac")
    case.answer("impact")
    undecided = "it is not decided yet whether to notify every person who is known to be affected"
    assert left(case) == [*expected[4:7], undecided]
    case.ask("decide")
    case.answer("decide")
    assert left(case)[-1] == "the notices to affected people are not queued for sending yet"
    case.notify()
    assert left(case)[-1] == "2 notices are waiting to be sent"
    case.delivered("undeliverable")
    assert left(case)[-1].startswith("2 people could not be notified by mail")
    case.update(Action.TOLD_OTHERWISE, words="called them")
    case.answer("report", authority="postal")
    case.answer("report_rest", authority="cac")
    assert left(case) == [f"follow-up report to: {POSTAL}"]
    with pytest.raises(InvalidAnswer, match="follow-up report to: Local postal"):
        case.answer("close")
    case.answer("report_rest", authority="postal", option="Not needed", reason="They said so")
    assert left(case) == []
    assert "All work on the incident is done" in case.page("close").body
    with pytest.raises(InvalidAnswer, match="not closed yet: the press calls"):
        case.answer("close", option="Not yet", words="the press calls")
    assert case.record.incident.state is State.OPEN
    case.answer("close")
    assert case.record.incident.state is State.CLOSED


def test_wider_scope_prevents_closing_until_evidence_and_decision_on_new_people_exist(
    company: Company,
) -> None:
    case = company.open(1).until("report_rest")
    assert left(case) == []
    more = Selection(databases=("courier",), keys=("courier/1", "courier/2"))
    widen(case.context, case.number, more, by="L1")
    assert left(case) == ["the evidence has not been preserved yet"]
    case.preserve()
    assert left(case) == [
        "it is not decided yet whether to notify every person who is known to be affected"
    ]
    case.ask("decide")
    case.answer("decide", option="Do not tell", reason="It was an employee")
    assert left(case) == []


def test_incident_cannot_be_closed_while_database_is_uncounted_or_evidence_is_missing(
    company: Company,
) -> None:
    company.broken = {"archive"}
    case = company.open(databases=["courier", "archive"], keys=["courier/1"])
    case.until("report_rest", grade={"reason": "The archive is away"})
    assert left(case) == [
        "the evidence has not been preserved yet",
        "the affected records of archive could not be counted",
    ]
    company.broken = set()
    assess(case.context)
    case.preserve()
    assert left(case) == []


def test_incident_cannot_be_closed_if_wider_scope_exceeds_confirmed_grade(company: Company) -> None:
    grades = [
        grade.model_copy(update={"people": 2}) if grade.id == "larger" else grade
        for grade in company.rules.grades
    ]
    company.rules = company.rules.model_copy(update={"grades": tuple(grades)})
    case = company.open(1).until("report_rest")
    more = Selection(databases=("courier",), keys=("courier/1", "courier/2"))
    widen(case.context, case.number, more, by="L1")
    assert left(case)[1].startswith(
        "the incident affects more people than its confirmed grade covers; "
        "the proposed grade is Larger"
    )
    case.update(Action.REGRADE, by=COMP, grade="larger")
    assert all("graded" not in point for point in left(case))


def test_report_is_required_again_if_grade_becomes_more_severe_after_it_was_declared_not_needed(
    company: Company,
) -> None:
    case = company.open(1).until("grade")
    case.answer("report", authority="postal", option="Not needed", reason="One parcel only")
    first = f"first report to: {POSTAL}"
    assert first not in left(case)
    assert case.ask("report", "postal") is not None  # its task was cleared
    case.update(Action.REGRADE, by=COMP, grade="larger")
    assert first in left(case)
    company.clock.on(hours=5)
    assert {time_limit.id: time_limit for time_limit in time_limits_of(case.context, case.record)}[
        "postal_first"
    ].is_late
    case.answer("report", authority="postal", option="Not needed", reason="They said so")
    assert first not in left(case)
    case.update(Action.REGRADE, by=COMP, grade="general")
    assert first not in left(case)
    case.answer("report", authority="postal")
    assert case.ask("report", "postal") is None


@pytest.mark.parametrize("grade", ["general", "major"])
def test_missing_report_prevents_closing_only_if_current_grade_requires_the_report(
    company: Company, grade: str
) -> None:
    ministry = company.rules.authorities[0].model_copy(
        update={"id": "ministry", "grades": ("major",), "title": {"en": "Ministry", "zh-CN": "部"}}
    )
    company.rules = company.rules.model_copy(
        update={"authorities": (*company.rules.authorities, ministry)}
    )
    case = company.open(1).until("report_rest")
    if grade == "major":
        case.update(Action.REGRADE, by=COMP, grade=grade)
    named = ["first report to: Ministry", "follow-up report to: Ministry"]
    assert left(case) == (named if grade == "major" else [])
