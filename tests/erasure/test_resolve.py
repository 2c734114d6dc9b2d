"""Tests that open batches are settled or withdrawn according to the status of their transaction."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, select, update

from include.erasure import resolve as module
from include.erasure.ledger import (
    Action,
    ErasureKeys,
    Origin,
    open_batch,
    read_open_batches,
    settle_batches,
)
from include.erasure.masks import Mask
from include.erasure.matching import match_records
from include.erasure.resolve import PATIENCE, identifies_server, resolve, server_of, transaction_of
from include.erasure.tables import TableName
from include.local.postgres import EmbeddedPostgres
from include.services.errors import ServiceError, UsageError
from include.state.tables import erasure_batch
from tests.erasure.support import count

KEYS = ErasureKeys({"1": b"k" * 32}, "1")
NOW = datetime(2026, 11, 24, tzinfo=UTC)
TABLES = {"t": TableName("public", "t")}
MASKS = {"c": Mask({"name": "name"})}
SHORT = timedelta(milliseconds=300)

# Erases records in a separate process, which stops at a given stage until it is killed.
CHILD = """
import signal, sys
import psycopg
from include.erasure.resolve import server_of, transaction_of
from include.erasure.ledger import open_batch
from include.state.connect import engine
from tests.erasure.test_resolve import KEYS, NOW, origin

def reach(stage):
    print(stage, flush=True)
    if stage == sys.argv[3]:
        signal.pause()

with psycopg.connect(sys.argv[1]) as conn, engine(sys.argv[2]).connect() as ledger:
    server = server_of(conn)
    keys = conn.execute("DELETE FROM t WHERE id <= 3 RETURNING id::text").fetchall()
    number = transaction_of(conn)
    open_batch(ledger, KEYS, origin(), keys, transaction=number, server=server, at=NOW)
    ledger.commit()
    reach("intended")
    conn.commit()
    reach("committed")
"""


def origin(action: Action = "delete", record_class: str = "c") -> Origin:
    return Origin("courier", "t", action, record_class, "r", "enforce_retention", "r1")


@dataclass
class LedgerAndRecords:
    """An erasure ledger, and a mapped database with five records."""

    state: Engine
    conn: psycopg.Connection
    conninfo: str

    def resolve(self, patience: timedelta = PATIENCE, **masks: Mask) -> None:
        resolve(self.state, self.conn, "courier", TABLES, KEYS, NOW, masks, patience)

    def enter(self, *ids: int, transaction: str, server: str, action: Action = "delete") -> int:
        with self.state.begin() as conn:
            return open_batch(
                conn,
                KEYS,
                origin(action),
                [[str(record_id)] for record_id in ids],
                transaction=transaction,
                server=server,
                at=NOW,
            )

    def entries(self) -> int:
        with self.state.connect() as conn:
            assert read_open_batches(conn, "courier") == []
            return count(conn, "courier")

    def records(self) -> int:
        row = self.conn.execute("SELECT count(*) FROM t").fetchone()
        self.conn.rollback()
        assert row
        return int(row[0])


@pytest.fixture
def target(ledger_state: Engine, empty_ledger: None, database: str) -> Iterator[LedgerAndRecords]:
    with psycopg.connect(database) as conn:
        conn.execute(
            "CREATE TABLE t (id int PRIMARY KEY, name text);"
            "INSERT INTO t SELECT n, '王小明' FROM generate_series(1, 5) n"
        )
        conn.commit()
        yield LedgerAndRecords(ledger_state, conn, database)


@pytest.fixture
def erase_and_kill(target: LedgerAndRecords, postgres: EmbeddedPostgres) -> Callable[[str], None]:
    """A function that erases records 1 to 3 in a child process and kills the process at a stage."""

    def run(stage: str) -> None:
        with target.state.connect() as conn:
            driver = conn.connection.driver_connection
            assert isinstance(driver, psycopg.Connection)
            state = postgres.conninfo(driver.info.dbname)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, target.conninfo, state, stage],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout
        while child.stdout.readline().strip() != stage:
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()

    return run


@pytest.mark.fault
@pytest.mark.parametrize(("stage", "entries", "records"), [("intended", 0, 5), ("committed", 3, 2)])
def test_resolve_keeps_only_ledger_entries_of_deleted_records_after_the_erasing_process_was_killed(
    target: LedgerAndRecords,
    erase_and_kill: Callable[[str], None],
    stage: str,
    entries: int,
    records: int,
):
    erase_and_kill(stage)
    # Without table names: PostgreSQL knows the transaction, so no record is searched.
    resolve(target.state, target.conn, "courier", {}, KEYS, NOW)
    assert (target.entries(), target.records()) == (entries, records)
    target.resolve()
    assert target.entries() == entries


def test_resolve_raises_service_error_if_the_transaction_of_a_batch_is_still_active(
    target: LedgerAndRecords,
):
    """After the session of the transaction has ended, its batch can be resolved."""
    with psycopg.connect(target.conninfo) as other:
        server = server_of(other)
        other.execute("DELETE FROM t WHERE id = 1")
        number = transaction_of(other)
        target.enter(1, transaction=number, server=server)
        with pytest.raises(ServiceError, match=f"is active: {number}"):
            target.resolve(SHORT)
        # An unknown server may be the same server.
        with target.state.begin() as conn:
            conn.execute(update(erasure_batch).values(server="unknown/unknown/1"))
        with pytest.raises(ServiceError, match="is active"):
            target.resolve(SHORT)
        other.commit()
    target.resolve()
    assert (target.entries(), target.records()) == (1, 4)


@pytest.mark.parametrize(
    ("transaction", "server"),
    [
        ("here", "another"),
        ("here", "unknown/unknown/1"),
        ("3", "here"),  # a transaction of the server's creation: too old
        ("9000000000000000000", "here"),  # a number that the server has not assigned yet
    ],
)
def test_resolve_searches_records_if_postgresql_no_longer_knows_the_transaction(
    target: LedgerAndRecords, transaction: str, server: str
):
    """The transaction ran on another server or database, or its number is too old or too new."""
    here, number = server_of(target.conn), transaction_of(target.conn)
    target.conn.execute("DELETE FROM t WHERE id IN (1, 2)")
    target.conn.commit()
    target.enter(
        1,
        2,
        3,
        transaction=number if transaction == "here" else transaction,
        server=here if server == "here" else server,
    )
    target.resolve()
    assert (target.entries(), target.records()) == (2, 3)


def test_resolve_deletes_an_open_batch_if_all_its_records_still_exist(target: LedgerAndRecords):
    target.enter(1, 2, transaction="77", server="another")
    target.resolve()
    assert target.entries() == 0
    with target.state.connect() as conn:
        assert conn.scalar(erasure_batch.select()) is None


def test_resolve_searches_table_once_for_all_batches_of_a_record_class(
    target: LedgerAndRecords, monkeypatch: pytest.MonkeyPatch
):
    searches: list[list[int]] = []

    def record_search(*arguments: Any) -> Any:
        searches.append(list(arguments[-1]))
        return match_records(*arguments)

    monkeypatch.setattr(module, "match_records", record_search)
    target.conn.execute("DELETE FROM t WHERE id IN (1, 2, 4)")
    target.conn.execute("UPDATE t SET name = '王**' WHERE id = 5")
    target.conn.commit()
    batches = [
        target.enter(*ids, transaction="77", server="another") for ids in ((1, 2), (3,), (4, 5))
    ]
    masked = target.enter(3, 5, transaction="78", server="another", action="mask")
    target.resolve(**MASKS)
    assert searches == [batches, [masked]]
    assert target.entries() == 4
    with target.state.connect() as conn:
        query = select(erasure_batch.c.id, erasure_batch.c.records).order_by(erasure_batch.c.id)
        records = {row[0]: row[1] for row in conn.execute(query)}
    assert records == {batches[0]: 2, batches[2]: 1, masked: 1}


def test_resolve_deletes_entries_of_an_existing_record_under_the_old_and_the_new_hmac_key(
    target: LedgerAndRecords,
):
    """Two runs were killed, one before and one after the rotation of the HMAC key."""
    rotated = {**KEYS.keys, "2": b"n" * 32}
    for current in rotated:
        with target.state.begin() as conn:
            open_batch(
                conn, ErasureKeys(rotated, current), origin(), [["1"], ["77"]],
                transaction="77", server="another", at=NOW,
            )  # fmt: skip
    resolve(target.state, target.conn, "courier", TABLES, ErasureKeys(rotated, "2"), NOW)
    assert target.entries() == 2  # the entries of the record that does not exist


def test_resolve_keeps_settled_entry_although_record_exists_again(target: LedgerAndRecords):
    old = target.enter(1, transaction="77", server="another")
    with target.state.begin() as conn:
        settle_batches(conn, [old], NOW)
    target.enter(2, transaction="78", server="another")
    target.resolve()
    assert target.entries() == 1


def test_resolve_deletes_ledger_entries_of_records_that_are_not_masked(target: LedgerAndRecords):
    """If the record class has no mask, its entries are kept."""
    target.conn.execute("UPDATE t SET name = '王**' WHERE id = 1")
    target.conn.commit()
    target.enter(1, 2, transaction="77", server="another", action="mask")
    target.resolve(**MASKS)
    assert target.entries() == 1
    target.enter(3, transaction="77", server="another", action="mask")
    target.resolve()
    assert target.entries() == 2


def test_resolve_settles_batch_of_dropped_table(target: LedgerAndRecords):
    """If the collection of a batch is not in the data map, an error is raised."""
    target.conn.execute("DROP TABLE t")
    target.conn.commit()
    target.enter(1, transaction="77", server="another")
    with pytest.raises(UsageError, match="which is not in the data map"):
        resolve(target.state, target.conn, "courier", {}, KEYS, NOW)
    target.resolve()
    assert target.entries() == 1


def test_resolve_raises_service_error_if_the_database_connection_is_closed(
    target: LedgerAndRecords,
):
    target.enter(1, transaction="77", server="another")
    target.conn.close()
    with pytest.raises(ServiceError, match="courier were erased"):
        target.resolve()


def test_function_server_of_returns_equal_values_only_for_connections_to_the_same_database(
    target: LedgerAndRecords, postgres: EmbeddedPostgres
):
    here = server_of(target.conn)
    assert identifies_server(here)
    with psycopg.connect(target.conninfo) as other:
        assert server_of(other) == here
    with psycopg.connect(postgres.conninfo("postgres")) as other:
        assert server_of(other) != here
    assert not identifies_server(None)


def test_server_is_unknown_if_the_role_may_not_read_the_system_identifier(
    target: LedgerAndRecords,
):
    """The missing right does not abort the transaction."""
    target.conn.execute(
        "DROP ROLE IF EXISTS mute; CREATE ROLE mute;"
        "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC; SET ROLE mute"
    )
    assert not identifies_server(server_of(target.conn))
    assert int(transaction_of(target.conn)) > 3
    target.conn.rollback()
