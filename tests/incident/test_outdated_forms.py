"""Tests that an answer is accepted only if the facts in its form are still current."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.approvals.required_action import InvalidAnswer
from include.incident.form import Action
from include.incident.incident_ids import Kind, State
from tests.incident.decision_fixtures import asked, given, widened
from tests.incident.incident_fixtures import COMP, LEAD, Case, Company, rules
from tests.incident.test_steps import HUMAN, before, usual_answer


@pytest.mark.parametrize("step", [name for name in HUMAN if name != "decide"])
def test_answer_to_outdated_form_raises_invalid_answer(company: Company, step: str) -> None:
    """The refused answer is kept on the timeline. An answer to the current form is accepted."""
    case = before(company, step)
    outdated_answer = replace(usual_answer(case, step), content="0" * 64)
    entries_before = len(case.entries())
    with pytest.raises(InvalidAnswer, match="facts on the form changed after"):
        case.record_answer(step, outdated_answer)
    (refused,) = case.entries()[entries_before:]
    assert refused.kind is Kind.REFUSED
    assert case.page(step).content.partition(":")[0] == case.content(step)
    case.record_answer(step, usual_answer(case, step))


@pytest.mark.parametrize(
    ("step", "kind"),
    [("contain", Kind.NOTE), ("grade", Kind.NOTE), ("impact", Kind.NOTE), ("review", Kind.NOTE)],
)
def test_form_stays_valid_after_time_passes_or_note_is_added(
    company: Company, step: str, kind: Kind
) -> None:
    """Time limits, missing answers and notes do not change the digest of the form's content."""
    case = before(company, step)
    earlier_content = case.page(step).content
    company.clock.on(hours=5)
    case.update(Action.NOTE, words="The press calls")
    with pytest.raises(InvalidAnswer, match="The step was not answered"):
        case.answer(step, user="", option="")
    assert case.entries(kind)
    assert case.page(step).content == earlier_content


def test_grade_answer_raises_invalid_answer_if_more_people_were_counted_after_form_was_shown(
    company: Company,
) -> None:
    """If more people are counted while the form is open, a person has to see the new counts."""
    case = before(company, "grade", 1, 2)
    outdated_answer = usual_answer(case, "grade")
    widened(case, 4, 5)
    with pytest.raises(InvalidAnswer, match="facts on the form changed after"):
        case.record_answer("grade", outdated_answer)
    assert case.record.incident.grade is None


def test_answer_to_outdated_grade_form_does_not_replace_newer_grade(
    company: Company,
) -> None:
    """The answer to the earlier form is refused. The current form shows the newer grade."""
    case = before(company, "grade")
    outdated_answer = usual_answer(case, "grade")
    case.update(Action.REGRADE, by=COMP, grade="major", words="it is in the press")
    with pytest.raises(InvalidAnswer, match="facts on the form changed after"):
        case.record_answer("grade", outdated_answer)
    assert case.record.incident.grade == "major"
    assert "Earlier grading: The grade of the incident is Major" in case.page("grade").body


def test_timeline_entry_of_submitted_report_contains_document_version_shown_in_form(
    company: Company,
) -> None:
    """A changed text creates a new version of the document.

    The person handed in the earlier version, which the form showed.
    """
    case = before(company, "report")
    shown_content = case.page("report").content
    case.answer("impact")
    current_content = case.page("report").content
    assert shown_content.partition(":")[0] == current_content.partition(":")[0]
    assert shown_content != current_content
    case.record_answer("report", replace(usual_answer(case, "report"), content=shown_content))
    (entry,) = case.entries(Kind.REPORTED)
    assert entry.data["document"] == shown_content.partition(":")[2]
    assert len(entry.data["document"]) == 8


def test_closing_form_stays_valid_if_open_tasks_are_done_after_it_was_shown(
    company: Company,
) -> None:
    """If other tasks are done while the form is open, the form stays valid.

    Otherwise the person would have to answer the same form again.
    """
    case = before(company, "close")
    case.update(Action.CORRECT, by=LEAD, entry=case.entries(Kind.CONTAINED)[0].place)
    outdated_answer = usual_answer(case, "close")
    assert "Not done yet" in case.page("close").body
    case.answer("contain")
    case.record_answer("close", replace(outdated_answer, at=company.clock.now()))
    assert case.record.incident.state is State.CLOSED


def test_error_contains_open_tasks_if_incident_is_closed_with_outdated_form(
    company: Company,
) -> None:
    """If more people are counted while the form is open, the refusal names the open tasks."""
    case = before(company, "close")
    outdated_answer = usual_answer(case, "close")
    widened(case, 4, 5)
    with pytest.raises(
        InvalidAnswer, match="cannot be closed yet, because this work is not complete: "
    ):
        case.record_answer("close", replace(outdated_answer, at=company.clock.now()))
    assert case.record.incident.state is not State.CLOSED


def with_notice_heading(case: Case, heading: str) -> None:
    """Change the heading of the notice to affected people, as a changed policy pack would."""
    texts = rules().letter.model_copy(update={"heading": {"en": heading, "zh-CN": heading}})
    case.company.rules = rules(letter=texts)


def test_answer_to_first_approval_request_is_accepted_if_notice_text_is_changed_back(
    company: Company,
) -> None:
    """After the notice text is changed back, it matches the first approval request again."""
    case = asked(company)
    shown_first = case.content("decide")
    with_notice_heading(case, "Another heading")
    shown_next = case.page("decide").content
    assert shown_next != shown_first
    company.rules = rules()
    with pytest.raises(InvalidAnswer, match="the notice or the list of affected people changed"):
        case.record_answer("decide", replace(given(case, reason="As shown"), content=shown_next))
    assert case.entries(Kind.DECIDED) == []
    assert case.page("decide").content == shown_first
    case.record_answer("decide", replace(given(case, reason="As shown"), content=shown_first))
    (decided,) = case.entries(Kind.DECIDED)
    assert decided.data["request"] == int(shown_first.partition(":")[0])
