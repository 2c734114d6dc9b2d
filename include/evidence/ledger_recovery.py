"""Repair the evidence store and the ledger after interrupted seals and restored backups.

A seal commits the ledger row and the signature of its bundle in one transaction. Afterwards it puts
the signature into the store. The module repairs these situations:

- A seal was interrupted after the commit, so the store lacks the signature. The next seal of any
  run copies it from the state database to the store.
- A signed bundle has no ledger row, because an older backup of the state database was restored or
  because rows were deleted. The missing rows are added.
- A signed bundle has no ledger row, because an older version of ParcelSeal was interrupted during
  the seal. The missing row is added.

A seal that is interrupted before the commit needs no repair. Its bundle has no signature, so no
other bundle can link to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from include.evidence import ledger
from include.evidence.check import columns_of, finished_at_of, is_result_of_folder
from include.evidence.checkpoint import newest_checkpoint, synchronize_checkpoint, unpruned_gaps
from include.evidence.control_index import IndexedControl, controls_in, enter_controls
from include.evidence.folder import LARGEST_SIGNATURE, SIGNATURE, Link, StoreFolder
from include.evidence.ledger import LedgerRow
from include.evidence.signing import Signer, TrustedKeys
from include.evidence.unrecorded import (
    MOST_FORGED,
    UnrecordedBundle,
    UnrecordedBundles,
    recent_parts,
    search_unrecorded,
)
from include.evidence.versions import find_sealed, read_sealed_sums
from include.policy.rules import EvidenceRules
from include.services.clock import Clock
from include.services.errors import ControlFailed
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectLocked,
    ObjectMissing,
    ObjectStore,
)
from include.state.connect import StateLock, lock_for_transaction
from include.state.tables import evidence_intent


def lock_end(store: ObjectStore, clock: Clock, rules: EvidenceRules) -> datetime | None:
    """Return the end of Object Lock for bundles that are sealed now.

    Return None if the store is a directory, because a directory has no Object Lock.

    Args:
        store: the evidence store.
        clock: gives the current time.
        rules: rules of evidence.yaml, which state the length of the lock.
    """
    return clock.now() + timedelta(days=rules.lock_days) if store.kind == "s3" else None


def keep_signature(conn: Connection, bundle: str, signature: bytes) -> None:
    """Store a bundle's signature in the state database until the evidence store has it.

    The caller must add the bundle's ledger row in the same transaction.

    Args:
        conn: connection to the state database, with an open transaction.
        bundle: folder of the bundle, relative to the evidence store.
        signature: the signature over the bundle's SHA256SUMS.
    """
    intent = evidence_intent.update().where(evidence_intent.c.bundle == bundle)
    conn.execute(intent.values(signature=signature))


def pending_signatures(conn: Connection) -> dict[str, bytes]:
    """Return the signatures that may still be missing in the evidence store, by bundle folder."""
    columns = evidence_intent.c
    kept = conn.execute(
        select(columns.bundle, columns.signature).where(columns.signature.is_not(None))
    )
    return {row.bundle: bytes(row.signature) for row in kept}


def begun_bundles(conn: Connection) -> set[str]:
    """Return the folders of bundles whose seal has started, but has not committed a ledger row.

    Some of these seals are still running, the others were interrupted.
    """
    columns = evidence_intent.c
    return set(conn.scalars(select(columns.bundle).where(columns.signature.is_(None))))


def pending_signature(conn: Connection, bundle: str) -> bytes | None:
    """Return a bundle's signature if the evidence store may not have it yet; otherwise None."""
    columns = evidence_intent.c
    signature = conn.scalar(select(columns.signature).where(columns.bundle == bundle))
    return None if signature is None else bytes(signature)


def publish_signatures(
    store: ObjectStore, conn: Connection, keys: TrustedKeys, lock_until: datetime | None
) -> None:
    """Copy signatures that only the state database has to the evidence store.

    In two cases a signature is not copied: it is not valid for the bundle's SHA256SUMS and ledger
    row, or the store has a locked object with another signature in its place. In both cases the
    bundle was changed. The signature stays in the state database, and verification reports the
    bundle. The caller must hold the lock `StateLock.EVIDENCE`.

    Args:
        store: the evidence store.
        conn: connection to the state database.
        keys: public keys whose seals are accepted.
        lock_until: end of Object Lock for every object of the bundles; None for no lock.

    Raises:
        StoreError: the store cannot be read or written. The call can be repeated.
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


@contextmanager
def evidence_transaction(
    store: ObjectStore, conn: Connection, keys: TrustedKeys, lock_until: datetime | None
) -> Iterator[None]:
    """Run a ``with`` block in a transaction that holds the lock `StateLock.EVIDENCE`.

    Before the block runs, the signatures that only the state database has are copied to the store.
    For the arguments and errors, see `publish_signatures`.
    """
    with conn.begin():
        lock_for_transaction(conn, StateLock.EVIDENCE)
        publish_signatures(store, conn, keys, lock_until)
        yield


def _fits(store: ObjectStore, row: LedgerRow, signature: bytes, keys: TrustedKeys) -> bool:
    """Return whether a signature is valid for a bundle's SHA256SUMS and ledger row.

    A valid signature was made by the key that the row names, and this key is trusted. The row must
    also contain the digest of the stored SHA256SUMS.

    Args:
        store: the evidence store.
        row: ledger row of the bundle.
        signature: the signature over SHA256SUMS.
        keys: public keys whose seals are accepted.
    """
    sums = read_sealed_sums(store, row.bundle, row.sums_sha256)
    return sums is not None and keys.signed_by(row.key_fingerprint, signature, sums)


def _stored_signature(store: ObjectStore, bundle: str) -> bytes | None:
    try:
        return StoreFolder(store, bundle).read(SIGNATURE, LARGEST_SIGNATURE)
    except (ObjectMissing, ObjectDamaged):
        return None


@dataclass(frozen=True)
class _Content:
    """The values of a result.json that a ledger row and the history index need.

    Attributes:
        columns: values of the ledger row, by column name.
        finished_at: when the checks of the run ended.
        controls: the rows of the history index.
    """

    columns: dict[str, Any]
    finished_at: datetime
    controls: list[IndexedControl]


def recover_ledger(
    store: ObjectStore,
    conn: Connection,
    signer: Signer,
    keys: TrustedKeys,
    clock: Clock,
    lock_until: datetime | None = None,
) -> list[str]:
    """Add the missing ledger rows after an older backup of the state database was restored.

    The function reads the whole store and adds a row for each signed bundle that belongs to the
    chain of bundles. It commits the open transaction of ``conn``. For the arguments, see the
    attributes of `Recovery`.

    Returns:
        The folders of the bundles for which rows were added.
    """
    conn.commit()
    with evidence_transaction(store, conn, keys, lock_until):
        synchronize_checkpoint(store, conn, keys)
        recovery = Recovery(store, conn, signer, keys, clock, lock_until)
        return recovery.enter(recovery.search([""]))


@dataclass(frozen=True)
class Recovery:
    """Adds ledger rows for signed bundles that have none.

    Attributes:
        store: the evidence store.
        conn: connection to the state database, in a transaction that holds the lock
            `StateLock.EVIDENCE`.
        signer: signs the rows.
        keys: public keys whose seals are accepted.
        clock: gives the current time. No added row has a sealing time after the current time.
        lock_until: end of Object Lock for every object of the bundles; None for no lock.
    """

    store: ObjectStore
    conn: Connection
    signer: Signer
    keys: TrustedKeys
    clock: Clock
    lock_until: datetime | None

    def enter_interrupted(self) -> None:
        """Add ledger rows for signed bundles whose seal was interrupted.

        Only older versions of ParcelSeal left such bundles. The folders of seals that did not
        finish are searched. If the ledger is empty, the state database may have been lost, so the
        whole store is searched. Otherwise the next seal would begin a second chain of bundles.
        """
        synchronize_checkpoint(self.store, self.conn, self.keys)
        is_empty = ledger.head(self.conn) is None
        self.enter_following(self.search([""] if is_empty else self._begun_folders()))

    def enter_before_seal(self, workflows: Collection[str]) -> None:
        """Add lost ledger rows before a seal, so that the new bundle links to the newest bundle.

        A seal commits the ledger row before it stores the signature. If a signed bundle in the
        store has no row, its row was therefore lost. Without this row, the new bundle would link to
        an older bundle, which would then have two successors. The caller must add the row of the
        new bundle in the same transaction.

        Args:
            workflows: names of workflows that may have bundles in the store.

        Raises:
            ControlFailed: no row can be added for a bundle that follows the last row, or the last
                row was changed.
            StoreError: the store cannot be read.
        """
        conn, keys = self.conn, self.keys
        last = ledger.trusted_head(conn, keys)
        authentic = ledger.newest_authentic(conn, keys)
        newest = authentic or last
        since = newest.sealed_at if newest else None
        parts = recent_parts(self.store, workflows, since, self.clock.now())
        object_limit = MOST_FORGED if last else None
        unrecorded = self.search([*parts.prefixes, *self._begun_folders()], object_limit)
        if (
            last
            and last != authentic
            and unrecorded.direct_followers(authentic.link if authentic else None)
        ):
            # A trusted key signed the bundle after the authentic row, so the rows after it were
            # changed. Otherwise an exchanged key signed rows and bundles.
            raise ledger.changed_row_error(last)
        if last and (unrecorded.direct_followers(last.link) or unpruned_gaps(conn, keys)):
            # Runs that began long ago may have further bundles in older folders.
            unrecorded = unrecorded.joined(self.search([""], object_limit))
        self.enter(unrecorded)
        last = ledger.head(conn)
        if remaining := unrecorded.direct_followers(last.link if last else None):
            raise ControlFailed(
                f"The signed evidence bundle {remaining[0].name} follows the last bundle of "
                "the evidence ledger, but cannot be entered there: its result.json is "
                "missing, was changed, or belongs to another run.",
                "Restore the sealed files of the bundle. If its folder is a copy of another "
                "bundle, move it out of the store. Then run `./parcelseal recover-ledger`. "
                "Afterwards the interrupted run can be sealed.",
            )

    def search(
        self, prefixes: Collection[str], object_limit: int | None = None
    ) -> UnrecordedBundles:
        """Return the signed bundles that have no ledger row.

        For the arguments, see `unrecorded.search_unrecorded`.
        """
        return search_unrecorded(
            self.store, self.conn, self.keys, prefixes, object_limit=object_limit
        )

    def _begun_folders(self) -> list[str]:
        return [f"{bundle}/" for bundle in begun_bundles(self.conn)]

    def enter(self, unrecorded: UnrecordedBundles) -> list[str]:
        """Add the ledger rows that are missing, both between other rows and after the last row.

        Args:
            unrecorded: result of a search for bundles without a ledger row.

        Returns:
            The folders of the bundles for which rows were added.
        """
        return [*self.enter_between(unrecorded), *self.enter_following(unrecorded)]

    def enter_following(self, unrecorded: UnrecordedBundles) -> list[str]:
        """Add rows for the bundles that follow the ledger's last row.

        Args:
            unrecorded: result of a search for bundles without a ledger row.

        Returns:
            The folders of the bundles for which rows were added, in the order of the chain of
            bundles.
        """
        entered: list[str] = []
        seq, link = self._end_of_chain() if unrecorded.bundles else (0, None)
        while following := _first_readable(unrecorded.direct_followers(link)):
            bundle, content = following
            if self._is_recorded(bundle, content):
                break
            seq += 1
            link = self._append(seq, link.sums_sha256 if link else "", bundle, content).link
            entered.append(bundle.name)
        return entered

    def _end_of_chain(self) -> tuple[int, Link | None]:
        """Return the sequence number of the last sealed bundle, and the link to it.

        Both values come from the last ledger row. If the newest checkpoint has a higher sequence
        number, they come from the checkpoint. Return (0, None) if no bundle was sealed.
        """
        last = ledger.trusted_head(self.conn, self.keys)
        mark = newest_checkpoint(self.conn, self.keys)
        if mark is not None and (last is None or last.seq < mark.up_to_seq):
            return mark.up_to_seq, mark.link
        return (last.seq, last.link) if last else (0, None)

    def enter_between(self, unrecorded: UnrecordedBundles) -> list[str]:
        """Add the ledger rows that are missing between other rows.

        Each gap is filled from its highest number down. The signed row after the gap contains the
        SHA256SUMS digest of the last missing bundle, and each bundle contains the digest of its
        predecessor.

        Args:
            unrecorded: result of a search for bundles without a ledger row.

        Returns:
            The folders of the bundles for which rows were added. The newest bundle of a gap comes
            first.
        """
        entered: list[str] = []
        for gap in unpruned_gaps(self.conn, self.keys):
            following = ledger.row_at(self.conn, gap.last + 1)
            if following is None or not following.is_authentic(self.keys):
                continue
            sums_sha256 = following.previous_sums_sha256
            for seq in range(gap.last, gap.first - 1, -1):
                fitting = [
                    candidate
                    for candidate in unrecorded.bundles
                    if candidate.signed.sha256 == sums_sha256
                ]
                readable = _first_readable(fitting)
                if readable is None or self._is_recorded(*readable):
                    break
                bundle, content = readable
                previous = bundle.signed.sums.previous
                sums_sha256 = previous.sums_sha256 if previous else ""
                self._append(seq, sums_sha256, bundle, content)
                entered.append(bundle.name)
        return entered

    def _is_recorded(self, bundle: UnrecordedBundle, content: _Content) -> bool:
        run = content.columns["dag_id"], content.columns["run_id"]
        return bool(ledger.find(self.conn, *run) or ledger.find_bundle(self.conn, bundle.name))

    def _append(
        self, seq: int, previous_sums_sha256: str, bundle: UnrecordedBundle, content: _Content
    ) -> LedgerRow:
        """Add the ledger row of a bundle.

        If the seal of the bundle did not lock its files, this function locks them first.

        Args:
            seq: sequence number of the row.
            previous_sums_sha256: SHA-256 digest of the previous bundle's SHA256SUMS, in hex; empty
                in the first row.
            bundle: the bundle.
            content: values from the bundle's result.json.
        """
        if self.lock_until and not self._is_locked(bundle, content, self.lock_until):
            # Find all files of the bundle: the search read only some of them.
            sums_sha256 = bundle.signed.sha256
            sealed = find_sealed(self.store, bundle.name, self.keys, sums_sha256=sums_sha256)
            (sealed or bundle.folder).lock(self.lock_until)
        row = ledger.append(
            self.conn,
            self.signer,
            LedgerRow(
                seq=seq,
                bundle=bundle.name,
                **content.columns,
                # Evidence must not seem newer after its row is added again.
                sealed_at=min(content.finished_at, self.clock.now()),
                sums_sha256=bundle.signed.sha256,
                previous_sums_sha256=previous_sums_sha256,
                key_fingerprint=bundle.signed.signed_by,
            ),
        )
        enter_controls(self.conn, seq, content.controls)
        begun = evidence_intent.c.bundle == bundle.name
        self.conn.execute(evidence_intent.delete().where(begun))
        return row

    def _is_locked(self, bundle: UnrecordedBundle, content: _Content, until: datetime) -> bool:
        """Return whether all files of a bundle are locked for a whole lock period after its run.

        A seal locks the signature last, so only the lock of the signature is read.

        Args:
            bundle: the bundle.
            content: values from the bundle's result.json.
            until: end of the lock of bundles that are sealed now, from which the length of the lock
                period is calculated.
        """
        signature = bundle.folder.sealed_version(SIGNATURE)
        if signature is None:
            return False
        key = f"{bundle.name}/{SIGNATURE}"
        try:
            stored = self.store.stat(key, version_id=signature.version_id)
        except ObjectMissing:
            return False
        period = until - self.clock.now()
        locked_until = stored.locked_until
        return locked_until is not None and locked_until >= content.finished_at + period


def _first_readable(
    following: Collection[UnrecordedBundle],
) -> tuple[UnrecordedBundle, _Content] | None:
    """Return the first bundle with a valid result.json that is of the run in the folder's name.

    The values from this result.json are returned as well. Return None if no bundle has such a
    result.json.

    Args:
        following: bundles that could all be the next one in the chain, such as copies of a bundle.
    """
    for bundle in following:
        result_json = bundle.folder.read_result()
        if result_json is None or not is_result_of_folder(result_json, bundle.name):
            continue
        try:
            content = _Content(
                columns_of(result_json), finished_at_of(result_json), controls_in(result_json)
            )
        except ValueError:
            continue
        return bundle, content
    return None
