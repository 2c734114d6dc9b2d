"""Erasures of another run that are already in the ledger, and the number of its entries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from include.erasure.ledger import (
    Action,
    ErasureKeys,
    Origin,
    entries,
    intend,
    settle,
    withdraw_empty,
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
    """Enter records in a settled batch. Records that are already entered add no batch."""
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
    batch = intend(conn, keys, origin, record_keys, transaction="1", server="s", at=erased_at)
    withdraw_empty(conn, [batch])  # before it is settled: a settled batch stays
    settle(conn, [batch], erased_at)


def count(conn: Connection, database: str) -> int:
    """Count the ledger's entries of a database, those of open batches included."""
    return sum(sum(by_key.values()) for by_key in entries(conn, database).values())
