"""A run that was refused or whose inputs were wrong changes the outcome of no control."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from include.cli.report import exit_code, result_of
from include.evidence.bundle_reader import BundleReader, SealedRun, read_sealed
from include.evidence.control_evidence import read_control_evidence
from include.evidence.model import Metric, Outcome, StepRecord
from include.messages import verbatim
from include.reports.conclusion import Conclusion
from include.service_container import Services
from include.services.errors import CouldNotRun, ServiceError, UsageError
from include.workflow.databases import DATABASES_STEP, name_databases
from tests.orchestration.test_sealed_runs import Run, run

pytestmark = pytest.mark.airflow
__all__ = ["run"]

DAG = "backup_offsite"


def controls(run: Run) -> list[Any]:
    return list(run.live.pack.controls_of(DAG))


def conclude(
    _services: Services, records: Sequence[StepRecord], _files: dict[str, bytes]
) -> Conclusion:
    title = verbatim("Off-site backup")
    metrics = [metric for record in records for metric in record.metrics]
    findings = [finding for record in records for finding in record.findings]
    outcome = Outcome.worst([record.outcome for record in records])
    return Conclusion(title, title, outcome, findings, metrics)


def seal(run: Run) -> SealedRun:
    from include.orchestration.run import seal_run

    seal_run(conclude)
    with run.live.state.connect() as conn:
        store = run.live.store("evidence_store")
        sealed = read_sealed(store, conn, run.live.trusted, *run.key)
    assert sealed is not None
    return sealed


def passed_run(run: Run) -> SealedRun:
    """Seal a run whose controls passed."""
    from include.orchestration.run import execute_step

    def work(_services: Services) -> StepRecord:
        targets = {control.indicator.name: control.indicator for control in controls(run)}
        metrics = [
            Metric(name=name, value=0 if indicator.is_met_by(0) else 1, unit="1")
            for name, indicator in targets.items()
        ]
        return StepRecord(step="backup", outcome=Outcome.PASS, metrics=metrics)

    run.key = (DAG, "manual__1")
    execute_step("backup", "", verbatim("backup"), work, "4.2")
    sealed = seal(run)
    assert sealed.row.controls
    return sealed


def refused_run(run: Run, error: Exception, key: str = "manual__2") -> SealedRun:
    """Seal a run whose first step ends with an error."""
    from include.orchestration.run import execute_step

    def work(_services: Services) -> StepRecord:
        raise error

    run.key = (DAG, key)
    with pytest.raises(Exception, match=str(error)[:10]):
        execute_step(DATABASES_STEP, "", verbatim("The choice"), work, "4.2")
    return seal(run)


def states(run: Run) -> list[tuple[int | None, Outcome]]:
    """Return the number of the newest bundle and the current outcome of each control."""
    with run.live.state.connect() as conn:
        reader = BundleReader(run.live.store("evidence_store"), run.live.trusted)
        zone = run.live.pack.calendar.zone
        evidence = read_control_evidence(conn, reader, controls(run), run.live.clock.now(), zone)
    return [(each.row.seq if each.row else None, each.outcome) for each in evidence]


def test_refused_run_names_no_control_and_leaves_the_outcomes_of_all_controls_unchanged(
    run: Run,
) -> None:
    passed_run(run)
    before = states(run)
    assert {outcome for _seq, outcome in before} == {Outcome.PASS}
    sealed = refused_run(run, CouldNotRun("Not in the data map: nope.", "It maps: courier."))
    assert (sealed.result.could_not_run, sealed.result.outcome) == (True, Outcome.FAIL)
    assert (sealed.result.controls, sealed.row.controls) == ([], [])
    assert [finding.code for finding in sealed.result.findings] == ["databases.failed"]
    assert states(run) == before


@pytest.mark.parametrize(
    "error", [UsageError("No such login."), ServiceError("No database answers.")]
)
def test_run_whose_service_or_connection_failed_is_evidence_that_a_control_has_no_evidence(
    run: Run, error: Exception
) -> None:
    passed_run(run)
    sealed = refused_run(run, error)
    assert not sealed.result.could_not_run
    assert sealed.row.controls == [control.id for control in controls(run)]
    assert {outcome for _seq, outcome in states(run)} == {Outcome.ATTENTION}


def test_run_with_wrong_inputs_whose_other_step_failed_names_its_controls(run: Run) -> None:
    """The failure of the other step says something about the controls."""
    run.key = (DAG, "manual__2")
    run.step(Outcome.FAIL, "preflight")
    sealed = refused_run(run, CouldNotRun("Not in the data map: nope."))
    assert not sealed.result.could_not_run
    assert sealed.row.controls == [control.id for control in controls(run)]


def test_run_with_wrong_inputs_could_not_run_even_if_its_notifications_were_not_sent(
    run: Run,
) -> None:
    run.key = (DAG, "manual__2")
    run.step(Outcome.FAIL, "send")
    assert refused_run(run, CouldNotRun("Not in the data map: nope.")).result.could_not_run


def test_reports_and_commands_state_that_the_run_could_not_run(run: Run) -> None:
    sealed = refused_run(run, CouldNotRun("Not in the data map: nope."))
    store = run.live.store("evidence_store")
    for language, words in (("en", "Could not run"), ("zh-CN", "未能运行")):
        page = store.get(f"{sealed.row.bundle}/report.{language}.html").decode()
        assert f"<strong>{words}</strong>" in page
    shown = result_of(run.live, *run.key, "failed", "log")
    assert (shown.words, shown.outcome) == ("Could not run", "fail")
    assert "could_not_run" not in shown.as_json()
    assert exit_code(shown) == 1


def test_gate_fails_and_states_that_the_run_could_not_run(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    from include.orchestration.gate import report_sealed_run
    from include.orchestration.retry_policy import TaskFailed

    sealed = refused_run(run, CouldNotRun("Not in the data map: nope."))
    summary = {"bundle": sealed.row.bundle, "outcome": "fail", "findings": 1}
    with pytest.raises(TaskFailed):
        report_sealed_run(run.live, *run.key, summary)
    assert "Outcome: Could not run. Findings: 1" in caplog.text


def test_name_databases_refuses_the_run_if_a_database_is_not_in_the_data_map() -> None:
    run: Any = SimpleNamespace(
        pack=SimpleNamespace(databases={"courier": None}), requested_databases=["nope"]
    )
    with pytest.raises(CouldNotRun, match="Not in the data map: nope"):
        name_databases(run, SimpleNamespace())  # type: ignore[arg-type]


def test_run_without_rules_is_evidence_for_no_control_and_has_a_finding(
    run: Run,
) -> None:
    from include.orchestration import tasks
    from include.registry import workflow

    partners = workflow("review_partners")
    conclusion = tasks._without_rules(
        partners, run.live, [StepRecord(step="check", outcome=Outcome.PASS)]
    )
    assert (conclusion.could_not_run, conclusion.outcome) == (True, Outcome.ATTENTION)
    assert [finding.code for finding in conclusion.findings] == ["run.no_rules"]
    without_controls: Any = SimpleNamespace(pack=SimpleNamespace(controls_of=lambda _dag: ()))
    conclusion = tasks._without_rules(
        partners, without_controls, [StepRecord(step="check", outcome=Outcome.PASS)]
    )
    assert (conclusion.could_not_run, conclusion.outcome) == (True, Outcome.PASS)
    assert conclusion.findings == []
