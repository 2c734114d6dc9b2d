"""Delete the earlier question of a task in Airflow's database when the task asks again.

Airflow (3.3) stores one question for each task of a run. If the task asks again, because it was
cleared, retried or rescheduled, Airflow deletes only the answer, and still shows the text, the form
and the assigned users of the first question. `install` also deletes the question when the try that
asked it ends. Airflow's history keeps question and answer of a try that ended.

Call it in every process that ends tries: API server, scheduler, in-process runs. The plugin
asking_anew does so. `HumanStep` compares the question that Airflow shows with its own. Without the
plugin the step therefore fails, and does not ask people who may no longer answer.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from airflow.models.hitl import HITLDetail
from airflow.models.hitl_history import HITLDetailHistory
from airflow.models.taskreschedule import TaskReschedule
from sqlalchemy import Connection, delete, event


def install() -> None:
    """Make Airflow's models in this process forget questions; safe to repeat."""
    for model, forget in ((HITLDetailHistory, _kept_in_history), (TaskReschedule, _rescheduled)):
        if not event.contains(model, "after_insert", forget):
            event.listen(model, "after_insert", forget)


def _kept_in_history(_mapper: Any, connection: Connection, kept: HITLDetailHistory) -> None:
    _forget(connection, kept.ti_history_id)


def _rescheduled(_mapper: Any, connection: Connection, row: TaskReschedule) -> None:
    _forget(connection, row.ti_id)


def _forget(connection: Connection, task_instance: UUID) -> None:
    connection.execute(delete(HITLDetail).where(HITLDetail.ti_id == task_instance))
