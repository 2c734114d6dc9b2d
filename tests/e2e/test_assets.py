"""Tests of the Airflow assets that workflows produce. A company can schedule own DAGs on them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import psycopg
import pytest

from include.local.profile import AIRFLOW_RUNS
from include.service_container import ROOT
from tests.e2e.conftest import Cli, FailedRuns
from tests.e2e.retained import NAME, Retained

pytestmark = pytest.mark.airflow

# The scheduler creates a run of the example after the backup's asset events.
SCHEDULED = """
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
from airflow import settings
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.asset import AssetEvent
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.xcom import XComModel
from airflow.sdk.definitions.dag import _run_task
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from sqlalchemy import select
with output_to(Path(sys.argv[1])):
    examples = Path(sys.argv[2])
    with only_file(str(examples / "after_backup.py")):
        bag = BundleDagBag(examples, bundle_path=examples, bundle_name="dags-folder")
    sync_bag_to_db(bag, "dags-folder", None)
    example = bag.dags["after_backup"]
    done = prepare(Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"]), "backup_offsite", {}, []).run()
    settings.configure_orm()
    with create_session() as session:
        due = [dag for dag in DagModel.dags_needing_dagruns(session)[0]]
        scheduler = SchedulerJobRunner(Job(), executors=[])
        scheduler._create_dag_runs_asset_triggered(
            dag_models=[dag for dag in due if dag.dag_id == example.dag_id], session=session
        )
    with create_session() as session:
        (run,) = session.scalars(select(DagRun).where(DagRun.dag_id == example.dag_id))
        run.dag = SerializedDagModel.get_dag(example.dag_id, session=session)
        run.state = DagRunState.RUNNING
        (task,) = run.update_state(session=session)[0]
        task.try_number += 1
        session.commit()
        _run_task(ti=task, task=example.task_dict[task.task_id])
    with create_session() as session:
        events = session.scalars(select(AssetEvent).where(AssetEvent.source_run_id == done.run_id))
        shown = [[event.asset.name, event.source_task_id, event.extra] for event in events]
        query = XComModel.get_many(dag_ids=example.dag_id, run_id=run.run_id, key="return_value")
        values = [XComModel.deserialize_value(each) for each in session.scalars(query)]
    graph = SerializedDagModel.get_dag_dependencies()["backup_offsite"]
print(json.dumps([shown, values, [[each.source, each.target, each.label] for each in graph]]))
"""


def test_backup_triggers_a_dag_that_is_scheduled_on_the_restore_point_asset(
    cli: Cli, backed_up: dict[str, Any]
) -> None:
    """The DAG gets the restore point's id and digest and the sealed bundle from the asset event."""
    del backed_up  # it migrated Airflow's database
    log = cli.home / "logs" / "assets.log"
    completed = cli.script(SCHEDULED, str(log), str(ROOT / "examples"))
    assert completed.returncode == 0, completed.stderr
    events, (listed,), graph = json.loads(completed.stdout)
    produced = {name: (task, extra) for name, task, extra in events}
    assert len(produced) == len(events)
    assert set(produced) == {
        "x-parcelseal://sealed-bundle/backup_offsite",
        "x-parcelseal://restore-point/courier",
    }
    task, bundle = produced["x-parcelseal://sealed-bundle/backup_offsite"]
    sums = (cli.home / "evidence" / bundle["bundle"] / "SHA256SUMS").read_bytes()
    assert task == "seal"
    assert bundle["sums_sha256"] == hashlib.sha256(sums).hexdigest()
    assert (bundle["outcome"], bundle["run_outcome"]) == ("attention", "attention")
    (event,) = listed
    assert event == produced["x-parcelseal://restore-point/courier"][1]
    points = cli.json("backup", "list", "--database", "courier")["restore_points"]
    newest = max(points, key=lambda point: point["taken_at"])
    assert (event["database"], event["restore_point"]) == ("courier", newest["id"])
    manifest = cli.home / "offsite" / "courier" / newest["id"] / "manifest.json"
    assert event["manifest_sha256"] == hashlib.sha256(manifest.read_bytes()).hexdigest()
    kind, courier = "x-parcelseal://restore-point", "x-parcelseal://restore-point/courier"
    assert {kind, courier} <= {label for source, _target, label in graph}
    assert [f"asset-alias:{kind}", "asset", courier] in graph


def events_of(cli: Cli, run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the details of a run's asset events, by kind and name of the asset."""
    query = (
        "SELECT asset.name, asset_event.extra FROM asset_event JOIN asset ON asset.id = asset_id "
        "WHERE source_dag_id = %s AND source_run_id = %s"
    )
    with psycopg.connect(cli.postgres(AIRFLOW_RUNS)) as conn:
        rows = conn.execute(query, [run["dag_id"], run["run_id"]]).fetchall()
    return {name.removeprefix("x-parcelseal://"): extra for name, extra in rows}


def test_asset_event_of_a_collection_contains_the_outcome_of_its_own_quality_check(
    cli: Cli, checked: dict[str, Any]
) -> None:
    """Each collection of the run has the outcome of its own expectations."""
    events = events_of(cli, checked)
    bundle = events.pop("sealed-bundle/check_quality")
    assert (bundle["outcome"], bundle["findings"]) == ("fail", checked["findings"])
    assert set(events) >= {"checked-collection/courier/customer"}
    assert {event["outcome"] for event in events.values()} > {"fail"}
    customer = events["checked-collection/courier/customer"]
    assert (customer["database"], customer["collection"]) == ("courier", "customer")
    assert customer["records"] == 300
    assert customer["is_full"] is True
    for event in events.values():
        assert event["bundle"] == bundle["bundle"]
        assert event["run_outcome"] == "fail"
        assert (event["rules_failed"] > 0) == (event["outcome"] == "fail")


def test_asset_event_of_deletion_certificate_contains_the_hash_of_the_disposition_plan(
    cli: Cli, retained: Retained
) -> None:
    """The event also has the number of erased records and their batches in the erasure ledger."""
    events = events_of(cli, retained.run)
    assert set(events) == {"sealed-bundle/enforce_retention", f"deletion-certificate/{NAME}"}
    certificate = events[f"deletion-certificate/{NAME}"]
    assert certificate["plan_sha256"] == retained.planned["plan_hash"]
    assert certificate["outcome"] == certificate["run_outcome"] == retained.run["outcome"]
    assert certificate["erased"] > 0
    assert certificate["first_batch"] <= certificate["last_batch"]


def test_database_whose_backup_failed_has_no_asset_event(cli: Cli, failed: FailedRuns) -> None:
    """Each other database has an event with its own outcome and the outcome of the run."""
    events = events_of(cli, failed.backup)
    assert events.pop("sealed-bundle/backup_offsite")["outcome"] == "fail"
    assert {event["run_outcome"] for event in events.values()} == {"fail"}
    assert "restore-point/sound" in events
    assert events["restore-point/sound"]["outcome"] != "fail"
    stored = {path.name for path in (cli.home / "offsite").iterdir()}
    assert {name.removeprefix("restore-point/") for name in events} <= stored
    assert "restore-point/homeless" not in events
