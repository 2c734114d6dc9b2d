"""The task `gate` logs the findings of the sealed bundle and fails without a traceback."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from include.evidence.model import Outcome
from include.services.errors import ServiceError
from tests.orchestration.test_sealed_runs import Run, run

pytestmark = pytest.mark.airflow
__all__ = ["run"]


def report(run: Run, sealed: dict[str, object]) -> None:
    from include.orchestration.gate import report_sealed_run

    report_sealed_run(run.live, *run.key, sealed)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "gate" in record.name]


def test_gate_logs_each_finding_in_one_line_with_its_action_and_then_the_page_of_the_bundle(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration.retry_policy import TaskFailed

    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.example/")
    run.step(Outcome.FAIL)
    run.step(Outcome.ATTENTION, "second")
    sealed = run.seal()
    with caplog.at_level(logging.INFO), pytest.raises(TaskFailed) as raised:
        report(run, sealed)
    assert raised.value.code == 1
    assert lines(caplog) == [
        "Failed: x: It failed. Action: Look. [check.failed]",
        "Needs attention: x: It failed. Action: Look. [second.failed]",
        "Outcome: Failed. Findings: 2",
        "Evidence: https://airflow.example/compliance/evidence/1",
    ]


def test_gate_succeeds_if_the_run_needs_attention(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    run.step(Outcome.ATTENTION)
    with caplog.at_level(logging.INFO):
        report(run, run.seal())
    assert lines(caplog)[1:] == [
        "Outcome: Needs attention. Findings: 1",
        "Evidence: /compliance/evidence/1",
    ]


def test_gate_fails_if_the_bundle_was_changed_after_the_seal(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from include.orchestration.retry_policy import TaskFailed

    run.step(Outcome.PASS)
    sealed = run.seal()
    (tmp_path / "evidence" / sealed["bundle"] / "result.json").write_text("{}")
    with pytest.raises(TaskFailed):
        report(run, sealed)
    assert "cannot be verified" in lines(caplog)[0]


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.FAIL])
def test_gate_reports_the_sealed_outcome_even_if_the_evidence_store_is_not_available(
    run: Run, outcome: Outcome, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration import gate

    def away(*_arguments: object) -> None:
        raise ServiceError("The evidence store does not answer.")

    run.step(outcome)
    sealed = run.seal()
    monkeypatch.setattr(gate, "_read", away)
    if outcome is Outcome.FAIL:
        with pytest.raises(gate.TaskFailed):
            report(run, sealed)
    else:
        report(run, sealed)
    assert "does not answer" in lines(caplog)[0]
    assert lines(caplog)[-1] == "Evidence: /compliance/runs/drilled/manual__1"


def test_retry_policy_does_not_retry_a_task_whose_control_failed() -> None:
    from airflow.sdk.definitions.retry_policy import RetryAction

    from include.orchestration.retry_policy import RetryPolicy, TaskFailed, cause_of

    assert RetryPolicy().evaluate(TaskFailed(), 1, 5).action is RetryAction.FAIL
    assert str(cause_of(TaskFailed())) == "The control failed."
