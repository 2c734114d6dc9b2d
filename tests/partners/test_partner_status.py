"""Tests of the decision whether sharing with a partner is allowed, and of its reasons."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from include.reports.i18n import Translator
from tests.partners.partner_fixtures import PartnersCompany


def blocking_reasons(company: PartnersCompany, code: str = "1") -> list[str]:
    """Return in English the reasons that block sharing; each reason must have a Chinese text."""
    status = company.status(code)
    assert status.is_allowed == (not status.reasons)
    english, chinese = Translator("en"), Translator("zh_CN")
    for reason in status.reasons:
        assert chinese.text(reason) != english.text(reason)
    return [english.text(reason) for reason in status.reasons]


def test_partner_status_with_valid_agreements_and_review_allows_sharing(
    company: PartnersCompany,
) -> None:
    company.add_partner("1")
    assert blocking_reasons(company) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"secrecy_to": "2026-05-31"}, ["The confidentiality agreement ended on 2026-05-31."]),
        ({"secrecy_to": "2026-06-01"}, []),
        (
            {"secrecy_from": "2026-06-02"},
            ["The confidentiality agreement takes effect on 2026-06-02."],
        ),
        ({"secrecy_to": None}, ["The end date of the confidentiality agreement is not known."]),
        ({"deal_to": "2026-05-31"}, ["The data-processing agreement ended on 2026-05-31."]),
        ({"deal_to": "soon"}, ["The end date of the data-processing agreement is not known."]),
        (
            {"seen_on": "2025-05-31"},
            ["The due date of the security review, 2026-05-31, has passed."],
        ),
        ({"seen_on": "2025-06-01"}, []),
        ({"seen_on": "2025-05-31", "grade": "2"}, []),
        (
            {"seen_on": None},
            ["The date of the last security review or the tier of the partner is not known."],
        ),
        (
            {"seen_on": "2027-01-01"},
            ["The date of the last security review or the tier of the partner is not known."],
        ),
        (
            {"grade": "9"},
            ["The date of the last security review or the tier of the partner is not known."],
        ),
        ({"connected": False}, ["The partner has no access to customer information."]),
    ],
)
def test_partner_status_with_invalid_agreement_or_review_blocks_sharing(
    company: PartnersCompany, change: dict[str, Any], expected: list[str]
) -> None:
    company.add_partner("1", **change)
    assert blocking_reasons(company) == expected


def test_partner_status_contains_every_reason_that_blocks_sharing(company: PartnersCompany) -> None:
    company.add_partner("1", secrecy_to=None, deal_to=None, seen_on=None, connected=False)
    assert len(blocking_reasons(company)) == 4


def test_partner_status_of_unknown_or_duplicate_partner_blocks_sharing(
    company: PartnersCompany,
) -> None:
    assert blocking_reasons(company, "77") == ["The partner is not in the partner register."]
    company.add_partner("1")
    company.add_partner("1")
    assert blocking_reasons(company) == [
        "The partner register has several entries for the partner."
    ]


def test_failed_review_blocks_sharing_until_a_review_passes(company: PartnersCompany) -> None:
    """A later review date in the partner register does not replace a failed review."""
    company.add_partner("1")
    company.complete_review("1", passed=False)
    assert blocking_reasons(company) == ["The last security review failed."]
    company.today += timedelta(days=30)
    company.change_partner("1", seen_on=company.today.isoformat())
    assert blocking_reasons(company) == ["The last security review failed."]
    company.complete_review("1")
    assert blocking_reasons(company) == []


def test_reopened_review_blocks_sharing_until_it_passes(company: PartnersCompany) -> None:
    company.add_partner("1")
    company.complete_review("1")
    company.reopen("1")
    assert blocking_reasons(company) == [
        "The security review was reopened, and there is no decision yet."
    ]
    company.hand_in(company.issue("1"))
    company.decide("1", passed=True)
    assert blocking_reasons(company) == []


def test_review_is_valid_from_register_date_or_decision_whichever_is_later(
    company: PartnersCompany,
) -> None:
    company.add_partner("1", seen_on="2025-05-01")
    assert blocking_reasons(company)
    company.complete_review("1")
    assert blocking_reasons(company) == []
    company.today += timedelta(days=365)
    assert blocking_reasons(company) == []  # still valid on the last day
    company.today += timedelta(days=1)
    assert blocking_reasons(company) == [
        "The due date of the security review, 2027-06-01, has passed."
    ]
    company.change_partner("1", seen_on="2026-06-02")
    assert blocking_reasons(company) == []


def test_open_periodic_review_does_not_block_sharing(company: PartnersCompany) -> None:
    company.add_partner("1", seen_on="2025-07-01")
    company.issue("1")
    assert blocking_reasons(company) == []
