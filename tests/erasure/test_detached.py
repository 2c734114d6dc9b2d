"""What retention detached from a record before it went keeps nothing in a restored copy either."""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys, Origin, intend
from include.erasure.places import Place, detached_of
from include.erasure.replay import Replay, Schedule, replay
from include.policy import SHIPPED
from include.registry import load_pack
from include.services.errors import ControlFailed, ServiceError

KEYS = ErasureKeys({"1": b"o" * 32}, "1")
NOW = datetime(2026, 11, 24, tzinfo=UTC)
# As waybills and complaints: a partitioned parent with a key of two columns.
TABLES = """
CREATE TABLE parcel (id int, at int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE parcel_1 PARTITION OF parcel FOR VALUES FROM (0) TO (5);
CREATE TABLE parcel_2 PARTITION OF parcel FOR VALUES FROM (5) TO (9);
CREATE TABLE complaint (id int PRIMARY KEY, parcel int, parcel_at int,
    other int REFERENCES complaint,
    CONSTRAINT about FOREIGN KEY (parcel, parcel_at) REFERENCES parcel);
CREATE TABLE seal (id int PRIMARY KEY, parcel int NOT NULL, parcel_at int NOT NULL,
    CONSTRAINT sealed FOREIGN KEY (parcel, parcel_at) REFERENCES parcel);
INSERT INTO parcel SELECT n, n FROM generate_series(1, 8) n;
INSERT INTO complaint SELECT n, n, n, n FROM generate_series(1, 8) n;
INSERT INTO complaint VALUES (9, 2, NULL, 1);
"""
PLACES = {name: Place("public", name) for name in ("parcel", "complaint", "seal")}
COMPLAINTS = "SELECT id, parcel, parcel_at FROM complaint ORDER BY id"


@pytest.fixture
def tables(copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None) -> Engine:
    """A copy with parcels and complaints, and a ledger in which two parcels were erased."""
    copy.execute(TABLES)
    copy.commit()
    with ledger_state.begin() as conn:
        origin = Origin("courier", "parcel", "delete", "c", "r", "d", "r1")
        intend(conn, KEYS, origin, [("2", "2"), ("7", "7")], transaction="1", server="s", at=NOW)
    return ledger_state


def again(copy: psycopg.Connection, state: Engine, *fields: str) -> Replay:
    detached = {"parcel": fields}
    return replay(copy, "courier", PLACES, state, KEYS, Schedule(detached=detached), NOW)


def test_a_detached_reference_does_not_keep_an_erased_record(
    copy: psycopg.Connection, tables: Engine
) -> None:
    """It is set to null; no other reference and no other record changes."""
    done = again(copy, tables, "complaint.parcel", "complaint.parcel_at")
    assert (done.replayed, done.remaining) == (2, 0)
    gone = {2, 7}
    expected = [(n, None if n in gone else n, None if n in gone else n) for n in range(1, 9)]
    assert copy.execute(COMPLAINTS).fetchall() == [*expected, (9, 2, None)]
    assert copy.execute("SELECT id FROM complaint WHERE other = id").rowcount == 8
    assert copy.execute("SELECT count(*) FROM parcel").fetchone() == (6,)


@pytest.mark.parametrize("column", ["parcel", "parcel_at"])
def test_only_the_named_column_is_set_to_null(
    copy: psycopg.Connection, tables: Engine, column: str
) -> None:
    """As in retention.yaml: one null column ends the reference."""
    assert again(copy, tables, f"complaint.{column}").remaining == 0
    other = {"parcel": "parcel_at", "parcel_at": "parcel"}[column]
    query = f"SELECT id FROM complaint WHERE id < 9 AND {column} IS NULL AND {other} = id"
    assert copy.execute(query.encode()).fetchall() == [(2,), (7,)]


@pytest.mark.parametrize("fields", [(), ("complaint.other",), ("unmapped.parcel",)])
def test_what_is_not_detached_keeps_its_record(
    copy: psycopg.Connection, tables: Engine, fields: tuple[str, ...]
) -> None:
    """Then the copy is not fit, and nothing of it changes."""
    before = copy.execute(COMPLAINTS).fetchall()
    with pytest.raises(ControlFailed, match="about"):
        again(copy, tables, *fields)
    assert copy.execute(COMPLAINTS).fetchall() == before
    assert copy.execute("SELECT count(*) FROM parcel").fetchone() == (8,)


def test_a_reference_that_cannot_be_null_stops_it(copy: psycopg.Connection, tables: Engine) -> None:
    """Without a word of the record."""
    copy.execute("INSERT INTO seal VALUES (1, 2, 2)")
    copy.commit()
    with pytest.raises(ServiceError, match="cannot be erased again"):
        again(copy, tables, "complaint.parcel", "seal.parcel")
    assert copy.execute("SELECT count(*) FROM parcel").fetchone() == (8,)


def test_a_copy_that_has_no_such_table_yet_is_replayed_all_the_same(
    copy: psycopg.Connection, tables: Engine
) -> None:
    """A table that is younger than the backup refers to nothing there."""
    copy.execute("DROP TABLE complaint")
    copy.commit()
    assert again(copy, tables, "complaint.parcel").remaining == 0


def test_what_is_detached_stands_in_the_schedule() -> None:
    """By collection, of all its classes."""
    assert detached_of(load_pack(SHIPPED).retention) == {
        "waybill": ("complaint.waybill_id", "complaint.waybill_created_at"),
        "address": ("customer.default_address_id",),
    }
