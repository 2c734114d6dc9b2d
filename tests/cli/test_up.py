"""The command ``parcelseal up`` on an overloaded computer: Airflow stops answering during a run."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from include.cli import up as up_module
from include.cli.report import RunResult
from include.cli.up import _show_runs, run_all, show
from include.evidence.signing import Signer, generate_key
from include.local import airflow_api
from include.local.airflow import ADMIN, Standalone
from include.service_container import ROOT, Services
from include.services.errors import ServiceError
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from tests.support.airflow_server import AirflowAnswers, serving

WORKFLOWS = ("backup_offsite", "check_quality")


class SilentAboutTheSecond(AirflowAnswers):
    """An API of Airflow that answers no request about the second workflow."""

    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        if WORKFLOWS[1] in self.path:
            self.close_connection = True
            return
        dags = [{"dag_id": dag_id, "timetable_summary": "@daily"} for dag_id in WORKFLOWS]
        unscheduled = {"dag_id": "update_incident", "timetable_summary": None}
        dags += [unscheduled] * len(list((ROOT / "dags").glob("*.py")))
        self.answer(200, {"dags": dags, "state": "success"})


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standalone]:
    monkeypatch.setattr(airflow_api, "BACKOFF", 0.01)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with serving(SilentAboutTheSecond) as url:
        yield Standalone(process, url, {ADMIN: "x"}, tmp_path / "airflow.log")
    process.communicate()


@pytest.fixture
def services(tmp_path: Path, migrated_database: str) -> Services:
    """Return services with an empty state database and an empty evidence store."""
    stub = SimpleNamespace(
        state=engine(migrated_database),
        store=lambda _name: DirectoryStore(tmp_path),
        trusted=[Signer.from_pem(generate_key()).public_pem],
    )
    return cast(Services, stub)


def test_up_prints_results_of_finished_runs_if_a_later_run_raises_an_error(
    services: Services, airflow: Standalone, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error must not hide the results of the runs that finished before it."""
    with pytest.raises(ServiceError, match="does not answer") as silent:
        run_all(services, airflow, answer=False)
    assert str(airflow.log) in silent.value.action
    printed = capsys.readouterr()
    assert WORKFLOWS[0] in printed.out
    assert WORKFLOWS[1] not in printed.out


def finished(dag_id: str, outcome: str | None, reason: str = "", **more: Any) -> RunResult:
    """Return the result of a run whose bundle has the number 7 and two reports."""
    reports = [f"/evidence/{dag_id}/report.{name}" for name in ("en.html", "zh-CN.html")]
    values: dict[str, Any] = {"number": 7, "reason": reason} | more
    return RunResult(dag_id, "manual__1", "success", outcome, "/b", reports, 1, None, **values)


RUNS = [
    finished("backup_offsite", "attention", "offsite: the store is on the same [red]disk[/red]."),
    finished("check_quality", "fail", "courier: 3 records have no reviewer."),
    finished("drill_restore", "pass"),
    finished("sample_audit", "fail", "The quarter has not ended.", could_not_run=True),
    RunResult(
        "enforce_retention", "manual__2+1", "waiting", None, None, [], 0, None,
        reason="E00007 may answer",
    ),
]  # fmt: skip


def test_up_ends_with_one_table_of_outcomes_first_reasons_and_links(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _show_runs(RUNS, "http://127.0.0.1:8080")
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    for dag_id, words, reason in (
        ("backup_offsite", "Needs attention", "the store is on the same [red]disk[/red]."),
        ("check_quality", "Failed", "courier: 3 records have no reviewer."),
        ("drill_restore", "Passed", ""),
        ("sample_audit", "Could not run", "The quarter has not ended."),
    ):
        assert words in lines[dag_id]
        assert reason in lines[dag_id]
        assert "http://127.0.0.1:8080/compliance/evidence/7" in lines[dag_id]
    assert "waits for an answer" in lines["enforce_retention"]
    link = "/dags/enforce_retention/runs/manual__2%2B1/required_actions?response_received=false"
    assert link in lines["enforce_retention"]


def test_table_of_up_is_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=160, color_system="standard")
    monkeypatch.setattr(up_module, "results", screen)
    _show_runs(RUNS, None)
    assert isinstance(screen.file, io.StringIO)
    text = screen.file.getvalue()
    for colour, words in ((32, "Passed"), (33, "Needs attention"), ("1;31", "Failed")):
        assert f"\x1b[{colour}m{words}" in text
    assert "file:///evidence/drill_restore/report.en.html" in text  # Airflow has stopped


@pytest.mark.parametrize("reports", [False, True])
def test_up_prints_the_paths_of_all_reports_only_on_request(
    services: Services, reports: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    show(services, RUNS, "http://127.0.0.1:8080", reports=reports)
    printed = capsys.readouterr().out
    assert ("report   /evidence/check_quality/report.zh-CN.html" in printed) is reports
    assert printed.count("check_quality") == (3 if reports else 1)


@pytest.mark.parametrize(
    ("accounts", "text"),
    [
        ((), "everybody with the right in Airflow may answer"),
        (("E2",), "E2 may answer"),
        (("E3", "E2", "E1"), "E1 may answer, or 2 other people"),
    ],
)
def test_table_names_one_of_the_people_who_may_answer(accounts: tuple[str, ...], text: str) -> None:
    assert up_module._people_who_may_answer(accounts) == text
