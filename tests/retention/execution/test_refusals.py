"""Tests of records that the database refuses to delete or mask."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors

from include.local.postgres import EmbeddedPostgres
from include.retention.execution import batches, cycles
from include.services.errors import ServiceError, UsageError
from tests.retention.retention_schema import OVER, RetentionSchema, retention_schema, rule

TABLES = f"""
CREATE TABLE a (id int PRIMARY KEY, at date);
INSERT INTO a SELECT n, '{OVER}' FROM generate_series(1, 5) AS n;
CREATE TABLE b (id int PRIMARY KEY, at date);
INSERT INTO b SELECT n, '{OVER}' FROM generate_series(1, 3) AS n;
"""
REFUSING = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'not this one' USING ERRCODE = '{code}'; END$$;
CREATE {kind} TRIGGER refuse {when} ON a {deferred} FOR EACH ROW WHEN (OLD.id = 3)
    EXECUTE FUNCTION refuse();
"""
SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN PERFORM pg_sleep(3); RETURN OLD; END$$;
CREATE TRIGGER slow BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION slow();
"""


@pytest.fixture
def schema(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RetentionSchema]:
    for module in (batches, cycles):
        monkeypatch.setattr(module, "PAUSE", 0)
        monkeypatch.setattr(module, "TRIES", 2)
    with retention_schema(postgres, TABLES, batch={"statement_timeout_s": 1}) as created:
        created.rules = [rule("a"), rule("b")]
        yield created


OF_RECORDS = ("P0001", "P0004", "PS001", "27000", "55000", "0A000", "ZZ001")
OF_NONE = ("42501", "28000", "40001", "57014", "53100", "08006")  # but a trigger may raise them


@pytest.mark.parametrize("code", [*OF_RECORDS, *OF_NONE])
def test_other_records_are_deleted_if_trigger_refuses_one_deletion_with_any_sqlstate(
    schema: RetentionSchema, code: str
) -> None:
    schema.run(REFUSING.format(code=code, kind="", when="BEFORE DELETE", deferred=""))
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused) == ({"a": 4, "b": 3}, {("a", code): 1})


def test_deletion_that_database_refuses_at_commit_leaves_no_open_batch_in_ledger(
    schema: RetentionSchema,
) -> None:
    deferred = "DEFERRABLE INITIALLY DEFERRED"
    schema.run(
        REFUSING.format(code="P0001", kind="CONSTRAINT", when="AFTER DELETE", deferred=deferred)
    )
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.refused) == ({"a": 4, "b": 3}, {("a", "P0001"): 1})
    with schema.state.connect() as conn:
        still_open = conn.exec_driver_sql(
            "SELECT count(*) FROM erasure_batch WHERE settled_at IS NULL AND database = %s",
            (schema.name,),
        )
        assert still_open.scalar_one() == 0


def test_record_class_is_reported_as_slow_if_its_deletion_exceeds_statement_timeout(
    schema: RetentionSchema,
) -> None:
    schema.run(SLOW.format(table="a"))
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.locked, counts.slow) == ({"b": 3}, {"a": 5}, {"a"})
    assert counts.seconds > 0.9  # other sessions waited, although it was rolled back


def test_foreign_key_cycle_is_reported_as_slow_if_its_deletion_exceeds_statement_timeout(
    schema: RetentionSchema,
) -> None:
    schema.run(
        f"""
        CREATE TABLE c (id int PRIMARY KEY, next int REFERENCES c, at date);
        INSERT INTO c VALUES (1, NULL, '{OVER}'), (2, 1, '{OVER}');
        UPDATE c SET next = 2 WHERE id = 1;
        """
        + SLOW.format(table="c")
    )
    schema.rules = [rule("c")]
    counts = schema.execute(schema.plan())
    assert (counts.done, counts.locked, counts.slow) == ({}, {"c": 2}, {"c"})
    assert counts.seconds > 0.9


@pytest.mark.parametrize(
    "error",
    [
        errors.ConnectionFailure,
        errors.ReadOnlySqlTransaction,
        errors.InvalidSqlStatementName,
        errors.InvalidAuthorizationSpecification,
        errors.InvalidCursorName,
        errors.InvalidCatalogName,
        errors.SerializationFailure,
        errors.UndefinedTable,
        errors.InsufficientPrivilege,
        errors.DiskFull,
        errors.AdminShutdown,
        errors.IoError,
        errors.ConfigFileError,
        errors.DataCorrupted,
    ],
)
def test_is_refusal_returns_false_for_server_error(error: type[psycopg.Error]) -> None:
    """Otherwise, a full disk would look like many records that the database refuses to delete."""
    assert error.sqlstate
    assert error.sqlstate[:2] in batches.SESSION_ERRORS
    assert not batches.is_refusal(error("no"))
    assert batches.is_refusal(errors.ForeignKeyViolation("no"))


def test_execution_raises_usage_error_if_trigger_reads_a_table_that_does_not_exist(
    schema: RetentionSchema,
) -> None:
    schema.run(
        """
        CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN PERFORM FROM not_there; RETURN OLD; END$$;
        CREATE TRIGGER broken BEFORE DELETE ON a FOR EACH ROW EXECUTE FUNCTION broken();
        """
    )
    with pytest.raises(UsageError, match="42P01"):
        schema.execute(schema.plan())
    assert schema.keys("a") == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("code", ["P0001", "23514", "42501"])
def test_execution_raises_service_error_if_insert_into_erasure_ledger_fails(
    schema: RetentionSchema, code: str
) -> None:
    with schema.state.begin() as conn:
        conn.exec_driver_sql(
            f"""
            CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END$$;
            CREATE TRIGGER no BEFORE INSERT ON erasure FOR EACH ROW EXECUTE FUNCTION no();
            """
        )
    try:
        with pytest.raises(ServiceError, match=f"ledger could not be written .SQLSTATE {code}"):
            schema.execute(schema.plan())
    finally:
        with schema.state.begin() as conn:
            conn.exec_driver_sql("DROP FUNCTION no CASCADE")
    assert schema.keys("a") == {1, 2, 3, 4, 5}


def test_slow_foreign_key_cycle_is_counted_with_its_records_of_all_partitions(
    schema: RetentionSchema,
) -> None:
    schema.run(
        f"""
        CREATE TABLE c (id int PRIMARY KEY, next int REFERENCES c, at date)
            PARTITION BY RANGE (id);
        CREATE TABLE c1 PARTITION OF c FOR VALUES FROM (0) TO (10);
        CREATE TABLE c2 PARTITION OF c FOR VALUES FROM (10) TO (20);
        INSERT INTO c VALUES (1, NULL, '{OVER}'), (2, 1, '{OVER}'), (11, 2, '{OVER}');
        UPDATE c SET next = 11 WHERE id = 1;
        """
        + SLOW.format(table="c")
    )
    schema.rules = [rule("c")]
    assert schema.execute(schema.plan()).locked == {"c": 3}
