"""A sealed run keeps its sealed outcome, and its tasks refuse to work."""

from __future__ import annotations

import inspect
import runpy
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.approvals.registry import APPROVE
from include.approvals.required_action import InvalidAnswer
from include.evidence import ledger
from include.evidence.ledger import LedgerRow
from include.evidence.model import Finding, Metric, Outcome, StepRecord
from include.evidence.step_findings import steps_of
from include.messages import verbatim
from include.reports.conclusion import Conclusion, worst
from include.reports.i18n import Translator
from include.sampling import conclusion_report
from include.sampling.closing import FIND_WORKPAPERS
from include.sampling.drawing import DRAW
from include.sampling.freezing import COMMIT, POPULATIONS
from include.sampling.workflow import CONCLUDE_AUDIT, SAMPLE_AUDIT
from include.service_container import ROOT, Services
from include.services.errors import ControlFailed, ServiceError
from include.workflow.run_records import RunRecords
from tests.drill_sandbox.test_sandboxed_services import RUN, Play
from tests.support.contexts import pack_of
from tests.support.damage import unreadable
from tests.support.registers import unguarded
from tests.support.state_snapshot import differences, snapshot

pytestmark = pytest.mark.airflow

START = datetime(2026, 11, 28, 19, tzinfo=UTC)
NAMES = sorted(path.stem for path in (ROOT / "dags").glob("*.py"))
LAST = {"seal", "gate"}


class Run:
    """A run of a workflow with a real state database and evidence store.

    Attributes:
        live: services of the run's tasks.
        key: DAG id and run id in Airflow's context.
        try_number: number of the tasks' attempt, from 1.
    """

    def __init__(self, play: Play) -> None:
        self.live, self.state, self.store, self.key = play.live, play.state, play.store, RUN
        self.try_number = 1

    def context(self) -> dict[str, Any]:
        dag_run = SimpleNamespace(
            dag_id=self.key[0],
            run_id=self.key[1],
            start_date=START,
            queued_at=START,
            data_interval_start=None,
            data_interval_end=None,
            triggering_user_name=None,
            conf={},
        )
        task = SimpleNamespace(
            get_task_states=lambda **_: {}, try_number=self.try_number, max_tries=3
        )
        params = {
            "tabletop": None,
            "databases": None,
            "action": "widen",
            "incident": "INC-2026-0001",
            "full": False,
        }
        return {"dag_run": dag_run, "ti": task, "params": params}

    def step(self, outcome: Outcome, name: str = "check") -> dict[str, Any]:
        from include.orchestration.run import execute_step

        def work(_place: Services) -> StepRecord:
            metric = Metric(name=f"{name}.{outcome}", value=1, unit="1")
            finding = Finding(
                code=f"{name}.failed",
                severity=outcome,
                subject="x",
                message=verbatim("It failed."),
                action=verbatim("Look."),
            ) if outcome is not Outcome.PASS else None  # fmt: skip
            findings = [finding] if finding else []
            return StepRecord(step=name, outcome=outcome, findings=findings, metrics=[metric])

        return execute_step(name, "", verbatim(name), work, "4.2")

    def seal(self) -> dict[str, Any]:
        from include.orchestration.run import seal_run

        return seal_run(conclude)

    def enter_row(self, dag_id: str, run_id: str) -> None:
        """Add a ledger row for a run, as if the run were sealed."""
        signer = self.live.signer
        with self.live.state.begin() as conn:
            row = LedgerRow(
                1, f"{dag_id}/2026/11/{run_id}", dag_id, run_id, "pass", [], START, START,
                "0" * 64, "", signer.fingerprint,
            )  # fmt: skip
            ledger.append(conn, signer, row)


def conclude(
    _place: Services, records: Sequence[StepRecord], _artifacts: dict[str, bytes]
) -> Conclusion:
    findings = [finding for record in records for finding in record.findings]
    title = verbatim("A check")
    return Conclusion(title, title, worst(records, findings), findings, [])


@pytest.fixture
def run(tmp_path: Path, migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a run in Airflow's current context, with a real database, store and keys."""
    from include.orchestration import run as run_module
    from include.orchestration import run_trigger, tasks

    fixture_run = Run(Play(tmp_path, migrated_database))
    for module in (run_module, run_trigger, tasks):
        monkeypatch.setattr(module, "get_current_context", fixture_run.context)
    monkeypatch.setattr(run_module, "services_from", lambda *_: fixture_run.live)
    return fixture_run


def test_seal_task_of_a_cleared_run_returns_the_outcome_of_the_sealed_evidence_bundle(
    run: Run,
) -> None:
    """A sealed failure is still a failure, even if its cause no longer exists."""
    run.step(Outcome.FAIL)
    first = run.seal()
    assert (first["outcome"], first["findings"]) == ("fail", 1)
    with run.live.state.begin() as conn:  # a row that no code writes
        conn.exec_driver_sql('UPDATE run_step SET record = record || \'{"outcome": "pass"}\'')
        conn.exec_driver_sql("UPDATE run_step SET record = record || '{\"findings\": []}'")
    again = run.seal()
    assert again == first


def test_step_of_a_sealed_run_fails_and_changes_nothing(run: Run) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    run.step(Outcome.FAIL)
    run.step(Outcome.ATTENTION)  # before the seal, a retry replaces the record
    run.seal()
    before = snapshot(run.state)
    for name in ("check", "another"):
        with pytest.raises(AirflowFailException, match=r"sealed.*Start a new run"):
            run.step(Outcome.PASS, name)
    assert differences(before, snapshot(run.state)) == {}
    with run.live.state.connect() as conn:
        assert [record.outcome for record in steps_of(conn, *RUN)] == [Outcome.ATTENTION]


def records_left(run: Run) -> dict[str, int]:
    """Return the number of step records of each run, by run id."""
    with run.live.state.connect() as conn:
        rows = conn.exec_driver_sql("SELECT run_id, count(*) FROM run_step GROUP BY run_id")
        return {row[0]: row[1] for row in rows}


def test_seal_deletes_step_records_of_the_previous_run(run: Run) -> None:
    """The previous run keeps its outcome, and its cleared tasks are still refused."""
    from airflow.sdk.exceptions import AirflowFailException

    run.step(Outcome.FAIL)
    first = run.seal()
    assert records_left(run) == {RUN[1]: 1}
    run.key = (RUN[0], "manual__2")
    run.step(Outcome.PASS)
    run.seal()
    assert records_left(run) == {"manual__2": 1}
    run.key, run.try_number = RUN, 2
    assert run.seal() == first
    with pytest.raises(AirflowFailException, match="sealed"):
        run.step(Outcome.PASS)
    assert records_left(run) == {}


def test_seal_keeps_step_records_of_a_previous_run_whose_evidence_bundle_is_invalid(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """A log line names the invalid bundle."""
    run.step(Outcome.PASS)
    first = run.seal()
    report = run.store / first["bundle"] / "report.en.html"
    sealed = report.read_bytes()
    report.write_bytes(b"changed")
    run.key = (RUN[0], "manual__2")
    run.step(Outcome.PASS)
    second = run.seal()
    assert second["outcome"] == "pass"
    assert records_left(run) == {RUN[1]: 1, "manual__2": 1}
    assert f"The bundle {first['bundle']} does not verify" in caplog.text
    report.write_bytes(sealed)
    assert run.seal() == second
    assert records_left(run) == {"manual__2": 1}


def test_seal_succeeds_even_if_step_records_of_earlier_runs_cannot_be_deleted(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration import run_bundle

    def lost(*_arguments: object, **_named: object) -> None:
        raise ServiceError("The state database cannot be used.")

    monkeypatch.setattr(run_bundle, "delete_step_records", lost)
    run.step(Outcome.PASS)
    assert run.seal()["outcome"] == "pass"


def seal_three_unfollowed_runs(run: Run) -> list[str]:
    """Seal three runs that the register of findings has not followed; return their bundles."""
    bundles = []
    for number in (1, 2, 3):
        run.key = ("backup_offsite", f"manual__{number}")
        run.step(Outcome.FAIL)
        bundles.append(run.seal()["bundle"])
    with run.live.state.begin() as conn:
        conn.exec_driver_sql("DELETE FROM finding_progress")
    return bundles


def progress(run: Run) -> list[tuple[int, list[int]]]:
    """Return the last bundle that the register has followed, and its list of unread bundles."""
    with run.live.state.connect() as conn:
        rows = conn.exec_driver_sql("SELECT seq, unread FROM finding_progress")
        return [(row.seq, row.unread) for row in rows]


def test_seal_succeeds_and_register_continues_even_if_a_file_of_an_earlier_bundle_is_unreadable(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    first, *_others = seal_three_unfollowed_runs(run)
    with unreadable(run.store / first / "result.json"):
        assert run.seal()["outcome"] == "fail"
    assert f"The bundle {first} cannot be read" in caplog.text
    assert progress(run) == [(3, [1])]


def test_seal_succeeds_even_if_the_store_does_not_answer_the_register_of_findings(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """The task seals again after it was cleared. The store answers until the seal is verified."""
    first, *_others = seal_three_unfollowed_runs(run)
    with unreadable(run.store, run.store / first / "result.json"):
        assert run.seal()["outcome"] == "fail"
    assert "the next run continues" in caplog.text
    assert progress(run) == []
    run.seal()
    assert progress(run) == [(3, [])]


def test_seal_logs_from_which_bundle_on_findings_are_missing_in_the_register(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """The ledger lacks the row of bundle 2, and no trusted key signed the row of bundle 3."""
    seal_three_unfollowed_runs(run)
    with run.live.state.begin() as conn, unguarded(conn, "evidence_ledger"):
        conn.exec_driver_sql("DELETE FROM evidence_ledger WHERE seq = 2")
        conn.exec_driver_sql("UPDATE evidence_ledger SET row_signature = '\\x00' WHERE seq = 3")
    run.key = ("backup_offsite", "manual__1")
    run.seal()
    assert "lacks the findings of evidence bundles from number 2 on. The next run" in caplog.text
    assert progress(run) == [(1, [])]


def test_cleared_task_of_a_sealed_run_fails_if_the_evidence_ledger_lost_the_row_of_the_run(
    run: Run,
) -> None:
    """The ledger loses rows if an older state database is restored."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.run import open_run

    run.step(Outcome.PASS)
    run.seal()
    with run.live.state.begin() as conn:
        conn.exec_driver_sql("SET LOCAL session_replication_role = replica")
        conn.exec_driver_sql("DELETE FROM evidence_ledger")
    run.try_number = 2
    before = snapshot(run.state)
    for work in (lambda: run.step(Outcome.PASS), open_run, run.seal):
        with pytest.raises(AirflowFailException, match=r"the evidence ledger lost its row"):
            work()
    assert differences(before, snapshot(run.state)) == {}


def test_step_record_contains_the_reason_why_the_last_answer_was_invalid(run: Run) -> None:
    """The previous step ran again and failed, so the human step did not ask again."""
    from include.orchestration.run import execute_step

    def work(_place: Services) -> StepRecord:
        raise InvalidAnswer(verbatim("customers/IN-1 changed after the review form was created."))

    with pytest.raises(InvalidAnswer):
        execute_step("review", "customers/IN-1", verbatim("The review"), work, "5.2")
    assert run.seal()["outcome"] == "fail"
    with run.live.state.connect() as conn:
        (record,) = steps_of(conn, *RUN)
    (finding,) = record.findings
    assert finding.code == "review.unanswered"
    message = Translator("en", "UTC").text(finding.message)
    assert "changed after the review form was created" in message
    assert "interrupted" not in message


def test_step_that_starts_while_the_run_is_being_sealed_waits_and_then_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle would not show the step's work."""
    from concurrent import futures

    from airflow.sdk.exceptions import AirflowFailException

    import include.orchestration.run as module

    run.step(Outcome.PASS)
    real = module._seal_records
    with futures.ThreadPoolExecutor(1) as pool:

        def sealing(*arguments: Any, **keywords: Any) -> Any:
            late = pool.submit(run.step, Outcome.PASS, "late")
            with pytest.raises(futures.TimeoutError):
                late.result(1)
            done = real(*arguments, **keywords)
            monkeypatch.setattr(module, "_late", late, raising=False)
            return done

        monkeypatch.setattr(module, "_seal_records", sealing)
        assert run.seal()["outcome"] == "pass"
        late: Any = module._late  # type: ignore[attr-defined]
        with pytest.raises(AirflowFailException, match="sealed"):
            late.result(30)
    with run.live.state.connect() as conn:
        assert [record.step for record in steps_of(conn, *RUN)] == ["check"]


def test_seal_interim_raises_airflow_fail_exception_after_the_run_was_sealed(run: Run) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.run import seal_interim

    run.step(Outcome.PASS)
    run.seal()
    title = verbatim("First report")
    with pytest.raises(AirflowFailException, match="sealed"):
        seal_interim("aside", run.live, Conclusion(title, title, Outcome.PASS, [], []), {})


def test_seal_task_and_run_command_do_not_show_the_outcome_of_a_changed_evidence_bundle(
    run: Run, tmp_path: Path
) -> None:
    """Neither the task `seal` nor the command `run` shows the outcome."""
    from include.cli.report import exit_code, result_of

    run.step(Outcome.FAIL)
    sealed = run.seal()
    shown = result_of(run.live, *RUN, "failed", "log")
    assert (shown.outcome, shown.findings) == ("fail", 1)
    file = tmp_path / "evidence" / sealed["bundle"] / "result.json"
    file.write_text(file.read_text().replace('"fail"', '"pass"'))
    with pytest.raises(ControlFailed, match=r"result\.json"):
        run.seal()
    shown = result_of(run.live, *RUN, "success", "log")
    assert (shown.outcome, shown.findings) == (None, 0)
    assert "result.json" in str(shown.error)
    assert exit_code(shown) == 3


def _calls(dag: Any) -> list[tuple[str, Any]]:
    """Return the functions that the tasks of a DAG call, as (task id, function)."""
    from include.orchestration.human_step import setting

    calls: list[tuple[str, Any]] = []
    for task_id, task in dag.task_dict.items():
        if task_id in LAST:
            continue
        function = getattr(task, "python_callable", None)
        if function := function or getattr(task, "partial_kwargs", {}).get("python_callable"):
            calls.append((task_id, function))
        else:
            calls += [
                (f"{task_id}.{name}", setting(task, name)) for name in ("ask", "store_answer")
            ]
    return calls


def _arguments(function: Any) -> dict[str, Any]:
    from include.approvals.required_action import Answer

    values: dict[str, Any] = {
        "part": "courier",
        "answer": Answer(APPROVE, "", "a", START),
    }
    about = {"part": "courier"}
    names = inspect.signature(function, follow_wrapped=False).parameters
    return {name: values.get(name, about) for name in names}


@pytest.mark.parametrize("name", NAMES)
def test_every_task_of_a_workflow_fails_and_changes_nothing_if_the_run_is_sealed(
    run: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps, required actions, answers and watches write nothing."""
    from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

    dag = runpy.run_path(str(ROOT / "dags" / f"{name}.py"))[name]()
    for module in list(sys.modules.values()):
        if getattr(module, "__name__", "").startswith("include.orchestration.") and hasattr(
            module, "get_current_context"
        ):
            monkeypatch.setattr(module, "get_current_context", run.context)
    run.key = (name, "manual__1")
    run.enter_row(*run.key)
    before = snapshot(run.state)
    calls = _calls(dag)
    assert calls
    for task, function in calls:
        if (name, task) == ("use_information", "confirm"):  # the run's parameters do not require it
            with pytest.raises(AirflowSkipException):
                function(**_arguments(function))
            continue
        with pytest.raises(AirflowFailException, match=r"sealed.*Start a new run"):
            function(**_arguments(function))
    assert differences(before, snapshot(run.state)) == {}


def test_audit_steps_pass_if_policy_pack_has_no_audit_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    from include.orchestration import tasks

    services: Any = SimpleNamespace(pack=pack_of({}, {}))
    records: list[StepRecord] = []

    def execute_step(
        _name: str, _part: str, _title: Any, work: Any, _clause: str, _make: Any
    ) -> dict[str, Any]:
        records.append(work(services))
        return {"outcome": records[-1].outcome}

    monkeypatch.setattr(tasks, "execute_step", execute_step)
    monkeypatch.setattr(tasks, "_context", lambda workflow, services: workflow.context(services))
    assert tasks.run_step(SAMPLE_AUDIT, POPULATIONS) == []
    tasks.run_step(SAMPLE_AUDIT, COMMIT)
    tasks.run_step(SAMPLE_AUDIT, DRAW)
    assert tasks.run_step(CONCLUDE_AUDIT, FIND_WORKPAPERS) == []
    assert [record.outcome for record in records] == [Outcome.PASS] * 4
    for conclusion in (
        SAMPLE_AUDIT.conclude_without_rules(records),
        conclusion_report.nothing_to_audit(RunRecords(records), roles={}, findings=[]),
    ):
        assert conclusion.outcome is Outcome.PASS
        assert conclusion.metrics == []
