"""A task asks Airflow for each connection once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from include.orchestration import run
from include.services.connections import ConnectionSpec

pytestmark = pytest.mark.airflow


def test_a_connection_is_looked_up_once_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look is a request to Airflow's API; the next task sees what was changed meanwhile."""
    asked: list[str] = []

    def get(conn_id: str) -> Any:
        asked.append(conn_id)
        return SimpleNamespace(
            conn_type="postgres", host="h", port=len(asked), login="", password="",
            schema="", extra_dejson={},
        )  # fmt: skip

    monkeypatch.setattr(run, "Connection", SimpleNamespace(get=get))
    first, second = run.workplace(), run.workplace()
    found = [first.lookup("state_db"), first.lookup("state_db"), second.lookup("state_db")]
    assert all(isinstance(one, ConnectionSpec) for one in found)
    assert [one.port for one in found if one] == [1, 1, 2]
    assert asked == ["state_db", "state_db"]
