"""A replay ends with an error when the ledger loses entries before the replay ends."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Engine, select

from include.erasure.ledger import settle
from include.services.errors import ControlFailed
from include.state.tables import erasure_batch
from tests.erasure.test_replay import NOW, entered
from tests.erasure.test_replay_meanwhile import entering
from tests.erasure.test_replay_schema import CUSTOMERS, replayed, rows, state
from tests.support.registers import unguarded

__all__ = ["state"]  # a fixture


@pytest.mark.parametrize(
    ("step", "customers"),
    [("check_deferred", [1, 2, 3, 4, 5]), ("refresh_materialized_views", [1, 3, 5])],
)
def test_replay_whose_ledger_loses_an_entry_meanwhile_fails(
    copy: psycopg.Connection,
    state: Engine,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    customers: list[int],
) -> None:
    """Lose the entry before the last read of the ledger in the transaction, or after that read.

    The first replay is rolled back. The second fails after its commit.
    """
    copy.execute(CUSTOMERS)
    entered(state, {"customer": [["2"]]})
    entered(state, {"customer": [["4"]]})
    with state.begin() as conn:
        batches = list(conn.scalars(select(erasure_batch.c.id).order_by(erasure_batch.c.id)))
        settle(conn, batches, NOW)

    def lose_entry() -> None:
        with state.begin() as conn, unguarded(conn, "erasure"):
            conn.exec_driver_sql("DELETE FROM erasure WHERE batch_id = %s", (batches[0],))

    entering(monkeypatch, step, lose_entry)
    with pytest.raises(ControlFailed, match=r"lacks 1 entries .*\(customer\)"):
        replayed(copy, state)
    copy.rollback()
    kept = rows(copy, "SELECT customer_id FROM customer ORDER BY 1")
    assert kept == [(customer,) for customer in customers]
