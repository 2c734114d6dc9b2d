"""What the database does not let go: whatever it says, and whenever it says it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors

from include.local.postgres import EmbeddedPostgres
from include.retention.execution import batches, cycles
from include.services.errors import ServiceError, UsageError
from tests.retention.yard import OVER, Yard, rule, yard

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
def place(postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    for module in (batches, cycles):
        monkeypatch.setattr(module, "PAUSE", 0)
        monkeypatch.setattr(module, "TRIES", 2)
    with yard(postgres, TABLES, batch={"statement_timeout_s": 1}) as made:
        made.rules = [rule("a"), rule("b")]
        yield made


OF_RECORDS = ("P0001", "P0004", "PS001", "27000", "55000", "0A000", "ZZ001")
OF_NONE = ("42501", "28000", "40001", "57014", "53100", "08006")  # but a trigger may raise them


@pytest.mark.parametrize("code", [*OF_RECORDS, *OF_NONE])
def test_a_trigger_refuses_one_record_with_whatever_code_it_likes(place: Yard, code: str) -> None:
    """The others go, and those of other tables."""
    place.run(REFUSING.format(code=code, kind="", when="BEFORE DELETE", deferred=""))
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused) == ({"a": 4, "b": 3}, {("a", code): 1})


def test_a_record_that_is_refused_at_the_commit_leaves_no_batch_open(place: Yard) -> None:
    """PostgreSQL says so for sure; a batch that stays open would stop restores."""
    deferred = "DEFERRABLE INITIALLY DEFERRED"
    place.run(
        REFUSING.format(code="P0001", kind="CONSTRAINT", when="AFTER DELETE", deferred=deferred)
    )
    counts = place.execute(place.plan())
    assert (counts.done, counts.refused) == ({"a": 4, "b": 3}, {("a", "P0001"): 1})
    with place.state.connect() as conn:
        still_open = conn.exec_driver_sql(
            "SELECT count(*) FROM erasure_batch WHERE settled_at IS NULL AND database = %s",
            (place.name,),
        )
        assert still_open.scalar_one() == 0


def test_statements_that_take_too_long_are_told_from_locks(place: Yard) -> None:
    """Nobody else is there: what takes so long is the table's own trigger."""
    place.run(SLOW.format(table="a"))
    counts = place.execute(place.plan())
    assert (counts.done, counts.locked, counts.slow) == ({"b": 3}, {"a": 5}, {"a"})
    assert counts.seconds > 0.9  # rolled back, and kept others waiting all the same


def test_a_circle_that_takes_too_long_is_told_too(place: Yard) -> None:
    """Its records are counted, so that what stays has a reason."""
    place.run(
        f"""
        CREATE TABLE c (id int PRIMARY KEY, next int REFERENCES c, at date);
        INSERT INTO c VALUES (1, NULL, '{OVER}'), (2, 1, '{OVER}');
        UPDATE c SET next = 2 WHERE id = 1;
        """
        + SLOW.format(table="c")
    )
    place.rules = [rule("c")]
    counts = place.execute(place.plan())
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
def test_what_is_of_no_record_is_no_refusal(error: type[psycopg.Error]) -> None:
    """One of each class: a full disk, say, must not pass for a hundred records that stay."""
    assert error.sqlstate
    assert error.sqlstate[:2] in batches.OF_NO_RECORD
    assert not batches.refuses(error("no"))
    assert batches.refuses(errors.ForeignKeyViolation("no"))


def test_a_condition_that_the_server_does_not_know_ends_the_run(place: Yard) -> None:
    """No record is at fault when a trigger names a table that is not there."""
    place.run(
        """
        CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN PERFORM FROM not_there; RETURN OLD; END$$;
        CREATE TRIGGER broken BEFORE DELETE ON a FOR EACH ROW EXECUTE FUNCTION broken();
        """
    )
    with pytest.raises(UsageError, match="42P01"):
        place.execute(place.plan())
    assert place.keys("a") == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("code", ["P0001", "23514", "42501"])
def test_what_the_ledger_refuses_is_not_blamed_on_the_records(place: Yard, code: str) -> None:
    """It is another server: halving batches finds no culprit, and no right lacks in the table."""
    with place.state.begin() as conn:
        conn.exec_driver_sql(
            f"""
            CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END$$;
            CREATE TRIGGER no BEFORE INSERT ON erasure FOR EACH ROW EXECUTE FUNCTION no();
            """
        )
    try:
        with pytest.raises(ServiceError, match=f"ledger could not be written .SQLSTATE {code}"):
            place.execute(place.plan())
    finally:
        with place.state.begin() as conn:
            conn.exec_driver_sql("DROP FUNCTION no CASCADE")
    assert place.keys("a") == {1, 2, 3, 4, 5}


def test_a_slow_circle_is_counted_in_all_partitions(place: Yard) -> None:
    """Each part of it stays for the same reason."""
    place.run(
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
    place.rules = [rule("c")]
    assert place.execute(place.plan()).locked == {"c": 3}
