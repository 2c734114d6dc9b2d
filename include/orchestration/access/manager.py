"""Airflow's auth manager in production: FAB, with what a control needs beside it.

FAB leaves three things open. It knows people by a number, but the policy pack, the staff table and
every sealed report name them by account. It lets people answer a step of a DAG, or trigger it, only
if they may pause the DAG too. And `/auth/token` accepts any number of wrong passwords.
"""

from __future__ import annotations

from typing import Any, cast

from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.providers.fab.auth_manager.fab_auth_manager import FabAuthManager
from airflow.providers.fab.auth_manager.models import User
from fastapi import FastAPI

from include.orchestration.access.permissions import part_of
from include.orchestration.access.throttle import LoginThrottle


class Account(BaseUser):
    """A user of FAB whose id is the name with which they log in; all else is FAB's."""

    def __init__(self, user: User) -> None:
        self._user = user

    def get_id(self) -> str:
        """Return the account, as packs and staff tables name it."""
        return str(self._user.username)

    def get_name(self) -> str:
        """Return the account."""
        return str(self._user.username)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._user, name)


class AccountFabAuthManager(FabAuthManager):
    """FAB, where people are known by account and parts of one DAG can be granted.

    Airflow looks for ``FabAuthManager`` in the name that is set: only then it makes the permissions
    of each DAG that it parses, and `airflow db clean` knows the table of sessions.
    """

    def get_fastapi_app(self) -> FastAPI | None:
        """Return FAB's app, which refuses log-ins after too many failed ones."""
        app = super().get_fastapi_app()
        if app is not None:
            app.add_middleware(LoginThrottle)
        return app

    # FAB's own is wrapped by its cache; what is wrapped here is what that one returns
    def deserialize_user(self, token: dict[str, Any]) -> User:  # type: ignore[override]
        """Return who a token was made for.

        Raises:
            ValueError: there is no such user, or they may not log in any more.
        """
        return cast("User", Account(super().deserialize_user(token)))

    def is_authorized_dag(
        self,
        *,
        method: ResourceMethod,
        user: User,
        access_entity: DagAccessEntity | None = None,
        details: DagDetails | None = None,
    ) -> bool:
        """Whether a user may do that: by FAB's rules, or by permissions on the parts of this DAG.

        Such a permission, as ``can_edit`` on ``HITL Detail:enforce_retention``, counts for whoever
        may read the DAG; FAB would ask for leave to change the DAG as well, which pauses it.
        """
        if super().is_authorized_dag(
            method=method, user=user, access_entity=access_entity, details=details
        ):
            return True
        if access_entity is None or details is None or not details.id:
            return False
        return self._is_authorized_dag("GET", details, user) and all(
            self._is_authorized(method=method, resource_type=part_of(one, details.id), user=user)
            for one in self._get_fab_resource_types(access_entity)
        )
