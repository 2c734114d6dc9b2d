"""`up` that is stopped while it starts leaves nothing running."""

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

from include.workplace import ROOT

pytestmark = pytest.mark.airflow


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of its own; whatever is left running in it is ended."""
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-up-"))
    folder.chmod(0o755)
    yield folder
    for process in running(folder):
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def running(home: Path) -> list[psutil.Process]:
    """Every process that was started for a home: by its words or by its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if str(home) in words or process.environ().get("PARCELSEAL_HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_sigterm_while_airflow_starts_stops_everything(home: Path) -> None:
    """A cancelled job, a closed session: neither Airflow nor the server stays behind."""
    environment = {**os.environ, "PARCELSEAL_HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "include.cli", "up", "--once", "--customers", "50"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as up:
        assert up.stderr is not None
        for line in up.stderr:
            if "starting Airflow" in line:
                break
        assert any("postgres" in one.name() for one in running(home))
        up.send_signal(signal.SIGTERM)
        up.stderr.read()  # until it has ended
    assert up.returncode == 128 + signal.SIGTERM
    assert running(home) == []
