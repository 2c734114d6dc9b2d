"""Runs that miss their time limit are reported to the workflow's owner."""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.policy import SHIPPED
from include.policy.problems import PackError
from include.registry import WORKFLOWS, load_pack
from include.service_container import ROOT
from tests.drill_sandbox.test_sandboxed_services import Play

pytestmark = pytest.mark.airflow


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a writable copy of the shipped policy pack, which the DAG files use."""
    folder = tmp_path / "policy"
    shutil.copytree(SHIPPED, folder)
    monkeypatch.setenv("PARCELSEAL_POLICY", str(folder))
    monkeypatch.setenv("PARCELSEAL_HOME", str(tmp_path / "home"))
    return folder


def operations(pack: Path, **workflows: Any) -> None:
    (pack / "operations.yaml").write_text(yaml.safe_dump({"workflows": workflows}))


def dag(dag_id: str) -> Any:
    return runpy.run_path(str(ROOT / "dags" / f"{dag_id}.py"))[dag_id]()


def test_dag_has_no_time_limit_by_default(pack: Path) -> None:
    """Airflow 3.3.2 cannot clear a task of a run that has a deadline."""
    del pack
    assert [name for name in WORKFLOWS if dag(name).deadline] == []


def test_dag_has_the_time_limit_that_the_policy_pack_sets(pack: Path) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    operations(pack, backup_offsite={"time_limit": "PT90M"}, sample_audit={"time_limit": "P30D"})
    assert [alert.interval for alert in dag("backup_offsite").deadline] == [timedelta(minutes=90)]
    audit = dag("sample_audit")
    assert [alert.interval for alert in audit.deadline] == [timedelta(days=30)]
    serialized = DagSerialization.serialize_dag(audit)
    assert "include.orchestration.deadline.report_late" in str(serialized)


def test_unknown_workflow_in_operations_yaml_raises_pack_error(pack: Path) -> None:
    operations(pack, backup_ofsite={"time_limit": "PT90M"})
    with pytest.raises(PackError, match=r"operations\.yaml: workflows\.backup_ofsite: there is no"):
        load_pack(pack)


def test_late_run_that_is_reported_twice_queues_only_one_notification(
    tmp_path: Path, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This also holds if the run is cleared and late again."""
    from include.orchestration import deadline

    play = Play(tmp_path, migrated_database)
    sent: list[bool] = []
    monkeypatch.setattr(deadline, "callback_services", lambda: play.live)
    monkeypatch.setattr(deadline, "deliver", lambda _office: sent.append(True))
    context = {
        "dag_run": {"dag_id": "backup_offsite", "dag_run_id": "scheduled__1"},
        "deadline": {"id": "1", "deadline_time": "2026-11-28T19:00:00+00:00"},
    }
    for _ in range(2):
        deadline.report_late(context)
    with play.live.state.connect() as conn:
        rows = conn.exec_driver_sql(
            "SELECT kind, key, recipient, address, urgent, state, line->>'text' FROM notification"
        ).all()
    ((kind, key, recipient, address, urgent, state, line),) = rows
    assert (kind, key) == ("runs.late", "backup_offsite/scheduled__1")
    assert (recipient, address) == ("role:data_engineering", "data@courier.example")
    assert (urgent, state) == (True, "pending")
    assert "did not end by its deadline," in line
    assert sent == [True, True]


@pytest.mark.parametrize(("scenario", "notices"), [("lost-scanner", 0), ("", 1)])
def test_late_incident_run_is_reported_unless_it_is_a_drill(
    tmp_path: Path,
    migrated_database: str,
    monkeypatch: pytest.MonkeyPatch,
    scenario: str,
    notices: int,
) -> None:
    from include.orchestration import deadline

    play = Play(tmp_path, migrated_database)
    monkeypatch.setattr(deadline, "callback_services", lambda: play.live)
    monkeypatch.setattr(deadline, "deliver", lambda _office: None)
    conf = {"tabletop": scenario}
    run = {"dag_id": "respond_to_incident", "dag_run_id": "manual__1", "conf": conf}
    deadline.report_late({"dag_run": run, "deadline": {"deadline_time": play.clock.now()}})
    with play.live.state.connect() as conn:
        assert conn.exec_driver_sql("SELECT count(*) FROM notification").scalar() == notices


def test_notification_of_late_run_stays_pending_if_the_mail_server_is_unreachable(
    tmp_path: Path, migrated_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from include.orchestration import deadline

    play = Play(tmp_path, migrated_database)  # its mail server is down
    monkeypatch.setattr(deadline, "callback_services", lambda: play.live)
    deadline.report_late(
        {
            "dag_run": {"dag_id": "review_intake", "dag_run_id": "manual__1"},
            "deadline": {"deadline_time": play.clock.now()},
        }
    )
    with play.live.state.connect() as conn:
        assert conn.exec_driver_sql("SELECT state FROM notification").scalar() == "pending"


@pytest.mark.parametrize("is_local", [True, False])
def test_connection_that_airflow_denies_is_readable_only_with_the_local_profile(
    pack: Path, monkeypatch: pytest.MonkeyPatch, *, is_local: bool
) -> None:
    from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied

    from include.orchestration import deadline

    def denied(_conn_id: str) -> None:
        raise AirflowSecretsBackendAccessDenied("denied")

    monkeypatch.setattr(deadline, "airflow_connections", lambda: denied)
    home = pack.parent / "home"
    home.mkdir()
    monkeypatch.setenv("AIRFLOW_HOME", str(home / "airflow" if is_local else "/opt/airflow"))
    services = deadline.callback_services()
    if is_local:
        assert services.connection("evidence_store").conn_type == "fs"
    else:
        with pytest.raises(AirflowSecretsBackendAccessDenied):
            services.connection("evidence_store")
