"""Connections to the state database: what is committed there is there."""

from __future__ import annotations

import pytest

from include.state.connect import engine


@pytest.mark.parametrize(("server", "ours"), [("off", "on"), ("local", "local"), ("on", "on")])
def test_a_commit_waits_for_the_disk_whatever_the_server_says(
    database: str, server: str, ours: str
) -> None:
    """A record is deleted elsewhere once the ledger has it: a crash must not take that back."""
    conninfo = f"{database}&options=-csynchronous_commit%3D{server}"
    if "://" not in database:
        conninfo = f"{database} options='-csynchronous_commit={server}'"
    with engine(conninfo).connect() as conn:
        assert conn.exec_driver_sql("SHOW synchronous_commit").scalar_one() == ours
