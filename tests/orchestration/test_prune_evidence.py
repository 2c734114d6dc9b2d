"""The task of `enforce_retention` that deletes evidence past its retention period."""

from __future__ import annotations

import json
from datetime import date, timedelta
from functools import partial
from typing import Any

import pytest

from include.evidence.model import Outcome
from include.evidence.prune import LONGEST_PAUSE, Pruning
from include.evidence.step_findings import StepFindings, artifacts_of, keep_artifact
from include.evidence.verify import verify_all
from include.holds import registry
from include.holds.registry import HoldKind
from include.orchestration.tasks import run_step
from include.reports.i18n import Translator
from include.retention import steps
from include.retention.steps import PRUNE_EVIDENCE
from include.retention.workflow import ENFORCE_RETENTION
from tests.drill_sandbox.test_sandboxed_services import RUN
from tests.orchestration.test_sealed_runs import Run
from tests.orchestration.test_sealed_runs import run as run

pytestmark = pytest.mark.airflow

TERM = timedelta(days=6 * 366)


class RunsOverYears:
    """Sealed runs of several years.

    Attributes:
        run: the run whose context the tasks get.
        bundles: run number -> folder of the run's bundle.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.clock, self.bundles = run, run.live.clock, [""]

    def seal(self, number: int) -> dict[str, Any]:
        self.run.key = (RUN[0], f"manual__{number}")
        sealed = self.run.seal()
        self.bundles.append(sealed["bundle"])
        return sealed

    def prune(self, number: int) -> dict[str, Any]:
        """Execute the task in a new run and seal the run; return the step's data in the bundle."""
        self.run.key = (RUN[0], f"manual__{number}")
        run_step(ENFORCE_RETENTION, PRUNE_EVIDENCE)
        sealed = self.seal(number)
        text = (self.run.store / sealed["bundle"] / "result.json").read_text(encoding="utf-8")
        result = json.loads(text)
        [step] = [step for step in result["steps"] if step["step"] == "prune_evidence"]
        codes = [finding["code"] for finding in result["findings"]]
        return step["data"] | {"outcome": step["outcome"], "codes": codes}

    def has(self, number: int) -> bool:
        return (self.run.store / self.bundles[number] / "result.json").exists()


@pytest.fixture
def runs_over_years(run: Run, monkeypatch: pytest.MonkeyPatch) -> RunsOverYears:
    """Return three sealed runs: two past the retention period, and a later one."""
    monkeypatch.setattr(steps, "Pruning", partial(Pruning, newest=1))
    runs = RunsOverYears(run)
    runs.seal(1)
    runs.seal(2)
    runs.clock.on(days=TERM.days)
    runs.seal(3)
    return runs


def test_artifacts_of_a_run_in_state_database_are_deleted_when_its_evidence_is_pruned(
    runs_over_years: RunsOverYears,
) -> None:
    """The rows are deleted only after a check of the bundle, which needs the bundle's files."""
    old = (RUN[0], "manual__1")
    with runs_over_years.run.live.state.begin() as conn:
        keep_artifact(conn, *old, "left.txt", b"x")
    pruned = runs_over_years.prune(4)
    assert (pruned["bundles"], pruned["runs_forgotten"] > 0) == (2, True)
    with runs_over_years.run.live.state.connect() as conn:
        assert artifacts_of(conn, *old) == {}


def test_evidence_is_pruned_after_its_retention_period_and_the_chain_stays_valid(
    runs_over_years: RunsOverYears,
) -> None:
    done = runs_over_years.prune(4)
    assert (done["bundles"], done["waits"], done["keep"]) == (2, "", "P6Y")
    assert (done["outcome"], done["codes"]) == ("pass", [])
    assert [runs_over_years.has(number) for number in (1, 2, 3, 4)] == [False, False, True, True]
    live = runs_over_years.run.live
    with live.state.connect() as conn:
        assert verify_all(live.store("evidence_store"), conn, live.trusted).verified


def test_evidence_is_kept_until_the_retention_period_in_the_policy_pack_ends(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "Pruning", partial(Pruning, newest=1))
    runs_over_years = RunsOverYears(run)
    runs_over_years.seal(1)
    runs_over_years.clock.on(days=6 * 365)  # a leap day is missing
    runs_over_years.seal(2)
    assert runs_over_years.prune(3)["bundles"] == 0
    assert runs_over_years.has(1)


def test_pruning_deletes_no_evidence_and_reports_no_finding_during_a_legal_hold(
    runs_over_years: RunsOverYears,
) -> None:
    live = runs_over_years.run.live
    with live.state.begin() as conn:
        hold = registry.add(
            conn,
            live.clock,
            kind=HoldKind.SUBJECT,
            value="courier/1",
            reason="claim pending",
            owner="legal",
            case_ref="C-1",
            review_on=date(2099, 1, 1),
        )
    done = runs_over_years.prune(4)
    assert (done["bundles"], done["waits"], done["codes"]) == (0, "held", [])
    with live.state.begin() as conn:
        registry.release(conn, live.clock, hold.id, released_by="counsel", reason="settled")
    assert runs_over_years.prune(5)["bundles"] == 2


def test_pruning_run_fails_and_keeps_the_evidence_bundle_if_its_files_were_changed(
    runs_over_years: RunsOverYears,
) -> None:
    (runs_over_years.run.store / runs_over_years.bundles[2] / "report.en.html").write_bytes(
        b"changed"
    )
    done = runs_over_years.prune(4)
    assert (done["bundles"], done["waits"], done["outcome"]) == (1, "changed", "fail")
    assert done["codes"] == ["evidence.prune_refused"]
    assert runs_over_years.has(2)


def test_evidence_is_not_pruned_in_the_first_run_after_an_implausibly_long_pause(
    runs_over_years: RunsOverYears,
) -> None:
    runs_over_years.clock.on(days=LONGEST_PAUSE.days + 1)
    done = runs_over_years.prune(4)
    assert (done["bundles"], done["codes"]) == (0, ["evidence.prune_postponed"])
    assert runs_over_years.prune(5)["bundles"] == 2


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_report_contains_number_of_pruned_bundles_and_reason_for_keeping_the_others(
    language: str,
) -> None:
    from include.evidence.prune import DeletedStepRecords, KeptBecause, Pruned

    for waits in (None, *KeptBecause):
        pruned = Pruned(("b",), waits)
        findings = StepFindings("prune_evidence", "5.3")
        result = steps.report_pruned(findings, pruned, DeletedStepRecords(0), "P6Y")
        [fact] = steps.pruning_facts(result)
        assert fact.value == 1
        assert (fact.note is None) == (waits is None)
        assert Translator(language).text(fact.label)
    findings = StepFindings("prune_evidence", "5.3")
    result = steps.report_pruned(findings, Pruned(), DeletedStepRecords(0), "P6Y")
    assert findings.record(result).outcome is Outcome.PASS
    assert steps.pruning_facts(result) == []
