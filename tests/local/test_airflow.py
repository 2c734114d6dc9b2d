"""One `up` a home, and no Airflow that outlives its `up` and loses its database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest

from include.local import airflow as local_airflow
from include.local.airflow import Standalone, free_port, hold, stop_orphan
from include.local.profile import LocalProfile
from include.services.errors import ServiceError, UsageError


def test_a_home_is_held_by_one_up_at_a_time(tmp_path: Path) -> None:
    """The second is told who has it; after the first it may."""
    with hold(tmp_path), pytest.raises(UsageError, match="running already"), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_no_two_servers_that_are_started_at_once_get_the_same_port(tmp_path: Path) -> None:
    """No server listens yet, and processes have different folders of temporary files."""
    mine = free_port()
    words = "from include.local.airflow import free_port; print(free_port())"
    others = [
        int(
            subprocess.run(
                [sys.executable, "-c", words],
                check=True,
                capture_output=True,
                env={**os.environ, "TMPDIR": str(folder)},
            ).stdout
        )
        for folder in (tmp_path, tmp_path.parent)
    ]
    assert mine not in others
    assert len({free_port(), free_port(), mine}) == 3
    for port in others:
        assert port >= local_airflow.FIRST_PORT


def test_a_killed_up_holds_nothing(tmp_path: Path) -> None:
    """The lock is the process's: no file has to be removed by hand."""
    code = (
        "import sys, time; from pathlib import Path; from include.local.airflow import hold\n"
        "with hold(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UsageError), hold(tmp_path):
            pass
        other.kill()
        other.wait()
    with hold(tmp_path):
        pass


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that looks like Airflow's, named in the home as `up` does it."""
    command = [sys.executable, "-c", "import time; time.sleep(60)", "standalone"]
    with subprocess.Popen(command) as process:
        # Popen returns before the kernel shows the arguments of the new program.
        while "standalone" not in psutil.Process(process.pid).cmdline():
            time.sleep(0.01)
        (tmp_path / "airflow.pid").write_text(str(process.pid))
        yield process
        process.kill()


def test_an_airflow_whose_up_was_killed_is_stopped(
    tmp_path: Path, standalone: subprocess.Popen[bytes]
) -> None:
    """Any command does so before it stops the server that Airflow uses."""
    stop_orphan(LocalProfile(tmp_path))
    assert not psutil.pid_exists(standalone.pid)
    assert not (tmp_path / "airflow.pid").exists()


def test_an_airflow_whose_up_lives_is_left_alone(
    tmp_path: Path, standalone: subprocess.Popen[bytes]
) -> None:
    """A `verify` beside a running `up` disturbs nothing."""
    with hold(tmp_path):
        stop_orphan(LocalProfile(tmp_path))
    assert standalone.poll() is None
    assert (tmp_path / "airflow.pid").exists()


@pytest.fixture
def starting(tmp_path: Path) -> Iterator[Standalone]:
    """An Airflow whose scheduler never gets ready."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
            states = {part: {"status": "healthy"} for part in parts}
            states["scheduler"] = {"status": "unhealthy"}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(states).encode())

        def log_message(self, *_given: object) -> None:
            """Say nothing."""

    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield Standalone(process, url, {}, tmp_path / "airflow.log")
        server.shutdown()
    process.communicate()


def test_waiting_for_airflow_names_the_part_that_is_not_ready(
    starting: Standalone, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(local_airflow, "TELL_EVERY", 0)
    monkeypatch.setattr(local_airflow, "READY_TIMEOUT", 2)
    with pytest.raises(ServiceError, match="not ready after 2 s: no answer from scheduler") as late:
        starting.wait_until_ready(said.append)
    assert "run the command again" in late.value.action
    assert set(said) == {"waiting for Airflow: scheduler"}


def test_waiting_for_airflow_ends_at_once_when_its_process_ended(starting: Standalone) -> None:
    starting.process.communicate()
    with pytest.raises(ServiceError, match="stopped while starting"):
        starting.wait_until_ready()
