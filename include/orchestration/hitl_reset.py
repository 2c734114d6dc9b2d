"""Delete the earlier required action of a task from Airflow's database when the task asks again.

Airflow (3.3) stores one required action (`HITLDetail`) for each task of a run. A cleared, retried
or rescheduled task asks again. Airflow then deletes only the answer, and still shows the text, the
form and the assigned users of the first required action. `install` makes Airflow also delete the
required action when the attempt that created it ends. Airflow's history keeps the required action
and the answer of that attempt.

Call `install` in every process that ends attempts of tasks. These are the API server, the scheduler
and in-process runs. The Airflow plugin ``asking_anew`` calls it. Without the plugin, Airflow might
ask people who no longer have the right to answer. Therefore `HumanStep` compares the required
action that Airflow shows with the required action that the task built, and fails if they differ.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from airflow.models.hitl import HITLDetail
from airflow.models.hitl_history import HITLDetailHistory
from airflow.models.taskreschedule import TaskReschedule
from sqlalchemy import Connection, delete, event


def install() -> None:
    """Make this process delete a task's earlier required action when an attempt of the task ends.

    Repeated calls have no further effect.
    """
    for model, listener in (
        (HITLDetailHistory, _after_history),
        (TaskReschedule, _after_reschedule),
    ):
        if not event.contains(model, "after_insert", listener):
            event.listen(model, "after_insert", listener)


def _after_history(_mapper: Any, connection: Connection, row: HITLDetailHistory) -> None:
    _delete_detail(connection, row.ti_history_id)


def _after_reschedule(_mapper: Any, connection: Connection, row: TaskReschedule) -> None:
    _delete_detail(connection, row.ti_id)


def _delete_detail(connection: Connection, task_instance: UUID) -> None:
    connection.execute(delete(HITLDetail).where(HITLDetail.ti_id == task_instance))
