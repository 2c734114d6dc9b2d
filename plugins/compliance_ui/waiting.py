"""Waiting for you: questions that workflows ask people, by when, and where to answer."""

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

from include.messages import Message
from include.orchestration.access.permissions import Page
from plugins.compliance_ui.access import Visitor, opening
from plugins.compliance_ui.names import title_of
from plugins.compliance_ui.rendering import show
from plugins.compliance_ui.services import services

router = APIRouter()

MOST = 200  # rows of a page
_WAITS = (TaskInstanceState.AWAITING_INPUT, TaskInstanceState.DEFERRED)


@dataclass(frozen=True)
class Question:
    """A human step that waits.

    Attributes:
        subject: as it was asked.
        workflow: in words.
        asked_at: when.
        deadline: after which the workflow stops waiting for this answer; None without one. By when
            the matter itself is due stands in the question.
        people: user ids of those who may answer.
        yours: whether the visitor is one of them.
        path: of Airflow's form, below Airflow's own address.
    """

    subject: str
    workflow: Message
    asked_at: datetime
    deadline: datetime | None
    people: tuple[str, ...]
    yours: bool
    path: str


@router.get("/waiting")
def waiting(
    request: Request,
    session: SessionDep,
    who: Annotated[Visitor, Depends(opening(Page.WAITING))],
) -> Response:
    """Show the visitor's own questions first, then the others that they may read."""
    here = services()
    found = open_questions(session, who)
    yours = [one for one in found if one.yours]
    others = [one for one in found if not one.yours]
    return show(
        request,
        here,
        who,
        Page.WAITING,
        "waiting.html.j2",
        yours=yours[:MOST],
        others=others[:MOST],
        yours_total=len(yours),
        others_total=len(others),
    )


def open_questions(session: Session, who: Visitor) -> list[Question]:
    """Return the questions that wait and that the visitor may read, by how long they still do.

    Args:
        session: on Airflow's database.
        who: the visitor.
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
    asked = list(session.execute(query).unique())
    dags = who.readable(task.dag_id for _asked, task in asked)
    readable = {one for one in dags if who.reads_questions(one)}
    return [_question(who, *row) for row in asked if row[1].dag_id in readable]


def _question(who: Visitor, asked: HITLDetail, task: TaskInstance) -> Question:
    people = tuple(sorted(one["id"] for one in asked.assignees or []))
    place = [quote(one, safe="") for one in (task.dag_id, task.run_id, task.task_id)]
    path = "/dags/{}/runs/{}/tasks/{}".format(*place)
    if task.map_index >= 0:
        path += f"/mapped/{task.map_index}"
    return Question(
        asked.subject,
        title_of(task.dag_id),
        asked.created_at,
        task.trigger_timeout,
        people,
        (not people or bool(who.ids & set(people))) and who.answers(task.dag_id),
        f"{path}/required_actions",
    )
