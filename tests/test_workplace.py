"""A workplace makes services of connections, and says which part of one cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from include.services.errors import UsageError
from include.workplace import Workplace


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"keys": {"1": "x" * 32}},
        {"current": "2", "keys": {"1": "x" * 32}},
        {"current": "1", "keys": ["x"]},
        {"current": "1"},
    ],
)
def test_erasure_keys_without_a_current_one_are_refused(
    tmp_path: Path, given: dict[str, object]
) -> None:
    """By name of the connection, with an example; never a traceback."""
    extra = json.dumps({"extra": {"erasure_keys": given}, "conn_type": "postgres"})
    environment = {"PARCELSEAL_HOME": str(tmp_path), "AIRFLOW_CONN_STATE_DB": extra}
    place = Workplace.from_environment(environment)
    with pytest.raises(UsageError, match="state_db"):
        _ = place.erasure_keys


def test_erasure_keys_are_read_by_name(tmp_path: Path) -> None:
    """Numbers as names are names."""
    keys = {"current": 1, "keys": {1: "x" * 32}}
    extra = json.dumps({"extra": {"erasure_keys": keys}, "conn_type": "postgres"})
    environment = {"PARCELSEAL_HOME": str(tmp_path), "AIRFLOW_CONN_STATE_DB": extra}
    assert Workplace.from_environment(environment).erasure_keys.current == "1"
