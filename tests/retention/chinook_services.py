"""Services for the sample database Chinook, with its policy pack and a state database.

They do not need Airflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from include.composition import build_services
from include.notify.outbox import Run
from include.retention.database import RetentionDatabase
from include.service_container import Services
from include.services.connections import ConnectionSpec
from include.state.connect import engine
from include.state.migrate import migrate
from include.workflow.run_context import RunContext
from tests.retention.chinook_pack import DATABASE, chinook_pack

KEYS = {"erasure_keys": {"current": "1", "keys": {"1": "k" * 32}}}
RUN = ("enforce_retention", "run 1")


def chinook_services(
    folder: Path, customers: str, state: str, script: str = "", disposition: str = ""
) -> Services:
    """Load Chinook into a database and build its services.

    Args:
        folder: folder for the policy pack and the home.
        customers: connection string of an empty database.
        state: connection string of another empty database.
        script: SQL to run in the loaded database.
        disposition: further lines of disposition.yaml.
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
    return build_services(folder / "home", pack, specs.get)


def spec(conn_id: str, conninfo: str, extra: Mapping[str, Any] | None = None) -> ConnectionSpec:
    """Convert a libpq connection string to the specification of an Airflow connection."""
    parts = {key: str(value) for key, value in conninfo_to_dict(conninfo).items()}
    return ConnectionSpec(
        conn_id=conn_id,
        conn_type="postgres",
        host=parts["host"],
        login=parts["user"],
        password=parts["password"],
        schema=parts["dbname"],
        extra=extra or {},
    )


def chinook_in_run(
    services: Services, run_id: str = RUN[1], starter: str | None = None
) -> RetentionDatabase:
    """Return the database Chinook in a run of `enforce_retention`."""
    return RetentionDatabase(
        RunContext(services, None, Run(RUN[0], run_id), triggered_by=starter), "chinook"
    )
