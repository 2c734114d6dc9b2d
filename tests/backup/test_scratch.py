"""Test that scratch databases are always dropped, and that no other database is dropped."""

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
    """Create a database whose name begins like that of a scratch database, but do not record it."""
    name = f"{PREFIX}{uuid.uuid4().hex[:8]}"
    with server.connect(autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
        yield name
        conn.execute(f"DROP DATABASE {name}")


def test_scratch_database_exists_only_inside_its_with_block(server: DatabaseAddress, state: Engine):
    """It is recorded in the state database before it exists, and dropped even after an error."""
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
        copy.connect(),  # dropped although a session is connected
    ):
        raise ZeroDivisionError
    assert names(server) == before
    with state.connect() as conn:
        assert None not in list(conn.scalars(select(scratch_database.c.dropped_at)))


def test_only_owner_may_connect_to_scratch_database(server: DatabaseAddress, state: Engine) -> None:
    """Until the replay of erasures, the database contains erased records."""
    allowed = "SELECT has_database_privilege('public', current_database(), 'CONNECT')"
    with scratch(server, state, dag_id="d", run_id="r", clock=CLOCK) as copy:
        assert rows(copy, allowed) == [(False,)]


def test_creation_of_scratch_database_raises_service_error_if_its_name_exists_already(
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


def test_drop_raises_value_error_if_database_name_is_not_that_of_a_scratch_database(
    server: DatabaseAddress, state: Engine
):
    for name in ("postgres", "courier", "", f"x{PREFIX}"):
        with pytest.raises(ValueError, match="is not a scratch database"):
            drop(server, name, state, CLOCK)


def test_error_of_failed_scratch_database_creation_contains_the_server_name(
    server: DatabaseAddress, state: Engine
) -> None:
    """The template database is locked. The next drill finds no database to drop."""
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


def test_drop_left_over_drops_only_databases_recorded_for_the_server(
    server: DatabaseAddress, state: Engine, bystander: str
):
    """A recorded database that no longer exists is not an error."""
    entered = f"{PREFIX}{uuid.uuid4().hex[:8]}"
    with server.connect(autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {entered}")
    host = server.display_name.removeprefix("postgres on ")
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


def test_drop_left_over_keeps_database_in_use(server: DatabaseAddress, state: Engine):
    """Another restore drill still uses the database."""
    with scratch(server, state, dag_id="d", run_id="r", clock=CLOCK) as copy:
        run(copy, "CREATE TABLE t ()")
        assert drop_left_over(server, state, CLOCK) == []
        assert copy.name in names(server)


def test_scratch_database_is_dropped_without_superuser_although_autovacuum_is_running(
    server: DatabaseAddress, state: Engine
):
    """Only a superuser may end an autovacuum worker by DROP with FORCE.

    So a DROP without FORCE waits.
    """
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
