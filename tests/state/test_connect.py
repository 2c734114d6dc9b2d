"""Connections to the state database commit durably."""

from __future__ import annotations

import pytest

from include.state.connect import engine


@pytest.mark.parametrize(("server", "expected"), [("off", "on"), ("local", "local"), ("on", "on")])
def test_engine_of_state_database_turns_synchronous_commit_on_only_if_it_is_off(
    database: str, server: str, expected: str
) -> None:
    """A record is deleted after it was entered in the erasure ledger.

    The entry must not be lost.
    """
    conninfo = f"{database}&options=-csynchronous_commit%3D{server}"
    if "://" not in database:
        conninfo = f"{database} options='-csynchronous_commit={server}'"
    with engine(conninfo).connect() as conn:
        assert conn.exec_driver_sql("SHOW synchronous_commit").scalar_one() == expected
