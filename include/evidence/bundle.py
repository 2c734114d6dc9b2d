"""Seal a run: write its result and files as a signed bundle of the chain."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from types import MappingProxyType

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from include.evidence import index, ledger
from include.evidence.adopt import (
    Recovery,
    evidence_transaction,
    keep_signature,
    pending_signatures,
)
from include.evidence.folder import (
    LARGEST_RESULT,
    MOST_FILES,
    RESULT,
    SIGNATURE,
    SIGNER,
    SUMS,
    StoreFolder,
    Sums,
    bundle_path,
    check_file_names,
)
from include.evidence.ledger import LedgerRow
from include.evidence.model import Result
from include.evidence.signing import Signer, TrustedKeys
from include.evidence.unrecorded import search_unrecorded
from include.services.clock import Clock
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.base import ObjectLocked, ObjectMissing, ObjectStore
from include.state.tables import evidence_intent

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class SealedBundle:
    """A bundle of the chain.

    Attributes:
        path: folder, relative to the store.
        sums_sha256: digest of its SHA256SUMS.
        seq: its place in the chain, from 1.
        key_fingerprint: the key that signed it.
    """

    path: str
    sums_sha256: str
    seq: int
    key_fingerprint: str


def seal(
    store: ObjectStore,
    conn: Connection,
    signer: Signer,
    *,
    result: Result,
    files: Mapping[str, bytes],
    stored: Mapping[str, str] = NOTHING,
    clock: Clock,
    lock_until: datetime | None = None,
    trusted: Iterable[bytes] = (),
    workflows: Collection[str] = (),
) -> SealedBundle:
    """Write a run's bundle, enter it in the ledger and sign it.

    Safe to repeat, and after a kill at any point. The files are written first. Then one transaction
    commits the ledger's row and the signature, and only after that the signature goes into the
    store: a seal that loses its connection, and with it the lock, has signed nothing. A folder
    without a row is written anew by the run's next try; a signature that did not reach the store is
    put there by the next seal of any run. Signed bundles of the store whose rows were lost with an
    older state database are entered first. The first seal of a run stands: sealing it again returns
    the first bundle, whatever the new result says.

    Objects are locked after the signature, so that the remains of a killed try can be cleared.

    Args:
        store: the evidence store.
        conn: the state database, outside of a ``with engine.begin()`` block. What is open on it is
            committed: the seal needs transactions of its own.
        signer: the key that seals.
        result: of the run.
        files: the bundle's further files by relative name: reports and artifacts.
        stored: hex digests of files that were stored in the folder before the seal, by name.
        clock: gives the moment of sealing.
        lock_until: end of Object Lock for every object of the bundle, None for no lock.
        trusted: public keys of earlier signers (PEM), whose unfinished bundles are entered too.
        workflows: names under which bundles are sealed; those of the ledger are added.

    Raises:
        UsageError: a file name is not possible in a bundle, or there is too much for one.
        ControlFailed: the run's folder holds a signed bundle that does not belong to the chain,
            a file that was stored before was changed or removed, a bundle that follows the last
            bundle cannot be entered, the last row of the ledger was changed, or the bundle was
            changed before its signature reached the store.
        StoreError: the store did not take a file; seal again.
    """
    check_file_names([*files, *stored])
    result_json = (result.model_dump_json(indent=2) + "\n").encode()
    if len(result_json) > LARGEST_RESULT:
        raise UsageError(
            f"The result of this run has {len(result_json)} bytes, and evidence holds at most "
            f"{LARGEST_RESULT}.",
            "Run the workflow for fewer databases at a time.",
        )
    run = result.run
    bundle = bundle_path(run.dag_id, run.run_id, run.started_at)
    keys = TrustedKeys([signer.public_pem, *trusted])

    recovery = Recovery(store, conn, signer, keys, clock, lock_until)
    transaction = partial(evidence_transaction, store, conn, keys, lock_until)

    def recorded() -> LedgerRow | None:
        return ledger.find(conn, run.dag_id, run.run_id)

    conn.commit()
    with transaction():  # the intent is kept before anything is written
        recovery.adopt_begun()
        if row := recorded():
            return _sealed(conn, row)
        begun = select(evidence_intent).where(evidence_intent.c.bundle == bundle)
        tried_before = conn.execute(begun).first() is not None
        intent = insert(evidence_intent).values(bundle=bundle, begun_at=clock.now())
        conn.execute(intent.on_conflict_do_nothing())
    with transaction():
        if row := recorded():
            return _sealed(conn, row)
        names = {*workflows, run.dag_id, *index.workflows(conn)}
        recovery.adopt_before_seal(names)
        if row := recorded():
            return _sealed(conn, row)
        last = ledger.trusted_head(conn, keys)
        if tried_before or stored:  # a writer of these files may have been killed too
            store.clear_abandoned(f"{bundle}/")
        content = {
            **files,
            RESULT: result_json,
            SIGNER: signer.public_pem,
        }
        _refuse_signed(store, conn, keys, bundle)
        remains = _clear(store, bundle, keep={*content, *stored})
        remains |= _as_written(StoreFolder(store, bundle), stored)
        sums = _write(store, bundle, content, remains, last)
        row = ledger.append(
            conn,
            signer,
            LedgerRow(
                seq=last.seq + 1 if last else 1,
                bundle=bundle,
                dag_id=run.dag_id,
                run_id=run.run_id,
                outcome=str(result.outcome),
                controls=[control.id for control in result.controls],
                started_at=run.started_at,
                sealed_at=clock.now(),
                sums_sha256=hashlib.sha256(sums).hexdigest(),
                previous_sums_sha256=last.sums_sha256 if last else "",
                key_fingerprint=signer.fingerprint,
            ),
        )
        keep_signature(conn, bundle, signer.sign(sums))
    with transaction():
        return _sealed(conn, row)


def finish_seal(
    store: ObjectStore,
    conn: Connection,
    keys: TrustedKeys,
    dag_id: str,
    run_id: str,
    lock_until: datetime | None = None,
) -> SealedBundle | None:
    """Return the bundle of a run that is in the ledger, after its signature reached the store.

    Args:
        store: the evidence store.
        conn: the state database; what is open on it is committed.
        keys: public keys whose seals count.
        dag_id: the workflow.
        run_id: its run.
        lock_until: as for ``seal``.

    Returns:
        The bundle; None when the run was not sealed.

    Raises:
        ControlFailed: the bundle was changed before its signature reached the store.
        StoreError: the store did not take the signature; repeat it.
    """
    conn.commit()
    with evidence_transaction(store, conn, keys, lock_until):
        row = ledger.find(conn, dag_id, run_id)
        return _sealed(conn, row) if row else None


def _write(
    store: ObjectStore,
    bundle: str,
    content: Mapping[str, bytes],
    remains: Mapping[str, str],
    last: LedgerRow | None,
) -> bytes:
    """Write every file and SHA256SUMS; returns the latter."""
    digests = dict(remains)
    for name, data in content.items():
        store.put(f"{bundle}/{name}", data)
        digests[name] = hashlib.sha256(data).hexdigest()
    if len(digests) > MOST_FILES:
        raise ControlFailed(
            f"The evidence folder {bundle} contains {len(digests)} files; the limit is "
            f"{MOST_FILES}. A lock of the store keeps files that were left there.",
            "Find out who wrote these files, then start a new run.",
        )
    sums = Sums(digests, last.link if last else None).to_bytes()
    store.put(f"{bundle}/{SUMS}", sums)
    return sums


def _as_written(folder: StoreFolder, stored: Mapping[str, str]) -> dict[str, str]:
    """Read the files again that were stored before the seal, and return their digests."""
    for name, digest in stored.items():
        try:
            now = folder.sha256(name)
        except ObjectMissing:
            now = ""
        if now != digest:
            raise ControlFailed(
                f"The evidence file {name} was {'changed' if now else 'removed'} before the seal.",
                "Find out by whom; start a new run.",
            )
    return dict(stored)


def _refuse_signed(store: ObjectStore, conn: Connection, keys: TrustedKeys, bundle: str) -> None:
    """Refuse to write into a folder that holds a bundle of a trusted key."""
    if search_unrecorded(store, conn, keys, [f"{bundle}/"], most_forged=None).bundles:
        raise ControlFailed(
            f"The evidence folder {bundle} holds a signed bundle that the ledger does not have "
            "and that does not follow the last one.",
            "Run `./parcelseal verify` and find out how it came there before sealing again.",
        )


def _clear(store: ObjectStore, bundle: str, keep: Collection[str]) -> dict[str, str]:
    """Delete what a killed try left; return the digests of files that a bucket's lock keeps.

    Those stay in the bundle and in SHA256SUMS: a lock that the bucket puts on every object does
    not ask whether the bundle was finished. A locked signature that nobody trusts gets the genuine
    one as its newer version.
    """
    folder = StoreFolder(store, bundle)
    remains = {}
    for name in sorted(folder.names() - {*keep, SUMS}):
        try:
            store.delete(f"{bundle}/{name}")
        except ObjectLocked:
            if name != SIGNATURE:
                remains[name] = folder.sha256(name)
    return remains


def _sealed(conn: Connection, row: LedgerRow) -> SealedBundle:
    """Return a bundle of the ledger; refuse one that no signature fits any more."""
    if row.bundle in pending_signatures(conn):
        raise ControlFailed(
            f"The evidence bundle {row.bundle} was changed before its signature was stored.",
            "Run `./parcelseal verify` and find out by whom; start a new run.",
        )
    return SealedBundle(row.bundle, row.sums_sha256, row.seq, row.key_fingerprint)
