"""Who looks, and what they may see: the one module that knows how Airflow authorises.

A page is a custom view of the auth manager; what stands on it is filtered by the DAGs that the
visitor may read. Routes that a plugin mounts are open to everybody unless they ask here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import Depends, HTTPException, status

from include.orchestration.access.permissions import Page

READ: ResourceMethod = "GET"
ANSWER: ResourceMethod = "PUT"


@dataclass(frozen=True)
class Visitor:
    """Somebody who is logged in.

    Attributes:
        user: as the auth manager knows them.
        pages: that they may open.
    """

    user: BaseUser
    pages: frozenset[Page]

    @property
    def name(self) -> str:
        """Their user id as the policy pack and people know it."""
        return str(self.user.get_name())

    @property
    def ids(self) -> frozenset[str]:
        """Under what a human step may have named them; some auth managers have an id beside."""
        return frozenset({str(self.user.get_id()), self.name})

    def readable(self, dags: Iterable[str]) -> frozenset[str]:
        """Of some DAGs, those that they may read now.

        Asked one by one: a list of all that somebody may read costs FAB a hundred times as much.
        """
        return frozenset(one for one in set(dags) if self.reads(one))

    def reads(self, dag_id: str) -> bool:
        """Say whether they may read a DAG now."""
        return bool(
            get_auth_manager().is_authorized_dag(
                method=READ, details=DagDetails(id=dag_id), user=self.user
            )
        )

    def reads_questions(self, dag_id: str) -> bool:
        """Say whether they may read what a DAG asks people."""
        return bool(
            get_auth_manager().is_authorized_dag(
                method=READ,
                access_entity=DagAccessEntity.HITL_DETAIL,
                details=DagDetails(id=dag_id),
                user=self.user,
            )
        )

    def answers(self, dag_id: str) -> bool:
        """Say whether their roles let them answer what a DAG asks, where it asks them."""
        return bool(
            get_auth_manager().is_authorized_dag(
                method=ANSWER,
                access_entity=DagAccessEntity.HITL_DETAIL,
                details=DagDetails(id=dag_id),
                user=self.user,
            )
        )

    def require(self, dag_id: str) -> None:
        """Refuse who may not read a DAG; raises HTTPException (403)."""
        if not self.reads(dag_id):
            raise HTTPException(status.HTTP_403_FORBIDDEN)


def may_open(user: BaseUser, page: Page) -> bool:
    """Say whether somebody may open a page."""
    return bool(
        get_auth_manager().is_authorized_custom_view(
            method=READ, resource_name=str(page), user=user
        )
    )


def visitor(user: GetUserDep) -> Visitor:
    """Return who looks; somebody who is not logged in is refused before (401)."""
    return Visitor(user, frozenset(one for one in Page if may_open(user, one)))


def opening(page: Page) -> Callable[[Visitor], Visitor]:
    """Return the dependency of a page's routes: the visitor, who may open it."""

    def allowed(who: Annotated[Visitor, Depends(visitor)]) -> Visitor:
        if page not in who.pages:
            raise HTTPException(status.HTTP_403_FORBIDDEN)
        return who

    return allowed


Anybody = Annotated[Visitor, Depends(visitor)]
"""Somebody who is logged in, whatever pages they may open."""
