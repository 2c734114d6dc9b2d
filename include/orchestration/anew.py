"""Questions that are asked anew: Airflow forgets the one before.

Airflow (3.3) keeps one question for each task of a run. Where the task asks again, because it was
cleared, repeated or rescheduled, only the answer is taken off, and people are shown the text, the
form and the list of those who may answer from the first time. `install` makes it forget the
question with the try that asked it; of a try that ended, its history keeps question and answer.

It has to be called in every process that ends tries: API server, scheduler, in-process runs. The
plugin asking_anew does so. `HumanStep` looks at what Airflow shows, so that where the plugin is
missing the step fails instead of asking people of yesterday.
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
