"""Tests of issuing, returning and deciding reviews. Nobody can change a decided review."""

from __future__ import annotations

import threading
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from include.partners import history, reviews
from include.partners.history import Review
from include.partners.register import load_partner
from include.services.errors import UsageError
from include.workbooks.faults import WorkbookRefused
from tests.partners.partner_fixtures import PartnersCompany, write_partner_pack
from tests.partners.questionnaire_workbooks import SUB_PROCESSORS, answered_workbook

LATER = timedelta(days=10)


def reviews_of(company: PartnersCompany, code: str = "1") -> list[Review]:
    with company.state.connect() as conn:
        return history.load_reviews(conn, code)


def test_passing_decision_on_review_is_stored_with_exact_score_and_reason(
    company: PartnersCompany,
) -> None:
    company.add_partner("1")
    issued = company.issue("1")
    assert issued.is_open
    assert issued.issued is not None
    returned = company.hand_in(issued, inspected="N/A")
    assert returned.score is not None
    assert (returned.score.share, returned.score.passes) == (Fraction(1), True)
    decided = company.decide("1", passed=True)
    assert (decided.passed, decided.share, decided.decided_by, decided.reason) == (
        True, Fraction(1), "E2", "as answered",
    )  # fmt: skip
    assert [review_row.id for review_row in reviews_of(company)] == [issued.id]


def test_issue_returns_the_issued_questionnaire_again_unless_reissue_is_requested(
    company: PartnersCompany, tmp_path: Any
) -> None:
    company.add_partner("1")
    first = company.issue("1")
    company.hand_in(first)
    questions = [{"id": "other", "text": {"en": "?", "zh-CN": "？"}, "basis": "business"}]
    company.pack = write_partner_pack(tmp_path, questionnaire=questions)
    company.today += LATER
    assert company.issue("1").issued == first.issued
    reissued = company.issue("1", reissue=True)
    assert reissued.id == first.id
    assert reissued.issued is not None
    assert [item.id for item in reissued.issued.asked] == ["other"]
    assert (reissued.returned_at, dict(reissued.answers), len(reissued.replaced)) == (None, {}, 1)
    with pytest.raises(WorkbookRefused, match="differs from the issued questionnaire"):
        company.hand_in(first)


def test_later_returned_questionnaire_file_replaces_the_earlier_file(
    company: PartnersCompany,
) -> None:
    company.add_partner("1")
    issued = company.issue("1")
    assert issued.issued is not None
    content = answered_workbook(issued.issued, {"encryption": "No"}, on=company.today)
    with company.state.begin() as conn:
        first = reviews.accept_questionnaire(conn, content, "back.xlsx", by="E1", at=company.now)
        assert (
            reviews.accept_questionnaire(conn, content, "again.xlsx", by="E1", at=company.now)
            == first
        )
    assert first.score is not None
    assert first.score.share == Fraction(2, 3)
    second = company.hand_in(issued, by="E9")
    assert second.score is not None
    assert second.score.share == 1
    assert [review_row["file_sha256"] for review_row in second.replaced] == [first.file_sha256]
    for person in ("E1", "E9", " ｅ９ "):
        with pytest.raises(UsageError, match="must not decide"):
            company.decide("1", passed=True, by=person)
    company.decide("1", passed=True, by="E2")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (None, "has not been returned"),
        ({"purpose": "No"}, "Critical questions were answered with no: purpose"),
        ({"encryption": "No"}, "below the pass mark"),
    ],
)
def test_decide_with_passed_true_raises_usage_error_if_the_answers_are_not_sufficient(
    company: PartnersCompany, answers: dict[str, str] | None, expected: str
) -> None:
    company.add_partner("1")
    issued = company.issue("1")
    if answers is not None:
        company.hand_in(issued, **answers)
    with pytest.raises(UsageError, match=expected):
        company.decide("1", passed=True)
    assert company.decide("1", passed=False).passed is False


def test_decide_uses_pass_mark_of_the_partners_tier(company: PartnersCompany) -> None:
    company.add_partner("1", grade="2")
    company.hand_in(company.issue("1"), encryption="No")
    assert company.decide("1", passed=True).share == Fraction(2, 3)


@pytest.mark.parametrize(
    ("by", "reason", "expected"),
    [
        ("", "fine", "The person is not named"),
        ("13800138000", "fine", "contains a mobile"),
        ("E2", "2026-05-01", "has no words"),
    ],
)
def test_decide_raises_usage_error_for_missing_or_invalid_approver_or_reason(
    company: PartnersCompany, by: str, reason: str, expected: str
) -> None:
    company.add_partner("1")
    company.hand_in(company.issue("1"))
    with company.state.begin() as conn, pytest.raises(UsageError, match=expected):
        reviews.decide(conn, "1", passed=True, by=by, reason=reason, at=company.now)


def test_decide_redacts_phone_number_in_reason(company: PartnersCompany) -> None:
    company.add_partner("1")
    company.hand_in(company.issue("1"))
    with company.state.begin() as conn:
        decided = reviews.decide(
            conn, "1", passed=True, by="E2", reason="called 13800138000", at=company.now
        )
    assert "138" not in decided.reason


def test_returned_questionnaire_with_answer_date_in_the_future_raises_usage_error(
    company: PartnersCompany,
) -> None:
    company.add_partner("1")
    review = company.issue("1")
    assert review.issued is not None
    content = answered_workbook(review.issued, on=company.today + timedelta(days=1))
    with company.state.begin() as conn, pytest.raises(UsageError, match="which is in the future"):
        reviews.accept_questionnaire(conn, content, "x.xlsx", by="E1", at=company.now)
    assert reviews_of(company)[0].returned_at is None


def test_returned_questionnaire_of_an_already_decided_review_raises_usage_error(
    company: PartnersCompany,
) -> None:
    company.add_partner("1")
    issued = company.issue("1")
    company.hand_in(issued)
    company.decide("1", passed=True)
    with pytest.raises(UsageError, match="which is not open"):
        company.hand_in(issued, purpose="No")
    company.issue("1")  # opens the next review
    with pytest.raises(UsageError, match="which is not open"):
        company.hand_in(issued)
    with pytest.raises(UsageError, match="No review of partner 2 is open"):
        company.decide("2", passed=False)


def test_reopen_discards_earlier_answers(company: PartnersCompany) -> None:
    company.add_partner("1")
    decided = company.complete_review("1")
    again = company.reopen("1", "a leak")
    assert again.id != decided.id
    assert (again.because, again.reopened_at) == ("a leak", company.now)
    assert company.reopen("1", "a leak") == again  # as if the step of the incident were repeated
    returned = company.hand_in(company.issue("1"))
    assert returned.returned_at is not None
    worse = company.reopen("1", "another one")
    assert (worse.id, worse.because, worse.returned_at, worse.issued) == (
        again.id, "a leak; another one", None, None,
    )  # fmt: skip
    with pytest.raises(UsageError, match="has not been returned"):
        company.decide("1", passed=True)


def test_review_stores_sub_processors_in_the_order_of_the_workbook(
    company: PartnersCompany,
) -> None:
    company.add_partner("1")
    review = company.issue("1")
    assert review.issued is not None
    sub_processors = [*SUB_PROCESSORS, ("Print KG", "DE", "labels")]
    content = answered_workbook(review.issued, sub_processors=sub_processors, on=company.today)
    with company.state.begin() as conn:
        returned = reviews.accept_questionnaire(conn, content, "x.xlsx", by="E1", at=company.now)
    assert [
        (processor.name, processor.country, processor.purpose)
        for processor in returned.sub_processors
    ] == sub_processors


CHANGES = (
    "UPDATE partner_review SET passed = false WHERE id = :id",
    "UPDATE partner_review SET decided_at = NULL, decided_by = NULL, passed = NULL, reason = NULL",
    "DELETE FROM partner_review",
    "UPDATE partner_answer SET answer = 'no' WHERE review_id = :id",
    "DELETE FROM partner_answer WHERE question = 'purpose'",
    "INSERT INTO partner_answer VALUES (:id, 'more', 'yes', '')",
    "UPDATE partner_answer SET review_id = :id WHERE review_id = :open AND question = 'purpose'",
    "UPDATE partner_answer SET review_id = :open WHERE review_id = :id AND question = 'purpose'",
    "INSERT INTO partner_sub_processor VALUES (:id, 9, 'x', 'x', 'x')",
    "DELETE FROM partner_sub_processor",
    "TRUNCATE partner_review CASCADE",
    "TRUNCATE partner_answer",
    "TRUNCATE partner_sub_processor",
)


def test_database_rejects_changes_of_decided_review(company: PartnersCompany) -> None:
    company.add_partner("1")
    company.add_partner("2")
    review = company.issue("1")
    assert review.issued is not None
    content = answered_workbook(review.issued, sub_processors=SUB_PROCESSORS, on=company.today)
    with company.state.begin() as conn:
        reviews.accept_questionnaire(conn, content, "x.xlsx", by="E1", at=company.now)
    company.decide("1", passed=True)
    open_review = company.hand_in(company.issue("2"))
    before = reviews_of(company)
    parameters = {"id": review.id, "open": open_review.id}
    for change in CHANGES:
        values = {name: at for name, at in parameters.items() if f":{name}" in change}
        with company.state.connect() as plain, pytest.raises(DBAPIError, match="history"):
            plain.execute(text(change), values)
    assert reviews_of(company) == before
    company.hand_in(open_review, encryption="No")


def test_answer_inserted_while_the_review_is_being_decided_raises_database_error(
    company: PartnersCompany,
) -> None:
    company.add_partner("1")
    review = company.hand_in(company.issue("1"))
    refused: list[str] = []

    def enter() -> None:
        try:
            with company.state.begin() as conn:
                conn.execute(
                    text("INSERT INTO partner_answer VALUES (:id, 'late', 'yes', '')"),
                    {"id": review.id},
                )
        except DBAPIError as error:
            refused.append(str(error))

    with company.state.begin() as conn:
        reviews.decide(conn, "1", passed=True, by="E2", reason="as answered", at=company.now)
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()  # the insert waits for the decision
    thread.join(10)
    assert "history" in refused[0]
    assert set(reviews_of(company)[0].answers) == {"purpose", "encryption", "inspected"}


def test_questionnaire_issued_twice_at_the_same_time_opens_one_review(
    company: PartnersCompany,
) -> None:
    company.add_partner("1")
    review_ids: list[int] = []
    with company.state.begin() as conn:
        run = company.context
        first = reviews.issue_questionnaire(
            conn,
            load_partner(run, "1"),
            run.rules,
            by="E1",
            at=company.now,
            timezone="Asia/Shanghai",
        )
        thread = threading.Thread(target=lambda: review_ids.append(company.issue("1", by="E5").id))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join(10)
    assert review_ids == [first.id]
    assert len(reviews_of(company)) == 1


@pytest.mark.parametrize("second", ["incident 2026-07", "incident 2026-11", "incident 2026"])
def test_second_incident_at_a_partner_discards_answers_given_after_the_first_incident(
    company: PartnersCompany, second: str
) -> None:
    company.add_partner("1")
    company.complete_review("1")
    company.reopen("1", "incident 2026-07")
    first = company.hand_in(company.issue("1"))
    assert first.score is not None
    assert first.score.passes
    company.today += LATER
    again = company.reopen("1", second)
    assert (again.issued, again.returned_at, dict(again.answers)) == (None, None, {})
    assert again.reopened_at == company.now
    assert len(again.because.split("; ")) == 2
    with pytest.raises(UsageError, match="has not been returned"):
        company.decide("1", passed=True)
    assert not company.status("1").is_allowed
    with pytest.raises(UsageError, match="not open"):
        company.hand_in(first)  # answers given before the incident
    company.hand_in(company.issue("1"))
    company.decide("1", passed=True)
    assert company.status("1").is_allowed


def test_reopen_discards_issued_questionnaire(company: PartnersCompany) -> None:
    company.add_partner("1")
    company.reopen("1")
    issued = company.issue("1")
    company.today += LATER
    again = company.reopen("1")
    assert again.issued is None
    company.today += LATER
    assert company.reopen("1") == again
    with pytest.raises(UsageError, match="not open"):
        company.hand_in(issued)
