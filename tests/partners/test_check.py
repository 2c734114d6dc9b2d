"""The step: findings and figures, whatever the register and the reviews have."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from include.partners.rules import UNBOUND, UNREVIEWED
from include.reports.i18n import Translator
from tests.partners.rig import Rig, codes, figures


def test_a_company_whose_partners_are_in_order_is_green(rig: Rig) -> None:
    """Without a finding; partners without access may lapse as they like."""
    rig.ally("1")
    rig.ally("2", connected=False, secrecy_to="2020-01-01", deal_to=None, seen_on=None)
    record = rig.check()
    assert (str(record.outcome), codes(record)) == ("pass", [])
    found = figures(record)
    assert (found[UNBOUND], found[UNREVIEWED]) == (0, 0)
    assert (found["partners.live"], found["partners.registered"]) == (1, 2)
    assert rig.keys() == []


def test_a_register_without_partners_is_red_and_measures_nothing(rig: Rig) -> None:
    """An empty answer proves nobody bound: a wrong query gives it as well."""
    record = rig.check()
    assert codes(record) == [("partners.nobody", "fail", "check")]
    found = figures(record)
    assert (found[UNBOUND], found[UNREVIEWED]) == (None, None)


def test_a_register_in_which_nobody_has_access_is_told(rig: Rig) -> None:
    """It may be so; more than a glance at it is wanted. The figures are true zeros."""
    rig.ally("1", connected=False)
    rig.ally("2", connected=False, secrecy_to="2020-01-01")
    record = rig.check()
    assert codes(record) == [("partners.nobody_with_access", "attention", "check")]
    found = figures(record)
    assert (found[UNBOUND], found[UNREVIEWED]) == (0, 0)
    rig.ally("3", connected=None)  # unclear access counts as access
    assert "partners.nobody_with_access" not in [code for code, *_rest in codes(rig.check())]


def test_rows_without_a_number_are_not_nobody(rig: Rig) -> None:
    """They count in both figures, and are told as what they are."""
    rig.ally("a b")
    record = rig.check()
    assert codes(record) == [("partners.without_number", "fail", "check")]
    found = figures(record)
    assert (found[UNBOUND], found[UNREVIEWED]) == (1, 1)


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
def test_what_has_lapsed_makes_the_run_red(
    rig: Rig, change: dict[str, Any], code: str, unbound: int, unreviewed: int
) -> None:
    """By the clause that it breaks, and in the figure of its control."""
    rig.ally("1", **change)
    record = rig.check()
    assert codes(record) == [(code, "fail", "1")]
    assert record.findings[0].clause == ("4.3" if unreviewed else "4.4")
    found = figures(record)
    assert (found[UNBOUND], found[UNREVIEWED]) == (unbound, unreviewed)
    assert found["partners.live_blocked"] == 1


def test_failed_and_reopened_reviews_are_told_as_such(rig: Rig) -> None:
    """With access, they count as not reviewed."""
    for code in ("1", "2"):
        rig.ally(code)
        rig.review(code, passed=code == "2")
    rig.reopen("2")
    record = rig.check()
    assert [code for code, *_rest in codes(record)] == [
        "partners.review_failed", "partners.review_reopened",
    ]  # fmt: skip
    assert figures(record)[UNREVIEWED] == 2


def test_what_is_odd_in_the_register_is_told(rig: Rig) -> None:
    """As a failure where the partner has access; a name alone never is one."""
    rig.ally("1", company="A\nB")
    rig.ally("2", deal_to="soon")
    rig.ally("3", deal_to="soon", connected=False)
    rig.ally("4")
    rig.ally("4")
    rig.ally("a b")
    rig.ally("6", secrecy_from="")
    record = rig.check()
    assert sorted(codes(record)) == [
        ("partners.agreement_missing", "fail", "2"),
        ("partners.name", "attention", "1"),
        ("partners.nda_from_missing", "attention", "6"),
        ("partners.no_day", "attention", "3"),
        ("partners.no_day", "fail", "2"),
        ("partners.twice", "fail", "4"),
        ("partners.without_number", "fail", "check"),
    ]
    found = figures(record)
    assert (found[UNBOUND], found[UNREVIEWED]) == (3, 2)  # 2, 4 and the one without a number


def test_a_partner_deleted_while_its_review_is_open_is_told(rig: Rig) -> None:
    """Somebody has to end the review; nobody is reminded of the partner."""
    rig.ally("1", secrecy_to="2026-06-10")
    rig.issue("1")
    rig.sql("DELETE FROM ally")
    record = rig.check()
    assert codes(record) == [
        ("partners.nobody", "fail", "check"), ("partners.gone", "attention", "1"),
    ]  # fmt: skip
    assert rig.keys() == []
    rig.ally("2")
    assert codes(rig.check()) == [("partners.gone", "attention", "1")]
    rig.decide("1", passed=False)
    assert codes(rig.check()) == []


def test_what_waits_for_too_long_is_told(rig: Rig) -> None:
    """First for the partner, then for whoever decides: 30 days each."""
    rig.ally("1")
    review = rig.issue("1")
    rig.today += timedelta(days=30)
    assert codes(rig.check()) == []
    rig.today += timedelta(days=1)
    assert codes(rig.check()) == [("partners.questionnaire_out", "attention", "1")]
    rig.hand_in(review)
    assert codes(rig.check()) == []
    rig.today += timedelta(days=31)
    assert codes(rig.check()) == [("partners.undecided", "attention", "1")]


def test_a_finding_names_its_partner_once_and_its_command_whole(rig: Rig) -> None:
    """Whoever reads it has the number before it, and can copy what to do."""
    rig.ally("11", company="Süd & Söhne", seen_on=None)
    rig.ally("12", company="", seen_on=None)
    english = Translator("en")
    first, second = (one for one in rig.check().findings if one.code == "partners.review_missing")
    assert english.text(first.message).startswith("Süd & Söhne: No day of a security review")
    assert english.text(first.action).endswith(
        "./parcelseal partners questionnaire 11 --out FILE --by ID"
    )
    assert english.text(second.message).startswith("partner without a name: No day")
    assert "`" not in english.text(first.action) + english.text(second.action)


def test_the_record_names_no_contact(rig: Rig) -> None:
    """Numbers and company names only: it stands in the bundle."""
    rig.ally("1", contact="zhang.san@1.example", secrecy_to="2026-06-05")
    rig.hand_in(rig.issue("1"))
    record = rig.check().model_dump_json()
    assert "zhang" not in record
    assert "Li Na" not in record
    assert "Company 1" in record
