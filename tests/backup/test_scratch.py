"""Scratch databases: a name of their own, always dropped, and nothing else is ever dropped."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine, insert, select

from include.backup.scratch import PREFIX, drop, drop_left_over, scratch
from include.services.clock import FixedClock
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError
from include.state.tables import scratch_database
from tests.backup.support import rows, run
from tests.support.holders import NOW

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
    with scratch(server, state, dag_id="d", run_id="r", clock=CLOCK) as copy:
        assert names(server) - before == {copy.name}
        assert copy.name.startswith(PREFIX)
        assert rows(copy, "SHOW server_encoding") == [("UTF8",)]
        with state.connect() as conn:
            assert list(conn.scalars(select(scratch_database.c.name))) == [copy.name]
    assert names(server) == before
    with (
        pytest.raises(ZeroDivisionError),
        scratch(server, state, dag_id="d", run_id="r", clock=CLOCK) as copy,
        copy.connect(),  # dropped although somebody is connected
    ):
        raise ZeroDivisionError
    assert names(server) == before
    with state.connect() as conn:
        assert None not in list(conn.scalars(select(scratch_database.c.dropped_at)))


def test_nobody_but_its_owner_connects_to_a_scratch_database(
    server: DatabaseAddress, state: Engine
) -> None:
    """Until the replay it holds people who were erased."""
    allowed = "SELECT has_database_privilege('public', current_database(), 'CONNECT')"
    with scratch(server, state, dag_id="d", run_id="r", clock=CLOCK) as copy:
        assert rows(copy, allowed) == [(False,)]


def test_scratch_whose_generated_name_is_taken_creates_and_drops_nothing(
    server: DatabaseAddress,
    state: Engine,
    bystander: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = bystander.removeprefix(PREFIX)
    name = f"{PREFIX}{NOW:%Y%m%d%H%M%S}_{token}"
    monkeypatch.setattr("secrets.token_hex", lambda _: token)
    with server.connect(autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    before = names(server)
    with (
        pytest.raises(ServiceError, match="is taken"),
        scratch(server, state, dag_id="d", run_id="r", clock=CLOCK),
    ):
        pytest.fail("it was created")
    assert names(server) == before
    with server.connect(autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name}")


def test_only_scratch_names_can_be_dropped(server: DatabaseAddress, state: Engine):
    """Whatever a caller passes."""
    for name in ("postgres", "courier", "", f"x{PREFIX}"):
        with pytest.raises(ValueError, match="is not a scratch database"):
            drop(server, name, state, CLOCK)


def test_server_that_cannot_create_the_database_is_named(
    server: DatabaseAddress, state: Engine
) -> None:
    """The template is locked; the next drill finds nothing to drop."""
    before = names(server)
    options = {"options": "-c lock_timeout=100ms"}
    hasty = replace(server, parameters={**server.parameters, **options})
    with server.connect() as conn:
        conn.execute("COMMENT ON DATABASE template0 IS 'locked until the rollback'")
        with (
            pytest.raises(ServiceError, match=r"postgres on .*: canceling statement"),
            scratch(hasty, state, dag_id="d", run_id="r", clock=CLOCK),
        ):
            pass
        conn.rollback()
    assert names(server) == before
    drop_left_over(server, state, CLOCK)
    assert names(server) == before


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
    with scratch(server, state, dag_id="d", run_id="r", clock=CLOCK) as copy:
        run(copy, "CREATE TABLE t ()")
        assert drop_left_over(server, state, CLOCK) == []
        assert copy.name in names(server)


def test_one_that_autovacuum_works_in_is_dropped_by_a_plain_role(
    server: DatabaseAddress, state: Engine
):
    """FORCE would have to end the worker, which only a superuser may; it goes when it is asked."""
    role = f"drill_{uuid.uuid4().hex[:8]}"
    run(server, f"CREATE ROLE {role} LOGIN CREATEDB PASSWORD '{role}'")
    plain = DatabaseAddress({**server.parameters, "user": role, "password": role})
    busy = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' "
        "AND backend_type = 'autovacuum worker'"
    )
    with server.connect(autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET autovacuum_naptime = 1")
        admin.execute("SELECT pg_reload_conf()")
    try:
        with scratch(plain, state, dag_id="d", run_id="r", clock=CLOCK) as copy:
            run(
                copy,
                "CREATE TABLE t (n int) WITH (autovacuum_vacuum_cost_delay = 100, "
                "autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 1);"
                "INSERT INTO t SELECT generate_series(1, 200000); DELETE FROM t",
            )
            until = time.monotonic() + 300
            while rows(server, busy.format(copy.name)) == [(0,)]:
                assert time.monotonic() < until, "no autovacuum worker came"
                time.sleep(0.2)
        assert copy.name not in names(server)
    finally:
        with server.connect(autocommit=True) as admin:
            admin.execute("ALTER SYSTEM RESET autovacuum_naptime")
            admin.execute("SELECT pg_reload_conf()")
            admin.execute(f"DROP ROLE {role}")
