"""Open batches are settled or withdrawn by what PostgreSQL knows of their transactions."""

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
    intend,
    settle,
    unsettled,
)
from include.erasure.masks import Mask
from include.erasure.matching import matches
from include.erasure.places import Place
from include.erasure.resolve import PATIENCE, is_known, resolve, server_of, transaction_of
from include.local.postgres import EmbeddedPostgres
from include.services.errors import ServiceError, UsageError
from include.state.tables import erasure_batch
from tests.erasure.support import count

KEYS = ErasureKeys({"1": b"k" * 32}, "1")
NOW = datetime(2026, 11, 24, tzinfo=UTC)
PLACES = {"t": Place("public", "t")}
MASKS = {"c": Mask({"name": "name"})}
SHORT = timedelta(milliseconds=300)

# Erases in a process of its own, and waits for ever where it is told to.
CHILD = """
import signal, sys
import psycopg
from include.erasure.resolve import server_of, transaction_of
from include.erasure.ledger import intend
from include.state.connect import engine
from tests.erasure.test_resolve import KEYS, NOW, origin

def reach(stage):
    print(stage, flush=True)
    if stage == sys.argv[3]:
        signal.pause()

with psycopg.connect(sys.argv[1]) as conn, engine(sys.argv[2]).connect() as ledger:
    server = server_of(conn)
    done = conn.execute("DELETE FROM t WHERE id <= 3 RETURNING id::text").fetchall()
    intend(ledger, KEYS, origin(), done, transaction=transaction_of(conn), server=server, at=NOW)
    ledger.commit()
    reach("intended")
    conn.commit()
    reach("committed")
"""


def origin(action: Action = "delete", record_class: str = "c") -> Origin:
    return Origin("courier", "t", action, record_class, "r", "enforce_retention", "r1")


@dataclass
class Desk:
    """A ledger, and a database with five records."""

    state: Engine
    conn: psycopg.Connection
    conninfo: str

    def resolve(self, patience: timedelta = PATIENCE, **masks: Mask) -> None:
        resolve(self.state, self.conn, "courier", PLACES, KEYS, NOW, masks, patience)

    def enter(self, *ids: int, transaction: str, server: str, action: Action = "delete") -> int:
        with self.state.begin() as conn:
            return intend(
                conn,
                KEYS,
                origin(action),
                [[str(one)] for one in ids],
                transaction=transaction,
                server=server,
                at=NOW,
            )

    def entries(self) -> int:
        with self.state.connect() as conn:
            assert unsettled(conn, "courier") == []
            return count(conn, "courier")

    def records(self) -> int:
        row = self.conn.execute("SELECT count(*) FROM t").fetchone()
        self.conn.rollback()
        assert row
        return int(row[0])


@pytest.fixture
def desk(ledger_state: Engine, empty_ledger: None, database: str) -> Iterator[Desk]:
    with psycopg.connect(database) as conn:
        conn.execute(
            "CREATE TABLE t (id int PRIMARY KEY, name text);"
            "INSERT INTO t SELECT n, '王小明' FROM generate_series(1, 5) n"
        )
        conn.commit()
        yield Desk(ledger_state, conn, database)


@pytest.fixture
def killed(desk: Desk, postgres: EmbeddedPostgres) -> Callable[[str], None]:
    """Erase records 1 to 3 in a process that is killed at a stage."""

    def run(stage: str) -> None:
        with desk.state.connect() as conn:
            found = conn.connection.driver_connection
            assert isinstance(found, psycopg.Connection)
            state = postgres.conninfo(found.info.dbname)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, desk.conninfo, state, stage],
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
def test_a_killed_process_leaves_no_doubt(
    desk: Desk,
    killed: Callable[[str], None],
    stage: str,
    entries: int,
    records: int,
):
    """Each record that is gone is in the ledger, and none that is there."""
    killed(stage)
    # Without a table: PostgreSQL knows the transaction, so that no record is looked for.
    resolve(desk.state, desk.conn, "courier", {}, KEYS, NOW)
    assert (desk.entries(), desk.records()) == (entries, records)
    desk.resolve()
    assert desk.entries() == entries


def test_a_transaction_that_goes_on_is_waited_for_and_named(desk: Desk):
    """An orphan session; once it has ended its batch is decided like any other."""
    with psycopg.connect(desk.conninfo) as other:
        server = server_of(other)
        other.execute("DELETE FROM t WHERE id = 1")
        number = transaction_of(other)
        desk.enter(1, transaction=number, server=server)
        with pytest.raises(ServiceError, match=f"still goes on: {number}"):
            desk.resolve(SHORT)
        # Where the server does not say who it is, it may be this one.
        with desk.state.begin() as conn:
            conn.execute(update(erasure_batch).values(server="unknown/unknown/1"))
        with pytest.raises(ServiceError, match="still goes on"):
            desk.resolve(SHORT)
        other.commit()
    desk.resolve()
    assert (desk.entries(), desk.records()) == (1, 4)


@pytest.mark.parametrize(
    ("transaction", "server"),
    [
        ("here", "another"),
        ("here", "unknown/unknown/1"),
        ("3", "here"),  # of the bootstrap: too old
        ("9000000000000000000", "here"),  # of a future that was set back
    ],
)
def test_what_postgresql_cannot_tell_is_looked_for(desk: Desk, transaction: str, server: str):
    """Another server, timeline or database, a number that is too old or too new."""
    here, number = server_of(desk.conn), transaction_of(desk.conn)
    desk.conn.execute("DELETE FROM t WHERE id IN (1, 2)")
    desk.conn.commit()
    desk.enter(
        1,
        2,
        3,
        transaction=number if transaction == "here" else transaction,
        server=here if server == "here" else server,
    )
    desk.resolve()
    assert (desk.entries(), desk.records()) == (2, 3)


def test_a_batch_whose_records_are_all_there_goes_as_a_whole(desk: Desk):
    """Nothing of it was erased."""
    desk.enter(1, 2, transaction="77", server="another")
    desk.resolve()
    assert desk.entries() == 0
    with desk.state.connect() as conn:
        assert conn.scalar(erasure_batch.select()) is None


def test_batches_of_the_same_records_are_looked_for_together(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    """One look at the table for all of a class; each batch keeps what is gone of its own."""
    looks: list[list[int]] = []

    def counted(*given: Any) -> Any:
        looks.append(list(given[-1]))
        return matches(*given)

    monkeypatch.setattr(module, "matches", counted)
    desk.conn.execute("DELETE FROM t WHERE id IN (1, 2, 4)")
    desk.conn.execute("UPDATE t SET name = '王**' WHERE id = 5")
    desk.conn.commit()
    batches = [
        desk.enter(*ids, transaction="77", server="another") for ids in ((1, 2), (3,), (4, 5))
    ]
    masked = desk.enter(3, 5, transaction="78", server="another", action="mask")
    desk.resolve(**MASKS)
    assert looks == [batches, [masked]]
    assert desk.entries() == 4
    with desk.state.connect() as conn:
        query = select(erasure_batch.c.id, erasure_batch.c.records).order_by(erasure_batch.c.id)
        left = {row[0]: row[1] for row in conn.execute(query)}
    assert left == {batches[0]: 2, batches[2]: 1, masked: 1}


def test_a_record_that_two_batches_name_by_two_keys_is_withdrawn_from_both(desk: Desk):
    """Both were killed, one before the rotation and one after."""
    both = {**KEYS.keys, "2": b"n" * 32}
    for current in both:
        with desk.state.begin() as conn:
            intend(
                conn, ErasureKeys(both, current), origin(), [["1"], ["77"]],
                transaction="77", server="another", at=NOW,
            )  # fmt: skip
    resolve(desk.state, desk.conn, "courier", PLACES, ErasureKeys(both, "2"), NOW)
    assert desk.entries() == 2  # of the record that is gone


def test_other_batches_are_left_alone_when_one_is_looked_for(desk: Desk):
    """A settled entry of a record that came back under its old key stays."""
    old = desk.enter(1, transaction="77", server="another")
    with desk.state.begin() as conn:
        settle(conn, [old], NOW)
    desk.enter(2, transaction="78", server="another")
    desk.resolve()
    assert desk.entries() == 1


def test_maskings_are_looked_at(desk: Desk):
    """Entries of records that still show are withdrawn; without the mask they are kept."""
    desk.conn.execute("UPDATE t SET name = '王**' WHERE id = 1")
    desk.conn.commit()
    desk.enter(1, 2, transaction="77", server="another", action="mask")
    desk.resolve(**MASKS)
    assert desk.entries() == 1
    desk.enter(3, transaction="77", server="another", action="mask")
    desk.resolve()
    assert desk.entries() == 2


def test_a_table_that_is_gone_took_its_records_along(desk: Desk):
    """A collection that the data map lacks is an error."""
    desk.conn.execute("DROP TABLE t")
    desk.conn.commit()
    desk.enter(1, transaction="77", server="another")
    with pytest.raises(UsageError, match="which the data map lacks"):
        resolve(desk.state, desk.conn, "courier", {}, KEYS, NOW)
    desk.resolve()
    assert desk.entries() == 1


def test_an_error_of_the_database_tells_no_value(desk: Desk):
    """The session that looks is gone."""
    desk.enter(1, transaction="77", server="another")
    desk.conn.close()
    with pytest.raises(ServiceError, match="courier were erased"):
        desk.resolve()


def test_a_server_is_told_from_others(desk: Desk, postgres: EmbeddedPostgres):
    """By system, timeline and database; the same from every session."""
    here = server_of(desk.conn)
    assert is_known(here)
    with psycopg.connect(desk.conninfo) as other:
        assert server_of(other) == here
    with psycopg.connect(postgres.conninfo("postgres")) as other:
        assert server_of(other) != here
    assert not is_known(None)


def test_a_role_that_may_not_ask_gets_an_unknown_server(desk: Desk):
    """And goes on with its transaction."""
    desk.conn.execute(
        "DROP ROLE IF EXISTS mute; CREATE ROLE mute;"
        "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC; SET ROLE mute"
    )
    assert not is_known(server_of(desk.conn))
    assert int(transaction_of(desk.conn)) > 3
    desk.conn.rollback()
