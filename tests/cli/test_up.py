"""``parcelseal up`` on a busy machine: Airflow stops answering while workflows run."""

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
from include.services.errors import ServiceError
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from include.workplace import ROOT, Workplace
from tests.support.airflow_server import AirflowAnswers, serving

WORKFLOWS = ("backup_offsite", "check_quality")


class SilentAboutTheSecond(AirflowAnswers):
    """Airflow's API, silent about the second workflow."""

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
def place(tmp_path: Path, migrated_database: str) -> Workplace:
    """An empty state database, and an evidence store without a bundle."""
    made = SimpleNamespace(
        state=engine(migrated_database),
        store=lambda _name: DirectoryStore(tmp_path),
        trusted=[Signer.from_pem(generate_key()).public_pem],
    )
    return cast(Workplace, made)


def test_finished_runs_are_printed_before_the_error(
    place: Workplace, airflow: Standalone, capsys: pytest.CaptureFixture[str]
) -> None:
    """The results of an hour must not be lost with one failed run."""
    with pytest.raises(ServiceError, match="does not answer") as silent:
        run_all(place, airflow, answer=False)
    assert str(airflow.log) in silent.value.action
    printed = capsys.readouterr()
    assert WORKFLOWS[0] in printed.out
    assert WORKFLOWS[1] not in printed.out
