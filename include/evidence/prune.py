"""Pruning of old evidence: the chain then begins at a signed checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from include.evidence import ledger
from include.evidence.checkpoint import Checkpoint, checkpoints, keep_checkpoint
from include.evidence.names import SIGNATURE, SIGNER, SUMS
from include.evidence.pending import lock_end, publish_signatures
from include.evidence.signing import Signer, TrustedKeys
from include.evidence.verify import verify_all
from include.policy.evidence import EvidenceRules
from include.services.clock import Clock
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.base import ObjectLocked, ObjectStore
from include.state.connect import StateLock, lock_for_transaction
from include.state.tables import evidence_checkpoint, evidence_ledger

KEPT = {SUMS, SIGNATURE, SIGNER}  # of the last pruned bundle: the next one links to it


def prune_to_checkpoint(
    store: ObjectStore,
    conn: Connection,
    signer: Signer,
    *,
    before_seq: int,
    trusted: Iterable[bytes],
    clock: Clock,
) -> Checkpoint:
    """Delete the bundles before a place of the chain and keep a signed checkpoint instead.

    The checkpoint is kept first, then objects are deleted, then their ledger rows, so that a prune
    that was killed can be repeated and the chain verifies at every moment.

    Args:
        store: the evidence store.
        conn: the state database; what is open on it is committed.
        signer: signs the checkpoint.
        before_seq: the first place that stays; at least the last bundle always does.
        trusted: public keys (PEM) whose seals count.
        clock: gives the moment of the checkpoint.

    Raises:
        UsageError: nothing to prune, or nothing would stay.
        ControlFailed: the evidence does not verify; pruning would hide that.
        ObjectLocked: a lock of an object in question has not ended; nothing was deleted.
    """
    conn.commit()
    trusted = [*trusted]
    state = verify_all(store, conn, [signer.public_pem, *trusted])
    if not state.verified:
        raise ControlFailed(
            f"The evidence does not verify ({state.first_bad}: {state.reason}), so nothing was "
            "pruned.",
            "Find out why first: pruning would hide it.",
        )
    with conn.begin():
        lock_for_transaction(conn, StateLock.EVIDENCE)
        keys = TrustedKeys([signer.public_pem, *trusted])
        publish_signatures(store, conn, keys, lock_end(store, clock, EvidenceRules()))
        earlier = checkpoints(conn)
        done = earlier[-1].up_to_seq if earlier else 0  # above rows only after a killed prune
        old = [row for row in ledger.rows(conn) if row.seq < before_seq or row.seq <= done]
        last = ledger.head(conn)
        if not old or last is None or last.seq == old[-1].seq:
            raise UsageError(
                f"There is nothing to prune before number {before_seq}, or nothing would stay.",
                f"The ledger's last number is {last.seq if last else 0}.",
            )
        folders = {row.bundle for row in old} | {one.bundle for one in earlier}
        objects = [one.key for folder in sorted(folders) for one in store.list(f"{folder}/")]
        checkpoint = Checkpoint(
            old[-1].seq, old[-1].bundle, old[-1].sums_sha256, clock.now(), signer.fingerprint
        )
        stays = {f"{checkpoint.bundle}/{name}" for name in KEPT}
        _refuse_locked(store, [key for key in objects if key not in stays], clock)
        if checkpoint.up_to_seq > done:
            checkpoint = keep_checkpoint(conn, signer, checkpoint)
        else:
            checkpoint = earlier[-1]
    with conn.begin():
        lock_for_transaction(conn, StateLock.EVIDENCE)
        for key in objects:
            if key not in stays:
                store.delete(key)
        seq = evidence_ledger.c.seq
        conn.execute(evidence_ledger.delete().where(seq <= checkpoint.up_to_seq))
        up_to = evidence_checkpoint.c.up_to_seq
        conn.execute(evidence_checkpoint.delete().where(up_to < checkpoint.up_to_seq))
    return checkpoint


def _refuse_locked(store: ObjectStore, keys: list[str], clock: Clock) -> None:
    for key in keys:
        until = store.stat(key).locked_until
        if until and until > clock.now():
            raise ObjectLocked(
                f"The evidence {key} is locked until {until:%Y-%m-%d}, so nothing was pruned.",
                "Prune it after that day.",
            )
