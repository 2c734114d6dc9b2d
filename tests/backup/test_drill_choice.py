"""Test which restore point a restore drill chooses."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from include.backup import drill
from include.backup.drill import CHOOSE, Choice, pick
from include.backup.manifest import Manifest, Rejected, RestorePoint
from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import result_of
from include.services.errors import ControlFailed
from include.workflow.run_context import RunContext
from tests.backup.test_drill import codes
from tests.support.contexts import step_record
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


def test_pick_returns_the_latest_or_an_undrilled_restore_point_as_requested():
    """If all restore points were drilled, `pick` returns the latest.

    Without restore points, it raises.
    """
    three = points(2, 1, 3)
    assert pick(three, set(), "latest").id == "p1"
    assert pick(three, {"p1"}, "latest").id == "p1"
    assert {pick(three, {"p1"}, "undrilled").id for _ in range(60)} == {"p2", "p3"}
    assert pick(three, {"p1", "p2"}, "undrilled").id == "p3"
    assert pick(three, {"p1", "p2", "p3", "p9"}, "undrilled").id == "p1"
    with pytest.raises(ControlFailed, match="no restore point for the restore drill"):
        pick([], set(), "latest")


def record_of_choice(
    monkeypatch: pytest.MonkeyPatch, points: list[RestorePoint], *rejected: Rejected
) -> StepRecord:
    """Return the record of the step that chooses a restore point.

    Only the last of the given restore points was drilled before.
    """
    monkeypatch.setattr(drill, "listed", lambda *_: (points, rejected))
    monkeypatch.setattr(drill, "drilled_points", lambda *_: {points[-1].id})
    for name in ("drop_left_over", "require_drill_server", "offsite_of"):
        monkeypatch.setattr(drill, name, lambda *_: SimpleNamespace(store=None))
    services: Any = SimpleNamespace(
        state=None, clock=None, database=lambda _connection: None, drill_key=lambda: None
    )
    run = RunContext(services, None, parameters={"choose": "undrilled"})
    return step_record(CHOOSE, run, "courier")


def test_choose_step_fails_if_a_restore_point_was_changed(monkeypatch: pytest.MonkeyPatch):
    """If a restore point was changed, the step fails.

    Nevertheless, it chooses a valid restore point.
    """
    two = points(2, 1)
    good = record_of_choice(monkeypatch, two)
    assert (good.outcome, good.data["restore_point"]) == (Outcome.PASS, "p2")
    chosen = result_of(good, Choice)
    assert chosen is not None
    assert chosen.latest_taken_at == NOW - timedelta(days=1)
    bad = record_of_choice(monkeypatch, two, Rejected("courier/x/manifest.json", "changed"))
    assert codes(bad) == {"drill.untrusted": Outcome.FAIL}
