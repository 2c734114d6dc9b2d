"""What sessions and transactions are set to, also where another backend serves the next one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from include.erasure.ledger import driver_of
from include.local.postgres import EmbeddedPostgres
from include.retention.execution import executor
from include.retention.execution.state import ExecutionState
from include.retention.postgres.session import ONE_CORE, WRITE_AT_ONCE, one_view, prepare
from include.services.database import PRINTING
from include.services.errors import ServiceError, UsageError
from tests.retention.yard import KEYS, OVER, Yard, rule, yard

AWAY = (
    "SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = 'sql_standard'; "
    "SET search_path = pg_catalog; SET synchronous_commit = off"
)


@pytest.fixture
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    with yard(postgres) as made:
        yield made


def _setting(connection: psycopg.Connection[Any], name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def test_a_view_is_set_up_on_whichever_backend_it_is(place: Yard) -> None:
    """A pooler may have handed out a session that `prepare` never saw."""
    with place.session() as connection:
        connection.execute(AWAY)
        with one_view(connection, place.database):
            assert {name: _setting(connection, name) for name in PRINTING} == PRINTING
            assert _setting(connection, "search_path") == f'"{place.name}", pg_catalog'
            assert _setting(connection, "synchronous_commit") == "on"
        assert _setting(connection, "TimeZone") == "Asia/Tokyo"


def test_keys_are_printed_alike_on_whichever_backend_a_batch_is(
    place: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger has the record under the name by which a replay looks for it."""
    place.run(f"""
    CREATE TABLE a (born timestamptz PRIMARY KEY, at date);
    INSERT INTO a VALUES ('2001-02-03 04:05+00', '{OVER}');
    """)
    place.rules = [rule("a")]
    plan = place.plan()

    def pooled(connection: psycopg.Connection[Any], database: Any) -> None:
        prepare(connection, database)
        connection.execute(AWAY)

    monkeypatch.setattr(executor, "prepare", pooled)
    assert place.execute(plan).done == {"a": 1}
    digest = KEYS.digest("1", place.name, "a", ["2001-02-03 04:05:00+00"])
    with place.state.connect() as conn:
        found = conn.exec_driver_sql("SELECT FROM erasure WHERE key_hmac = %s", (digest,))
        assert found.rowcount == 1


def test_a_standby_that_takes_rows_away_is_told_and_retried(place: Yard) -> None:
    """PostgreSQL cancels such a statement with the code that is raised here."""
    with (
        place.session() as connection,
        pytest.raises(ServiceError, match=r"SQLSTATE 40001\): on a standby"),
        one_view(connection, place.database),
    ):
        connection.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")


@pytest.mark.parametrize("code", ["26000", "42P05"])
def test_a_pooler_that_forgets_prepared_statements_is_named(place: Yard, code: str) -> None:
    """It is no fault of the pack's SQL."""
    with (
        place.session() as connection,
        pytest.raises(UsageError, match="does not know prepared statements"),
        one_view(connection, place.database),
    ):
        connection.execute(f"DO $$ BEGIN RAISE SQLSTATE '{code}'; END $$".encode())


def _flushed(
    place: Yard, monkeypatch: pytest.MonkeyPatch, before: str = ""
) -> set[tuple[str, str]]:
    """Delete three records; returns what the batch's session, and the ledger's, were set to."""
    place.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date);
    INSERT INTO a SELECT n, '{OVER}' FROM generate_series(1, 3) AS n;
    """)
    place.rules = [rule("a")]
    plan = place.plan()
    seen: set[tuple[str, str]] = set()
    write, confirm = ExecutionState.written, ExecutionState.confirm

    def written(state: ExecutionState) -> None:
        row = driver_of(state.ledger).execute("SHOW backend_flush_after").fetchone()
        seen.add(("ledger", str(row and row[0])))
        write(state)

    def confirmed(state: ExecutionState) -> None:
        seen.add(("batch", _setting(state.connection, "backend_flush_after")))
        confirm(state)

    def prepared(connection: psycopg.Connection[Any], database: Any) -> None:
        prepare(connection, database)
        connection.execute(before or "SELECT 1")

    monkeypatch.setattr(ExecutionState, "written", written)
    monkeypatch.setattr(ExecutionState, "confirm", confirmed)
    monkeypatch.setattr(executor, "prepare", prepared)
    assert place.execute(plan).done == {"a": 3}
    return seen


def test_what_a_batch_writes_goes_to_the_disk_at_once(
    place: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the operating system writes it half a minute later, and every commit beside waits."""
    assert _flushed(place, monkeypatch) >= {("ledger", "256kB"), ("batch", "256kB")}


def test_what_the_server_says_itself_of_writing_stays(
    place: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody chose it for this server."""
    found = _flushed(place, monkeypatch, "SET backend_flush_after = '1MB'")
    assert ("batch", "1MB") in found


def test_a_batch_leaves_its_session_as_it_was(place: Yard) -> None:
    """A pooler gives it to the application next."""
    with place.session() as connection:
        with connection.transaction():
            connection.execute(WRITE_AT_ONCE, {"is_local": True})
            assert _setting(connection, "backend_flush_after") == "256kB"
        assert _setting(connection, "backend_flush_after") == "0"
        with one_view(connection, place.database, ONE_CORE):
            assert _setting(connection, "max_parallel_workers_per_gather") == "0"
        assert _setting(connection, "max_parallel_workers_per_gather") != "0"


def test_a_missing_right_is_named_with_its_table(place: Yard) -> None:
    """The server says no more than this of it; a trigger's words with the same code stay out."""
    place.run("CREATE TABLE secret (id int); CREATE ROLE nobody_here")
    with place.session() as connection:
        place.run(f"GRANT USAGE ON SCHEMA {place.name} TO nobody_here")
        connection.execute("SET ROLE nobody_here")
        with (
            pytest.raises(UsageError, match=r"SQLSTATE 42501, table secret\)"),
            one_view(connection, place.database),
        ):
            connection.execute("SELECT FROM secret")
        with (
            pytest.raises(UsageError, match=r"SQLSTATE 42501\)"),
            one_view(connection, place.database),
        ):
            connection.execute(
                "DO $$ BEGIN RAISE 'permission denied for table of Wang' "
                "USING ERRCODE = '42501'; END $$"
            )
    place.run("DROP OWNED BY nobody_here; DROP ROLE nobody_here")
