"""Open database sessions on the tables in which Airflow's FAB auth manager stores users."""

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
    """Open a transaction on the tables of the FAB auth manager in Airflow's database.

    If Airflow has not created FAB's default roles yet, they are created first.

    Raises:
        UsageError: Airflow is configured with another auth manager, or its database is not
            migrated.
        ServiceError: the database does not answer, or another process wrote the same roles at the
            same time.
    """
    require_manager()
    try:
        with create_session() as session:
            require_migrated(session)
            _create_default_roles(session)
            yield session
    except OperationalError:
        raise ServiceError(
            "Airflow's database cannot be reached, or refuses the login.",
            "Correct sql_alchemy_conn of [database] in Airflow's settings.",
        ) from None
    except IntegrityError:
        raise ServiceError(
            "Another process wrote the same roles at the same time; nothing was changed.",
            "Run the command again.",
        ) from None


def require_manager() -> None:
    """Check that Airflow's settings name an auth manager that supports ParcelSeal's roles.

    Raises:
        UsageError: the auth manager is not `AccountFabAuthManager` or a subclass.
    """
    manager = conf.get("core", "auth_manager")
    try:
        manager_class = conf.getimport("core", "auth_manager")
    except AirflowConfigException:
        manager_class = None
    is_ours = isinstance(manager_class, type) and issubclass(manager_class, AccountFabAuthManager)
    if not is_ours or FabAuthManager.__name__ not in manager:
        raise UsageError(
            f"Airflow's auth manager is {manager}, which does not know these roles.",
            f"Set AIRFLOW__CORE__AUTH_MANAGER={MANAGER} on every component.",
        )


def require_migrated(session: Session) -> None:
    """Check that FAB's tables in Airflow's database have the current version.

    Raises:
        UsageError: the tables are missing or have another version.
    """
    tables = FABDBManager(session)  # type: ignore[no-untyped-call]
    head = tables.get_script_object().get_current_head()
    current_revision = tables.get_current_revision()  # type: ignore[no-untyped-call]
    if current_revision != head:
        raise UsageError(
            "Airflow's database is not migrated: "
            f"FAB's tables are at {current_revision}, not at {head}.",
            "Run `airflow db migrate` with the same settings.",
        )


def _create_default_roles(session: Session) -> None:
    """Create FAB's default roles, such as Admin, if Airflow has not created them yet."""
    manager = ApplessAirflowSecurityManager(session=session)
    if manager.find_role("Admin") is None:
        manager.sync_roles()
