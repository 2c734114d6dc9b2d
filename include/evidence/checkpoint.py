"""Signed checkpoints after pruning, tombstones of pruned bundles, and gaps in the ledger.

A seal gives the next number under a lock, in the transaction of its row. So a number is only
missing when its row was deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, select, text
from sqlalchemy.dialects.postgresql import insert

from include.evidence.check import Refused
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
    """The signer's statement that the chain was whole up to a pruned bundle.

    Attributes:
        up_to_seq: the last pruned place of the chain.
        bundle: its folder, with SHA256SUMS, its signature and signer.pem.
        sums_sha256: the digest of that SHA256SUMS, to which the next bundle links.
        signature: Ed25519 over all other columns.
    """

    up_to_seq: int
    bundle: str
    sums_sha256: str
    signed_at: datetime
    key_fingerprint: str
    signature: bytes = b""

    @property
    def link(self) -> Link:
        """Return the link of the next bundle to the last pruned bundle."""
        return Link(self.bundle, self.sums_sha256)

    def signed_content(self) -> bytes:
        """Return what ``signature`` covers: every other column."""
        columns = asdict(self)
        del columns["signature"]
        return canonical("evidence_checkpoint", columns)

    def is_authentic(self, keys: TrustedKeys) -> bool:
        """Return whether the key that it names is trusted and signed it as it stands."""
        return keys.signed_by(self.key_fingerprint, self.signature, self.signed_content())


def checkpoints(conn: Connection) -> list[Checkpoint]:
    """Return the checkpoints in order; the last checkpoint counts."""
    rows = conn.execute(select(evidence_checkpoint).order_by(evidence_checkpoint.c.up_to_seq))
    return [Checkpoint(**{**row, "signature": bytes(row["signature"])}) for row in rows.mappings()]


def newest_checkpoint(conn: Connection, keys: TrustedKeys) -> Checkpoint | None:
    """Return the last checkpoint that a trusted key signed; None if there is none."""
    authentic = [mark for mark in checkpoints(conn) if mark.is_authentic(keys)]
    return authentic[-1] if authentic else None


def pruned_up_to(conn: Connection, keys: TrustedKeys) -> int:
    """Return the number of the last bundle whose files were pruned by rule; 0 if none were.

    A checkpoint counts only if one of the keys signed it.
    """
    newest = newest_checkpoint(conn, keys)
    return newest.up_to_seq if newest else 0


def keep_checkpoint(conn: Connection, signer: Signer, checkpoint: Checkpoint) -> Checkpoint:
    """Sign a checkpoint and keep it instead of earlier ones; the caller holds the evidence lock."""
    columns = asdict(checkpoint) | {"signature": signer.sign(checkpoint.signed_content())}
    return _keep(conn, Checkpoint(**columns))


def store_checkpoint(store: ObjectStore, checkpoint: Checkpoint) -> None:
    """Put a checkpoint into the evidence store, for the day on which the state database is lost."""
    columns = asdict(checkpoint) | {
        "signed_at": checkpoint.signed_at.isoformat(),
        "signature": checkpoint.signature.hex(),
    }
    content = json.dumps(columns, indent=2).encode()
    if _read(store) != content:
        store.put(STORED, content)


def adopt_checkpoint(store: ObjectStore, conn: Connection, keys: TrustedKeys) -> Checkpoint | None:
    """Return the newest checkpoint, after entering that of the store if the database lacks it.

    An older state database that was restored knows less than the store. The caller holds the
    evidence lock.

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
    """Successive numbers of the ledger without a row, up to a row that is there.

    Attributes:
        first: the first missing number.
        last: the last missing number.
    """

    first: int
    last: int

    @property
    def count(self) -> int:
        """Number of missing rows."""
        return self.last - self.first + 1


def unpruned_gaps(conn: Connection, keys: TrustedKeys) -> tuple[Gap, ...]:
    """Return the gaps of the ledger that no signed checkpoint covers, lowest first.

    Numbers after the last row are in no gap. After the state database was lost, rows of pruned
    bundles are missing, which is no gap.

    Args:
        conn: the state database.
        keys: public keys whose checkpoints count.
    """
    gaps = [Gap(first, last) for first, last in conn.execute(_GAPS)]
    pruned = pruned_up_to(conn, keys)
    return tuple(Gap(max(gap.first, pruned + 1), gap.last) for gap in gaps if gap.last > pruned)


def gap_findings(gaps: tuple[Gap, ...]) -> Iterator[Finding]:
    """Yield a failed finding if the ledger has gaps."""
    if gaps:
        yield failure_finding(
            code="evidence.ledger_lost",
            subject="evidence_ledger",
            message=_(
                "{count} rows of the evidence ledger were deleted; the first has the number "
                "{number}. This seal enters those again whose bundles the store has.",
                count=sum(gap.count for gap in gaps),
                number=gaps[0].first,
            ),
            action=_("Find out who deleted rows of the state database, and what else is missing."),
        )


def check_tombstones(rows: Sequence[LedgerRow], checkpoint: Checkpoint, keys: TrustedKeys) -> None:
    """Check that the rows are authentic, and that neighbours are linked, also with the checkpoint.

    Rows may be missing: nothing brings them back after the state database was lost.

    Raises:
        Refused: they are not.
    """
    before: LedgerRow | None = None
    for row in rows:
        if not row.is_authentic(keys):
            changed = _(
                "the ledger row of the pruned bundle {bundle} was changed", bundle=row.bundle
            )
            raise Refused(changed)
        if before and row.seq == before.seq + 1 and row.previous_sums_sha256 != before.sums_sha256:
            raise Refused(_("the ledger row does not link to the row before it"))
        before = row
    if before and before.seq == checkpoint.up_to_seq and before.link != checkpoint.link:
        raise Refused(_("SHA256SUMS is not the one that the checkpoint has"))
