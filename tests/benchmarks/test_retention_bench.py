"""The application beside a deletion is connected before anything is measured."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import psycopg

from benchmarks._retention_bench import PER_SECOND, _Process
from benchmarks._retention_load import CONNECTIONS
from include.local.postgres import EmbeddedPostgres
from tests.support.databases import fresh

# Longer than a fixed pause would be. A lock keeps new sessions out as a busy server does.
BUSY = 2.0
_CONNECTED = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"


def test_the_block_begins_with_open_connections_when_the_server_is_busy(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    with fresh(postgres) as name, psycopg.connect(postgres.conninfo("postgres")) as admin:
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
