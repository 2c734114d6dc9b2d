"""One `up` a home, and no Airflow that outlives its `up` and loses its database."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from include.local import airflow as local_airflow
from include.local.airflow import free_port, hold, stop_orphan
from include.local.profile import LocalProfile
from include.services.errors import UsageError


def test_a_home_is_held_by_one_up_at_a_time(tmp_path: Path) -> None:
    """The second is told who has it; after the first it may."""
    with hold(tmp_path), pytest.raises(UsageError, match="running already"), hold(tmp_path):
        pass
    with hold(tmp_path):
        pass


def test_no_two_servers_that_are_started_at_once_get_the_same_port() -> None:
    """None of them listens yet; a process that ended leaves its port to others."""
    mine = free_port()
    words = "from include.local.airflow import free_port; print(free_port())"
    others = [
        int(subprocess.run([sys.executable, "-c", words], check=True, capture_output=True).stdout)
        for _ in range(2)
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
