"""Airflow's auth manager in production: FAB with three changes that ParcelSeal's controls need.

1. The user id is the account name. FAB identifies users by a number, but the policy pack, the staff
   table and sealed reports name people by their account.
2. A user may trigger a DAG, or answer its human steps, without the right to pause it. In FAB, all
   three need the same permission.
3. Log-ins are refused after too many wrong passwords. FAB's `/auth/token` accepts any number.
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
    """A FAB user whose user id is the account name.

    All other attributes are those of the FAB user.
    """

    def __init__(self, user: User) -> None:
        self._user = user

    def get_id(self) -> str:
        """Return the account name, which identifies the user in policy packs and staff tables."""
        return str(self._user.username)

    def get_name(self) -> str:
        """Return the account name, which Airflow displays."""
        return str(self._user.username)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._user, name)


class AccountFabAuthManager(FabAuthManager):
    """FAB's auth manager, with account names as user ids and with permissions on parts of a DAG.

    A part of a DAG is, for example, its runs, its logs or its required actions.

    The class name must contain ``FabAuthManager``. Only then does Airflow create the permissions of
    each parsed DAG, and only then does `airflow db clean` find the table of sessions.
    """

    def get_fastapi_app(self) -> FastAPI | None:
        """Return FAB's web app with a limit on failed log-ins."""
        app = super().get_fastapi_app()
        if app is not None:
            app.add_middleware(LoginThrottle)
        return app

    # FAB caches the result of its own method; this method wraps the cached user.
    def deserialize_user(self, token: dict[str, Any]) -> User:  # type: ignore[override]
        """Return the user whom an authentication token names.

        Raises:
            ValueError: the user does not exist, or may no longer log in.
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
        """Return whether a user may access a DAG, or a part of it such as its logs.

        Besides FAB's own rules, a permission on a part of one DAG gives access to this part, if the
        user may read the DAG. An example is ``can_edit`` on ``HITL Detail:enforce_retention``. FAB
        would require ``can_edit`` on the whole DAG, which includes the right to pause the DAG.

        Args:
            method: kind of access, such as ``GET`` or ``PUT``.
            user: the user.
            access_entity: part of the DAG; None for the DAG itself.
            details: contains the DAG id; None if the request is not about a single DAG.
        """
        if super().is_authorized_dag(
            method=method, user=user, access_entity=access_entity, details=details
        ):
            return True
        if access_entity is None or details is None or not details.id:
            return False
        return self._is_authorized_dag("GET", details, user) and all(
            self._is_authorized(
                method=method, resource_type=part_of(get_fab_resource_type, details.id), user=user
            )
            for get_fab_resource_type in self._get_fab_resource_types(access_entity)
        )
