"""Triggers protect settled erasures, erasure requests and accepted losses from changes."""

from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from include.erasure import requests
from include.erasure.ledger import (
    ErasureKeys,
    Origin,
    open_batch,
    read_open_batches,
    settle_batches,
    withdraw_batch,
)
from include.state.tables import erasure_batch, register_loss
from tests.erasure.support import record
from tests.state.test_registers import CLOCK, NOW, refused
from tests.state.test_registers import shared as shared
from tests.state.test_registers import state as state

KEYS = ErasureKeys({"1": b"k" * 32}, "1")
ORIGIN = Origin("shop", "buyer", "delete", "buyer", "r", "enforce_retention", "r1")


@pytest.fixture
def erasures(state: Engine) -> Engine:
    """Return a state database with erasures and erasure requests.

    It contains a settled batch of two entries, an open batch of one entry, an open request, a
    closed request and an accepted loss.
    """
    with state.begin() as conn:
        batches = [entered(conn, ["1"], ["2"]), entered(conn, ["3"])]
        settle_batches(conn, batches[:1], NOW)
        for subject in ("11", "12"):
            requests.add(
                conn,
                CLOCK,
                database="shop",
                subject=subject,
                reference="R-1",
                received_on=date(2026, 11, 20),
                entered_by="privacy",
            )
        requests.close(conn, CLOCK, 2, closed_by="privacy", because="withdrawn by letter")
        conn.execute(
            register_loss.insert().values(
                accepted_at=NOW,
                accepted_by="counsel",
                because="fire",
                lost={},
                figures={},
                key_fingerprint="x",
                signature=b"s",
            )
        )
    return state


def entered(conn: Connection, *keys: list[str]) -> int:
    return open_batch(conn, KEYS, ORIGIN, keys, transaction="1", server="s", at=NOW)


SETTLED = (
    ("erasure_batch", "DELETE FROM erasure_batch WHERE id = 1"),
    ("erasure_batch", "UPDATE erasure_batch SET settled_at = NULL WHERE id = 1"),
    ("erasure_batch", "UPDATE erasure_batch SET entries = 0 WHERE id = 1"),
    ("erasure_batch", "UPDATE erasure_batch SET collection = 'x' WHERE id = 1"),
    ("erasure_batch", "TRUNCATE erasure_batch CASCADE"),
    ("erasure", "DELETE FROM erasure WHERE batch_id = 1"),
    ("erasure", "DELETE FROM erasure"),
    ("erasure", "UPDATE erasure SET batch_id = 2"),
    ("erasure", "UPDATE erasure SET key_hmac = sha256(key_hmac) WHERE batch_id = 1"),
    ("erasure", "TRUNCATE erasure"),
    ("erasure", "INSERT INTO erasure VALUES (sha256('x'), '1', 'delete', 1)"),
    (
        "erasure",
        "INSERT INTO erasure SELECT sha256(b::text::bytea), '1', 'delete', b"
        " FROM unnest(ARRAY[2, 1]) AS b",
    ),
    ("erasure", "UPDATE erasure SET batch_id = 1 WHERE batch_id = 2"),
    (
        "erasure",
        "INSERT INTO erasure SELECT key_hmac, key_id, action, 1 FROM erasure WHERE batch_id = 2"
        " ON CONFLICT (key_hmac, key_id, action) DO UPDATE SET batch_id = excluded.batch_id",
    ),
)


def test_rows_of_settled_erasure_batch_cannot_be_changed_but_rows_of_open_batch_can(
    erasures: Engine,
) -> None:
    """Entries of an open batch may move to a later batch."""
    for table, statement in SETTLED:
        refused(erasures, statement, table, "restore the state database")
    with erasures.begin() as conn:
        later = entered(conn, ["2"], ["3"], ["4"])  # the third key moves from the open batch
        withdraw_batch(conn, 2)
        settle_batches(conn, [later], NOW)
        record(
            conn,
            KEYS,
            database="shop",
            collection="buyer",
            record_keys=[["1"]],
            record_class="buyer",
            rule="r",
            dag_id="enforce_retention",
            run_id="r2",
            erased_at=NOW,
        )
        counts = conn.exec_driver_sql(
            "SELECT batch_id, count(*) FROM erasure GROUP BY 1 ORDER BY 1"
        )
        assert [tuple(row) for row in counts] == [(1, 2), (later, 2)]
        assert list(conn.scalars(erasure_batch.select().order_by(erasure_batch.c.id))) == [1, later]


REQUESTS = (
    "DELETE FROM erasure_request WHERE id = 1",
    "DELETE FROM erasure_request WHERE id = 2",
    "TRUNCATE erasure_request, erasure_request_record",
    "UPDATE erasure_request SET subject = 'x' WHERE id = 1",
    "UPDATE erasure_request SET due_on = due_on + 1 WHERE id = 1",
    "UPDATE erasure_request SET closed_at = NULL, closed_by = NULL, closed_because = NULL"
    " WHERE id = 2",
    "UPDATE erasure_request SET closed_by = 'x' WHERE id = 2",
    "UPDATE erasure_request SET subject = 'x', closed_at = now(), closed_by = 'x',"
    " closed_because = 'x' WHERE id = 1",
)


def test_erasure_request_can_be_closed_but_not_changed(erasures: Engine) -> None:
    """Columns with the results of runs may change."""
    for statement in REQUESTS:
        refused(erasures, statement, "erasure_request", "./parcelseal erasure withdraw")
    with erasures.begin() as conn:
        requests.mark_found(conn, CLOCK, [1, 2])
        requests.set_restricted(conn, CLOCK, 1, restricted=True)
        requests.close(conn, CLOCK, 1, closed_by="privacy", because="erased")


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM register_loss", "UPDATE register_loss SET lost = '{}'", "TRUNCATE register_loss"],
)
def test_rows_of_table_register_loss_cannot_be_changed_or_deleted(
    erasures: Engine, statement: str
) -> None:
    refused(erasures, statement, "register_loss", "recover-ledger --accept-losses")


SETTLE_WITHOUT_DIGEST = """
UPDATE erasure_batch SET settled_at = now(), entries = (
    SELECT count(*) FROM erasure e WHERE e.batch_id = erasure_batch.id) WHERE id = {}
"""


def test_erasure_batch_without_digest_of_its_entries_cannot_be_settled(erasures: Engine) -> None:
    with pytest.raises(IntegrityError, match="digested"), erasures.begin() as conn:
        conn.exec_driver_sql(SETTLE_WITHOUT_DIGEST.format(2))
    with erasures.begin() as conn:
        assert [batch.id for batch in read_open_batches(conn, "shop")] == [2]
        settle_batches(conn, [2], NOW)
