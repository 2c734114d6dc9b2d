"""Runs end: permanent errors at once, others after a short time, signals within 15 seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.conftest import Cli

pytestmark = [pytest.mark.airflow, pytest.mark.fault]

LIMIT = 15  # seconds from a signal to the end
DEAD = "postgresql://reader:secret@127.0.0.1:1/courier"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"


def connection(cli: Cli, conn_id: str, **changes: str) -> dict[str, str]:
    """Return the environment in which a stand-in of the local profile is a real connection."""
    spec = cli.place.local.connection(conn_id)
    assert spec is not None
    fields = vars(spec) | changes
    del fields["conn_id"]
    return {f"AIRFLOW_CONN_{conn_id.upper()}": json.dumps(fields | {"extra": dict(spec.extra)})}


@pytest.fixture(scope="module")
def unmigrated(cli: Cli) -> str:
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE unmigrated OWNER parcelseal_state")
    return "unmigrated"


@pytest.mark.parametrize(
    ("conn_id", "changes", "advice"),
    [
        ("state_db", {"schema": "unmigrated"}, "Run `./parcelseal migrate`"),
        ("state_db", {"password": "wrong"}, "Check user, password"),
        ("state_db", {"schema": "nowhere"}, "Check user, password"),
        ("customer_db", {"password": "wrong"}, "Check user, password"),
        ("customer_db", {"schema": "nowhere"}, "Check user, password"),
    ],
)
def test_run_with_permanent_error_is_refused_at_once(
    cli: Cli, backed_up: Any, unmigrated: str, conn_id: str, changes: dict[str, str], advice: str
) -> None:
    del backed_up, unmigrated
    run = cli.json("run", "backup_offsite", code=2, **connection(cli, conn_id, **changes))
    assert run["bundle"] is None
    assert run["outcome"] is None
    assert advice in run["error"]


def test_run_with_dead_database_is_sealed_and_exits_with_3(cli: Cli, backed_up: Any) -> None:
    del backed_up
    run = cli.json("run", "backup_offsite", code=3, AIRFLOW_CONN_CUSTOMER_DB=DEAD)
    assert run["outcome"] == "fail"
    assert (Path(run["bundle"]) / "SHA256SUMS.sig").is_file()
    assert "Connection refused" in run["error"]


class Interrupted:
    """A command in a process of its own, to which a signal is sent."""

    def __init__(self, cli: Cli, *words: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "include.cli", *words, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cli.home,
            env={**cli.environment, **environment},
            # as a shell starts a background job of a script
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    def wait_for(self, text: str) -> None:
        end = time.monotonic() + 180
        while not any(text in line for line in list(self.lines)):
            assert self.process.poll() is None, self.lines
            assert time.monotonic() < end, self.lines
            time.sleep(0.1)

    def close(self) -> None:
        """Close the pipes of a process that ended."""
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def end(self, number: int) -> tuple[int, dict[str, Any]]:
        """Send a signal; return the exit code and the JSON, after the process ended in time."""
        self.process.send_signal(number)
        begun = time.monotonic()
        assert self.process.stdout is not None
        printed = self.process.stdout.read()
        code = self.process.wait(30)
        assert time.monotonic() - begun < LIMIT
        self.close()
        return code, json.loads(printed) if printed else {}


@contextmanager
def in_dump(cli: Cli) -> Iterator[Interrupted]:
    """Start a backup that waits in its dump for a table that somebody has locked."""
    command = Interrupted(cli, "run", "backup_offsite")
    command.wait_for("running backup_offsite")
    with psycopg.connect(cli.place.local.owner_conninfo("courier")) as conn:
        conn.execute("LOCK TABLE customer IN ACCESS EXCLUSIVE MODE")
        end = time.monotonic() + 180
        while not waiting(cli, "courier"):
            assert command.process.poll() is None, command.lines
            assert time.monotonic() < end
            time.sleep(0.1)
        yield command
    command.close()


def waiting(cli: Cli, database: str) -> int:
    with psycopg.connect(cli.postgres("postgres")) as conn:
        row = conn.execute(WAITING, [database]).fetchone()
    assert row is not None
    return int(row[0])


def codes(run: dict[str, Any]) -> set[str]:
    result = json.loads((Path(run["bundle"]) / "result.json").read_text())
    assert result["outcome"] == "fail"
    return {finding["code"] for finding in result["findings"]}


def test_sigterm_in_backup_cancels_statements_and_seals_the_run(cli: Cli, backed_up: Any) -> None:
    del backed_up
    with in_dump(cli) as command:
        code, run = command.end(signal.SIGTERM)
        assert waiting(cli, "courier") == 0
    assert code == 128 + signal.SIGTERM
    assert "interrupted by SIGTERM" in run["error"]
    assert "backup.failed" in codes(run)
    assert cli.json("verify", "--all")["verified"] is True


def test_sigint_in_countdown_ends_a_background_job_and_seals_the_run(
    cli: Cli, backed_up: Any, tmp_path: Path
) -> None:
    """The home of this Airflow has no settings that switch retries off."""
    del backed_up
    own = {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW_CONN_CUSTOMER_DB": DEAD}
    command = Interrupted(cli, "run", "backup_offsite", **own)
    command.wait_for("attempt 2 failed: No connection to courier on 127.0.0.1:1: Connection")
    code, run = command.end(signal.SIGINT)
    assert code == 128 + signal.SIGINT
    assert "backup.failed" in codes(run)


def test_next_start_seals_a_killed_run(cli: Cli, backed_up: Any) -> None:
    del backed_up
    with in_dump(cli) as command:
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.wait(30)
    before = {path.parent for path in (cli.home / "evidence").rglob("SHA256SUMS.sig")}
    done = cli.call("run", "backup_offsite", "--json")
    assert "sealing the interrupted run" in done.stderr
    run = json.loads(done.stdout)
    after = {path.parent for path in (cli.home / "evidence").rglob("SHA256SUMS.sig")}
    (sealed,) = after - before - {Path(run["bundle"])}
    assert "backup.failed" in codes({"bundle": str(sealed)})
    assert run["outcome"] == "attention"
