"""Airflow's own database, where FAB keeps roles and users: whether it can be written to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.configuration import conf
from airflow.exceptions import AirflowConfigException
from airflow.providers.fab.auth_manager.fab_auth_manager import FabAuthManager
from airflow.providers.fab.auth_manager.models.db import FABDBManager
from airflow.providers.fab.www.security_appless import ApplessAirflowSecurityManager
from airflow.utils.session import create_session
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from include.orchestration.access.manager import AccountFabAuthManager
from include.services.errors import ServiceError, UsageError

MANAGER = f"{AccountFabAuthManager.__module__}.{AccountFabAuthManager.__name__}"


@contextmanager
def fab_session() -> Iterator[Session]:
    """Open one transaction on FAB's tables: all of what is written in it is seen at once.

    Raises:
        UsageError: Airflow is set up with another auth manager, or its database is not migrated.
        ServiceError: the database does not answer, or somebody else writes the same.
    """
    require_manager()
    try:
        with create_session() as session:
            require_migrated(session)
            _make_own_roles_of_fab(session)
            yield session
    except OperationalError:
        raise ServiceError(
            "Airflow's database cannot be reached, or refuses the login.",
            "Correct sql_alchemy_conn of [database] in Airflow's settings.",
        ) from None
    except IntegrityError:
        raise ServiceError(
            "Somebody else wrote the same roles at this moment; nothing was changed.",
            "Run the command again.",
        ) from None


def require_manager() -> None:
    """Refuse to write roles that the auth manager of these settings would not understand.

    Raises:
        UsageError: it is another one, FAB's own too.
    """
    found = conf.get("core", "auth_manager")
    try:
        kind = conf.getimport("core", "auth_manager")
    except AirflowConfigException:
        kind = None
    known = isinstance(kind, type) and issubclass(kind, AccountFabAuthManager)
    if not known or FabAuthManager.__name__ not in found:
        raise UsageError(
            f"Airflow's auth manager is {found}, which does not know these roles.",
            f"Set AIRFLOW__CORE__AUTH_MANAGER={MANAGER} on every component.",
        )


def require_migrated(session: Session) -> None:
    """Refuse a database that has not FAB's newest tables.

    Raises:
        UsageError: it has none, or older ones.
    """
    tables = FABDBManager(session)  # type: ignore[no-untyped-call]
    head = tables.get_script_object().get_current_head()
    found = tables.get_current_revision()  # type: ignore[no-untyped-call]
    if found != head:
        raise UsageError(
            f"Airflow's database is not migrated: FAB's tables are at {found}, not at {head}.",
            "Run `airflow db migrate` with the same settings.",
        )


def _make_own_roles_of_fab(session: Session) -> None:
    """Make Admin and FAB's other roles where Airflow was never started, by FAB's own rules."""
    manager = ApplessAirflowSecurityManager(session=session)
    if manager.find_role("Admin") is None:
        manager.sync_roles()
