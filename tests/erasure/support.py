"""Helpers that write erasures of an earlier run to the erasure ledger, and count its entries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from include.erasure.ledger import (
    Action,
    ErasureKeys,
    Origin,
    count_entries,
    open_batch,
    settle_batches,
    withdraw_empty_batches,
)


def record(
    conn: Connection,
    keys: ErasureKeys,
    *,
    database: str,
    collection: str,
    record_keys: Sequence[Sequence[str]],
    record_class: str,
    rule: str,
    dag_id: str,
    run_id: str,
    erased_at: datetime,
    action: Action = "delete",
) -> None:
    """Write records to the erasure ledger in a settled batch.

    If the ledger already has all of the records, no batch is added.
    """
    if not record_keys:
        return
    origin = Origin(
        database=database,
        collection=collection,
        action=action,
        record_class=record_class,
        rule=rule,
        dag_id=dag_id,
        run_id=run_id,
    )
    batch = open_batch(conn, keys, origin, record_keys, transaction="1", server="s", at=erased_at)
    withdraw_empty_batches(conn, [batch])  # before `settle_batches`: a settled batch is not deleted
    settle_batches(conn, [batch], erased_at)


def count(conn: Connection, database: str) -> int:
    """Count the ledger's entries for a database, in settled and open batches."""
    return sum(sum(by_key.values()) for by_key in count_entries(conn, database).values())
