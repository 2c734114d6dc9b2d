"""Findings and metrics of the step that checks partners."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from include.partners.rules import UNBOUND, UNREVIEWED
from include.reports.i18n import Translator
from tests.partners.partner_fixtures import PartnersCompany, codes, metric_values


def test_check_passes_if_obligations_of_all_partners_with_access_are_met(
    company: PartnersCompany,
) -> None:
    company.add_partner("1")
    company.add_partner("2", connected=False, secrecy_to="2020-01-01", deal_to=None, seen_on=None)
    record = company.check()
    assert (str(record.outcome), codes(record)) == ("pass", [])
    values = metric_values(record)
    assert (values[UNBOUND], values[UNREVIEWED]) == (0, 0)
    assert (values["partners.live"], values["partners.registered"]) == (1, 2)
    assert company.keys() == []


def test_check_of_empty_partner_register_fails_and_its_metrics_have_no_value(
    company: PartnersCompany,
) -> None:
    """A wrong query also returns an empty register.

    An indicator of zero would then pass by mistake.
    """
    record = company.check()
    assert codes(record) == [("partners.nobody", "fail", "check")]
    values = metric_values(record)
    assert (values[UNBOUND], values[UNREVIEWED]) == (None, None)


def test_check_warns_if_no_partner_has_access(company: PartnersCompany) -> None:
    company.add_partner("1", connected=False)
    company.add_partner("2", connected=False, secrecy_to="2020-01-01")
    record = company.check()
    assert codes(record) == [("partners.nobody_with_access", "attention", "check")]
    values = metric_values(record)
    assert (values[UNBOUND], values[UNREVIEWED]) == (0, 0)
    company.add_partner("3", connected=None)  # unclear access counts as access
    assert "partners.nobody_with_access" not in [code for code, *_rest in codes(company.check())]


def test_register_row_without_partner_number_counts_as_partner_without_agreements(
    company: PartnersCompany,
) -> None:
    company.add_partner("a b")
    record = company.check()
    assert codes(record) == [("partners.without_number", "fail", "check")]
    values = metric_values(record)
    assert (values[UNBOUND], values[UNREVIEWED]) == (1, 1)


@pytest.mark.parametrize(
    ("change", "code", "unbound", "unreviewed"),
    [
        ({"secrecy_to": "2026-05-31"}, "partners.nda_lapsed", 1, 0),
        ({"secrecy_to": None}, "partners.nda_missing", 1, 0),
        ({"secrecy_from": "2026-06-02"}, "partners.nda_not_begun", 1, 0),
        ({"deal_to": "2026-05-31"}, "partners.agreement_lapsed", 1, 0),
        ({"deal_to": None}, "partners.agreement_missing", 1, 0),
        ({"seen_on": "2025-05-31"}, "partners.review_lapsed", 0, 1),
        ({"seen_on": None}, "partners.review_missing", 0, 1),
    ],
)
def test_check_fails_if_agreement_or_review_is_lapsed_or_missing(
    company: PartnersCompany, change: dict[str, Any], code: str, unbound: int, unreviewed: int
) -> None:
    company.add_partner("1", **change)
    record = company.check()
    assert codes(record) == [(code, "fail", "1")]
    assert record.findings[0].clause == ("4.3" if unreviewed else "4.4")
    values = metric_values(record)
    assert (values[UNBOUND], values[UNREVIEWED]) == (unbound, unreviewed)
    assert values["partners.live_blocked"] == 1


def test_check_reports_failed_and_reopened_reviews(company: PartnersCompany) -> None:
    for code in ("1", "2"):
        company.add_partner(code)
        company.complete_review(code, passed=code == "2")
    company.reopen("2")
    record = company.check()
    assert [code for code, *_rest in codes(record)] == [
        "partners.review_failed", "partners.review_reopened",
    ]  # fmt: skip
    assert metric_values(record)[UNREVIEWED] == 2


def test_check_creates_a_finding_for_each_fault_in_the_partner_register(
    company: PartnersCompany,
) -> None:
    """A fault fails the check only if the partner has access.

    A fault of the name never fails the check.
    """
    company.add_partner("1", company="A\nB")
    company.add_partner("2", deal_to="soon")
    company.add_partner("3", deal_to="soon", connected=False)
    company.add_partner("4")
    company.add_partner("4")
    company.add_partner("a b")
    company.add_partner("6", secrecy_from="")
    record = company.check()
    assert sorted(codes(record)) == [
        ("partners.agreement_missing", "fail", "2"),
        ("partners.name", "attention", "1"),
        ("partners.nda_from_missing", "attention", "6"),
        ("partners.no_day", "attention", "3"),
        ("partners.no_day", "fail", "2"),
        ("partners.twice", "fail", "4"),
        ("partners.without_number", "fail", "check"),
    ]
    values = metric_values(record)
    assert (values[UNBOUND], values[UNREVIEWED]) == (3, 2)  # 2, 4 and the row without a number


def test_check_warns_about_open_review_of_deleted_partner(company: PartnersCompany) -> None:
    company.add_partner("1", secrecy_to="2026-06-10")
    company.issue("1")
    company.sql("DELETE FROM ally")
    record = company.check()
    assert codes(record) == [
        ("partners.nobody", "fail", "check"), ("partners.gone", "attention", "1"),
    ]  # fmt: skip
    assert company.keys() == []
    company.add_partner("2")
    assert codes(company.check()) == [("partners.gone", "attention", "1")]
    company.decide("1", passed=False)
    assert codes(company.check()) == []


def test_check_warns_if_returned_questionnaire_or_decision_is_overdue(
    company: PartnersCompany,
) -> None:
    company.add_partner("1")
    review = company.issue("1")
    company.today += timedelta(days=30)
    assert codes(company.check()) == []
    company.today += timedelta(days=1)
    assert codes(company.check()) == [("partners.questionnaire_out", "attention", "1")]
    company.hand_in(review)
    assert codes(company.check()) == []
    company.today += timedelta(days=31)
    assert codes(company.check()) == [("partners.undecided", "attention", "1")]


def test_finding_about_partner_contains_partner_name_and_command_for_the_questionnaire(
    company: PartnersCompany,
) -> None:
    company.add_partner("11", company="Süd & Söhne", seen_on=None)
    company.add_partner("12", company="", seen_on=None)
    english = Translator("en")
    first, second = (
        finding for finding in company.check().findings if finding.code == "partners.review_missing"
    )
    assert english.finding(first).startswith("Süd & Söhne (partner 11): The date of the last")
    assert first.for_engineers is not None
    assert english.text(first.for_engineers).startswith(
        "`./parcelseal partners questionnaire 11 --out FILE --by ID`"
    )
    assert english.finding(second).startswith("partner 12: The date")
    assert "`" not in english.text(first.action) + english.text(second.action)


def test_step_record_does_not_contain_contact_names_of_partners(company: PartnersCompany) -> None:
    company.add_partner("1", contact="zhang.san@1.example", secrecy_to="2026-06-05")
    company.hand_in(company.issue("1"))
    record = company.check().model_dump_json()
    assert "zhang" not in record
    assert "Li Na" not in record
    assert "Company 1" in record
