"""The sealed result of a run, read back from its bundle."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from include.evidence import ledger
from include.evidence.check import Refused
from include.evidence.ledger import LedgerRow
from include.evidence.model import Result
from include.evidence.shelf import Shelf
from include.messages import in_english
from include.services.errors import ControlFailed
from include.services.objectstore.base import ObjectStore


@dataclass(frozen=True)
class SealedRun:
    """The sealed result of a run, verified against its signatures and digests.

    Attributes:
        row: of the ledger.
        result: the bundle's result.json.
        files: names of the files that were sealed.
    """

    row: LedgerRow
    result: Result
    files: frozenset[str]


def read_sealed(
    store: ObjectStore, conn: Connection, trusted: Iterable[bytes], dag_id: str, run_id: str
) -> SealedRun | None:
    """Return the sealed result of a run; None when the ledger has no bundle of the run.

    Args:
        store: the evidence store.
        conn: the state database.
        trusted: public keys (PEM) whose seals count.
        dag_id: the workflow.
        run_id: its run.

    Raises:
        ControlFailed: the row, the signature or result.json is not as it was sealed.
        StoreError: the store cannot be read.
    """
    row = ledger.find(conn, dag_id, run_id)
    if row is None:
        return None
    shelf = Shelf(store, trusted)
    try:
        return SealedRun(row, shelf.result(row), frozenset(shelf.signed(row).sums.files))
    except Refused as refusal:
        raise ControlFailed(
            f"The evidence bundle {row.bundle} cannot be verified: {in_english(refusal.message)}.",
            "Keep it as it is, run `./parcelseal verify`, and find out who changed it.",
        ) from refusal


def refuse_sealed(conn: Connection, dag_id: str, run_id: str) -> None:
    """Refuse to work in a run that is sealed: no evidence would show the work.

    Args:
        conn: the live state database.
        dag_id: the workflow.
        run_id: its run.

    Raises:
        ControlFailed: the run is sealed.
    """
    if ledger.find(conn, dag_id, run_id) is not None:
        raise ControlFailed(
            "This run is sealed: nothing can be done in it any more.",
            "Start a new run of the workflow; it does what this run lacks.",
        )
