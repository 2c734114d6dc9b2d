"""Seal runs: write the evidence bundle of a run, sign it, and link it to the previous bundle.

The link is a line in the bundle's file SHA256SUMS: path and digest of the previous bundle's
SHA256SUMS.
"""

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
from include.evidence.control_index import controls_in, enter_controls, enter_known_controls
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
from include.evidence.ledger_recovery import (
    Recovery,
    evidence_transaction,
    keep_signature,
    pending_signatures,
)
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
    """An evidence bundle that was sealed and has a row in the evidence ledger.

    Attributes:
        path: folder of the bundle, relative to the evidence store.
        sums_sha256: SHA-256 digest of the bundle's SHA256SUMS, in hex.
        seq: sequence number in the evidence ledger, from 1.
        key_fingerprint: fingerprint of the key that signed the bundle.
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
    pack_controls: Collection[str] = (),
) -> SealedBundle:
    """Write and sign a run's evidence bundle, and add its row to the evidence ledger.

    The call can be repeated after an error or after its process was killed. The function writes the
    files. Then one transaction commits the ledger row, the rows of the history index and the
    signature. The signature is put into the store only after this commit. If the database
    connection is lost, the lock `StateLock.EVIDENCE` is lost as well. In this case nothing is
    signed, and the next attempt writes the folder again. If the process is killed after the
    commit, the next seal of any run puts the missing signature into the store.

    After an older backup of the state database was restored, signed bundles can lack a ledger row.
    The function first adds the missing rows. The first seal of a run is final: a second call for
    the same run returns the bundle of the first seal and ignores the other arguments.

    The objects of the bundle are locked only after the signature is stored. Until then, the files
    of a killed attempt can be deleted.

    Args:
        store: the evidence store.
        conn: connection to the state database, outside of a ``with engine.begin()`` block. The seal
            commits the open transaction of the connection, because it needs its own transactions.
        signer: the key that signs the bundle.
        result: the result of the run, written as result.json.
        files: further files of the bundle, such as reports and artifacts: relative name -> content.
        stored: files that the run already wrote to the folder before the seal: relative name ->
            SHA-256 digest in hex.
        clock: gives the time at which the bundle is sealed.
        lock_until: end of Object Lock for every object of the bundle; None for no lock.
        trusted: public keys (PEM) of earlier signers. Interrupted seals of these signers are
            finished before this seal.
        workflows: names of workflows whose folders are searched for bundles without a ledger row.
            Workflows that have a ledger row are searched as well.
        pack_controls: ids of all controls of the policy pack. The first seal that names a control
            records since when the control is known.

    Raises:
        UsageError: a file name is not allowed, there are too many files, or the result is too
            large.
        ControlFailed: the run's folder already contains a signed bundle for which no ledger row can
            be added; a file in `stored` was changed or removed; no row can be added for a signed
            bundle that follows the last bundle of the ledger; the last row of the ledger was
            changed; the bundle was changed before its signature reached the store; or the folder
            has too many files, because locked files that do not belong to the bundle cannot be
            deleted.
        StoreError: the store did not accept a file. The seal can be repeated.
    """
    check_file_names([*files, *stored])
    result_json = (result.model_dump_json(indent=2) + "\n").encode()
    if len(result_json) > LARGEST_RESULT:
        raise UsageError(
            f"The result of this run has {len(result_json)} bytes; an evidence bundle may "
            f"contain at most {LARGEST_RESULT} bytes.",
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
    with transaction():  # record the intent to seal before any file is written
        recovery.enter_interrupted()
        if row := recorded():
            return _sealed(conn, row)
        begun = select(evidence_intent).where(evidence_intent.c.bundle == bundle)
        tried_before = conn.execute(begun).first() is not None
        intent = insert(evidence_intent).values(bundle=bundle, started_at=clock.now())
        conn.execute(intent.on_conflict_do_nothing())
    with transaction():
        if row := recorded():
            return _sealed(conn, row)
        names = {*workflows, run.dag_id, *index.workflows(conn)}
        recovery.enter_before_seal(names)
        if row := recorded():
            return _sealed(conn, row)
        last = ledger.trusted_head(conn, keys)
        if tried_before or stored:  # a process may have been killed while it wrote these files
            store.clear_abandoned(f"{bundle}/")
        content = {
            **files,
            RESULT: result_json,
            SIGNER: signer.public_pem,
        }
        _refuse_signed(store, conn, keys, bundle)
        existing_digests = _clear(store, bundle, keep={*content, *stored})
        existing_digests |= _verified_digests(StoreFolder(store, bundle), stored)
        sums = _write(store, bundle, content, existing_digests, last)
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
        enter_controls(conn, row.seq, controls_in(result_json))
        enter_known_controls(conn, pack_controls, row.sealed_at)
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
    """Return the bundle of a sealed run, after storing its signature if necessary.

    The evidence store lacks the signature if the process that sealed the run was killed.

    Args:
        store: the evidence store.
        conn: connection to the state database. Its open transaction is committed.
        keys: public keys whose seals are accepted.
        dag_id: DAG id of the workflow.
        run_id: Airflow id of the run.
        lock_until: end of Object Lock for every object of the bundle; None for no lock.

    Returns:
        The bundle, or None if the run was not sealed.

    Raises:
        ControlFailed: the bundle was changed before its signature reached the store.
        StoreError: the store did not accept the signature. The call can be repeated.
    """
    conn.commit()
    with evidence_transaction(store, conn, keys, lock_until):
        row = ledger.find(conn, dag_id, run_id)
        return _sealed(conn, row) if row else None


def _write(
    store: ObjectStore,
    bundle: str,
    content: Mapping[str, bytes],
    existing_digests: Mapping[str, str],
    last: LedgerRow | None,
) -> bytes:
    """Write the files of a bundle and its SHA256SUMS; return the content of SHA256SUMS.

    Args:
        store: the evidence store.
        bundle: folder of the bundle.
        content: files to write: relative name -> content.
        existing_digests: files that are already in the folder: relative name -> SHA-256 digest.
        last: ledger row of the previous bundle; None for the first bundle.

    Raises:
        ControlFailed: the folder has too many files.
    """
    digests = dict(existing_digests)
    for name, data in content.items():
        store.put(f"{bundle}/{name}", data)
        digests[name] = hashlib.sha256(data).hexdigest()
    if len(digests) > MOST_FILES:
        raise ControlFailed(
            f"The evidence folder {bundle} contains {len(digests)} files; the limit is "
            f"{MOST_FILES}. The object lock of the store may have prevented the deletion of "
            "earlier files.",
            "Find out which program wrote the additional files, then start a new run.",
        )
    sums = Sums(digests, last.link if last else None).to_bytes()
    store.put(f"{bundle}/{SUMS}", sums)
    return sums


def _verified_digests(folder: StoreFolder, stored: Mapping[str, str]) -> dict[str, str]:
    """Check that files which the run stored before the seal are unchanged; return `stored`.

    Args:
        folder: folder of the bundle.
        stored: files that the run wrote before the seal: relative name -> SHA-256 digest in hex.

    Raises:
        ControlFailed: a file was changed or removed since it was stored.
    """
    for name, digest in stored.items():
        try:
            now = folder.sha256(name)
        except ObjectMissing:
            now = ""
        if now != digest:
            raise ControlFailed(
                f"The evidence file {name} was {'changed' if now else 'removed'} after this "
                "run stored it and before the run was sealed.",
                "Find out who changed it, then start a new run.",
            )
    return dict(stored)


def _refuse_signed(store: ObjectStore, conn: Connection, keys: TrustedKeys, bundle: str) -> None:
    """Raise ControlFailed if a folder already contains a signed bundle without a ledger row.

    Args:
        store: the evidence store.
        conn: connection to the state database.
        keys: trusted public keys. A signature by another key is ignored.
        bundle: the folder, relative to the evidence store.
    """
    if search_unrecorded(store, conn, keys, [f"{bundle}/"], object_limit=None).bundles:
        raise ControlFailed(
            f"The evidence folder {bundle} already contains a signed bundle. The bundle has no "
            "row in the evidence ledger, and it does not follow the ledger's last bundle.",
            "Run `./parcelseal verify`, and find out who wrote the bundle before you seal again.",
        )


def _clear(store: ObjectStore, bundle: str, keep: Collection[str]) -> dict[str, str]:
    """Delete the files that a killed attempt to seal left in the folder of a bundle.

    The S3 bucket may have locked some of these files. Locked files cannot be deleted, so they
    become part of the bundle and are listed in SHA256SUMS. A locked signature is not listed: the
    seal later stores the genuine signature as a newer version of the same object.

    Args:
        store: the evidence store.
        bundle: folder of the bundle.
        keep: names of the files that are not deleted.

    Returns:
        The SHA-256 digest of each locked file, by name.
    """
    folder = StoreFolder(store, bundle)
    locked_digests = {}
    for name in sorted(folder.names() - {*keep, SUMS}):
        try:
            store.delete(f"{bundle}/{name}")
        except ObjectLocked:
            if name != SIGNATURE:
                locked_digests[name] = folder.sha256(name)
    return locked_digests


def _sealed(conn: Connection, row: LedgerRow) -> SealedBundle:
    """Return the sealed bundle that a ledger row describes.

    Raises:
        ControlFailed: the signature is still in the state database. It could not be put into the
            store, because the bundle was changed and does not match its signature.
    """
    if row.bundle in pending_signatures(conn):
        raise ControlFailed(
            f"The evidence bundle {row.bundle} was changed before its signature was stored.",
            "Run `./parcelseal verify`, find out who changed the bundle, and start a new run.",
        )
    return SealedBundle(row.bundle, row.sums_sha256, row.seq, row.key_fingerprint)
