"""Identify the visitor of a compliance page and check the visitor's permissions.

Only this module calls Airflow's auth manager. Each page is a custom view of the auth manager, and
shows only data of the DAGs that the visitor may read. Airflow does not protect the routes of a
plugin. Therefore each route uses a FastAPI dependency of this module.
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

from include.orchestration.access.permissions import Page, PageScope

READ: ResourceMethod = "GET"
ANSWER: ResourceMethod = "PUT"
TRIGGER: ResourceMethod = "POST"


@dataclass(frozen=True)
class Visitor:
    """A logged-in person who requests a page.

    Attributes:
        user: user object of Airflow's auth manager.
        pages: compliance pages that the visitor may open.
    """

    user: BaseUser
    pages: frozenset[Page]

    @property
    def name(self) -> str:
        """The user name of the visitor. The policy pack lists role members by their user names."""
        return str(self.user.get_name())

    @property
    def ids(self) -> frozenset[str]:
        """The user id and the user name of the visitor.

        Some auth managers use the same text for both. The list of assigned users of a required
        action contains the user ids or the user names.
        """
        return frozenset({str(self.user.get_id()), self.name})

    def readable(self, dags: Iterable[str]) -> frozenset[str]:
        """Return the ids of those DAGs that the visitor may read now.

        Each DAG is checked separately. With Airflow's FAB auth manager, a query for all readable
        DAGs takes a hundred times as long.

        Args:
            dags: ids of the DAGs to check.
        """
        return frozenset(dag for dag in set(dags) if self.reads(dag))

    def reads(self, dag_id: str) -> bool:
        """Return whether the visitor may read a DAG now.

        Args:
            dag_id: id of the DAG.
        """
        return bool(
            get_auth_manager().is_authorized_dag(
                method=READ, details=DagDetails(id=dag_id), user=self.user
            )
        )

    def reads_required_actions(self, dag_id: str) -> bool:
        """Return whether the visitor's Airflow roles permit reading required actions of a DAG."""
        return bool(
            get_auth_manager().is_authorized_dag(
                method=READ,
                access_entity=DagAccessEntity.HITL_DETAIL,
                details=DagDetails(id=dag_id),
                user=self.user,
            )
        )

    def answers(self, dag_id: str) -> bool:
        """Return whether the visitor's Airflow roles permit answering required actions of a DAG."""
        return bool(
            get_auth_manager().is_authorized_dag(
                method=ANSWER,
                access_entity=DagAccessEntity.HITL_DETAIL,
                details=DagDetails(id=dag_id),
                user=self.user,
            )
        )

    def triggers(self, dag_id: str) -> bool:
        """Return whether the visitor's Airflow roles permit triggering a DAG."""
        return bool(
            get_auth_manager().is_authorized_dag(
                method=TRIGGER,
                access_entity=DagAccessEntity.RUN,
                details=DagDetails(id=dag_id),
                user=self.user,
            )
        )

    def has_scope(self, scope: PageScope) -> bool:
        """Return whether the visitor's Airflow roles permit seeing more on a compliance page."""
        return may_open(self.user, scope)

    def require(self, dag_id: str) -> None:
        """Raise HTTPException (403) if the visitor may not read a DAG."""
        if not self.reads(dag_id):
            raise HTTPException(status.HTTP_403_FORBIDDEN)


def name_of(account: str) -> str:
    """Return a person's name and user id, such as "Li Na (li.na)".

    Return the user id if the auth manager does not know the person's name.

    Args:
        account: user id of the person.
    """
    security_manager = getattr(get_auth_manager(), "security_manager", None)
    user = security_manager.find_user(username=account) if security_manager else None
    names = (getattr(user, "first_name", None), getattr(user, "last_name", None))
    name = " ".join(filter(None, (part and part.strip() for part in names)))
    return f"{name} ({account})" if name and name != account else account


def may_open(user: BaseUser, page: Page | PageScope) -> bool:
    """Return whether the Airflow roles of a user permit opening a compliance page, or a scope."""
    return bool(
        get_auth_manager().is_authorized_custom_view(
            method=READ, resource_name=str(page), user=user
        )
    )


def current_visitor(user: GetUserDep) -> Visitor:
    """Return the visitor who sent a request.

    If the request comes from a browser that is not logged in, Airflow responds with status 401 and
    does not call this function.
    """
    return Visitor(user, frozenset(page for page in Page if may_open(user, page)))


def visitor_of(page: Page) -> Callable[[Visitor], Visitor]:
    """Return the FastAPI dependency that admits only visitors with permission to open a page.

    Visitors without the permission get status 403.
    """

    def permitted_visitor(visitor: Annotated[Visitor, Depends(current_visitor)]) -> Visitor:
        if page not in visitor.pages:
            raise HTTPException(status.HTTP_403_FORBIDDEN)
        return visitor

    return permitted_visitor


AnyVisitor = Annotated[Visitor, Depends(current_visitor)]
"""A logged-in visitor, who may have access to no page at all."""
