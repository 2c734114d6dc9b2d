"""Tests of the settings of sessions and transactions, with and without a connection pooler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from include.erasure.ledger import psycopg_connection
from include.local.postgres import EmbeddedPostgres
from include.retention.execution import executor
from include.retention.execution.state import ExecutionState
from include.retention.postgres.session import (
    ONE_CORE,
    WRITE_AT_ONCE,
    open_snapshot,
    prepare_session,
)
from include.services.database import PRINTING
from include.services.errors import ServiceError, UsageError
from tests.retention.retention_schema import KEYS, OVER, RetentionSchema, retention_schema, rule

AWAY = (
    "SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = 'sql_standard'; "
    "SET search_path = pg_catalog; SET synchronous_commit = off"
)


@pytest.fixture
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    with retention_schema(postgres) as created:
        yield created


def _setting(connection: psycopg.Connection[Any], name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def test_open_snapshot_sets_formats_and_search_path_if_connection_pooler_switches_sessions(
    schema: RetentionSchema,
) -> None:
    with schema.session() as connection:
        connection.execute(AWAY)
        with open_snapshot(connection, schema.database):
            assert {name: _setting(connection, name) for name in PRINTING} == PRINTING
            assert _setting(connection, "search_path") == f'"{schema.name}", pg_catalog'
            assert _setting(connection, "synchronous_commit") == "on"
        assert _setting(connection, "TimeZone") == "Asia/Tokyo"


def test_execution_reads_primary_keys_in_fixed_format_if_connection_pooler_switches_sessions(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.run(f"""
    CREATE TABLE a (born timestamptz PRIMARY KEY, at date);
    INSERT INTO a VALUES ('2001-02-03 04:05+00', '{OVER}');
    """)
    schema.rules = [rule("a")]
    plan = schema.plan()

    def pooled(connection: psycopg.Connection[Any], database: Any) -> None:
        prepare_session(connection, database)
        connection.execute(AWAY)

    monkeypatch.setattr(executor, "prepare_session", pooled)
    assert schema.execute(plan).done == {"a": 1}
    digest = KEYS.digest("1", schema.name, "a", ["2001-02-03 04:05:00+00"])
    with schema.state.connect() as conn:
        rows = conn.exec_driver_sql("SELECT FROM erasure WHERE key_hmac = %s", (digest,))
        assert rows.rowcount == 1


def test_translate_errors_raises_service_error_for_conflict_on_standby(
    schema: RetentionSchema,
) -> None:
    with (
        schema.session() as connection,
        pytest.raises(ServiceError, match=r"SQLSTATE 40001\): on a standby"),
        open_snapshot(connection, schema.database),
    ):
        connection.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")


@pytest.mark.parametrize("code", ["26000", "42P05"])
def test_translate_errors_raises_usage_error_if_pooler_does_not_support_prepared_statements(
    schema: RetentionSchema, code: str
) -> None:
    with (
        schema.session() as connection,
        pytest.raises(UsageError, match="does not support prepared statements"),
        open_snapshot(connection, schema.database),
    ):
        connection.execute(f"DO $$ BEGIN RAISE SQLSTATE '{code}'; END $$".encode())


def _flushed(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch, before: str = ""
) -> set[tuple[str, str]]:
    """Delete three records, and return the flush settings of the batch and of the ledger."""
    schema.run(f"""
    CREATE TABLE a (id int PRIMARY KEY, at date);
    INSERT INTO a SELECT n, '{OVER}' FROM generate_series(1, 3) AS n;
    """)
    schema.rules = [rule("a")]
    plan = schema.plan()
    seen: set[tuple[str, str]] = set()
    write, confirm = ExecutionState.commit_batch, ExecutionState.confirm

    def written(state: ExecutionState) -> None:
        row = psycopg_connection(state.ledger).execute("SHOW backend_flush_after").fetchone()
        seen.add(("ledger", str(row and row[0])))
        write(state)

    def confirmed(state: ExecutionState) -> None:
        seen.add(("batch", _setting(state.connection, "backend_flush_after")))
        confirm(state)

    def prepared(connection: psycopg.Connection[Any], database: Any) -> None:
        prepare_session(connection, database)
        connection.execute(before or "SELECT 1")

    monkeypatch.setattr(ExecutionState, "commit_batch", written)
    monkeypatch.setattr(ExecutionState, "confirm", confirmed)
    monkeypatch.setattr(executor, "prepare_session", prepared)
    assert schema.execute(plan).done == {"a": 3}
    return seen


def test_batch_and_ledger_transactions_set_backend_flush_after_to_256_kilobytes(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the operating system writes the pages later, and all commits wait meanwhile."""
    assert _flushed(schema, monkeypatch) >= {("ledger", "256kB"), ("batch", "256kB")}


def test_batch_transaction_keeps_backend_flush_after_if_session_already_sets_it(
    schema: RetentionSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = _flushed(schema, monkeypatch, "SET backend_flush_after = '1MB'")
    assert ("batch", "1MB") in rows


def test_settings_of_transaction_have_their_old_values_in_session_after_transaction_ends(
    schema: RetentionSchema,
) -> None:
    with schema.session() as connection:
        with connection.transaction():
            connection.execute(WRITE_AT_ONCE, {"is_local": True})
            assert _setting(connection, "backend_flush_after") == "256kB"
        assert _setting(connection, "backend_flush_after") == "0"
        with open_snapshot(connection, schema.database, ONE_CORE):
            assert _setting(connection, "max_parallel_workers_per_gather") == "0"
        assert _setting(connection, "max_parallel_workers_per_gather") != "0"


def test_translate_errors_message_contains_the_table_on_which_a_right_is_missing(
    schema: RetentionSchema,
) -> None:
    """The message of a trigger with the same SQLSTATE is not quoted."""
    schema.run("CREATE TABLE secret (id int); CREATE ROLE nobody_here")
    with schema.session() as connection:
        schema.run(f"GRANT USAGE ON SCHEMA {schema.name} TO nobody_here")
        connection.execute("SET ROLE nobody_here")
        with (
            pytest.raises(UsageError, match=r"SQLSTATE 42501, table secret\)"),
            open_snapshot(connection, schema.database),
        ):
            connection.execute("SELECT FROM secret")
        with (
            pytest.raises(UsageError, match=r"SQLSTATE 42501\)"),
            open_snapshot(connection, schema.database),
        ):
            connection.execute(
                "DO $$ BEGIN RAISE 'permission denied for table of Wang' "
                "USING ERRCODE = '42501'; END $$"
            )
    schema.run("DROP OWNED BY nobody_here; DROP ROLE nobody_here")
