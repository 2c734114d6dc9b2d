"""A run that is cleared after its seal shows what was sealed, in a real Airflow."""

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
from include.cli.stack import workplace
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.workplace import ROOT
os.environ.update(local_airflow.settings(LocalProfile(workplace().home), ROOT, AIRFLOW_RUNS, None))
from include.orchestration.inprocess import only_file, prepare
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


def test_cleared_run_stays_red_over_its_sealed_failure(
    cli: Cli, backed_up: dict[str, Any], tmp_path: Path
) -> None:
    """The cause is mended and every task cleared: the step refuses, the gate fails again."""
    del backed_up  # it migrated Airflow's database
    log = cli.home / "logs" / "mended.log"
    folder = {DAGS_FOLDER: str(Path(__file__).parent / "probes")}
    done = cli.script(CLEARED, str(log), PROBE_MENDED=str(tmp_path / "mended"), **folder)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert first[0] == second[0]
    states = {"look": "failed", "seal": "success", "gate": "failed"}
    for _run_id, state, tasks in (first, second):
        assert (state, tasks) == ("failed", states)
    assert "Start a new run" in log.read_text()
    shown = result_of(cli.place, "mended", first[0], second[1], "log")
    assert (shown.outcome, shown.findings, exit_code(shown)) == ("fail", 1, 1)
