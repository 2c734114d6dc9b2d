"""Tests that a replay sets references to null as the retention run did.

Otherwise these references would prevent the erasure of records.
"""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys, Origin, open_batch
from include.erasure.replay import ReplayResult, ReplayRules, replay
from include.erasure.tables import TableName, detached_fields
from include.policy import SHIPPED
from include.registry import load_pack
from include.services.errors import ControlFailed, ServiceError

KEYS = ErasureKeys({"1": b"o" * 32}, "1")
NOW = datetime(2026, 11, 24, tzinfo=UTC)
# Like waybills and complaints: a partitioned parent with a primary key of two columns.
SCHEMA = """
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
TABLES = {name: TableName("public", name) for name in ("parcel", "complaint", "seal")}
COMPLAINTS = "SELECT id, parcel, parcel_at FROM complaint ORDER BY id"


@pytest.fixture
def tables(copy: psycopg.Connection, ledger_state: Engine, empty_ledger: None) -> Engine:
    """A copy with parcels and complaints, and a ledger in which two parcels were erased."""
    copy.execute(SCHEMA)
    copy.commit()
    with ledger_state.begin() as conn:
        origin = Origin("courier", "parcel", "delete", "c", "r", "d", "r1")
        open_batch(
            conn, KEYS, origin, [("2", "2"), ("7", "7")], transaction="1", server="s", at=NOW
        )
    return ledger_state


def replay_detaching(copy: psycopg.Connection, state: Engine, *fields: str) -> ReplayResult:
    detached = {"parcel": fields}
    return replay(copy, "courier", TABLES, state, KEYS, ReplayRules(detached=detached), NOW)


def test_replay_sets_configured_foreign_key_columns_to_null_and_erases_the_record(
    copy: psycopg.Connection, tables: Engine
) -> None:
    """The replay changes no other reference and no other record."""
    result = replay_detaching(copy, tables, "complaint.parcel", "complaint.parcel_at")
    assert (result.replayed, result.remaining) == (2, 0)
    gone = {2, 7}
    expected = [(n, None if n in gone else n, None if n in gone else n) for n in range(1, 9)]
    assert copy.execute(COMPLAINTS).fetchall() == [*expected, (9, 2, None)]
    assert copy.execute("SELECT id FROM complaint WHERE other = id").rowcount == 8
    assert copy.execute("SELECT count(*) FROM parcel").fetchone() == (6,)


@pytest.mark.parametrize("column", ["parcel", "parcel_at"])
def test_replay_sets_only_the_configured_foreign_key_column_to_null(
    copy: psycopg.Connection, tables: Engine, column: str
) -> None:
    """A null in one column ends a composite reference, so the other column keeps its value."""
    assert replay_detaching(copy, tables, f"complaint.{column}").remaining == 0
    other = {"parcel": "parcel_at", "parcel_at": "parcel"}[column]
    query = f"SELECT id FROM complaint WHERE id < 9 AND {column} IS NULL AND {other} = id"
    assert copy.execute(query.encode()).fetchall() == [(2,), (7,)]


@pytest.mark.parametrize("fields", [(), ("complaint.other",), ("unmapped.parcel",)])
def test_replay_fails_and_changes_nothing_if_the_foreign_key_column_is_not_configured(
    copy: psycopg.Connection, tables: Engine, fields: tuple[str, ...]
) -> None:
    before = copy.execute(COMPLAINTS).fetchall()
    with pytest.raises(ControlFailed, match="about"):
        replay_detaching(copy, tables, *fields)
    assert copy.execute(COMPLAINTS).fetchall() == before
    assert copy.execute("SELECT count(*) FROM parcel").fetchone() == (8,)


def test_replay_raises_service_error_if_a_configured_foreign_key_column_does_not_allow_null(
    copy: psycopg.Connection, tables: Engine
) -> None:
    copy.execute("INSERT INTO seal VALUES (1, 2, 2)")
    copy.commit()
    with pytest.raises(ServiceError, match="cannot be deleted from the copy"):
        replay_detaching(copy, tables, "complaint.parcel", "seal.parcel")
    assert copy.execute("SELECT count(*) FROM parcel").fetchone() == (8,)


def test_replay_erases_records_if_the_restored_copy_lacks_the_table_with_the_foreign_key(
    copy: psycopg.Connection, tables: Engine
) -> None:
    """A backup has no table that is newer than the backup, so it has no reference of that table."""
    copy.execute("DROP TABLE complaint")
    copy.commit()
    assert replay_detaching(copy, tables, "complaint.parcel").remaining == 0


def test_detached_fields_returns_foreign_key_columns_by_referenced_table() -> None:
    assert detached_fields(load_pack(SHIPPED).retention) == {
        "waybill": ("complaint.waybill_id", "complaint.waybill_created_at"),
        "address": ("customer.default_address_id",),
    }
