"""Compare the entries of the erasure ledger with their settled batches.

The figures that bundles seal cover batches. A deleted entry shows only in its batch, which keeps
the number and a digest of its entries.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from include.erasure.entry_digests import changed_batches
from include.erasure.ledger import missing
from include.services.errors import ControlFailed
from include.state.tables import erasure_batch


@dataclass(frozen=True)
class EntryLoss:
    """Lost or changed entries of a collection.

    Attributes:
        missing: number of entries that settled batches had and that are gone.
        changed_batches: number of settled batches whose entries are not the settled ones, those
            that lack entries included.
    """

    database: str
    collection: str
    missing: int
    changed_batches: int


def entry_losses(conn: Connection) -> list[EntryLoss]:
    """Compare the entries of each database of the ledger with their settled batches.

    Reads every entry: seconds for each million, see `changed_batches`.

    Returns:
        Losses by database and collection, in this order; none where all entries are as settled.
    """
    losses = []
    query = select(erasure_batch.c.database).distinct().order_by(erasure_batch.c.database)
    for database in conn.scalars(query).all():
        gone, changed = missing(conn, database), changed_batches(conn, database)
        losses += [
            EntryLoss(database, collection, gone.get(collection, 0), changed.get(collection, 0))
            for collection in sorted({*gone, *changed})
        ]
    return losses


def require_no_entry_missing(conn: Connection, database: str) -> None:
    """Refuse to erase more records of a database while the ledger lacks entries of earlier ones.

    Counts entries and digests none.

    Raises:
        ControlFailed: entries are `include.erasure.ledger.missing`.
    """
    if gone := missing(conn, database):
        raise ControlFailed(
            f"The erasure ledger lacks {sum(gone.values())} entries of {database} that it had "
            f"({', '.join(sorted(gone))}). A restore would bring back the records that they name, "
            "so nothing more is deleted.",
            "Restore the state database from a backup that has them: `./parcelseal recover-ledger` "
            "names what is missing. If no backup has them: docs/evidence.md, "
            '"When no backup has the entries".',
        )
