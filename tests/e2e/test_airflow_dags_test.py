"""Tests that `airflow dags test` runs each workflow to the seal of its evidence."""

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
from include.cli.stack import command_services
from include.local import airflow as local_airflow
from include.local.profile import AIRFLOW_RUNS, LocalProfile
from include.service_container import ROOT
profile = LocalProfile(command_services().home)
os.environ.update(local_airflow.settings(profile, ROOT, AIRFLOW_RUNS, None))
from airflow.__main__ import main
sys.argv = ["airflow", "dags", "test", *sys.argv[1:]]
main()
"""
CONF: dict[str, dict[str, Any]] = {
    "respond_to_incident": {"type": "lost_device", "what": "A scanner was left in a taxi"},
    "update_incident": {"incident": "INC-2026-0001", "action": "note", "text": "It was found"},
}


@pytest.mark.parametrize("workflow", WORKFLOWS)
def test_command_airflow_dags_test_seals_the_run_of_each_workflow(
    cli: Cli, backed_up: dict[str, Any], workflow: str
) -> None:
    """The run's state agrees with the sealed outcome.

    Nobody can answer the required actions of the run.
    """
    del backed_up  # it migrated Airflow's database, and there is a restore point to drill
    words = ["-c", json.dumps(CONF[workflow])] if workflow in CONF else []
    completed = cli.script(SCRIPT, workflow, *words, **{WITHOUT_PDF: "1"})
    with psycopg.connect(cli.postgres(AIRFLOW_RUNS)) as conn:
        row = conn.execute(
            "SELECT run_id, state FROM dag_run WHERE dag_id = %s ORDER BY id DESC LIMIT 1",
            [workflow],
        ).fetchone()
    assert row is not None, completed.stderr
    run_id, state = row
    with cli.services.state.connect() as conn:
        sealed = ledger.find(conn, workflow, run_id)
    assert sealed is not None, completed.stdout + completed.stderr
    assert state == ("failed" if sealed.outcome == "fail" else "success")
    assert (completed.returncode != 0) == (state == "failed"), completed.stdout + completed.stderr


def test_airflow_command_connects_to_the_database_of_the_local_profile(
    cli: Cli, backed_up: dict[str, Any]
) -> None:
    del backed_up
    completed = cli.call("airflow", "db", "check")
    assert completed.returncode == 0, completed.stderr
    assert cli.call("airflow", "db", "no-such-command").returncode == 2
