"""Scratch databases: a name of their own, always dropped, and nothing else is ever dropped."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, insert, select

from include.backup.scratch import PREFIX, drop, drop_left_over, scratch
from include.services.clock import FixedClock
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError
from include.state.tables import scratch_database
from tests.backup.support import NOW, rows, run

CLOCK = FixedClock(NOW)


def names(server: DatabaseAddress) -> set[object]:
    return {row[0] for row in rows(server, "SELECT datname FROM pg_database")}


@pytest.fixture
def bystander(server: DatabaseAddress) -> Iterator[str]:
    """A database with the prefix that no drill of ours entered in state."""
    name = f"{PREFIX}{uuid.uuid4().hex[:8]}"
    with server.connect(autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
        yield name
        conn.execute(f"DROP DATABASE {name}")


def test_it_is_there_inside_and_gone_afterwards(server: DatabaseAddress, state: Engine):
    """Empty, UTF-8, entered in state before it exists; also when the drill fails in it."""
    before = names(server)
    with scratch(server, set(), state, dag_id="d", run_id="r", clock=CLOCK) as copy:
        assert names(server) - before == {copy.name}
        assert copy.name.startswith(PREFIX)
        assert rows(copy, "SHOW server_encoding") == [("UTF8",)]
        with state.connect() as conn:
            assert list(conn.scalars(select(scratch_database.c.name))) == [copy.name]
    assert names(server) == before
    with (
        pytest.raises(ZeroDivisionError),
        scratch(server, set(), state, dag_id="d", run_id="r", clock=CLOCK) as copy,
        copy.connect(),  # dropped although somebody is connected
    ):
        raise ZeroDivisionError
    assert names(server) == before
    with state.connect() as conn:
        assert None not in list(conn.scalars(select(scratch_database.c.dropped_at)))


@pytest.mark.parametrize("taken", ["live", "there"])
def test_a_name_that_is_taken_is_never_touched(
    server: DatabaseAddress,
    state: Engine,
    bystander: str,
    monkeypatch: pytest.MonkeyPatch,
    taken: str,
):
    """Should the generated name be a live one's, nothing is created and nothing dropped."""
    token = bystander.removeprefix(PREFIX)
    name = f"{PREFIX}{NOW:%Y%m%d%H%M%S}_{token}"
    monkeypatch.setattr("secrets.token_hex", lambda _: token)
    if taken == "there":
        with server.connect(autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {name}")
    live = {name} if taken == "live" else set()
    before = names(server)
    with (
        pytest.raises(ServiceError, match="is taken"),
        scratch(server, live, state, dag_id="d", run_id="r", clock=CLOCK),
    ):
        pytest.fail("it was created")
    assert names(server) == before
    if taken == "there":
        with server.connect(autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {name}")


def test_only_scratch_names_can_be_dropped(server: DatabaseAddress, state: Engine):
    """Whatever a caller passes."""
    for name in ("postgres", "courier", "", f"x{PREFIX}"):
        with pytest.raises(ValueError, match="is not a scratch database"):
            drop(server, name, state, CLOCK)


def test_left_overs_of_this_server_are_dropped_and_no_others(
    server: DatabaseAddress, state: Engine, bystander: str
):
    """Those entered in state, once; one that is already gone is no error."""
    entered = f"{PREFIX}{uuid.uuid4().hex[:8]}"
    with server.connect(autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {entered}")
    host = server.place.removeprefix("postgres on ")
    with state.begin() as conn:
        for name, where in ((entered, host), (f"{PREFIX}gone", host), (bystander, "elsewhere")):
            conn.execute(
                insert(scratch_database).values(
                    name=name, server=where, created_at=NOW, dag_id="d", run_id="r"
                )
            )
    assert set(drop_left_over(server, state, CLOCK)) == {entered, f"{PREFIX}gone"}
    assert entered not in names(server)
    assert bystander in names(server)
    assert drop_left_over(server, state, CLOCK) == []


def test_a_scratch_database_in_use_is_no_left_over(server: DatabaseAddress, state: Engine):
    """Another drill is at work in it."""
    with scratch(server, set(), state, dag_id="d", run_id="r", clock=CLOCK) as copy:
        run(copy, "CREATE TABLE t ()")
        assert drop_left_over(server, state, CLOCK) == []
        assert copy.name in names(server)
