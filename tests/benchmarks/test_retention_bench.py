"""Test that the benchmark's simulated application connects before the measurement starts."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import psycopg

from benchmarks._retention_bench import PER_SECOND, _Process
from benchmarks._retention_load import CONNECTIONS
from include.local.postgres import EmbeddedPostgres
from tests.support.databases import temporary_database

# Seconds, longer than a fixed pause would be. The lock simulates a server that is too busy.
BUSY = 2.0
_CONNECTED = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"


def test_measurement_begins_after_simulated_application_has_connected_to_busy_server(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    with (
        temporary_database(postgres) as name,
        psycopg.connect(postgres.conninfo("postgres")) as admin,
    ):
        conninfo = postgres.conninfo(name)
        with psycopg.connect(conninfo) as connection:
            connection.execute("CREATE TABLE parcel (id int PRIMARY KEY, status int NOT NULL)")
        file = tmp_path / "load.json"
        file.write_text(
            json.dumps({"database": conninfo, "rows": 1, "per_second": PER_SECOND, "count": ""})
        )
        with psycopg.connect(postgres.conninfo("postgres")) as busy:
            busy.execute("LOCK TABLE pg_catalog.pg_database IN ACCESS EXCLUSIVE MODE")
            free = threading.Timer(BUSY, busy.rollback)
            free.start()
            with _Process("updates", file) as process:
                counted = admin.execute(_CONNECTED, [name]).fetchone()
            free.join()
    assert counted == (CONNECTIONS,)
    assert process.took
