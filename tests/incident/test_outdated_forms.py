"""Answers to human steps of incidents count only for the content that their form showed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.approvals.question import AskAgain
from include.incident.form import Action
from include.incident.names import Kind, State
from tests.incident.deciding_rig import asked, given, widened
from tests.incident.desk_rig import COMP, LEAD, Case, Company, rules
from tests.incident.test_steps import HUMAN, before, given_now


@pytest.mark.parametrize("step", [one for one in HUMAN if one != "decide"])
def test_an_answer_to_a_form_about_something_else_is_asked_for_again(
    company: Company, step: str
) -> None:
    """The refused answer is kept on the timeline; an answer to the current form counts."""
    case = before(company, step)
    shown_then = replace(given_now(case, step), content="0" * 64)
    done = len(case.entries())
    with pytest.raises(AskAgain, match="content of the page changed after"):
        case.take(step, shown_then)
    (refused,) = case.entries()[done:]
    assert refused.kind is Kind.REFUSED
    assert case.page(step).content.partition(":")[0] == case.content(step)
    case.take(step, given_now(case, step))


@pytest.mark.parametrize(
    ("step", "kind"),
    [("contain", Kind.NOTE), ("grade", Kind.NOTE), ("impact", Kind.NOTE), ("review", Kind.NOTE)],
)
def test_a_form_stays_good_while_time_passes_and_notes_are_written(
    company: Company, step: str, kind: Kind
) -> None:
    """Deadlines, missed answers and notes do not change the form's content."""
    case = before(company, step)
    then = case.page(step).content
    company.clock.on(hours=5)
    case.update(Action.NOTE, words="The press calls")
    with pytest.raises(AskAgain, match="Nobody answered"):
        case.answer(step, user="", option="")
    assert case.entries(kind)
    assert case.page(step).content == then


def test_a_grade_confirmed_on_earlier_counts_does_not_count(company: Company) -> None:
    """More people are counted while the form is open: the counts are shown again."""
    case = before(company, "grade", 1, 2)
    given = given_now(case, "grade")
    widened(case, 4, 5)
    with pytest.raises(AskAgain, match="content of the page changed after"):
        case.take("grade", given)
    assert case.record.incident.grade is None


def test_a_confirmed_grade_does_not_undo_another_one_that_was_entered_since(
    company: Company,
) -> None:
    """The answer to the earlier form is refused; the current form shows the entered grade."""
    case = before(company, "grade")
    given = given_now(case, "grade")
    case.update(Action.REGRADE, by=COMP, grade="major", words="it is in the press")
    with pytest.raises(AskAgain, match="content of the page changed after"):
        case.take("grade", given)
    assert case.record.incident.grade == "major"
    assert "So far: Graded Major" in case.page("grade").body


def test_a_report_handed_in_names_the_document_that_its_form_showed(company: Company) -> None:
    """A new text makes a new version; the report that was handed in is the earlier version."""
    case = before(company, "report")
    shown_then = case.page("report").content
    case.answer("impact")
    now = case.page("report").content
    assert shown_then.partition(":")[0] == now.partition(":")[0]
    assert shown_then != now
    case.take("report", replace(given_now(case, "report"), content=shown_then))
    (entry,) = case.entries(Kind.REPORTED)
    assert entry.data["document"] == shown_then.partition(":")[2]
    assert len(entry.data["document"]) == 8


def test_closing_counts_for_a_form_that_showed_more_as_open(company: Company) -> None:
    """Progress on other points does not outdate the form, so nobody reviews it twice."""
    case = before(company, "close")
    case.update(Action.CORRECT, by=LEAD, entry=case.entries(Kind.CONTAINED)[0].place)
    given = given_now(case, "close")
    assert "Still open" in case.page("close").body
    case.answer("contain")
    case.take("close", replace(given, at=company.clock.now()))
    assert case.record.incident.state is State.CLOSED


def test_closing_names_what_is_open_also_to_an_outdated_form(company: Company) -> None:
    """More people are counted while the form is open: what they are owed is named."""
    case = before(company, "close")
    given = given_now(case, "close")
    widened(case, 4, 5)
    with pytest.raises(AskAgain, match="it cannot be closed: "):
        case.take("close", replace(given, at=company.clock.now()))
    assert case.record.incident.state is not State.CLOSED


def with_letter(case: Case, heading: str) -> None:
    """Give the letter to people another heading, as another policy pack would."""
    letter = rules().letter.model_copy(update={"heading": {"en": heading, "zh-CN": heading}})
    case.company.rules = rules(letter=letter)


def test_decide_counts_an_answer_about_the_letter_of_an_older_request(company: Company) -> None:
    """The letter was changed and changed back: the older request is about it again."""
    case = asked(company)
    shown_first = case.content("decide")
    with_letter(case, "Another heading")
    shown_next = case.page("decide").content
    assert shown_next != shown_first
    company.rules = rules()
    with pytest.raises(AskAgain, match="words or list changed"):
        case.take("decide", replace(given(case, reason="As shown"), content=shown_next))
    assert case.entries(Kind.DECIDED) == []
    assert case.page("decide").content == shown_first
    case.take("decide", replace(given(case, reason="As shown"), content=shown_first))
    (decided,) = case.entries(Kind.DECIDED)
    assert decided.data["request"] == int(shown_first.partition(":")[0])
