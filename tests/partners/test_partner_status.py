"""Whether anything may be shared with a partner: only where everything holds, and with reasons."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from include.reports.i18n import Translator
from tests.partners.rig import Rig


def reasons(rig: Rig, code: str = "1") -> list[str]:
    """Why not, in English; each is told in Chinese too."""
    found = rig.standing(code)
    assert found.allowed == (not found.reasons)
    english, chinese = Translator("en"), Translator("zh_CN")
    for one in found.reasons:
        assert chinese.text(one) != english.text(one)
    return [english.text(one) for one in found.reasons]


def test_a_partner_that_is_bound_and_reviewed_may_be_given_information(rig: Rig) -> None:
    """Nothing stands against it."""
    rig.ally("1")
    assert reasons(rig) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"secrecy_to": "2026-05-31"}, ["The confidentiality agreement ended on 2026-05-31."]),
        ({"secrecy_to": "2026-06-01"}, []),
        ({"secrecy_from": "2026-06-02"}, ["The confidentiality agreement begins on 2026-06-02."]),
        ({"secrecy_to": None}, ["No end of a confidentiality agreement is known."]),
        ({"deal_to": "2026-05-31"}, ["The data-processing agreement ended on 2026-05-31."]),
        ({"deal_to": "soon"}, ["No end of a data-processing agreement is known."]),
        ({"seen_on": "2025-05-31"}, ["The security review was due on 2026-05-31."]),
        ({"seen_on": "2025-06-01"}, []),
        ({"seen_on": "2025-05-31", "grade": "2"}, []),
        ({"seen_on": None}, ["No day of a security review, or no tier, is known."]),
        ({"seen_on": "2027-01-01"}, ["No day of a security review, or no tier, is known."]),
        ({"grade": "9"}, ["No day of a security review, or no tier, is known."]),
        ({"connected": False}, ["It has no access."]),
    ],
)
def test_what_does_not_hold_blocks_at_once(
    rig: Rig, change: dict[str, Any], said: list[str]
) -> None:
    """From the day after the last day on; nothing is allowed because nothing is known."""
    rig.ally("1", **change)
    assert reasons(rig) == said


def test_every_reason_is_told(rig: Rig) -> None:
    """Not just the first one."""
    rig.ally("1", secrecy_to=None, deal_to=None, seen_on=None, connected=False)
    assert len(reasons(rig)) == 4


def test_a_partner_that_nobody_knows_is_refused(rig: Rig) -> None:
    """As is one of whom the register says two things."""
    assert reasons(rig, "77") == ["The register has no such partner."]
    rig.ally("1")
    rig.ally("1")
    assert reasons(rig) == ["The register has more than one row of it."]


def test_a_failed_review_blocks_until_another_one_passes(rig: Rig) -> None:
    """Whatever the mapped table says meanwhile: a day there says nothing of what came of it."""
    rig.ally("1")
    rig.review("1", passed=False)
    assert reasons(rig) == ["The last security review failed."]
    rig.today += timedelta(days=30)
    rig.change("1", seen_on=rig.today.isoformat())
    assert reasons(rig) == ["The last security review failed."]
    rig.review("1")
    assert reasons(rig) == []


def test_an_incident_blocks_until_the_review_passes_again(rig: Rig) -> None:
    """From the moment on in which somebody opens it again."""
    rig.ally("1")
    rig.review("1")
    rig.reopen("1")
    assert reasons(rig) == ["The security review was opened again and is not decided on."]
    rig.hand_in(rig.issue("1"))
    rig.decide("1", passed=True)
    assert reasons(rig) == []


def test_the_later_of_both_days_counts(rig: Rig) -> None:
    """That of the mapped table, and that of the last review that passed here."""
    rig.ally("1", seen_on="2025-05-01")
    assert reasons(rig)
    rig.review("1")
    assert reasons(rig) == []
    rig.today += timedelta(days=365)
    assert reasons(rig) == []  # to the very day
    rig.today += timedelta(days=1)
    assert reasons(rig) == ["The security review was due on 2027-06-01."]
    rig.change("1", seen_on="2026-06-02")
    assert reasons(rig) == []


def test_a_review_that_is_open_in_its_turn_blocks_nothing(rig: Rig) -> None:
    """As long as the last one holds."""
    rig.ally("1", seen_on="2025-07-01")
    rig.issue("1")
    assert reasons(rig) == []
