"""Tests of the people who may answer a step: duty holders, deputies, and excluded suspects."""

from __future__ import annotations

import pytest

from include.approvals.required_action import InvalidAnswer
from include.incident.form import Action
from include.incident.incident_ids import Kind
from include.incident.rules import HumanStep
from include.incident.team import team_of, whole_team
from include.policy.mapping import StaffGroup
from include.services.errors import ServiceError
from tests.incident.incident_fixtures import (
    BOSS,
    COMP,
    LEAD,
    OTHER_BOSS,
    SERVICE,
    TECH,
    Case,
    Company,
    widen,
)


def assigned_people(case: Case, step: str, authority: str = "cac") -> list[str]:
    return case.page(step, authority).assigned


@pytest.mark.parametrize(
    ("step", "people"),
    [
        ("contain", ["T1", "T2"]),  # T9 is away
        ("grade", [COMP]),
        ("report", [COMP]),
        ("impact", [SERVICE]),
        ("close", [LEAD]),
        ("review", [LEAD]),
        ("summary", [COMP]),
    ],
)
def test_step_is_assigned_to_holders_of_its_duty(
    company: Company, step: str, people: list[str]
) -> None:
    case = company.open(1).counted()
    assert assigned_people(case, step) == people


def test_answer_of_person_whose_account_is_in_scope_raises_invalid_answer(company: Company) -> None:
    case = company.open(accounts=[" t1 "]).counted()
    page = case.page("contain")
    assert page.assigned == ["T2"]
    assert (
        "These people are not allowed to answer, because the incident concerns them or they were "
        "removed from the team: t1." in page.body
    )
    with pytest.raises(InvalidAnswer, match="has no right to answer this step"):
        case.answer("contain", "T1")
    assert not whole_team(case.context, case.record).is_member(TECH)


def test_answer_of_person_removed_from_team_raises_invalid_answer(company: Company) -> None:
    case = company.open(1).counted()
    assert "T2" in assigned_people(case, "contain")
    case.update(Action.TAKE_OFF, account="T2", words="a friend of the suspect")
    with pytest.raises(InvalidAnswer, match="has no right to answer this step"):
        case.answer("contain", "T2", notes="all of it")
    assert case.entries(Kind.CONTAINED) == []
    (refused,) = case.entries(Kind.REFUSED)
    assert (refused.by, refused.data["step"]) == ("T2", "contain")
    page = case.page("contain")
    assert page.assigned == [TECH]
    assert (
        "The last answer, by T2, was not accepted: the person who answered has no right"
        in page.body
    )
    case.update(Action.ASSIGN, account="T2", duty="technical", words="found to be none")
    assert assigned_people(case, "contain") == ["T1", "T2"]


def test_accounts_added_to_scope_may_not_answer_unless_assigned_by_leader(
    company: Company,
) -> None:
    case = company.open(1).counted()
    more = case.record.incident.selection.model_copy(update={"accounts": ("T2",)})
    widen(case.context, case.number, more, by="L1")
    assert assigned_people(case, "contain") == ["T1"]
    case.update(Action.ASSIGN, account="T2", duty="technical", words="it was not him")
    assert assigned_people(case, "contain") == ["T1", "T2"]


def test_assigned_person_may_answer_only_steps_of_the_duty(company: Company) -> None:
    case = company.open(1).counted()
    case.update(Action.ASSIGN, account="X7", duty="technical", words="an expert")
    assert assigned_people(case, "contain") == ["T1", "T2", "X7"]
    assert assigned_people(case, "grade") == [COMP]
    assert whole_team(case.context, case.record).is_member("x7")


def test_deputies_and_management_may_answer_a_step_after_nobody_answered_in_time(
    company: Company,
) -> None:
    case = company.open(1).counted()
    for times in (1, 2):
        with pytest.raises(InvalidAnswer, match="The step was not answered"):
            case.answer("grade", "", "")
        assert (
            case.said(Kind.UNANSWERED) == ["The step “Grading” was not answered in time."] * times
        )
        page = case.page("grade")
        assert page.assigned == [COMP, "D1", BOSS, OTHER_BOSS]
        assert f"The time to answer this step ended {times} times without an answer" in page.body
    assert assigned_people(case, "contain") == ["T1", "T2"]
    case.answer("grade", "D1")
    assert case.entries(Kind.GRADED)[-1].by == "D1"


def test_deputies_may_answer_at_once_if_all_holders_of_duty_are_suspects(company: Company) -> None:
    case = company.open(accounts=[COMP]).counted()
    assert assigned_people(case, "grade") == ["D1", BOSS, OTHER_BOSS]


def test_error_for_step_without_permitted_people_contains_advice_to_assign_a_person(
    company: Company,
) -> None:
    case = company.open(accounts=[COMP, "D1", BOSS, OTHER_BOSS]).counted()
    with pytest.raises(ServiceError, match="No person may answer the step grade") as error:
        case.ask("grade")
    assert "assign" in error.value.action
    case.update(Action.ASSIGN, account="X7", duty="compliance", words="the parent company")
    assert assigned_people(case, "grade") == ["X7"]


def test_user_id_with_different_case_or_invisible_character_is_accepted(company: Company) -> None:
    case = company.open(1).counted()
    case.answer("grade", " c1\u200b")
    assert case.entries(Kind.GRADED)[-1].by == COMP


@pytest.mark.parametrize("hit", ["unreachable", "dropped"])
def test_accounts_in_policy_pack_may_answer_if_staff_table_is_unavailable(
    company: Company, hit: str
) -> None:
    case = company.open(1).counted()
    record, team_before = case.record, company.rules.team
    if hit == "dropped":
        mapped = company.databases["courier"]
        table = mapped.collections["staff"].model_copy(update={"table": "gone"})
        mapped = mapped.model_copy(update={"collections": {**mapped.collections, "staff": table}})
        company.databases["courier"] = mapped
    else:
        company.broken.add("courier")

    def people(step: HumanStep, *accounts: str) -> list[str]:
        team = [
            duty.model_copy(
                update={"people": StaffGroup(accounts=accounts, where=duty.people.where)}
            )
            if duty.id == "management"
            else duty
            for duty in team_before
        ]
        company.rules = company.rules.model_copy(update={"team": tuple(team)})
        return list(team_of(case.context, record, step).people)

    assert people("contain") == ["D1"]
    assert people("contain", "M9") == ["D1", "M9"]
    assert people("decide", "M9") == ["M9"]
    with pytest.raises(ServiceError):
        people("decide")
