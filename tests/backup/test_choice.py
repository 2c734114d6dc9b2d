"""The choice of the restore point that a drill restores."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.backup.drill import choose, chosen
from include.backup.manifest import Manifest, Rejected, RestorePoint
from include.evidence.model import Outcome
from include.services.errors import ControlFailed
from tests.backup.test_drill import codes
from tests.support.holders import NOW


def points(*days: int) -> list[RestorePoint]:
    return [
        RestorePoint(
            Manifest.model_construct(
                id=f"p{day}", database="courier", taken_at=NOW - timedelta(days=day)
            )
        )
        for day in days
    ]


def test_the_choice_is_the_latest_or_one_never_drilled():
    """When all were drilled it is the latest again; without any there is nothing to drill."""
    three = points(2, 1, 3)
    assert choose(three, set(), "latest").id == "p1"
    assert choose(three, {"p1"}, "latest").id == "p1"
    assert {choose(three, {"p1"}, "undrilled").id for _ in range(60)} == {"p2", "p3"}
    assert choose(three, {"p1", "p2"}, "undrilled").id == "p3"
    assert choose(three, {"p1", "p2", "p3", "p9"}, "undrilled").id == "p1"
    with pytest.raises(ControlFailed, match="no restore point to drill"):
        choose([], set(), "latest")


def test_untrusted_restore_points_fail_the_choice():
    """Somebody changed the store: that is red, even though another one is drilled."""
    two = points(2, 1)
    good = chosen("courier", two[0], two, [])
    assert (good.outcome, good.data["restore_point"]) == (Outcome.PASS, "p2")
    assert good.data["latest_taken_at"] == (NOW - timedelta(days=1)).isoformat()
    bad = chosen("courier", two[0], two, [Rejected("courier/x/manifest.json", "changed")])
    assert codes(bad) == {"drill.untrusted": Outcome.FAIL}
