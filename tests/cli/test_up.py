"""``parcelseal up`` on a busy machine: Airflow stops answering while workflows run."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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

WORKFLOWS = ("backup_offsite", "check_quality")


class _Airflow(BaseHTTPRequestHandler):
    """Airflow's API, silent about the second workflow."""

    def do_GET(self) -> None:
        if WORKFLOWS[1] in self.path:
            self.close_connection = True
            return
        dags = [{"dag_id": one, "timetable_summary": "@daily"} for one in WORKFLOWS]
        unscheduled = {"dag_id": "update_incident", "timetable_summary": None}
        dags += [unscheduled] * len(list((ROOT / "dags").glob("*.py")))
        self._answer(200, {"dags": dags, "state": "success"})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201, {"access_token": "t", "dag_run_id": "manual"})

    def _answer(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_given: object) -> None:
        """Print nothing."""


@pytest.fixture
def airflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Standalone]:
    monkeypatch.setattr(airflow_api, "BACKOFF", 0.01, raising=False)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Airflow) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield Standalone(process, url, {ADMIN: "x"}, tmp_path / "airflow.log")
        server.shutdown()
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
    """An hour of finished runs must not be lost with the one that failed."""
    with pytest.raises(ServiceError, match="does not answer") as silent:
        run_all(place, airflow, answer=False)
    assert str(airflow.log) in silent.value.action
    printed = capsys.readouterr()
    assert WORKFLOWS[0] in printed.out
    assert WORKFLOWS[1] not in printed.out
