"""Checkpoints (signed records of pruning), ledger rows of pruned bundles, and gaps in the ledger.

A seal takes the next sequence number and adds the ledger row in one transaction, which holds a
lock. A seal that fails uses no number. If a sequence number is missing, its row was therefore
deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, select, text
from sqlalchemy.dialects.postgresql import insert

from include.evidence.check import EvidenceRefused
from include.evidence.folder import Link
from include.evidence.ledger import LedgerRow, canonical
from include.evidence.model import Finding, failure_finding
from include.evidence.signing import Signer, TrustedKeys
from include.messages import _
from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore
from include.state.tables import evidence_checkpoint

STORED = "checkpoint.json"  # key in the evidence store, above the folders of bundles
LARGEST = 16 * 1024  # bytes of it


@dataclass(frozen=True)
class Checkpoint:
    """A signed statement that all bundles up to a certain one were valid when they were pruned.

    Attributes:
        up_to_seq: sequence number of the last pruned bundle.
        bundle: folder of the last pruned bundle. SHA256SUMS, its signature and signer.pem are kept
            in this folder.
        sums_sha256: SHA-256 digest of SHA256SUMS in this folder. The next bundle links to it.
        signed_at: when the checkpoint was signed.
        key_fingerprint: fingerprint of the key that signed the checkpoint.
        signature: Ed25519 signature over all other attributes.
    """

    up_to_seq: int
    bundle: str
    sums_sha256: str
    signed_at: datetime
    key_fingerprint: str
    signature: bytes = b""

    @property
    def link(self) -> Link:
        """Return the link to the last pruned bundle.

        The first bundle that is not pruned must contain this link.
        """
        return Link(self.bundle, self.sums_sha256)

    def signed_content(self) -> bytes:
        """Return the bytes that ``signature`` is calculated from: all other attributes."""
        columns = asdict(self)
        del columns["signature"]
        return canonical("evidence_checkpoint", columns)

    def is_authentic(self, keys: TrustedKeys) -> bool:
        """Return whether the checkpoint names a trusted key and was signed by this key."""
        return keys.signed_by(self.key_fingerprint, self.signature, self.signed_content())


def checkpoints(conn: Connection) -> list[Checkpoint]:
    """Return all checkpoints of the state database, ordered by sequence number."""
    rows = conn.execute(select(evidence_checkpoint).order_by(evidence_checkpoint.c.up_to_seq))
    return [Checkpoint(**{**row, "signature": bytes(row["signature"])}) for row in rows.mappings()]


def newest_checkpoint(conn: Connection, keys: TrustedKeys) -> Checkpoint | None:
    """Return the newest checkpoint that a trusted key signed.

    The newest checkpoint is the one with the highest sequence number. Return None if no checkpoint
    has a trusted signature.
    """
    authentic = [mark for mark in checkpoints(conn) if mark.is_authentic(keys)]
    return authentic[-1] if authentic else None


def pruned_up_to(conn: Connection, keys: TrustedKeys) -> int:
    """Return the last pruned bundle's sequence number; 0 if no bundle was pruned.

    Checkpoints without a valid signature of a key in `keys` are ignored.
    """
    newest = newest_checkpoint(conn, keys)
    return newest.up_to_seq if newest else 0


def sign_checkpoint(conn: Connection, signer: Signer, checkpoint: Checkpoint) -> Checkpoint:
    """Sign a checkpoint, store it in the state database and delete earlier checkpoints there.

    The caller must hold the lock `StateLock.EVIDENCE`.

    Returns:
        The signed checkpoint.
    """
    columns = asdict(checkpoint) | {"signature": signer.sign(checkpoint.signed_content())}
    return _keep(conn, Checkpoint(**columns))


def store_checkpoint(store: ObjectStore, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to the evidence store.

    If the state database is lost, the checkpoint can be read from there.
    """
    columns = asdict(checkpoint) | {
        "signed_at": checkpoint.signed_at.isoformat(),
        "signature": checkpoint.signature.hex(),
    }
    content = json.dumps(columns, indent=2).encode()
    if _read(store) != content:
        store.put(STORED, content)


def synchronize_checkpoint(
    store: ObjectStore, conn: Connection, keys: TrustedKeys
) -> Checkpoint | None:
    """Return the newest checkpoint that is in the state database or in the evidence store.

    Only checkpoints that one of `keys` signed are used. Return None if no such checkpoint exists.
    If an older backup of the state database was restored, the store can have a newer checkpoint.
    The function then writes this checkpoint to the state database. The caller must hold the lock
    `StateLock.EVIDENCE`.

    Raises:
        StoreError: the store cannot be read.
    """
    newest = newest_checkpoint(conn, keys)
    try:
        columns = json.loads(_read(store))
        stored = Checkpoint(
            **columns
            | {
                "signed_at": datetime.fromisoformat(columns["signed_at"]),
                "signature": bytes.fromhex(columns["signature"]),
            }
        )
        is_newer = newest is None or stored.up_to_seq > newest.up_to_seq
        return _keep(conn, stored) if is_newer and stored.is_authentic(keys) else newest
    except (ValueError, KeyError, TypeError, AttributeError):  # not what `store_checkpoint` wrote
        return newest


def _keep(conn: Connection, checkpoint: Checkpoint) -> Checkpoint:
    columns = asdict(checkpoint)
    same = evidence_checkpoint.primary_key  # a forged one may have the number
    entry = insert(evidence_checkpoint).values(columns)
    conn.execute(entry.on_conflict_do_update(constraint=same, set_=columns))
    older = evidence_checkpoint.c.up_to_seq < checkpoint.up_to_seq
    conn.execute(evidence_checkpoint.delete().where(older))
    return checkpoint


def _read(store: ObjectStore) -> bytes:
    try:
        return store.get(STORED, limit=LARGEST)
    except (ObjectMissing, ObjectDamaged):
        return b""


_GAPS = text("""
SELECT before + 1, seq - 1 FROM (
    SELECT seq, lag(seq, 1, CAST(0 AS bigint)) OVER (ORDER BY seq) AS before FROM evidence_ledger
) AS numbers WHERE seq > before + 1 ORDER BY seq
""")


@dataclass(frozen=True)
class Gap:
    """A range of successive sequence numbers without ledger rows, although a later row exists.

    Attributes:
        first: the first missing sequence number.
        last: the last missing sequence number.
    """

    first: int
    last: int

    @property
    def count(self) -> int:
        """Return the number of missing rows."""
        return self.last - self.first + 1


def unpruned_gaps(conn: Connection, keys: TrustedKeys) -> tuple[Gap, ...]:
    """Return the gaps of the ledger after the last pruned bundle, lowest sequence number first.

    Missing rows of pruned bundles are accepted, because they cannot be restored after a loss of the
    state database. If only the last rows of the ledger were deleted, this function finds no gap.

    Args:
        conn: connection to the state database.
        keys: public keys whose checkpoints are accepted.
    """
    gaps = [Gap(first, last) for first, last in conn.execute(_GAPS)]
    pruned = pruned_up_to(conn, keys)
    return tuple(Gap(max(gap.first, pruned + 1), gap.last) for gap in gaps if gap.last > pruned)


def gap_findings(gaps: tuple[Gap, ...]) -> Iterator[Finding]:
    """Yield one finding with severity ``fail`` if there are gaps in the ledger; otherwise nothing.

    Args:
        gaps: the gaps of the ledger; may be empty.
    """
    if gaps:
        yield failure_finding(
            code="evidence.ledger_lost",
            subject="evidence_ledger",
            message=_(
                "{count} rows of the evidence ledger were deleted; the first deleted row has "
                "the number {number}. If the bundle of a deleted row is still in the evidence "
                "store, this run entered the row again.",
                count=sum(gap.count for gap in gaps),
                number=gaps[0].first,
            ),
            action=_(
                "Find out who deleted rows of the evidence ledger, and whether other "
                "entries of the state database are missing."
            ),
        )


def check_tombstones(rows: Sequence[LedgerRow], checkpoint: Checkpoint, keys: TrustedKeys) -> None:
    """Check that rows of pruned bundles are authentic and each links to the row before it.

    The row of the last pruned bundle must also agree with the checkpoint. Missing rows are
    accepted, because they cannot be restored after a loss of the state database.

    Args:
        rows: ledger rows of pruned bundles, ordered by sequence number.
        checkpoint: the checkpoint of the last pruned bundle.
        keys: public keys whose signatures are accepted.

    Raises:
        EvidenceRefused: a row was changed, does not link to the row before it, or differs from the
            checkpoint.
    """
    before: LedgerRow | None = None
    for row in rows:
        if not row.is_authentic(keys):
            changed = _(
                "the files of the bundle {bundle} were removed at the end of their retention "
                "period, and the bundle's row in the evidence ledger was changed",
                bundle=row.bundle,
            )
            raise EvidenceRefused(changed)
        if before and row.seq == before.seq + 1 and row.previous_sums_sha256 != before.sums_sha256:
            raise EvidenceRefused(
                _(
                    "the row in the evidence ledger does not contain the digest of the "
                    "previous row, so the chain is broken here"
                )
            )
        before = row
    if before and before.seq == checkpoint.up_to_seq and before.link != checkpoint.link:
        raise EvidenceRefused(
            _(
                "the bundle's list of checksums differs from the list in the signed checkpoint "
                "of removed bundles"
            )
        )
