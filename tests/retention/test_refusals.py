"""What the database does not let go: whatever it says, and whenever it says it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local.postgres import EmbeddedPostgres
from include.retention import batches, circles
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
    for module in (batches, circles):
        monkeypatch.setattr(module, "PAUSE", 0)
        monkeypatch.setattr(module, "TRIES", 2)
    with yard(postgres, TABLES, batch={"statement_timeout_s": 1}) as made:
        made.rules = [rule("a"), rule("b")]
        yield made


@pytest.mark.parametrize("code", ["P0001", "P0004", "PS001", "27000", "55000", "0A000", "ZZ001"])
def test_a_trigger_refuses_one_record_with_whatever_code_it_likes(place: Yard, code: str) -> None:
    """The others go, and those of other tables."""
    place.run(REFUSING.format(code=code, kind="", when="BEFORE DELETE", deferred=""))
    tally = place.execute(place.plan())
    assert (tally.done, tally.refused) == ({"a": 4, "b": 3}, {("a", code): 1})


def test_a_record_that_is_refused_at_the_commit_leaves_no_batch_open(place: Yard) -> None:
    """PostgreSQL says so for sure; a batch that stays open would stop restores."""
    deferred = "DEFERRABLE INITIALLY DEFERRED"
    place.run(
        REFUSING.format(code="P0001", kind="CONSTRAINT", when="AFTER DELETE", deferred=deferred)
    )
    tally = place.execute(place.plan())
    assert (tally.done, tally.refused) == ({"a": 4, "b": 3}, {("a", "P0001"): 1})
    with place.state.connect() as conn:
        still_open = conn.exec_driver_sql(
            "SELECT count(*) FROM erasure_batch WHERE settled_at IS NULL AND database = %s",
            (place.name,),
        )
        assert still_open.scalar_one() == 0


def test_statements_that_take_too_long_are_told_from_locks(place: Yard) -> None:
    """Nobody else is there: what takes so long is the table's own trigger."""
    place.run(SLOW.format(table="a"))
    tally = place.execute(place.plan())
    assert (tally.done, tally.locked, tally.slow) == ({"b": 3}, {"a": 5}, {"a"})


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
    tally = place.execute(place.plan())
    assert (tally.done, tally.locked, tally.slow) == ({}, {"c": 2}, {"c"})
