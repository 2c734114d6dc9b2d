"""The command ``parcelseal up`` on an overloaded computer: Airflow stops answering during a run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from include.cli.up import run_all
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
