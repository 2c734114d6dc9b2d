"""Who may do a step: its duty, never a suspect, others after silence; a refusal is told."""

from __future__ import annotations

import pytest

from include.approvals.question import AskAgain
from include.incident.form import Action
from include.incident.names import Kind
from include.incident.rules import HumanStep
from include.incident.team import everybody, team_of
from include.policy.mapping import Group
from include.services.errors import ServiceError
from tests.incident.desk_rig import (
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


def asked(case: Case, step: str, authority: str = "cac") -> list[str]:
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
def test_a_step_asks_the_people_of_its_duty(company: Company, step: str, people: list[str]) -> None:
    """Those of the staff table who are there today, and no others."""
    case = company.open(1).counted()
    assert asked(case, step) == people


def test_suspects_are_asked_nothing_and_the_page_says_so(company: Company) -> None:
    """Whose account did it may be the person, or whoever has the password."""
    case = company.open(accounts=[" t1 "]).counted()
    page = case.page("contain")
    assert page.assigned == ["T2"]
    assert "Not asked, since it is about them or they were taken off: t1." in page.body
    with pytest.raises(AskAgain, match="not of the team"):
        case.answer("contain", "T1")
    assert not everybody(case.context, case.record).may(TECH)


def test_who_was_taken_off_since_is_refused_and_asked_no_more(company: Company) -> None:
    """A page stays open in Airflow; what it brings is on the timeline, and counts for nothing."""
    case = company.open(1).counted()
    assert "T2" in asked(case, "contain")
    case.update(Action.TAKE_OFF, account="T2", words="a friend of the suspect")
    with pytest.raises(AskAgain, match="not of the team"):
        case.answer("contain", "T2", notes="all of it")
    assert case.entries(Kind.CONTAINED) == []
    (refused,) = case.entries(Kind.REFUSED)
    assert (refused.by, refused.data["step"]) == ("T2", "contain")
    page = case.page("contain")
    assert page.assigned == [TECH]
    assert "The last answer, by T2, did not count: who answered is not of the team" in page.body
    case.update(Action.ASSIGN, account="T2", duty="technical", words="found to be none")
    assert asked(case, "contain") == ["T1", "T2"]


def test_whose_accounts_are_named_in_an_addition_is_asked_nothing_from_then_on(
    company: Company,
) -> None:
    """As if it had been known at the trigger; put on again, they are."""
    case = company.open(1).counted()
    more = case.record.incident.selection.model_copy(update={"accounts": ("T2",)})
    widen(case.context, case.number, more, by="L1")
    assert asked(case, "contain") == ["T1"]
    case.update(Action.ASSIGN, account="T2", duty="technical", words="it was not him")
    assert asked(case, "contain") == ["T1", "T2"]


def test_who_is_assigned_does_that_duty_only(company: Company) -> None:
    """Be it somebody from outside, who stands in no staff table."""
    case = company.open(1).counted()
    case.update(Action.ASSIGN, account="X7", duty="technical", words="an expert")
    assert asked(case, "contain") == ["T1", "T2", "X7"]
    assert asked(case, "grade") == [COMP]
    assert everybody(case.context, case.record).may("x7")


def test_after_silence_deputies_and_management_are_asked_too(company: Company) -> None:
    """It is on the timeline each time; other steps ask their own people as before."""
    case = company.open(1).counted()
    for times in (1, 2):
        with pytest.raises(AskAgain, match="Nobody answered"):
            case.answer("grade", "", "")
        assert case.said(Kind.UNANSWERED) == ["Nobody answered grade in time."] * times
        page = case.page("grade")
        assert page.assigned == [COMP, "D1", BOSS, OTHER_BOSS]
        assert f"Nobody has answered {times} times" in page.body
    assert asked(case, "contain") == ["T1", "T2"]
    case.answer("grade", "D1")
    assert case.entries(Kind.GRADED)[-1].by == "D1"


def test_where_all_of_a_duty_are_suspects_others_are_asked_at_once(company: Company) -> None:
    """Nobody waits half an hour for those who may not answer."""
    case = company.open(accounts=[COMP]).counted()
    assert asked(case, "grade") == ["D1", BOSS, OTHER_BOSS]


def test_where_nobody_is_left_it_says_what_to_do(company: Company) -> None:
    """A service error: the step is tried again, and goes on once somebody is assigned."""
    case = company.open(accounts=[COMP, "D1", BOSS, OTHER_BOSS]).counted()
    with pytest.raises(ServiceError, match="Nobody may do the step grade") as nobody:
        case.ask("grade")
    assert "assign" in nobody.value.action
    case.update(Action.ASSIGN, account="X7", duty="compliance", words="the parent company")
    assert asked(case, "grade") == ["X7"]


def test_a_person_is_known_however_the_name_is_typed(company: Company) -> None:
    """And stands on the timeline as the team has it."""
    case = company.open(1).counted()
    case.answer("grade", " c1\u200b")
    assert case.entries(Kind.GRADED)[-1].by == COMP


@pytest.mark.parametrize("hit", ["unreachable", "dropped"])
def test_where_the_staff_table_was_hit_those_are_asked_whom_the_pack_names(
    company: Company, hit: str
) -> None:
    """The worst night of all: the list of those who could help was encrypted too."""
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
            one.model_copy(update={"people": Group(accounts=accounts, where=one.people.where)})
            if one.id == "management"
            else one
            for one in team_before
        ]
        company.rules = company.rules.model_copy(update={"team": tuple(team)})
        return list(team_of(case.context, record, step).people)

    assert people("contain") == ["D1"]
    assert people("contain", "M9") == ["D1", "M9"]
    assert people("decide", "M9") == ["M9"]
    with pytest.raises(ServiceError):
        people("decide")
