"""Arguments that the tasks of all DAGs share, and schedules in the pack's timezone."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, TriggerRule

from include.composition import workplace_of
from include.notify.sending import STEP_SEND
from include.orchestration.retrying import RetryPolicy
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
"""Retries over 15 to 30 minutes: a service that is away for ten minutes fails no run of a night. A
permanent error fails its task at once."""

SEAL_ARGS: dict[str, Any] = {
    "trigger_rule": TriggerRule.ALL_DONE,
    "retries": 12,
    "queue": Queue.SEALING,
}
"""Of the task that seals, whatever happened before. Only the workers of its queue have the key. It
waits more than an hour for the store: a run without a bundle is a gap that nothing fills later."""

SEND_ARGS: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(minutes=2),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=10),
    "queue": Queue.DEFAULT,
}
"""Of tasks that send. Only the workers of their queue reach the mail server. The last try begins
after messages that a killed task had claimed are free again."""


def policy() -> PolicyPack:
    """Return the policy pack; a bad one is a DAG import error that names every fault."""
    return workplace_of(os.environ).pack


def databases_param() -> Param:
    """Return the parameter that names databases: a choice of the mapped ones."""
    mapped = list(policy().databases)
    return Param(
        [],
        type=["null", "array"],
        items={"type": "string", "enum": mapped},
        examples=mapped,
        title="Databases",
        description="Names from the data map; empty means all of them.",
    )


def operate(dag: DAG, operations: WorkflowOperations, usual_queue: str) -> None:
    """Set pools, priorities and queues of a workflow's tasks as the policy pack says.

    Args:
        dag: with all of its tasks.
        operations: of the workflow.
        usual_queue: of its tasks. Tasks with another queue, and `send`, which needs the mail server
            of the zone `default`, keep theirs unless they are named.

    Raises:
        UsageError: the pack names a task that the workflow does not have.
    """
    names = {str(task.label) for task in dag.tasks}
    if unknown := [name for name in operations.tasks if name not in names]:
        raise UsageError(
            f"operations.yaml names no task of {dag.dag_id}: {', '.join(unknown)}.",
            f"It has: {', '.join(sorted(names))}.",
        )
    for task in dag.tasks:
        own = operations.tasks.get(str(task.label), TaskOperations())
        is_movable = task.queue == usual_queue and task.label != STEP_SEND
        if queue := own.queue or (operations.queue if is_movable else None):
            task.queue = queue
        if pool := own.pool or operations.pool:
            task.pool = pool
        if priority := own.priority or operations.priority:
            task.priority_weight = priority


def cron(expression: str) -> CronTriggerTimetable:
    """Return a cron schedule in the pack's timezone.

    A workflow that is new begins at the next such time, or at once when the last one is less than a
    tenth of the way to the next ago (Airflow's own rule).
    """
    return CronTriggerTimetable(expression, timezone=policy().calendar.timezone)
