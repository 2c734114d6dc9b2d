"""Signatures of bundles that have a ledger row, on their way into the store.

A seal commits the ledger row and the signature in one transaction and puts the signature into the
store after that. Until the commit nothing signed exists outside of it, so a seal that loses its
connection cannot fork the chain. After the commit any later seal can finish the work.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from include.evidence import ledger
from include.evidence.folder import StoreFolder
from include.evidence.ledger import LedgerRow
from include.evidence.names import LARGEST_SIGNATURE, SIGNATURE
from include.evidence.signing import TrustedKeys
from include.evidence.versions import find_sealed, read_sealed_sums
from include.policy.rules import EvidenceRules
from include.services.clock import Clock
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectLocked,
    ObjectMissing,
    ObjectStore,
)
from include.state.tables import evidence_intent


def lock_end(store: ObjectStore, clock: Clock, rules: EvidenceRules) -> datetime | None:
    """Return until when bundles that are finished now are locked; None in a directory."""
    return clock.now() + timedelta(days=rules.lock_days) if store.kind == "s3" else None


def keep_signature(conn: Connection, bundle: str, signature: bytes) -> None:
    """Keep a bundle's signature, in the transaction that enters its ledger row."""
    intent = evidence_intent.update().where(evidence_intent.c.bundle == bundle)
    conn.execute(intent.values(signature=signature))


def pending_signatures(conn: Connection) -> dict[str, bytes]:
    """Return the signatures that the store may not have yet, by bundle."""
    columns = evidence_intent.c
    kept = conn.execute(
        select(columns.bundle, columns.signature).where(columns.signature.is_not(None))
    )
    return {row.bundle: bytes(row.signature) for row in kept}


def begun_bundles(conn: Connection) -> set[str]:
    """Return the bundles that are being written, or whose seal was killed before its row."""
    columns = evidence_intent.c
    return set(conn.scalars(select(columns.bundle).where(columns.signature.is_(None))))


def pending_signature(conn: Connection, bundle: str) -> bytes | None:
    """Return a bundle's signature that the store may not have yet; None when there is none."""
    columns = evidence_intent.c
    signature = conn.scalar(select(columns.signature).where(columns.bundle == bundle))
    return None if signature is None else bytes(signature)


def publish_signatures(
    store: ObjectStore, conn: Connection, keys: TrustedKeys, lock_until: datetime | None
) -> None:
    """Put pending signatures into the store; the caller holds the evidence lock.

    A signature that does not fit the bundle's SHA256SUMS and ledger row stays pending, and so does
    one whose name is locked: the bundle was changed, and verification names it.

    Args:
        store: the evidence store.
        conn: the state database.
        keys: public keys whose seals count.
        lock_until: end of Object Lock for every object of the bundles; None for no lock.

    Raises:
        StoreError: the store cannot be read or written; repeat it.
    """
    for bundle, signature in pending_signatures(conn).items():
        row = ledger.find_bundle(conn, bundle)
        if row is None or not _fits(store, row, signature, keys):
            continue
        if _stored_signature(store, bundle) != signature:
            try:
                store.put(f"{bundle}/{SIGNATURE}", signature)
            except ObjectLocked:  # another signature has its name: the bundle was changed
                continue
        if lock_until:
            sealed = find_sealed(store, bundle, keys, sums_sha256=row.sums_sha256)
            if sealed is None:  # its signature was deleted or overwritten meanwhile
                continue
            sealed.lock(lock_until)
        conn.execute(evidence_intent.delete().where(evidence_intent.c.bundle == bundle))


def _fits(store: ObjectStore, row: LedgerRow, signature: bytes, keys: TrustedKeys) -> bool:
    """Return whether a signature is that of the SHA256SUMS that the ledger has and is stored."""
    sums = read_sealed_sums(store, row.bundle, row.sums_sha256)
    return sums is not None and keys.signed_by(row.key_fingerprint, signature, sums)


def _stored_signature(store: ObjectStore, bundle: str) -> bytes | None:
    try:
        return StoreFolder(store, bundle).read(SIGNATURE, LARGEST_SIGNATURE)
    except (ObjectMissing, ObjectDamaged):
        return None
