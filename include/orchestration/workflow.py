"""Default arguments of tasks, settings of operations.yaml, and schedules of workflows."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, TriggerRule

from include.composition import services_from
from include.notify.sending import STEP_SEND
from include.orchestration.retry_policy import RetryPolicy
from include.policy import PolicyPack
from include.policy.rules import TaskOperations, WorkflowOperations
from include.services.errors import UsageError
from include.workflow.declaration import Queue

DEFAULT_ARGS: dict[str, Any] = {
    "retries": 5,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "retry_policy": RetryPolicy(),
}
"""Retries over 15 to 30 minutes, so that an outage of ten minutes fails no nightly run. A permanent
error fails its task at once."""

SEAL_ARGS: dict[str, Any] = {
    "trigger_rule": TriggerRule.ALL_DONE,
    "retries": 12,
    "queue": Queue.SEALING,
}
"""Arguments of the task that seals; it also runs after failed tasks. Only the workers of its queue
have the key. Its retries wait more than an hour for the store, since a missing bundle cannot be
sealed later."""

SEND_ARGS: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(minutes=2),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "queue": Queue.DEFAULT,
}
"""Arguments of tasks that send. Only the workers of their queue reach the mail server. The last try
begins after the claims of a killed task on its messages have expired."""


def policy() -> PolicyPack:
    """Return the policy pack that the environment names.

    If the policy pack is invalid, Airflow shows a DAG import error that lists all faults.
    """
    return services_from(os.environ).pack


def databases_param() -> Param:
    """Return the run parameter that limits a run to some of the mapped databases."""
    mapped = list(policy().databases)
    return Param(
        [],
        type=["null", "array"],
        items={"type": "string", "enum": mapped},
        examples=mapped,
        title="Databases / 数据库",
        description="Names from the data map; empty means all of them. "
        "数据地图中的名称；留空为全部。",
    )


def operate(dag: DAG, operations: WorkflowOperations, usual_queue: str) -> None:
    """Apply the pools, priorities and queues of operations.yaml to the tasks of a workflow.

    Args:
        dag: the DAG with all of its tasks.
        operations: settings of the workflow in operations.yaml.
        usual_queue: queue of the workflow. A task with another queue keeps its queue, unless
            operations.yaml sets a queue for this task. The task `send` also keeps its queue,
            because it needs the mail server of the trust zone `default`.

    Raises:
        UsageError: operations.yaml names a task that the workflow does not have.
    """
    names = {str(task.label) for task in dag.tasks}
    if unknown := [name for name in operations.tasks if name not in names]:
        raise UsageError(
            f"operations.yaml names no task of {dag.dag_id}: {', '.join(unknown)}.",
            f"It has: {', '.join(sorted(names))}.",
        )
    for task in dag.tasks:
        settings = operations.tasks.get(str(task.label), TaskOperations())
        is_movable = task.queue == usual_queue and task.label != STEP_SEND
        if queue := settings.queue or (operations.queue if is_movable else None):
            task.queue = queue
        if pool := settings.pool or operations.pool:
            task.pool = pool
        if priority := settings.priority or operations.priority:
            task.priority_weight = priority


def cron(expression: str) -> CronTriggerTimetable:
    """Return an Airflow timetable for a cron expression in the policy pack's timezone.

    A new workflow first runs at the next scheduled time. With Airflow's default, it would run
    immediately if less than a tenth of the current interval has passed.
    """
    return CronTriggerTimetable(expression, timezone=policy().calendar.timezone)
