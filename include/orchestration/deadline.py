"""Airflow's deadline alerts: a run that misses its time limit is reported to its owner, once."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk.definitions.callback import SyncCallback  # not in the stub of `airflow.sdk`
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied

from include.composition import workplace_of
from include.messages import _
from include.notify import outbox
from include.notify.delivery import deliver
from include.notify.notice import to_role
from include.notify.outbox import Run
from include.orchestration.notices import office
from include.orchestration.run import airflow_connections
from include.registry import workflow
from include.services.connections import ConnectionSpec
from include.services.errors import ServiceError, UsageError
from include.workplace import Workplace

LATE = "runs.late"
"""The kind of the notification. No workflow is asked whether it is still due: the run was late."""


def deadline_alert(limit: timedelta) -> DeadlineAlert:
    """Return Airflow's alert for runs that did not end within a limit after they were queued.

    Airflow calls `report_late` on an executor; with Celery in the queue `default`, whose workers
    reach the mail server.
    """
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=limit,
        callback=SyncCallback(report_late),
        name="time limit",
    )


def ignore_deadline_in_dag_test(dag: Any) -> None:
    """Let `dag.test` run a DAG as if it had no deadline.

    Airflow 3.3.2 cannot end a successful run of `dag.test` otherwise: it looks for the ids of
    deadlines that only DAGs from its database have. Nothing would look at the deadline there.
    """
    run_test = dag.test

    def run_without_deadline(*arguments: Any, **named: Any) -> Any:
        dag.deadline = None
        return run_test(*arguments, **named)

    dag.test = run_without_deadline


def services() -> Workplace:
    """Return the services of a callback.

    Airflow 3.3.2 denies callbacks all connections but those of the environment and of the workers'
    secrets backend. So a connection that neither has is taken for one of the local profile, if
    `./parcelseal up` started this Airflow: then Airflow's home is in the profile's.
    """
    lookup = airflow_connections()

    def find(conn_id: str) -> ConnectionSpec | None:
        try:
            return lookup(conn_id)
        except AirflowSecretsBackendAccessDenied:
            if os.environ.get("AIRFLOW_HOME") != str(workplace_of(os.environ).home / "airflow"):
                raise
            return None

    return workplace_of(os.environ, find)


def report_late(context: dict[str, Any]) -> None:
    """Queue the notification of a late run and send it.

    What cannot be sent now waits for the next task `send`. A late drill is not reported: the owner
    would take the notification for a real one.

    Args:
        context: of the missed deadline, from Airflow.

    Raises:
        UsageError: the policy pack lacks the role that owns the workflow.
    """
    place, late = services(), context["dag_run"]
    declared = workflow(late["dag_id"])
    if declared.is_drill is not None and declared.is_drill(late.get("conf") or {}):
        return
    if (owner := place.pack.roles.get(declared.owner)) is None:
        raise UsageError(f"roles.yaml has no role {declared.owner}, which owns {declared.id}.")
    run = Run(declared.id, late["dag_run_id"])
    notices = to_role(
        owner,
        kind=LATE,
        key=f"{run.dag_id}/{run.run_id}",
        heading=_("Late runs"),
        line=_(
            "{workflow}: the run {run} had not ended by {moment}. Look at its tasks in Airflow.",
            workflow=declared.title,
            run=run.run_id,
            moment=datetime.fromisoformat(str(context["deadline"]["deadline_time"])),
        ),
        urgent=True,
    )
    with place.state.begin() as conn:
        outbox.queue(conn, notices, run, place.clock.now(), place.pack.notices)
    with suppress(ServiceError, UsageError):
        deliver(office(place))
