"""Put the services of a command or a task together: environment, local profile, policy pack."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from include.local.profile import LocalProfile
from include.policy import SHIPPED
from include.registry import kept_pack, pages_tables
from include.services.clock import Clock, SystemClock
from include.services.connections import configured
from include.workplace import LOCAL_VARIABLE, ROOT, Lookup, Workplace

if TYPE_CHECKING:
    from include.holds.records import StoredRestorePoint

HOME_VARIABLE, POLICY_VARIABLE = "PARCELSEAL_HOME", "PARCELSEAL_POLICY"
OFF = "off"
COMPILED_PACKS = "packs"  # folder in the home
PAGES_CONNECTIONS = 8  # that a server of pages keeps to the state database


def workplace_of(environment: Mapping[str, str], lookup: Lookup | None = None) -> Workplace:
    """Return the services that an environment describes.

    Args:
        environment: variables; see docs/connections.md.
        lookup: returns a configured connection; by default one of the environment's
            ``AIRFLOW_CONN_*``.
    """
    home = Path(environment.get(HOME_VARIABLE) or ROOT / ".parcelseal").expanduser()
    policy = Path(environment.get(POLICY_VARIABLE) or SHIPPED).expanduser()
    return new_workplace(
        home.absolute(),
        policy.absolute(),
        lookup or (lambda conn_id: configured(conn_id, environment)),
        stand_ins=environment.get(LOCAL_VARIABLE, "").strip().lower() != OFF,
    )


def new_workplace(
    home: Path,
    policy: Path,
    lookup: Lookup,
    clock: Clock | None = None,
    *,
    stand_ins: bool = True,
) -> Workplace:
    """Return services with the sections of all workflows in their policy pack.

    Args:
        home: folder of the local profile.
        policy: folder of the policy pack.
        lookup: returns a configured connection, or None.
        clock: the time; by default the system's.
        stand_ins: whether the local profile stands in for connections that are not configured.
    """
    # A command that only looks makes no home; in production the pack is compiled all the same.
    forms = home / COMPILED_PACKS if home.exists() or not stand_ins else None
    return Workplace(
        home,
        policy,
        lookup,
        clock or SystemClock(),
        load=partial(kept_pack, forms=forms),
        stand_ins=LocalProfile(home) if stand_ins else None,
        list_restore_points=_restore_points,
    )


def _restore_points(services: Workplace, database: str) -> list[StoredRestorePoint]:
    from include.backup.listing import stored_restore_points  # loads slowly, and few need it

    return stored_restore_points(services, database)


def pages_engine(services: Workplace) -> Engine:
    """Return the state database with the login of the compliance pages, ``pages_db``.

    Raises:
        UsageError: migrations are pending (only the local profile migrates by itself).
    """
    from include.state.connect import reading_engine
    from include.state.migrate import ensure_current
    from include.state.reading import grant_pages

    address = services.role_database("pages_db", "state_db")
    if services.is_local("pages_db") and services.is_local("state_db"):
        with services.state.begin() as conn:
            grant_pages(conn, services.connection("pages_db").login, pages_tables())
    engine = reading_engine(address.conninfo(), PAGES_CONNECTIONS)
    ensure_current(engine)
    return engine
