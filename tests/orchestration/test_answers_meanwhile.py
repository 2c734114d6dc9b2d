"""Answers that come while the step before their question is repeated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from include.evidence.model import Outcome, StepRecord
from include.evidence.steps import record_step
from include.services.clock import FixedClock
from include.services.errors import ControlFailed, ServiceError
from include.state.connect import engine

pytestmark = pytest.mark.airflow
CLOCK = FixedClock(datetime(2026, 3, 2, 1, tzinfo=UTC))
PART = "customers/IN-1"


@dataclass
class Desk:
    """As much of a desk as reads the records of a run.

    Attributes:
        state: the state database.
        database: of the plan.
    """

    state: Engine
    dag_id: str = "d"
    run_id: str = "r"
    database: Any = None

    def keep(self, step: str, part: str, data: dict[str, Any], outcome: Outcome) -> None:
        """Keep a step's record, as `include.orchestration.run.step` does."""
        record = StepRecord(step=step, part=part, outcome=outcome, data=data)
        with self.state.begin() as conn:
            record_step(conn, self.dag_id, self.run_id, record, CLOCK)


@pytest.fixture
def desk(migrated_database: str) -> Iterator[Desk]:
    """A run without any step."""
    state = engine(migrated_database)
    yield Desk(state, database=SimpleNamespace(name=PART))
    state.dispose()


def check_of(desk: Desk) -> StepRecord:
    from include.orchestration.intake import _checked

    return _checked(desk, PART)  # type: ignore[arg-type]


def plan_of(desk: Desk) -> StepRecord:
    from include.orchestration.retention import _record

    return _record(desk, "plan")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "record_of"), [("check", check_of), ("plan", plan_of)], ids=["check", "plan"]
)
def test_a_repeated_step_that_has_not_ended_is_waited_for(
    desk: Desk, step: str, record_of: Any
) -> None:
    """`step` keeps a failed record before the work begins; that is no reason to give up."""
    with pytest.raises(ControlFailed):
        record_of(desk)
    desk.keep(step, PART, {}, Outcome.FAIL)
    with pytest.raises(ServiceError, match="has not ended"):
        record_of(desk)
    desk.keep(step, PART, {"sha256": "a" * 64, "request": 7}, Outcome.PASS)
    assert record_of(desk).data["request"] == 7


def test_a_check_that_ended_without_a_request_is_not_waited_for(desk: Desk) -> None:
    """Nobody can be asked about the batch: the check says why."""
    desk.keep("check", PART, {"sha256": "a" * 64}, Outcome.FAIL)
    with pytest.raises(ControlFailed):
        check_of(desk)


@pytest.mark.parametrize(("module", "step"), [("intake", "check"), ("retention", "plan")])
def test_an_answer_that_comes_meanwhile_is_asked_for_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, module: str, step: str
) -> None:
    """It cannot be compared with a content that is not there yet."""
    from importlib import import_module

    from include.approvals.answer import Answer
    from include.approvals.question import AskAgain

    desk.keep(step, PART, {}, Outcome.FAIL)
    tasks = import_module(f"include.orchestration.{module}")
    place: Any = SimpleNamespace(pack=SimpleNamespace(intake_rule=lambda _: None), clock=CLOCK)
    monkeypatch.setattr(tasks, "_desk", lambda *_: desk)
    monkeypatch.setattr(tasks, "step", lambda _name, _part, _title, work, _clause: work(place))
    answer = Answer("Approve", "", "E3", CLOCK.now(), content="7:" + "a" * 64)
    with pytest.raises(AskAgain, match="has not ended"):
        tasks.take(PART, answer)
