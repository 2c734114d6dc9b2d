"""An incident is not closed while anything is open, and everything that is open is named."""

from __future__ import annotations

import pytest

from include.approvals.question import AskAgain
from include.incident.clocks.clock import clocks_of
from include.incident.form import Action
from include.incident.names import State
from include.incident.selection import Selection
from include.incident.steps.closing import open_points
from tests.incident.desk_rig import COMP, Case, Company, assess, english, widen

CAC, POSTAL = "Provincial cyberspace administration", "Local postal administration"


def left(case: Case) -> list[str]:
    return [english(one) for one in open_points(case.context, case.record)]


def test_everything_that_is_open_is_named_and_nothing_else(company: Company) -> None:
    """Step by step it gets less; the page shows it, and closing says it again."""
    case = company.open(1, 2).counted()
    letter = "The letter to people lacks What happened, What may come of it, What we have done, "
    expected = [
        "it is not contained", "nobody confirmed the grade", "nobody assessed the impact",
        f"first report to: {CAC}", f"first report to: {POSTAL}", f"follow-up report to: {CAC}",
        f"follow-up report to: {POSTAL}", f"{letter}What you can do.",
    ]  # fmt: skip
    assert left(case) == expected
    assert "Still open: it is not contained" in case.page("close").body
    with pytest.raises(AskAgain, match="it cannot be closed: it is not contained, nobody"):
        case.answer("close")
    case.answer("contain")
    case.answer("grade")
    assert left(case) == expected[2:]
    case.answer("report", authority="cac")
    case.answer("impact")
    undecided = "nobody decided whether the people that are affected now are told"
    assert left(case) == [*expected[4:7], undecided]
    case.ask("decide")
    case.answer("decide")
    assert left(case)[-1] == "the notices to people are not queued"
    case.notify()
    assert left(case)[-1] == "2 notices wait to be sent"
    case.delivered("undeliverable")
    assert left(case)[-1].startswith("2 people could not be told by mail")
    case.update(Action.TOLD_OTHERWISE, words="called them")
    case.answer("report", authority="postal")
    case.answer("report_rest", authority="cac")
    assert left(case) == [f"follow-up report to: {POSTAL}"]
    with pytest.raises(AskAgain, match="follow-up report to: Local postal"):
        case.answer("close")
    case.answer("report_rest", authority="postal", option="Not needed", reason="They said so")
    assert left(case) == []
    assert "Nothing is open" in case.page("close").body
    with pytest.raises(AskAgain, match="not yet: the press calls"):
        case.answer("close", option="Not yet", words="the press calls")
    assert case.record.incident.state is State.OPEN
    case.answer("close")
    assert case.record.incident.state is State.CLOSED


def test_more_that_was_found_is_open_again(company: Company) -> None:
    """Its evidence, its people; who was told before need not be told again."""
    case = company.open(1).until("report_rest")
    assert left(case) == []
    more = Selection(databases=("courier",), keys=("courier/1", "courier/2"))
    widen(case.context, case.number, more, by="L1")
    assert left(case) == ["the evidence is not secured (task preserve)"]
    case.preserve()
    assert left(case) == ["nobody decided whether the people that are affected now are told"]
    case.ask("decide")
    case.answer("decide", option="Do not tell", reason="It was an employee")
    assert left(case) == []


def test_what_nobody_could_count_or_secure_is_open(company: Company) -> None:
    """Unknown is not zero."""
    company.broken = {"archive"}
    case = company.open(databases=["courier", "archive"], keys=["courier/1"])
    case.until("report_rest", grade={"reason": "The archive is away"})
    assert left(case) == [
        "the evidence is not secured (task preserve)",
        "nobody could count what is affected in archive",
    ]
    company.broken = set()
    assess(case.context)
    case.preserve()
    assert left(case) == []


def test_more_than_it_was_graded_for_is_open(company: Company) -> None:
    """Until somebody who grades says what it is now."""
    grades = [
        one.model_copy(update={"people": 2}) if one.id == "larger" else one
        for one in company.rules.grades
    ]
    company.rules = company.rules.model_copy(update={"grades": tuple(grades)})
    case = company.open(1).until("report_rest")
    more = Selection(databases=("courier",), keys=("courier/1", "courier/2"))
    widen(case.context, case.number, more, by="L1")
    assert left(case)[1].startswith("more is affected than it was graded for, Larger is proposed")
    case.update(Action.REGRADE, by=COMP, grade="larger")
    assert all("graded" not in one for one in left(case))


def test_a_report_that_was_not_needed_is_open_again_once_it_is_worse(company: Company) -> None:
    """What was decided for a lesser incident is not decided for this one; down it stays."""
    case = company.open(1).until("grade")
    case.answer("report", authority="postal", option="Not needed", reason="One parcel only")
    first = f"first report to: {POSTAL}"
    assert first not in left(case)
    assert case.ask("report", "postal") is not None  # its task was cleared
    case.update(Action.REGRADE, by=COMP, grade="larger")
    assert first in left(case)
    company.clock.on(hours=5)
    assert {one.id: one for one in clocks_of(case.context, case.record)}["postal_first"].is_late
    case.answer("report", authority="postal", option="Not needed", reason="They said so")
    assert first not in left(case)
    case.update(Action.REGRADE, by=COMP, grade="general")
    assert first not in left(case)
    case.answer("report", authority="postal")
    assert case.ask("report", "postal") is None


@pytest.mark.parametrize("grade", ["general", "major"])
def test_reports_are_open_for_the_authorities_of_the_grade_that_stands(
    company: Company, grade: str
) -> None:
    """Regraded up it is reported to one more, regraded down to one less."""
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
