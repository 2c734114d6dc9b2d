"""What requests of pages share, and for how long."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from include.composition import workplace_of
from include.services.objectstore.s3 import S3Store
from plugins.compliance_ui.services import COUNTS, Memory, Services
from tests.evidence.register_fixtures import sealed_company


class Making:
    """Makes numbers, and knows how many it made."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> int:
        self.made += 1
        return self.made


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def memory(now: list[float]) -> Memory:
    return Memory(lambda: now[0])


def test_a_store_that_hangs_is_given_up_while_somebody_waits(memory: Memory) -> None:
    """Two tries of a few seconds; what the connection itself says counts."""
    connection = {
        "conn_type": "aws", "login": "k", "password": "s",
        "extra": {"bucket": "b", "region_name": "cn-north-1", "read_timeout": 5},
    }  # fmt: skip
    environment = {"AIRFLOW_CONN_EVIDENCE_STORE": json.dumps(connection)}
    store = Services(workplace_of(environment), memory).store("evidence_store")
    assert isinstance(store, S3Store)
    config = store._bucket.client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (3, 5)
    assert config.retries == {"mode": "standard", "total_max_attempts": 2}


def test_what_is_kept_is_made_once_until_its_time_is_over(memory: Memory, now: list[float]) -> None:
    """Then again; without a time it stays."""
    make = Making()
    for at, expected in ((0.0, 1), (299.0, 1), (300.0, 2), (301.0, 2), (600.0, 3)):
        now[0] = at
        assert memory.keep("points", make, seconds=300) == expected
    for at in (0.0, 1e9):
        now[0] = at
        assert memory.keep("for good", lambda: "made", seconds=float("inf")) == "made"


def test_what_was_made_of_something_else_is_made_anew(memory: Memory) -> None:
    """A connection that somebody pointed elsewhere; names do not mix."""
    make = Making()
    assert memory.keep("shelf", make, "store a") == 1
    assert memory.keep("shelf", make, "store a") == 1
    assert memory.keep("shelf", make, "store b") == 2
    assert memory.keep("reader", make, "store b") == 3


def test_connections_of_an_earlier_address_are_closed(memory: Memory) -> None:
    """Else each change of a connection would leave some behind."""
    first = memory.keep("reader", lambda: create_engine("sqlite://"), "a")
    pool = first.pool
    second = memory.keep("reader", lambda: create_engine("sqlite://"), "b")
    assert isinstance(second, Engine)
    assert second is not first
    assert first.pool is not pool  # disposing gives an engine a new one


def test_many_who_ask_at_once_get_what_one_made(memory: Memory) -> None:
    """A slow store is read once, while the others wait."""
    make, began, go = Making(), threading.Event(), threading.Event()
    seen: list[int] = []

    def slow() -> int:
        began.set()
        assert go.wait(10)
        return make()

    people = [
        threading.Thread(target=lambda: seen.append(memory.keep("points", slow)))
        for _number in range(5)
    ]
    for one in people:
        one.start()
    assert began.wait(10)
    go.set()
    for one in people:
        one.join()
    assert seen == [1] * 5


def test_what_could_not_be_made_is_tried_again(memory: Memory) -> None:
    """A server that was down for a moment."""

    def failing() -> int:
        raise OSError("down")

    with pytest.raises(OSError, match="down"):
        memory.keep("reader", failing)
    assert memory.keep("reader", lambda: 1) == 1


def test_counts_hold_by_their_key_and_old_ones_are_forgotten(memory: Memory) -> None:
    """The key names the end of the ledger: a longer one is counted anew."""
    make: Callable[[], int] = Making()
    assert memory.count(("all", 1), make) == 1
    assert memory.count(("all", 1), make) == 1
    assert memory.count(("all", 2), make) == 2
    for number in range(COUNTS):
        memory.count(number, lambda: 0)
    assert memory.count(("all", 1), make) == 3


def test_ledger_is_broken_while_the_newest_bundle_names_lost_registers(
    migrated_database: str, tmp_path: Path, memory: Memory
) -> None:
    """The role of the pages cannot read erasures: the sealed state of the registers tells them."""
    with sealed_company(migrated_database, tmp_path) as (company, place):
        shown = Services(place, memory)
        with company.state.connect() as conn:
            assert not shown.ledger(conn, 0).broken
        company.harm("DELETE FROM legal_hold")
        company.seal()
        with company.state.connect() as conn:
            ledger = shown.ledger(conn, 0)
        assert (ledger.registers_lost, ledger.broken) == (True, True)
