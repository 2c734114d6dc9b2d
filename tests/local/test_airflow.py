"""Tests of the lock of a home folder, and of stopping an Airflow whose `up` command was killed."""

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
from include.local.airflow import Standalone, free_port, lock_home, stop_orphan
from include.local.profile import LocalProfile
from include.services.errors import ServiceError, UsageError


def test_second_lock_home_raises_usage_error_until_the_first_lock_is_released(
    tmp_path: Path,
) -> None:
    """A second `up` command is refused until the first has ended."""
    with (
        lock_home(tmp_path),
        pytest.raises(UsageError, match="running already"),
        lock_home(tmp_path),
    ):
        pass
    with lock_home(tmp_path):
        pass


def test_free_port_returns_different_ports_to_concurrent_processes(tmp_path: Path) -> None:
    """The processes have different temporary folders, and no server listens yet."""
    own_port = free_port()
    code = "from include.local.airflow import free_port; print(free_port())"
    other_ports = [
        int(
            subprocess.run(
                [sys.executable, "-c", code],
                check=True,
                capture_output=True,
                env={**os.environ, "TMPDIR": str(folder)},
            ).stdout
        )
        for folder in (tmp_path, tmp_path.parent)
    ]
    assert own_port not in other_ports
    assert len({free_port(), free_port(), own_port}) == 3
    for port in other_ports:
        assert port >= local_airflow.FIRST_PORT


def test_lock_home_is_released_when_the_process_is_killed(tmp_path: Path) -> None:
    """The kernel releases the lock. Users do not have to delete a file."""
    code = (
        "import sys, time; from pathlib import Path; from include.local.airflow import lock_home\n"
        "with lock_home(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UsageError), lock_home(tmp_path):
            pass
        other.kill()
        other.wait()
    with lock_home(tmp_path):
        pass


@pytest.fixture
def standalone(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with Airflow's arguments and the pid file that `up` writes."""
    command = [sys.executable, "-c", "import time; time.sleep(60)", "standalone"]
    with subprocess.Popen(command) as process:
        # Popen returns before the kernel shows the arguments of the new program.
        while "standalone" not in psutil.Process(process.pid).cmdline():
            time.sleep(0.01)
        (tmp_path / "airflow.pid").write_text(str(process.pid))
        yield process
        process.kill()


def test_stop_orphan_ends_the_airflow_process_if_its_up_command_was_killed(
    tmp_path: Path, standalone: subprocess.Popen[bytes]
) -> None:
    """Commands call `stop_orphan` before they stop the PostgreSQL server that Airflow uses."""
    stop_orphan(LocalProfile(tmp_path))
    assert not psutil.pid_exists(standalone.pid)
    assert not (tmp_path / "airflow.pid").exists()


def test_stop_orphan_does_not_end_the_airflow_process_if_its_up_command_is_running(
    tmp_path: Path, standalone: subprocess.Popen[bytes]
) -> None:
    """Another command, such as `verify`, must not stop the Airflow of a running `up`."""
    with lock_home(tmp_path):
        stop_orphan(LocalProfile(tmp_path))
    assert standalone.poll() is None
    assert (tmp_path / "airflow.pid").exists()


@pytest.fixture
def starting_airflow(tmp_path: Path) -> Iterator[Standalone]:
    """A simulated Airflow whose scheduler never becomes healthy."""

    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = ("metadatabase", "scheduler", "dag_processor", "triggerer")
            states = {part: {"status": "healthy"} for part in parts}
            states["scheduler"] = {"status": "unhealthy"}
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(states).encode())

        def log_message(self, *_arguments: object) -> None:
            """Write no log."""

    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield Standalone(process, url, {}, tmp_path / "airflow.log")
        server.shutdown()
    process.communicate()


def test_wait_until_ready_raises_error_with_name_of_the_component_that_is_not_ready(
    starting_airflow: Standalone, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    monkeypatch.setattr(local_airflow, "PROGRESS_INTERVAL", 0)
    monkeypatch.setattr(local_airflow, "READY_TIMEOUT", 2)
    with pytest.raises(
        ServiceError, match="not ready after 2 s: no answer from scheduler"
    ) as timeout:
        starting_airflow.wait_until_ready(messages.append)
    assert "run the command again" in timeout.value.action
    assert set(messages) == {"waiting for Airflow: scheduler"}


def test_wait_until_ready_raises_service_error_if_the_airflow_process_has_ended(
    starting_airflow: Standalone,
) -> None:
    starting_airflow.process.communicate()
    with pytest.raises(ServiceError, match="stopped while starting"):
        starting_airflow.wait_until_ready()
