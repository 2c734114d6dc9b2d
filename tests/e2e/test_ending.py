"""Tests of how runs end: after permanent errors, after retries, and after a signal with a seal.

Commands are forked processes (`tests.e2e.forked`). Every time limit is generous, so a busy machine
changes no result. `tests/services/test_stopping.py` tests that the time limits are observed.
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
from include.orchestration.retry_policy import RetryTime
from include.services.errors import UsageError
from tests.e2e import databases
from tests.e2e.conftest import Cli
from tests.e2e.forked import WITHOUT_PDF, Running

pytestmark = [pytest.mark.airflow, pytest.mark.fault]

NAME = "ending"
# pageinspect needs a superuser, and the drill's login on the local server is none.
CONTENT = databases.PLAIN + "CREATE EXTENSION pageinspect;"
DEAD = {"AIRFLOW_CONN_CUSTOMER_DB": "postgresql://reader:secret@127.0.0.1:1/courier"}
PATIENCE = 180  # seconds; on an idle machine, two are enough
# With the usual timeouts, the result would depend on the load of the machine.
COMMAND = f"""
from functools import partial
from include.orchestration import retry_policy
from include.services import stopping
stopping.LIMIT = {PATIENCE}.0
retry_policy.RetryTime = partial(retry_policy.RetryTime, limit={{limit}})
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
    """The environment variables with which commands use a small database."""
    del backed_up  # because the first run cannot be forked
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
    """Start a backup whose tasks are retried for a number of seconds.

    Args:
        cli: the command line.
        environment: environment variables of the command.
        limit: seconds for which tasks are retried.
        before: Python code that runs before the command.
    """
    assert cli.forked is not None
    words = ["-c", before + COMMAND.format(limit=limit), "run", "backup_offsite", "--json"]
    full_environment = {**cli.environment, **environment, "TEST_RETRIES": "yes"}
    with cli.forked.busy, cli.forked.running(words, full_environment) as command:
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
    """Start a backup whose dump waits for a table that another session has locked."""
    with psycopg.connect(cli.postgres(NAME)) as conn:
        conn.execute("LOCK TABLE note IN ACCESS EXCLUSIVE MODE")
        with backing_up(cli, environment) as command:
            wait_until(lambda: waits_for_lock(cli), command)
            yield command


def end_by(number: int, command: Running) -> dict[str, Any]:
    """Send a signal to a command, and return the JSON object that it prints."""
    os.kill(command.pid, number)
    completed = command.wait()
    assert completed.returncode == 128 + number, completed.stderr
    run = json.loads(completed.stdout)
    assert f"interrupted by {signal.Signals(number).name}" in run["error"]
    return dict(run)


def finding_codes(bundle: Path) -> set[str]:
    """Return the finding codes in the bundle of a failed run."""
    assert (bundle / "SHA256SUMS.sig").is_file()
    result = json.loads((bundle / "result.json").read_text())
    assert result["outcome"] == "fail"
    return {finding["code"] for finding in result["findings"]}


def sealed_bundles(cli: Cli) -> set[Path]:
    return {path.parent for path in (cli.home / "evidence").rglob("SHA256SUMS.sig")}


@dataclass(frozen=True)
class Restarted:
    """The run of a workflow after its previous run was killed.

    Attributes:
        run: JSON result of the run.
        announced: text that the command wrote to standard error.
        sealed: bundles of other runs that the command sealed.
        scheduled_state: state of a run of Airflow's scheduler that was running all the time.
    """

    run: dict[str, Any]
    announced: str
    sealed: set[Path]
    scheduled_state: str


@pytest.fixture(scope="module")
def restarted(cli: Cli, environment: dict[str, str]) -> Restarted:
    """The next run of a backup after the previous run was killed during its dump."""
    with in_dump(cli, environment) as command:
        os.kill(command.pid, signal.SIGKILL)
        command.wait()
    before = sealed_bundles(cli)
    with psycopg.connect(cli.postgres(AIRFLOW_RUNS), autocommit=True) as airflow:
        airflow.execute(SCHEDULED)
        completed = cli.call("run", "backup_offsite", "--json", **environment)
        (state,) = airflow.execute("DELETE FROM dag_run WHERE id = -1 RETURNING state").fetchone()
    run = json.loads(completed.stdout)
    sealed = sealed_bundles(cli) - before - {Path(run["bundle"])}
    return Restarted(run, completed.stderr, sealed, state)


def test_killed_run_is_sealed_when_the_workflow_starts_again(restarted: Restarted) -> None:
    assert "sealing the interrupted run" in restarted.announced
    (bundle,) = restarted.sealed
    codes = finding_codes(bundle)
    assert codes >= {"run.interrupted", "backup.failed"}
    assert "gate.failed" not in codes  # the gate did not run
    assert restarted.run["outcome"] == "attention"


def test_starting_a_workflow_does_not_seal_a_run_that_a_scheduler_is_executing(
    restarted: Restarted,
) -> None:
    """A scheduler in the same database holds no lock on the files of this home folder."""
    assert restarted.scheduled_state == "running"


def test_restore_drill_on_a_server_without_a_required_extension_is_not_retried(
    cli: Cli, environment: dict[str, str], restarted: Restarted
) -> None:
    del restarted  # the fixture made the restore point
    run = cli.json("run", "drill_restore", code=2, **environment, TEST_RETRIES="yes")
    assert "lacks the extension pageinspect" in run["error"]
    assert "Install the missing features on that server" in run["error"]
    assert finding_codes(Path(run["bundle"])) >= {"choose.failed"}


def test_run_is_sealed_and_its_sql_statements_are_cancelled_after_sigterm_during_pg_dump(
    cli: Cli, environment: dict[str, str]
) -> None:
    with in_dump(cli, environment) as command:
        run = end_by(signal.SIGTERM, command)
        assert not waits_for_lock(cli)
    assert finding_codes(Path(run["bundle"])) >= {"run.interrupted", "backup.failed"}


def test_run_is_sealed_after_sigint_while_it_waits_for_a_retry(
    cli: Cli, environment: dict[str, str]
) -> None:
    with backing_up(cli, environment | DEAD) as command:
        text = "attempt 1 failed: No connection to courier on 127.0.0.1:1: Connection refused"
        wait_until(lambda: text in command.stderr, command)
        run = end_by(signal.SIGINT, command)
    assert "backup.failed" in finding_codes(Path(run["bundle"]))


def test_run_is_sealed_after_sigint_while_airflow_stores_a_retry(
    cli: Cli, environment: dict[str, str], tmp_path: Path
) -> None:
    mark = tmp_path / "storing"
    before = SLOW_API.format(mark=str(mark))
    with backing_up(cli, environment | DEAD, before=before) as command:
        wait_until(mark.exists, command)
        run = end_by(signal.SIGINT, command)
    assert "backup.failed" in finding_codes(Path(run["bundle"]))


def test_run_with_unreachable_database_retries_until_timeout_and_exits_with_3(
    cli: Cli, environment: dict[str, str]
) -> None:
    with backing_up(cli, environment | DEAD | {WITHOUT_PDF: ""}, limit=6) as command:
        completed = command.wait()
    assert completed.returncode == 3, completed.stderr
    assert "attempt 1 failed" in completed.stderr
    # The first delay of 2 s fits in the limit however long an attempt took, 2 and 5 s do not.
    assert "attempt 2 failed" not in completed.stderr
    run = json.loads(completed.stdout)
    assert "Connection refused" in run["error"]
    assert "backup.failed" in finding_codes(Path(run["bundle"]))
    assert [Path(report).suffix for report in run["reports"]] == [".html", ".html"]


def test_run_ends_with_exit_code_2_and_no_bundle_if_the_state_database_is_not_migrated(
    cli: Cli, environment: dict[str, str]
) -> None:
    with psycopg.connect(cli.postgres("postgres"), autocommit=True) as admin:
        admin.execute("CREATE DATABASE unmigrated OWNER parcelseal_state")
    spec = LocalProfile(cli.services.home).connection("state_db")
    assert spec is not None
    fields = vars(spec) | {"schema": "unmigrated", "extra": dict(spec.extra)}
    del fields["conn_id"]
    state = {"AIRFLOW_CONN_STATE_DB": json.dumps(fields)}
    run = cli.json("run", "backup_offsite", code=2, **environment, **state)
    assert (run["bundle"], run["outcome"]) == (None, None)
    assert "Run `./parcelseal migrate`" in run["error"]


@pytest.mark.parametrize("conn_id", ["state_db", "customer_db"])
@pytest.mark.parametrize("changes", [{"password": "wrong"}, {"schema": "nowhere"}])
def test_require_services_raises_usage_error_without_retry_if_password_or_database_is_incorrect(
    cli: Cli, conn_id: str, changes: dict[str, str]
) -> None:
    spec = LocalProfile(cli.services.home).connection(conn_id)
    assert spec is not None
    wrong = replace(spec, **changes)  # type: ignore[arg-type]
    services = replace(cli.services, lookup=lambda name: wrong if name == conn_id else None)
    with pytest.raises(UsageError, match="Check user, password"):
        require_services(services, "backup_offsite", {}, RetryTime(pytest.fail))
