"""Signed checkpoints: where the chain begins after old evidence was pruned."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from include.evidence.ledger import canonical
from include.evidence.signing import Signer, TrustedKeys
from include.evidence.sums import Link
from include.state.tables import evidence_checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """The signer's word that the chain was whole up to a bundle that is no longer kept.

    Attributes:
        up_to_seq: the last pruned place of the chain.
        bundle: its folder, of which SHA256SUMS, its signature and signer.pem are kept.
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
        """How the next bundle refers to the last pruned one."""
        return Link(self.bundle, self.sums_sha256)

    def signed_content(self) -> bytes:
        """Return what ``signature`` covers: every other column."""
        columns = asdict(self)
        del columns["signature"]
        return canonical("evidence_checkpoint", columns)

    def is_authentic(self, keys: TrustedKeys) -> bool:
        """Say whether the key that it names is trusted and signed it as it stands."""
        return keys.signed_by(self.key_fingerprint, self.signature, self.signed_content())


def checkpoints(conn: Connection) -> list[Checkpoint]:
    """Return the checkpoints in order; the last one counts, a finished prune leaves no other."""
    every = conn.execute(select(evidence_checkpoint).order_by(evidence_checkpoint.c.up_to_seq))
    found = [dict(row) for row in every.mappings()]
    return [Checkpoint(**row | {"signature": bytes(row["signature"])}) for row in found]


def keep_checkpoint(conn: Connection, signer: Signer, checkpoint: Checkpoint) -> Checkpoint:
    """Sign and store a checkpoint; the caller holds the evidence lock."""
    columns = asdict(checkpoint) | {"signature": signer.sign(checkpoint.signed_content())}
    conn.execute(insert(evidence_checkpoint).values(columns).on_conflict_do_nothing())
    return Checkpoint(**columns)
