"""The task of `enforce_retention` that removes evidence past its term."""

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
from tests.drill_sandbox.test_workplace import RUN
from tests.orchestration.test_sealed_runs import Run
from tests.orchestration.test_sealed_runs import run as run

pytestmark = pytest.mark.airflow

TERM = timedelta(days=6 * 366)


class Years:
    """Runs over years.

    Attributes:
        run: the run at hand.
        bundles: folders of the sealed runs, in their order.
    """

    def __init__(self, run: Run) -> None:
        self.run, self.clock, self.bundles = run, run.live.clock, [""]

    def seal(self, number: int) -> dict[str, Any]:
        self.run.key = (RUN[0], f"manual__{number}")
        sealed = self.run.seal()
        self.bundles.append(sealed["bundle"])
        return sealed

    def prune(self, number: int) -> dict[str, Any]:
        """Run the task, seal its run, and return what the bundle says of the step."""
        self.run.key = (RUN[0], f"manual__{number}")
        run_step(ENFORCE_RETENTION, PRUNE_EVIDENCE)
        sealed = self.seal(number)
        text = (self.run.store / sealed["bundle"] / "result.json").read_text(encoding="utf-8")
        result = json.loads(text)
        [step] = [one for one in result["steps"] if one["step"] == "prune_evidence"]
        codes = [finding["code"] for finding in result["findings"]]
        return step["data"] | {"outcome": step["outcome"], "codes": codes}

    def has(self, number: int) -> bool:
        return (self.run.store / self.bundles[number] / "result.json").exists()


@pytest.fixture
def years(run: Run, monkeypatch: pytest.MonkeyPatch) -> Years:
    """One bundle stays however old; two runs were sealed a term ago, one after them."""
    monkeypatch.setattr(steps, "Pruning", partial(Pruning, newest=1))
    made = Years(run)
    made.seal(1)
    made.seal(2)
    made.clock.on(days=TERM.days)
    made.seal(3)
    return made


def test_rows_of_a_run_are_removed_before_its_evidence_is_pruned(years: Years) -> None:
    """The check of the bundle needs the files; afterwards the rows would stay for ever."""
    old = (RUN[0], "manual__1")
    with years.run.live.state.begin() as conn:
        keep_artifact(conn, *old, "left.txt", b"x")
    pruned = years.prune(4)
    assert (pruned["bundles"], pruned["runs_forgotten"] > 0) == (2, True)
    with years.run.live.state.connect() as conn:
        assert artifacts_of(conn, *old) == {}


def test_evidence_past_its_term_is_removed_and_the_chain_goes_on(years: Years) -> None:
    done = years.prune(4)
    assert (done["bundles"], done["waits"], done["keep"]) == (2, "", "P6Y")
    assert (done["outcome"], done["codes"]) == ("pass", [])
    assert [years.has(number) for number in (1, 2, 3, 4)] == [False, False, True, True]
    live = years.run.live
    with live.state.connect() as conn:
        assert verify_all(live.store("evidence_store"), conn, live.trusted).verified


def test_evidence_stays_until_the_term_of_the_pack_is_over(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "Pruning", partial(Pruning, newest=1))
    years = Years(run)
    years.seal(1)
    years.clock.on(days=6 * 365)  # a leap day is missing
    years.seal(2)
    assert years.prune(3)["bundles"] == 0
    assert years.has(1)


def test_legal_hold_keeps_all_evidence_without_a_finding(years: Years) -> None:
    live = years.run.live
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
    done = years.prune(4)
    assert (done["bundles"], done["waits"], done["codes"]) == (0, "held", [])
    with live.state.begin() as conn:
        registry.release(conn, live.clock, hold.id, released_by="counsel", reason="settled")
    assert years.prune(5)["bundles"] == 2


def test_changed_evidence_fails_the_run(years: Years) -> None:
    (years.run.store / years.bundles[2] / "report.en.html").write_bytes(b"changed")
    done = years.prune(4)
    assert (done["bundles"], done["waits"], done["outcome"]) == (1, "changed", "fail")
    assert done["codes"] == ["evidence.prune_refused"]
    assert years.has(2)


def test_implausible_clock_postpones_pruning(years: Years) -> None:
    years.clock.on(days=LONGEST_PAUSE.days + 1)
    done = years.prune(4)
    assert (done["bundles"], done["codes"]) == (0, ["evidence.prune_postponed"])
    assert years.prune(5)["bundles"] == 2


@pytest.mark.parametrize("language", ["en", "zh_CN"])
def test_report_names_removed_bundles_and_why_others_wait(language: str) -> None:
    from include.evidence.prune import Forgotten, Pruned, Waits

    for waits in (None, *Waits):
        pruned = Pruned(("b",), waits)
        findings = StepFindings("prune_evidence", "5.3")
        result = steps.report_pruned(findings, pruned, Forgotten(0), "P6Y")
        [fact] = steps.facts(result)
        assert fact.value == 1
        assert (fact.note is None) == (waits is None)
        assert Translator(language).text(fact.label)
    findings = StepFindings("prune_evidence", "5.3")
    result = steps.report_pruned(findings, Pruned(), Forgotten(0), "P6Y")
    assert findings.record(result).outcome is Outcome.PASS
    assert steps.facts(result) == []
