"""Tests that a replay fails if the ledger loses entries during the replay."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Engine, select

from include.erasure.ledger import settle_batches
from include.services.errors import ControlFailed
from include.state.tables import erasure_batch
from tests.erasure.test_replay import NOW, enter_erasures
from tests.erasure.test_replay_meanwhile import enter_during
from tests.erasure.test_replay_schema import CUSTOMERS, replayed, rows, state
from tests.support.registers import unguarded

__all__ = ["state"]  # a fixture


@pytest.mark.parametrize(
    ("step", "customers"),
    [("check_deferred", [1, 2, 3, 4, 5]), ("refresh_materialized_views", [1, 3, 5])],
)
def test_replay_fails_if_ledger_loses_entry_during_replay(
    copy: psycopg.Connection,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    customers: list[int],
) -> None:
    """In the first case, the entry is lost before the transaction last reads the ledger.

    The replay is then rolled back. In the second case, the entry is lost after that. The replay
    then fails after its commit.
    """
    copy.execute(CUSTOMERS)
    enter_erasures(state, {"customer": [["2"]]})
    enter_erasures(state, {"customer": [["4"]]})
    with state.begin() as conn:
        batches = list(conn.scalars(select(erasure_batch.c.id).order_by(erasure_batch.c.id)))
        settle_batches(conn, batches, NOW)

    def lose_entry() -> None:
        with state.begin() as conn, unguarded(conn, "erasure"):
            conn.exec_driver_sql("DELETE FROM erasure WHERE batch_id = %s", (batches[0],))

    enter_during(monkeypatch, step, lose_entry)
    with pytest.raises(ControlFailed, match=r"lost 1 entries .*\(customer\)"):
        replayed(copy, state)
    copy.rollback()
    kept = rows(copy, "SELECT customer_id FROM customer ORDER BY 1")
    assert kept == [(customer,) for customer in customers]
