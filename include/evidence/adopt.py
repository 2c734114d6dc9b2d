"""Entering signed bundles that a killed seal, or a restored state database, left without a row."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from include.evidence import ledger
from include.evidence.folder import Folder, StoreFolder
from include.evidence.ledger import LedgerRow
from include.evidence.names import (
    DEPTH,
    LARGEST_RESULT,
    LARGEST_SIGNATURE,
    LARGEST_SUMS,
    RESULT,
    SIGNATURE,
    SUMS,
)
from include.evidence.pending import lock_bundle, publish_signatures
from include.evidence.signing import Signer, TrustedKeys
from include.evidence.sums import Sums
from include.services.clock import Clock
from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore
from include.state.connect import StateLock, lock_for_transaction
from include.state.tables import evidence_intent


@dataclass(frozen=True)
class SignedBundle:
    """What a signed bundle says of itself, read back from its folder.

    Attributes:
        sums: its SHA256SUMS, parsed.
        sums_sha256: the digest of that file.
        key_fingerprint: the trusted key that signed it.
        columns: what its result.json shares with the ledger, by column.
        finished_at: when its checks ended, by its result.json.
    """

    sums: Sums
    sums_sha256: str
    key_fingerprint: str
    columns: dict[str, Any]
    finished_at: datetime


def recover_ledger(
    store: ObjectStore, conn: Connection, signer: Signer, keys: TrustedKeys, clock: Clock
) -> list[str]:
    """Enter every bundle of the store that continues the chain, after ``state`` was restored.

    Reads the whole store. Commits what is open on ``conn``.

    Returns:
        The bundles that were entered, in the chain's order.
    """
    conn.commit()
    with conn.begin():
        lock_for_transaction(conn, StateLock.EVIDENCE)
        publish_signatures(store, conn, keys, None)
        return adopt_unrecorded(store, conn, signer, keys, clock, everywhere=True)


def adopt_unrecorded(
    store: ObjectStore,
    conn: Connection,
    signer: Signer,
    keys: TrustedKeys,
    clock: Clock,
    lock_until: datetime | None = None,
    *,
    everywhere: bool = False,
) -> list[str]:
    """Enter signed bundles that follow the ledger's last row; the caller holds the evidence lock.

    A seal commits its row before it signs, so a signed bundle without a row is one whose row was
    lost, or one of an older version. Reads the bundles whose seal began and did not end; all of the
    store for an empty ledger, so that a lost state database does not start a second chain.

    Args:
        store: the evidence store.
        conn: the state database.
        signer: signs the rows.
        keys: who may have signed the bundles.
        clock: gives the latest moment at which a bundle counts as sealed.
        lock_until: as for ``seal``.
        everywhere: look at all of the store.

    Returns:
        The bundles that were entered, in the chain's order.
    """
    last = ledger.head(conn)
    unsigned = evidence_intent.c.signature.is_(None)
    candidates = set(conn.scalars(select(evidence_intent.c.bundle).where(unsigned)))
    if everywhere or last is None:
        candidates |= signed_folders(store)
    bundles = {bundle: _read_trusted(StoreFolder(store, bundle), keys) for bundle in candidates}
    followers = {signed.sums.previous: name for name, signed in bundles.items() if signed}
    adopted: list[str] = []
    while bundle := followers.pop(last.link if last else None, None):
        signed = bundles[bundle]
        assert signed is not None
        if ledger.find(conn, signed.columns["dag_id"], signed.columns["run_id"]):
            break
        lock_bundle(store, bundle, signed.sums, lock_until)
        last = ledger.append(
            conn,
            signer,
            LedgerRow(
                seq=last.seq + 1 if last else 1,
                bundle=bundle,
                **signed.columns,
                # Evidence that is entered again is not younger for it.
                sealed_at=min(signed.finished_at, clock.now()),
                sums_sha256=signed.sums_sha256,
                previous_sums_sha256=last.sums_sha256 if last else "",
                key_fingerprint=signed.key_fingerprint,
            ),
        )
        conn.execute(evidence_intent.delete().where(evidence_intent.c.bundle == bundle))
        adopted.append(bundle)
    return adopted


def signed_folders(store: ObjectStore) -> set[str]:
    """Return the folders of the store that hold a signature."""
    keys = (one.key.split("/") for one in store.list())
    return {
        "/".join(parts[:DEPTH])
        for parts in keys
        if len(parts) == DEPTH + 1 and parts[DEPTH] == SIGNATURE
    }


def columns_of(result_json: bytes) -> dict[str, Any]:
    """Return what a result.json shares with its row of the ledger, by column.

    Raises:
        ValueError: not a result.json.
    """
    try:
        result = json.loads(result_json)
        return {
            "dag_id": result["run"]["dag_id"],
            "run_id": result["run"]["run_id"],
            "outcome": result["outcome"],
            "controls": [control["id"] for control in result["controls"]],
            "started_at": datetime.fromisoformat(result["run"]["started_at"]),
        }
    except (KeyError, TypeError) as error:
        raise ValueError("result.json lacks what every result has") from error


def finished_at_of(result_json: bytes) -> datetime:
    """Return when the checks of a run ended, by its result.json.

    Raises:
        ValueError: not a result.json.
    """
    try:
        finished_at = datetime.fromisoformat(json.loads(result_json)["finished_at"])
    except (KeyError, TypeError) as error:
        raise ValueError("result.json lacks the moment at which it was finished") from error
    if finished_at.tzinfo is None:
        raise ValueError("the moment at which result.json was finished has no timezone")
    return finished_at


def _read_trusted(folder: Folder, keys: TrustedKeys) -> SignedBundle | None:
    """Read a folder; None when it is unfinished, not signed by a trusted key, or damaged."""
    try:
        signature = folder.read(SIGNATURE, LARGEST_SIGNATURE)
        data = folder.read(SUMS, LARGEST_SUMS)
        signed_by = keys.who_signed(signature, data)
        if signed_by is None:
            return None
        sums = Sums.parse(data)
        result_json = folder.read(RESULT, LARGEST_RESULT)
        if sums.files.get(RESULT) != hashlib.sha256(result_json).hexdigest():
            return None
        columns = columns_of(result_json)
        finished_at = finished_at_of(result_json)
    except (ObjectMissing, ObjectDamaged, ValueError):
        return None
    return SignedBundle(sums, hashlib.sha256(data).hexdigest(), signed_by, columns, finished_at)
