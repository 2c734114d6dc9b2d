"""`airflow dags test` runs each workflow to its seal."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from include.evidence import ledger
from include.local.profile import AIRFLOW_RUNS
from include.registry import WORKFLOWS
from tests.e2e.conftest import Cli
from tests.e2e.forked import WITHOUT_PDF

pytestmark = pytest.mark.airflow

SCRIPT = """
import os, sys
from include.cli.stack import workplace
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.workplace import ROOT
os.environ.update(local_airflow.settings(LocalProfile(workplace().home), ROOT, AIRFLOW_RUNS, None))
from airflow.__main__ import main
sys.argv = ["airflow", "dags", "test", *sys.argv[1:]]
main()
"""
CONF: dict[str, dict[str, Any]] = {
    "respond_to_incident": {"type": "lost_device", "what": "A scanner was left in a taxi"},
    "update_incident": {"incident": "INC-2026-0001", "action": "note", "text": "It was found"},
}


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_each_workflow_is_sealed(cli: Cli, backed_up: dict[str, Any], workflow: str) -> None:
    """The run ends as its sealed outcome says, also if it asks people, whom nobody can ask here."""
    del backed_up  # it migrated Airflow's database, and there is a restore point to drill
    words = ["-c", json.dumps(CONF[workflow])] if workflow in CONF else []
    done = cli.script(SCRIPT, workflow, *words, **{WITHOUT_PDF: "1"})
    with psycopg.connect(cli.postgres(AIRFLOW_RUNS)) as conn:
        row = conn.execute(
            "SELECT run_id, state FROM dag_run WHERE dag_id = %s ORDER BY id DESC LIMIT 1",
            [workflow],
        ).fetchone()
    assert row is not None, done.stderr
    run_id, state = row
    with cli.place.state.connect() as conn:
        sealed = ledger.find(conn, workflow, run_id)
    assert sealed is not None, done.stdout + done.stderr
    assert state == ("failed" if sealed.outcome == "fail" else "success")
    assert (done.returncode != 0) == (state == "failed"), done.stdout + done.stderr


def test_airflow_command_reaches_the_database_of_the_local_stack(
    cli: Cli, backed_up: dict[str, Any]
) -> None:
    del backed_up
    done = cli.call("airflow", "db", "check")
    assert done.returncode == 0, done.stderr
    assert cli.call("airflow", "db", "no-such-command").returncode == 2
