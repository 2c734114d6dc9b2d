"""Answers to a required action while the previous step runs again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.evidence.model import Outcome, StepRecord
from include.evidence.step_findings import StepFindings, StepResult, record_step
from include.messages import verbatim
from include.notify.outbox import Run
from include.policy import SHIPPED
from include.registry import load_pack
from include.services.clock import FixedClock
from include.services.errors import ControlFailed
from include.state.connect import engine
from include.workflow.declaration import AccessGroup, Cadence, Workflow
from include.workflow.run_context import NotEnded, RunContext
from include.workflow.step import HumanTask, Step
from tests.support.airflow_task import with_services
from tests.support.contexts import services_of

pytestmark = pytest.mark.airflow
CLOCK = FixedClock(datetime(2026, 3, 2, 1, tzinfo=UTC))
PART = "courier"


class Plan(StepResult):
    """The result of a step whose plan needs an approval."""

    sha256: str


def plan(run: RunContext[None], findings: StepFindings) -> Plan:
    """Fail, because no test executes the step."""
    raise AssertionError


def store_plan(run: RunContext[None], findings: StepFindings, _answer: Any) -> Plan:
    """Return the plan that the answer is about."""
    return run.require(PLAN, findings.part)


PLAN = Step(name="plan", title=verbatim("The plan of courier"), clause="", work=plan, result=Plan)
APPROVE = HumanTask(
    name="approve",
    title=verbatim("The approval"),
    request_title=verbatim("The request"),
    clause="",
    result=Plan,
    ask=plan,
    store_answer=store_plan,
    response=lambda _pack: timedelta(hours=1),
)
WORKFLOW = Workflow[None](
    id="d",
    title=verbatim("Toy"),
    summary="",
    topic="toy",
    clauses=(),
    cadence=Cadence.DAILY,
    owner="compliance",
    access=AccessGroup.RECORDS,
    steps=(PLAN, APPROVE),
)


@pytest.fixture
def run(migrated_database: str) -> Iterator[RunContext[None]]:
    """Yield the context of a run without step records."""
    state = engine(migrated_database)
    yield RunContext(services_of(load_pack(SHIPPED), {}, state, CLOCK), None, Run("d", "r"))
    state.dispose()


def keep(run: RunContext[None], data: dict[str, Any]) -> None:
    """Store the record of the step `plan`. Without data, the step has not ended."""
    outcome = Outcome.PASS if data else Outcome.FAIL
    record = StepRecord(step="plan", part=PART, outcome=outcome, data=data)
    with run.state.begin() as conn:
        record_step(conn, "d", "r", record, CLOCK)


def test_require_raises_the_error_not_ended_while_the_required_step_is_running_again(
    run: RunContext[None],
) -> None:
    """Before its work, a task stores a record that looks like a failure.

    This is not a final failure.
    """
    with pytest.raises(ControlFailed, match="The plan of courier is missing"):
        run.require(PLAN, PART)
    keep(run, {})
    with pytest.raises(NotEnded, match="The plan of courier has not ended"):
        run.require(PLAN, PART)
    keep(run, {"sha256": "a" * 64})
    assert run.require(PLAN, PART) == Plan(sha256="a" * 64)


def test_store_answer_raises_the_error_invalid_answer_while_the_previous_step_is_running(
    run: RunContext[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content with which the answer would be compared does not exist yet."""
    from include.approvals.required_action import Answer, InvalidAnswer
    from include.orchestration.tasks import store_answer

    keep(run, {})
    with_services(monkeypatch, ("d", "r"), run.services)
    answer = Answer("Approve", "", "E3", CLOCK.now(), content="7:" + "a" * 64)
    with pytest.raises(InvalidAnswer, match="has not ended"):
        store_answer(WORKFLOW, APPROVE, PART, answer)
