"""The page of required actions: open requests of workflows to people, with deadlines and forms."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from airflow.api_fastapi.common.db.common import SessionDep
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.state import TaskInstanceState
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from include.approvals.required_action import split_languages
from include.messages import Message
from include.orchestration.access.permissions import Page
from plugins.compliance_ui.access import Visitor, visitor_of
from plugins.compliance_ui.page_services import page_services
from plugins.compliance_ui.rendering import render_navigation_page
from plugins.compliance_ui.workflow_names import title_of

router = APIRouter()

MAX_ROWS = 200
_WAITS = (TaskInstanceState.AWAITING_INPUT, TaskInstanceState.DEFERRED)


@dataclass(frozen=True)
class RequiredAction:
    """A task that waits for the answer of a person.

    Attributes:
        subject: subject line of the request.
        workflow: title of the workflow.
        asked_at: time of the request.
        deadline: time at which the workflow stops waiting for the answer; None if the workflow
            waits without limit. The text of the request may state another due date for the
            requested work.
        people: ids of the users who may answer; empty if every user with the permission may answer.
        is_for_visitor: whether the visitor may answer.
        path: path of Airflow's answer form, relative to Airflow's base URL.
    """

    subject: Message
    workflow: Message
    asked_at: datetime
    deadline: datetime | None
    people: tuple[str, ...]
    is_for_visitor: bool
    path: str


@router.get("/waiting")
def required_actions_page(
    request: Request,
    session: SessionDep,
    visitor: Annotated[Visitor, Depends(visitor_of(Page.WAITING))],
) -> Response:
    """Show the required actions that the visitor may read.

    The required actions that the visitor may answer come first.
    """
    services = page_services()
    actions = open_actions(session, visitor)
    yours = [action for action in actions if action.is_for_visitor]
    others = [action for action in actions if not action.is_for_visitor]
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.WAITING,
        "waiting.html.j2",
        yours=yours[:MAX_ROWS],
        others=others[:MAX_ROWS],
        yours_total=len(yours),
        others_total=len(others),
    )


def open_actions(session: Session, visitor: Visitor) -> list[RequiredAction]:
    """Return the unanswered required actions that the visitor may read, earliest deadline first.

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
    return [_action(visitor, *row) for row in rows if row[1].dag_id in readable]


def _action(visitor: Visitor, detail: HITLDetail, task: TaskInstance) -> RequiredAction:
    people = tuple(sorted(assignee["id"] for assignee in detail.assignees or []))
    ids = [quote(part, safe="") for part in (task.dag_id, task.run_id, task.task_id)]
    path = "/dags/{}/runs/{}/tasks/{}".format(*ids)
    if task.map_index >= 0:
        path += f"/mapped/{task.map_index}"
    return RequiredAction(
        split_languages(detail.subject),
        title_of(task.dag_id),
        detail.created_at,
        task.trigger_timeout,
        people,
        (not people or bool(visitor.ids & set(people))) and visitor.answers(task.dag_id),
        f"{path}/required_actions",
    )
