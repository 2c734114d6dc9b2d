"""Test that `up` leaves no process running if it is stopped during its start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from include.service_container import ROOT

pytestmark = pytest.mark.airflow


@pytest.fixture
def home() -> Iterator[Path]:
    """A separate home folder. Its remaining processes are killed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-up-"))
    folder.chmod(0o755)
    yield folder
    for process in running(folder):
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def running(home: Path) -> list[psutil.Process]:
    """Return every process whose command line or environment names a home folder."""
    processes = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if str(home) in words or process.environ().get("PARCELSEAL_HOME") == str(home):
                processes.append(process)
        except psutil.Error:
            continue
    return processes


def test_sigterm_ends_all_processes_of_command_up_while_airflow_is_starting(home: Path) -> None:
    """After a cancelled job or a closed session, neither Airflow nor PostgreSQL keeps running."""
    environment = {**os.environ, "PARCELSEAL_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "include.cli", "up", "--once", "--customers", "50"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as up:
        assert up.stderr is not None
        for line in up.stderr:
            if "starting Airflow" in line:
                break
        assert any("postgres" in process.name() for process in running(home))
        up.send_signal(signal.SIGTERM)
        up.stderr.read()  # wait until the command has ended
    assert up.returncode == 128 + signal.SIGTERM
    assert running(home) == []
