"""A task reads each connection once from Airflow."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from include.orchestration import run
from include.services.connections import ConnectionSpec

pytestmark = pytest.mark.airflow


def test_task_reads_each_connection_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every further read of a connection would be another request to Airflow's API."""
    asked: list[str] = []

    def get(conn_id: str) -> Any:
        asked.append(conn_id)
        return SimpleNamespace(
            conn_type="postgres", host="h", port=len(asked), login="", password="",
            schema="", extra_dejson={},
        )  # fmt: skip

    monkeypatch.setattr(run, "Connection", SimpleNamespace(get=get))
    first, second = run.task_services(), run.task_services()
    connections = [first.lookup("state_db"), first.lookup("state_db"), second.lookup("state_db")]
    assert all(isinstance(connection, ConnectionSpec) for connection in connections)
    assert [connection.port for connection in connections if connection] == [1, 1, 2]
    assert asked == ["state_db", "state_db"]
