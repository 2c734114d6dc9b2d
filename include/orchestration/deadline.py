"""Airflow's deadline alerts: if a run misses its time limit, the owner is notified once."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk.definitions.callback import SyncCallback  # not in the stub of `airflow.sdk`
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied

from include.composition import services_from
from include.messages import Message, _
from include.notify import outbox
from include.notify.delivery import deliver
from include.notify.notification import to_role
from include.notify.outbox import Run
from include.orchestration.addresses import absolute, airflow_run_path, has_address
from include.orchestration.notifications import delivery_config
from include.orchestration.run import airflow_connections
from include.registry import workflow
from include.service_container import Services
from include.services.connections import ConnectionSpec
from include.services.errors import ServiceError, UsageError

LATE = "runs.late"
"""The kind of the notification. The notification stays due: a late run cannot become punctual."""


def deadline_alert(limit: timedelta) -> DeadlineAlert:
    """Return Airflow's alert for runs that have not ended within a time limit.

    The time limit counts from the moment at which the run was queued.

    Airflow runs the callback `report_late` on an executor. With Celery, the callback runs on the
    queue `default`, whose workers can reach the mail server.
    """
    return DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=limit,
        callback=SyncCallback(report_late),
        name="time limit",
    )


def ignore_deadline_in_dag_test(dag: Any) -> None:
    """Make `dag.test` run a DAG without its deadline.

    With a deadline, Airflow 3.3.2 cannot end a successful run of `dag.test`: Airflow reads deadline
    ids that only DAGs from its database have. No process checks deadlines in `dag.test` anyway.
    """
    run_test = dag.test

    def run_without_deadline(*arguments: Any, **keywords: Any) -> Any:
        dag.deadline = None
        return run_test(*arguments, **keywords)

    dag.test = run_without_deadline


def callback_services() -> Services:
    """Return the services for a deadline callback.

    Airflow 3.3.2 gives callbacks access only to connections from the environment and from the
    workers' secrets backend, and denies access to all other connections. If `./parcelseal up`
    started this Airflow, a denied connection is read from the local profile instead. `AIRFLOW_HOME`
    is then the folder ``airflow`` of the local profile.
    """
    lookup = airflow_connections()

    def find(conn_id: str) -> ConnectionSpec | None:
        try:
            return lookup(conn_id)
        except AirflowSecretsBackendAccessDenied:
            if os.environ.get("AIRFLOW_HOME") != str(services_from(os.environ).home / "airflow"):
                raise
            return None

    return services_from(os.environ, find)


def report_late(context: dict[str, Any]) -> None:
    """Queue the notification that a run missed its time limit, and send it.

    If the notification cannot be sent now, the next task `send` sends it. A late drill is not
    reported, because the owner could mistake the drill for a real run.

    Args:
        context: Airflow's context of the missed deadline.

    Raises:
        UsageError: the policy pack lacks the role that owns the workflow.
    """
    services, dag_run = callback_services(), context["dag_run"]
    declared = workflow(dag_run["dag_id"])
    if declared.is_drill is not None and declared.is_drill(dag_run.get("conf") or {}):
        return
    if (owner := services.pack.roles.get(declared.owner)) is None:
        raise UsageError(f"roles.yaml has no role {declared.owner}, which owns {declared.id}.")
    run = Run(declared.id, dag_run["dag_run_id"])
    notifications = to_role(
        owner,
        kind=LATE,
        key=f"{run.dag_id}/{run.run_id}",
        heading=_("Runs that did not end by their deadline"),
        line=_with_address(
            run,
            _(
                "{workflow}: the run {run} did not end by its deadline, {moment}. Find the "
                "unfinished task of the run in Airflow.",
                workflow=declared.title,
                run=run.run_id,
                moment=datetime.fromisoformat(str(context["deadline"]["deadline_time"])),
            ),
        ),
        urgent=True,
    )
    with services.state.begin() as conn:
        outbox.queue_notifications(
            conn, notifications, run, services.clock.now(), services.pack.notices
        )
    with suppress(ServiceError, UsageError):
        deliver(delivery_config(services))


def _with_address(run: Run, line: Message) -> Message:
    if not has_address():
        return line
    address = absolute(airflow_run_path(run.dag_id, run.run_id))
    return _("{message} Open: {address}", message=line, address=address)
