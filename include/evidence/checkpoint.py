"""Signed checkpoints: where the chain begins after old evidence was pruned."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from include.evidence.ledger import canonical
from include.evidence.signing import Signer, TrustedKeys
from include.evidence.sums import Link
from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore
from include.state.tables import evidence_checkpoint

STORED = "checkpoint.json"  # key in the evidence store, above the folders of bundles
LARGEST = 16 * 1024  # bytes of it


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
    """Return the checkpoints in order; the last one counts."""
    every = conn.execute(select(evidence_checkpoint).order_by(evidence_checkpoint.c.up_to_seq))
    found = [dict(row) for row in every.mappings()]
    return [Checkpoint(**row | {"signature": bytes(row["signature"])}) for row in found]


def newest_checkpoint(conn: Connection, keys: TrustedKeys) -> Checkpoint | None:
    """Return the last checkpoint that one of the keys signed, None without one."""
    authentic = [mark for mark in checkpoints(conn) if mark.is_authentic(keys)]
    return authentic[-1] if authentic else None


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
