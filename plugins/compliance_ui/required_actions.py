"""Open required actions of workflows: tasks that wait for the answer of a person in Airflow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from sqlalchemy import select
from sqlalchemy.orm import Session

from include.approvals.required_action import split_languages
from include.messages import Message
from include.orchestration.human_step import DUE_AT
from plugins.compliance_ui.access import Visitor, name_of
from plugins.compliance_ui.workflow_names import title_of

_WAITS = (TaskInstanceState.AWAITING_INPUT, TaskInstanceState.DEFERRED)


@dataclass(frozen=True)
class RequiredAction:
    """A task that waits for the answer of a person.

    Attributes:
        subject: subject line of the request.
        workflow: title of the workflow.
        asked_at: time of the request.
        due_at: deadline of the requested work; None if there is none.
        answer_until: time at which the workflow stops waiting for this answer; None if the workflow
            waits without limit. Airflow may then ask again, so this is not the deadline.
        people: names of the people who may answer; empty if every user with the permission may
            answer.
        is_for_visitor: whether the visitor may answer.
        path: path of Airflow's answer form, relative to Airflow's base URL.
    """

    subject: Message
    workflow: Message
    asked_at: datetime
    due_at: datetime | None
    answer_until: datetime | None
    people: tuple[str, ...]
    is_for_visitor: bool
    path: str

    def is_overdue(self, now: datetime) -> bool:
        """Return whether the deadline has passed."""
        return self.due_at is not None and self.due_at < now


def open_actions(session: Session, visitor: Visitor) -> list[RequiredAction]:
    """Return the unanswered required actions that the visitor may read, earliest deadline first.

    The deadline is that of the requested work, such as the review deadline of a batch. If the
    workflow states none, it is the time at which the workflow stops waiting.

    Args:
        session: session of Airflow's metadata database.
        visitor: the visitor.
    """
    query = (
        select(HITLDetail, TaskInstance)
        .join(TaskInstance, HITLDetail.ti_id == TaskInstance.id)
        .where(
            HITLDetail.responded_at.is_(None),
            TaskInstance.state.in_(_WAITS),
        )
        .order_by(TaskInstance.trigger_timeout.asc().nulls_last(), HITLDetail.created_at)
    )
    rows = list(session.execute(query).unique())
    dags = visitor.readable(task.dag_id for _detail, task in rows)
    readable = {dag for dag in dags if visitor.reads_required_actions(dag)}
    actions = [_action(visitor, *row) for row in rows if row[1].dag_id in readable]
    return sorted(actions, key=lambda action: (action.due_at is None, action.due_at or 0))


def _due_at(detail: HITLDetail) -> datetime | None:
    """Return the deadline of the requested work, which the form has in a hidden field."""
    field = (detail.params or {}).get(DUE_AT)
    value = field.get("value") if isinstance(field, dict) else field
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:  # a person changed Airflow's database
        return None


def _action(visitor: Visitor, detail: HITLDetail, task: TaskInstance) -> RequiredAction:
    people = tuple(sorted(assignee["id"] for assignee in detail.assignees or []))
    due_at = _due_at(detail)
    ids = [quote(part, safe="") for part in (task.dag_id, task.run_id, task.task_id)]
    path = "/dags/{}/runs/{}/tasks/{}".format(*ids)
    if task.map_index >= 0:
        path += f"/mapped/{task.map_index}"
    return RequiredAction(
        split_languages(detail.subject),
        title_of(task.dag_id),
        detail.created_at,
        task.trigger_timeout if due_at is None else due_at,
        task.trigger_timeout,
        tuple(sorted(map(name_of, people))),
        (not people or bool(visitor.ids & set(people))) and visitor.answers(task.dag_id),
        f"{path}/required_actions",
    )
