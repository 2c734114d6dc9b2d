"""Remove the step records and artifacts of sealed runs: the sealed bundle has them.

Only the steps and the seal of a run read what its steps left, and no step works in a sealed run. So
these rows are of no use once the bundle verifies in the store.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Connection, Engine, select, tuple_, union

from include.evidence.check import Refused, check_bundle, check_row
from include.evidence.folder import StoreFolder
from include.evidence.ledger import LedgerRow
from include.evidence.names import MOST_LISTED
from include.evidence.signing import TrustedKeys
from include.evidence.verify import link_before
from include.services.objectstore.base import ObjectStore
from include.state.tables import evidence_ledger, run_artifact, run_step

RUNS = 2  # that one call verifies: each seal adds the rows of one run
CANDIDATES = 100  # runs among which one call chooses
LARGEST = 64 * 1024 * 1024  # bytes of a bundle that one call reads


@dataclass(frozen=True)
class Forgotten:
    """The result of one call.

    Attributes:
        runs: number of runs whose rows were removed.
        refused: bundles that do not verify; the rows of their runs stay.
    """

    runs: int
    refused: tuple[str, ...] = ()


def forget_sealed_runs(
    store: ObjectStore,
    state: Engine,
    trusted: Collection[bytes],
    *,
    besides: tuple[str, str] = ("", ""),
    most: int = RUNS,
    largest: int | None = LARGEST,
) -> Forgotten:
    """Remove the rows of sealed runs whose bundles verify in the store, the newest runs first.

    Safe to repeat, after a kill, and in several processes at once: each run is a transaction. A
    bundle that does not verify is checked again by later calls, after the bundles of newer runs.

    Args:
        store: the evidence store.
        state: the state database.
        trusted: public keys (PEM) whose seals count.
        besides: dag id and run id of a run that is left alone.
        most: runs that are checked.
        largest: bytes of a bundle; a larger bundle is left to a call with a higher limit. None for
            no limit.

    Raises:
        StoreError: the store cannot be read.
    """
    keys = TrustedKeys(trusted)
    runs = 0
    refused: list[str] = []
    with state.connect() as conn:
        for row in _sealed_with_rows(conn, besides):
            if runs + len(refused) == most:
                break
            if largest is not None and _size(store, row) > largest:
                continue
            if _verifies(store, conn, keys, row):
                _forget(conn, row)
                runs += 1
            else:
                refused.append(row.bundle)
            conn.commit()
    return Forgotten(runs, tuple(refused))


def _sealed_with_rows(conn: Connection, besides: tuple[str, str]) -> list[LedgerRow]:
    """Return the ledger rows of runs that still have steps or artifacts, the newest first.

    The newest first, so that bundles that do not verify keep no other run waiting.
    """
    runs = union(
        select(run_step.c.dag_id, run_step.c.run_id),
        select(run_artifact.c.dag_id, run_artifact.c.run_id),
    ).subquery()
    entry = evidence_ledger.c
    query = (
        select(evidence_ledger)
        .join(runs, (runs.c.dag_id == entry.dag_id) & (runs.c.run_id == entry.run_id))
        .where(tuple_(entry.dag_id, entry.run_id) != besides)
        .order_by(entry.seq.desc())
        .limit(CANDIDATES)
    )
    rows = [LedgerRow.of(columns) for columns in conn.execute(query).mappings()]
    conn.commit()
    return rows


def _size(store: ObjectStore, row: LedgerRow) -> int:
    """Return the bytes of a bundle, as far as a listing of `MOST_LISTED` files tells."""
    return sum(stored.size for stored in islice(store.list(f"{row.bundle}/"), MOST_LISTED))


def _verifies(store: ObjectStore, conn: Connection, keys: TrustedKeys, row: LedgerRow) -> bool:
    """Return whether the store has the whole bundle of a row, as it was sealed."""
    folder = StoreFolder(store, row.bundle)
    try:
        check_row(row, check_bundle(folder, keys), folder, link_before(conn, row))
    except Refused:
        return False
    return row.is_authentic(keys)


def _forget(conn: Connection, row: LedgerRow) -> None:
    for table in (run_step, run_artifact):
        of_run = (table.c.dag_id == row.dag_id) & (table.c.run_id == row.run_id)
        conn.execute(table.delete().where(of_run))
