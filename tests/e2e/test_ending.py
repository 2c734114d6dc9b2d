"""Runs end: permanent errors at once, others after a short time, and on a signal with a seal.

Commands are forked processes (`tests.e2e.forked`). Each limit of time is generous, so that a busy
machine changes no result; `tests/services/test_stopping.py` shows that the limits are kept.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from include.cli.run import require_services
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.orchestration.retrying import RetryTime
from include.services.errors import UsageError
from tests.e2e import databases
from tests.e2e.conftest import Cli
from tests.e2e.forked import WITHOUT_PDF, Running

pytestmark = [pytest.mark.airflow, pytest.mark.fault]

NAME = "ending"
# pageinspect needs a superuser, which the drill's login on the local server is not.
CONTENT = databases.PLAIN + "CREATE EXTENSION pageinspect;"
DEAD = {"AIRFLOW_CONN_CUSTOMER_DB": "postgresql://reader:secret@127.0.0.1:1/courier"}
PATIENCE = 180  # seconds for what takes two on an idle machine
# With its own limits, the result would depend on the load of the machine.
COMMAND = f"""
from functools import partial
from include.orchestration import retrying
from include.services import stopping
stopping.LIMIT = {PATIENCE}.0
retrying.RetryTime = partial(retrying.RetryTime, limit={{limit}})
from include.cli.app import main
main()
"""
# Airflow's API, a thread of the process, gives a failed task a new primary key for its retry.
SLOW_API = """
import time
from pathlib import Path
from airflow.models.taskinstance import TaskInstance
give_new_key = TaskInstance.prepare_db_for_next_try
def slowly(task, session):
    give_new_key(task, session)
    session.flush()
    Path({mark!r}).touch()
    time.sleep(2)
TaskInstance.prepare_db_for_next_try = slowly
"""
# A copy of the killed run, as the scheduler would have started it.
SCHEDULED = """
CREATE TEMP TABLE scheduled AS SELECT * FROM dag_run WHERE state = 'running';
UPDATE scheduled SET id = -1, run_id = 'scheduled', triggered_by = 'TIMETABLE',
    logical_date = logical_date - interval '1 day';
INSERT INTO dag_run SELECT * FROM scheduled
"""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"


@pytest.fixture(scope="module")
def environment(cli: Cli, backed_up: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the environment that points commands at a small database."""
    del backed_up  # the first run is a process of its own
    databases.make(cli.postgres("postgres"), NAME, CONTENT, "ending_reader", "secret")
    folder = tmp_path_factory.mktemp("packs") / NAME
    (folder / "datamap").mkdir(parents=True)
    dataset = {
        "fides_key": NAME,
        "meta": {"parcelseal": {"connection": "customer_db", "site": "town-hall"}},
        "collections": [
            {
                "name": "note",
                "fields": [{"name": "id", "fides_meta": {"primary_key": True}}, {"name": "text"}],
            }
        ],
    }
    (folder / "datamap" / f"{NAME}.yaml").write_text(yaml.safe_dump(dataset))
    return {
        "AIRFLOW_CONN_CUSTOMER_DB": cli.uri(NAME, "ending_reader", "secret"),
        "PARCELSEAL_POLICY": str(folder),
        WITHOUT_PDF: "1",
    }


@contextmanager
def backing_up(
    cli: Cli, environment: dict[str, str], limit: float = 60, before: str = ""
) -> Iterator[Running]:
    """Start a backup whose tasks are repeated for a time, in seconds, after some other code."""
    assert cli.forked is not None
    words = ["-c", before + COMMAND.format(limit=limit), "run", "backup_offsite", "--json"]
    whole = {**cli.environment, **environment, "TEST_RETRIES": "yes"}
    with cli.forked.busy, cli.forked.running(words, whole) as command:
        yield command


def wait_until(condition: Callable[[], bool], command: Running) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert not command.has_ended, command.stderr
        assert time.monotonic() < end, command.stderr
        time.sleep(0.05)


def waits_for_lock(cli: Cli) -> bool:
    with psycopg.connect(cli.postgres("postgres")) as conn:
        return conn.execute(WAITING, [NAME]).fetchone() != (0,)


@contextmanager
def in_dump(cli: Cli, environment: dict[str, str]) -> Iterator[Running]:
    """Start a backup that waits in its dump for a table that another session has locked."""
    with psycopg.connect(cli.postgres(NAME)) as conn:
        conn.execute("LOCK TABLE note IN ACCESS EXCLUSIVE MODE")
        with backing_up(cli, environment) as command:
            wait_until(lambda: waits_for_lock(cli), command)
            yield command


def end_by(number: int, command: Running) -> dict[str, Any]:
    """Send a signal to a command; return its JSON."""
    os.kill(command.pid, number)
    done = command.wait()
    assert done.returncode == 128 + number, done.stderr
    run = json.loads(done.stdout)
    assert f"interrupted by {signal.Signals(number).name}" in run["error"]
    return dict(run)


def finding_codes(bundle: Path) -> set[str]:
    """Return the codes of a failed run's findings."""
    assert (bundle / "SHA256SUMS.sig").is_file()
    result = json.loads((bundle / "result.json").read_text())
    assert result["outcome"] == "fail"
    return {finding["code"] for finding in result["findings"]}


def sealed_bundles(cli: Cli) -> set[Path]:
    return {path.parent for path in (cli.home / "evidence").rglob("SHA256SUMS.sig")}


@dataclass(frozen=True)
class Restarted:
    """A run after one that was killed.

    Attributes:
        run: its JSON.
        announced: what it wrote to stderr.
        sealed: bundles of other runs that it sealed.
        scheduled_state: state of a run of Airflow's scheduler, which was running all the time.
    """

    run: dict[str, Any]
    announced: str
    sealed: set[Path]
    scheduled_state: str


@pytest.fixture(scope="module")
def restarted(cli: Cli, environment: dict[str, str]) -> Restarted:
    """Kill a backup in its dump and start the next one."""
    with in_dump(cli, environment) as command:
        os.kill(command.pid, signal.SIGKILL)
        command.wait()
    before = sealed_bundles(cli)
    with psycopg.connect(cli.postgres(AIRFLOW_RUNS), autocommit=True) as airflow:
        airflow.execute(SCHEDULED)
        done = cli.call("run", "backup_offsite", "--json", **environment)
        (state,) = airflow.execute("DELETE FROM dag_run WHERE id = -1 RETURNING state").fetchone()
    run = json.loads(done.stdout)
    sealed = sealed_bundles(cli) - before - {Path(run["bundle"])}
    return Restarted(run, done.stderr, sealed, state)


def test_next_start_seals_a_killed_run(restarted: Restarted) -> None:
    assert "sealing the interrupted run" in restarted.announced
    (bundle,) = restarted.sealed
    codes = finding_codes(bundle)
    assert codes >= {"run.interrupted", "backup.failed"}
    assert "gate.failed" not in codes  # it was interrupted, not refused
    assert restarted.run["outcome"] == "attention"


def test_next_start_leaves_runs_of_the_scheduler_alone(restarted: Restarted) -> None:
    """The database may be that of an Airflow, whose scheduler has no lock on our files."""
    assert restarted.scheduled_state == "running"


def test_drill_on_a_server_without_an_extension_ends_at_once_with_advice(
    cli: Cli, environment: dict[str, str], restarted: Restarted
) -> None:
    del restarted  # made the restore point
    run = cli.json("run", "drill_restore", code=2, **environment, TEST_RETRIES="yes")
    assert "lacks the extension pageinspect" in run["error"]
    assert "Install the missing features on that server" in run["error"]
    assert finding_codes(Path(run["bundle"])) >= {"choose.failed"}


def test_sigterm_in_dump_cancels_statements_and_seals_the_run(
    cli: Cli, environment: dict[str, str]
) -> None:
    with in_dump(cli, environment) as command:
        run = end_by(signal.SIGTERM, command)
        assert not waits_for_lock(cli)
    assert finding_codes(Path(run["bundle"])) >= {"run.interrupted", "backup.failed"}


def test_sigint_in_countdown_seals_the_run(cli: Cli, environment: dict[str, str]) -> None:
    with backing_up(cli, environment | DEAD) as command:
        text = "attempt 1 failed: No connection to courier on 127.0.0.1:1: Connection refused"
        wait_until(lambda: text in command.stderr, command)
        run = end_by(signal.SIGINT, command)
    assert "backup.failed" in finding_codes(Path(run["bundle"]))


def test_sigint_while_airflow_stores_a_retry_seals_the_run(
    cli: Cli, environment: dict[str, str], tmp_path: Path
) -> None:
    mark = tmp_path / "storing"
    before = SLOW_API.format(mark=str(mark))
    with backing_up(cli, environment | DEAD, before=before) as command:
        wait_until(mark.exists, command)
        run = end_by(signal.SIGINT, command)
    assert "backup.failed" in finding_codes(Path(run["bundle"]))


def test_run_with_dead_database_retries_until_the_limit_and_exits_with_3(
    cli: Cli, environment: dict[str, str]
) -> None:
    with backing_up(cli, environment | DEAD | {WITHOUT_PDF: ""}, limit=6) as command:
        done = command.wait()
    assert done.returncode == 3, done.stderr
    assert "attempt 1 failed" in done.stderr
    # The first delay of 2 s fits in the limit however long an attempt took, 2 and 5 s do not.
    assert "attempt 2 failed" not in done.stderr
    run = json.loads(done.stdout)
    assert "Connection refused" in run["error"]
    assert "backup.failed" in finding_codes(Path(run["bundle"]))
    assert [Path(report).suffix for report in run["reports"]] == [".html", ".html"]


def test_run_with_unmigrated_state_database_is_refused_at_once(
    cli: Cli, environment: dict[str, str]
) -> None:
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE unmigrated OWNER parcelseal_state")
    spec = LocalProfile(cli.place.home).connection("state_db")
    assert spec is not None
    fields = vars(spec) | {"schema": "unmigrated", "extra": dict(spec.extra)}
    del fields["conn_id"]
    state = {"AIRFLOW_CONN_STATE_DB": json.dumps(fields)}
    run = cli.json("run", "backup_offsite", code=2, **environment, **state)
    assert (run["bundle"], run["outcome"]) == (None, None)
    assert "Run `./parcelseal migrate`" in run["error"]


@pytest.mark.parametrize("conn_id", ["state_db", "customer_db"])
@pytest.mark.parametrize("changes", [{"password": "wrong"}, {"schema": "nowhere"}])
def test_start_with_a_wrong_login_is_refused_without_retry(
    cli: Cli, conn_id: str, changes: dict[str, str]
) -> None:
    spec = LocalProfile(cli.place.home).connection(conn_id)
    assert spec is not None
    wrong = replace(spec, **changes)  # type: ignore[arg-type]
    place = replace(cli.place, lookup=lambda name: wrong if name == conn_id else None)
    with pytest.raises(UsageError, match="Check user, password"):
        require_services(place, "backup_offsite", {}, RetryTime(pytest.fail))
