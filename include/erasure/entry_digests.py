"""Digests of the entries of settled batches: they show an entry that was replaced or removed."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, func, literal_column, select

from include.state.tables import erasure_batch

# Of the entries of the row of erasure_batch; the order is fixed, so that the same entries give the
# same digest. The migration 0024 has the same SQL for older batches.
DIGEST_OF_BATCH: ColumnElement[bytes] = literal_column(
    """(SELECT sha256(coalesce(string_agg(
        e.key_hmac || convert_to(e.action || ' ' || e.key_id || chr(10), 'UTF8'), ''::bytea
        ORDER BY e.key_hmac, e.action COLLATE "C", e.key_id COLLATE "C"
    ), ''::bytea)) FROM erasure e WHERE e.batch_id = erasure_batch.id)"""
)


def changed_batches(conn: Connection, database: str) -> dict[str, int]:
    """Count settled batches whose entries are not the ones that were settled.

    Reads every entry of the database: for each million, 1.05 s of processor time in batches of 20
    entries, and 2.6 s in batches of 1,000.

    Returns:
        Collection -> batches; nothing for collections where all is as it was.
    """
    query = (
        select(erasure_batch.c.collection, func.count())
        .where(
            erasure_batch.c.database == database,
            erasure_batch.c.settled_at.is_not(None),
            erasure_batch.c.entries_sha256.is_distinct_from(DIGEST_OF_BATCH),
        )
        .group_by(erasure_batch.c.collection)
        .order_by(erasure_batch.c.collection)
    )
    return {collection: int(number) for collection, number in conn.execute(query)}
