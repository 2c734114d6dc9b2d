"""Chinook at a workplace: its own pack, a state database, and no Airflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from include.composition import new_workplace
from include.notify.outbox import Run
from include.retention.database import RetentionDatabase
from include.services.connections import ConnectionSpec
from include.state.connect import engine
from include.state.migrate import migrate
from include.workflow.run_context import RunContext
from include.workplace import Workplace
from tests.retention.chinook import DATABASE, chinook_pack

KEYS = {"erasure_keys": {"current": "1", "keys": {"1": "k" * 32}}}
RUN = ("enforce_retention", "run 1")


def chinook_place(
    folder: Path, customers: str, state: str, script: str = "", disposition: str = ""
) -> Workplace:
    """Load Chinook and make a workplace for it.

    Args:
        folder: for the pack and the home.
        customers: connection string of an empty database.
        state: of another.
        script: SQL that runs in the loaded database.
        disposition: lines for disposition.yaml.
    """
    with psycopg.connect(customers) as connection:
        connection.execute(DATABASE.read_bytes())
        connection.execute(script.encode())
    migrate(engine(state))
    pack = chinook_pack(folder / "pack")
    with (pack / "disposition.yaml").open("a", encoding="utf-8") as file:
        file.write(disposition)
    specs = {
        "customer_db": spec("customer_db", customers),
        "state_db": spec("state_db", state, KEYS),
    }
    return new_workplace(folder / "home", pack, specs.get)


def spec(conn_id: str, conninfo: str, extra: Mapping[str, Any] | None = None) -> ConnectionSpec:
    """Return a libpq connection string as Airflow's connection."""
    given = {key: str(value) for key, value in conninfo_to_dict(conninfo).items()}
    return ConnectionSpec(
        conn_id=conn_id,
        conn_type="postgres",
        host=given["host"],
        login=given["user"],
        password=given["password"],
        schema=given["dbname"],
        extra=extra or {},
    )


def chinook_in_run(
    place: Workplace, run_id: str = RUN[1], starter: str | None = None
) -> RetentionDatabase:
    """Chinook in a run."""
    return RetentionDatabase(
        RunContext(place, None, Run(RUN[0], run_id), triggered_by=starter), "chinook"
    )
