"""Build the services of a command or task from environment variables, local profile and pack."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from include.local.profile import LocalProfile
from include.policy import SHIPPED
from include.registry import cached_pack, pages_tables
from include.service_container import LOCAL_VARIABLE, ROOT, Lookup, Services
from include.services.clock import Clock, SystemClock
from include.services.connections import configured

if TYPE_CHECKING:
    from include.holds.records import StoredRestorePoint

HOME_VARIABLE, POLICY_VARIABLE = "PARCELSEAL_HOME", "PARCELSEAL_POLICY"
OFF = "off"
COMPILED_PACKS = "packs"  # subfolder of the home folder
PAGES_CONNECTIONS = 8  # state database connections per API server
RECORDING_CONNECTIONS = 2  # further connections, which record openings of extracts


def services_from(environment: Mapping[str, str], lookup: Lookup | None = None) -> Services:
    """Return the services for a home folder and a policy pack.

    Environment variables state the paths of both.

    Args:
        environment: environment variables by name; see docs/reference/connections.md.
        lookup: function that takes the id of a connection and returns the connection, or None if it
            is not configured. By default, it reads the ``AIRFLOW_CONN_*`` variables.
    """
    home = Path(environment.get(HOME_VARIABLE) or ROOT / ".parcelseal").expanduser()
    policy = Path(environment.get(POLICY_VARIABLE) or SHIPPED).expanduser()
    return build_services(
        home.absolute(),
        policy.absolute(),
        lookup or (lambda conn_id: configured(conn_id, environment)),
        use_local_profile=environment.get(LOCAL_VARIABLE, "").strip().lower() != OFF,
    )


def build_services(
    home: Path,
    policy: Path,
    lookup: Lookup,
    clock: Clock | None = None,
    *,
    use_local_profile: bool = True,
) -> Services:
    """Return services that read the whole policy pack, including the files of single workflows.

    Args:
        home: folder of the local profile.
        policy: folder of the policy pack.
        lookup: function that takes the id of a connection and returns the connection, or None if it
            is not configured.
        clock: source of the current time; by default the system clock.
        use_local_profile: whether the local profile replaces connections that are not configured.
    """
    # A read-only command creates no home, so it stores no compiled pack; production always does.
    cache_folder = home / COMPILED_PACKS if home.exists() or not use_local_profile else None
    return Services(
        home,
        policy,
        lookup,
        clock or SystemClock(),
        load=partial(cached_pack, cache_folder=cache_folder),
        replacements=LocalProfile(home) if use_local_profile else None,
        list_restore_points=_restore_points,
    )


def _restore_points(services: Services, database: str) -> list[StoredRestorePoint]:
    from include.backup.listing import stored_restore_points  # a slow import that few callers need

    return stored_restore_points(services, database)


def pages_engine(services: Services) -> Engine:
    """Return an engine of the state database with the read-only login of the compliance pages.

    Raises:
        UsageError: the schema of the state database is older than the code. It is migrated
            automatically only in the local profile.
    """
    from include.state.connect import reading_engine
    from include.state.migrate import ensure_current

    engine = reading_engine(_pages_conninfo(services), PAGES_CONNECTIONS)
    ensure_current(engine)
    return engine


def pages_recording_engine(services: Services) -> Engine:
    """Return an engine with the login of the compliance pages that may insert rows.

    The rights of the login limit the inserts to the tables that `grant_pages` names.

    Raises:
        UsageError: the schema of the state database is older than the code, as in `pages_engine`.
    """
    from include.state.connect import recording_engine
    from include.state.migrate import ensure_current

    engine = recording_engine(_pages_conninfo(services), RECORDING_CONNECTIONS)
    ensure_current(engine)
    return engine


def _pages_conninfo(services: Services) -> str:
    """Return the address of the pages' login. In the local profile, grant its rights first."""
    from include.state.reading import grant_pages

    address = services.role_database("pages_db", "state_db")
    if services.is_local("pages_db") and services.is_local("state_db"):
        with services.state.begin() as conn:
            grant_pages(conn, services.connection("pages_db").login, pages_tables())
    return address.conninfo()
