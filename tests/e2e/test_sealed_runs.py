"""Test with a real Airflow that a run which is cleared after its seal keeps its sealed outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from include.cli.report import exit_code, result_of
from tests.e2e.conftest import Cli
from tests.e2e.forked import DAGS_FOLDER

pytestmark = pytest.mark.airflow

CLEARED = """
import json, os, sys
from pathlib import Path
from include.cli.console import output_to
from include.cli.stack import command_services
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.service_container import ROOT
profile = LocalProfile(command_services().home)
os.environ.update(local_airflow.settings(profile, ROOT, AIRFLOW_RUNS, None))
from include.orchestration.in_process_run import only_file, prepare
from airflow.sdk import timezone
folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
runs = []
with output_to(Path(sys.argv[1])):
    dag = prepare(folder, "mended", {}, []).dag
    now = timezone.utcnow()
    for _ in range(2):  # Airflow clears the tasks of the first time
        with only_file(dag.fileloc):
            run = dag.test(logical_date=now, run_after=now)
        states = {task.task_id: str(task.state) for task in run.get_task_instances()}
        runs.append([run.run_id, str(run.state), states])
        Path(os.environ["PROBE_MENDED"]).touch()
print(json.dumps(runs))
"""


def test_cleared_run_fails_again_if_it_was_already_sealed_as_failed(
    cli: Cli, backed_up: dict[str, Any], tmp_path: Path
) -> None:
    """After the cause is fixed and all tasks are cleared, the step refuses to run.

    The gate fails again, because the sealed outcome is a failure.
    """
    del backed_up  # it migrated Airflow's database
    log = cli.home / "logs" / "mended.log"
    folder = {DAGS_FOLDER: str(Path(__file__).parent / "probes")}
    completed = cli.script(CLEARED, str(log), PROBE_MENDED=str(tmp_path / "mended"), **folder)
    assert completed.returncode == 0, completed.stderr
    first, second = json.loads(completed.stdout)
    assert first[0] == second[0]
    states = {"look": "failed", "seal": "success", "gate": "failed"}
    for _run_id, state, tasks in (first, second):
        assert (state, tasks) == ("failed", states)
    assert "Start a new run" in log.read_text()
    sealed_result = result_of(cli.services, "mended", first[0], second[1], "log")
    assert (sealed_result.outcome, sealed_result.findings, exit_code(sealed_result)) == (
        "fail",
        1,
        1,
    )
