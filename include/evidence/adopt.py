"""Finish interrupted seals: store their signatures, and enter bundles that lack a ledger row.

A seal commits the ledger row and the signature in one transaction and puts the signature into the
store after that. Until the commit nothing signed exists outside of it, so a seal that loses its
connection cannot fork the chain. After the commit any later seal can finish the work.

A killed seal of an older version leaves a signed bundle without a row, and so does a restored state
database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select

from include.evidence import ledger
from include.evidence.check import columns_of, finished_at_of, is_of_folder
from include.evidence.checkpoint import adopt_checkpoint, newest_checkpoint, unpruned_gaps
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


@contextmanager
def evidence_transaction(
    store: ObjectStore, conn: Connection, keys: TrustedKeys, lock_until: datetime | None
) -> Iterator[None]:
    """Open a transaction that holds the evidence lock, after publishing pending signatures.

    Args and errors: as `publish_signatures`.
    """
    with conn.begin():
        lock_for_transaction(conn, StateLock.EVIDENCE)
        publish_signatures(store, conn, keys, lock_until)
        yield


def _fits(store: ObjectStore, row: LedgerRow, signature: bytes, keys: TrustedKeys) -> bool:
    """Return whether a signature is that of the SHA256SUMS that the ledger has and is stored."""
    sums = read_sealed_sums(store, row.bundle, row.sums_sha256)
    return sums is not None and keys.signed_by(row.key_fingerprint, signature, sums)


def _stored_signature(store: ObjectStore, bundle: str) -> bytes | None:
    try:
        return StoreFolder(store, bundle).read(SIGNATURE, LARGEST_SIGNATURE)
    except (ObjectMissing, ObjectDamaged):
        return None


@dataclass(frozen=True)
class _Content:
    """Columns of a ledger row from a result.json, and the moment at which the checks ended."""

    columns: dict[str, Any]
    finished_at: datetime


def recover_ledger(
    store: ObjectStore,
    conn: Connection,
    signer: Signer,
    keys: TrustedKeys,
    clock: Clock,
    lock_until: datetime | None = None,
) -> list[str]:
    """Enter every bundle of the store that continues the chain, after ``state`` was restored.

    Reads the whole store. Commits the open transaction of ``conn``.

    Args: as the attributes of `Recovery`.

    Returns:
        The bundles that were entered, in the chain's order.
    """
    conn.commit()
    with evidence_transaction(store, conn, keys, lock_until):
        adopt_checkpoint(store, conn, keys)
        recovery = Recovery(store, conn, signer, keys, clock, lock_until)
        return recovery.enter(recovery.search([""]))


@dataclass(frozen=True)
class Recovery:
    """Enters signed bundles into the ledger that lack a row.

    Attributes:
        store: the evidence store.
        conn: the state database, in a transaction that holds the evidence lock.
        signer: signs the rows.
        keys: public keys whose seals count.
        clock: gives the latest moment at which a bundle counts as sealed.
        lock_until: as for ``seal``.
    """

    store: ObjectStore
    conn: Connection
    signer: Signer
    keys: TrustedKeys
    clock: Clock
    lock_until: datetime | None

    def adopt_begun(self) -> None:
        """Enter signed bundles whose seal was interrupted.

        Seals of older versions left such bundles. If the ledger is empty, the whole store is read,
        so that a lost state database does not start a second chain.
        """
        adopt_checkpoint(self.store, self.conn, self.keys)
        is_empty = ledger.head(self.conn) is None
        self.enter_following(self.search([""] if is_empty else self._begun_folders()))

    def adopt_before_seal(self, workflows: Collection[str]) -> None:
        """Enter the bundles after the ledger's last row, so that the next seal forks no chain.

        The caller writes the next row in the same transaction. A seal commits its row before it
        signs, so a signed bundle without a row is one whose row was lost.

        Args:
            workflows: workflows that may have bundles in the store, as folder names use them.

        Raises:
            ControlFailed: a bundle follows the last row and cannot be entered, or the last row was
                changed.
            StoreError: the store cannot be read.
        """
        conn, keys = self.conn, self.keys
        last = ledger.trusted_head(conn, keys)
        authentic = ledger.newest_authentic(conn, keys)
        newest = authentic or last
        since = newest.sealed_at if newest else None
        parts = recent_parts(self.store, workflows, since, self.clock.now())
        most_forged = MOST_FORGED if last else None
        unrecorded = self.search([*parts.prefixes, *self._begun_folders()], most_forged)
        if last and last != authentic and unrecorded.after(authentic.link if authentic else None):
            # A trusted key signed the bundle after the authentic row, so the rows after it were
            # changed. Otherwise an exchanged key signed rows and bundles.
            raise ledger.changed(last)
        if last and (unrecorded.after(last.link) or unpruned_gaps(conn, keys)):
            # Further bundles may be of runs that began long ago.
            unrecorded = unrecorded.joined(self.search([""], most_forged))
        self.enter(unrecorded)
        last = ledger.head(conn)
        if remaining := unrecorded.after(last.link if last else None):
            raise ControlFailed(
                f"The signed evidence bundle {remaining[0].name} follows the ledger's last bundle "
                "and cannot be entered: its result.json is missing, was changed, or is of another "
                "run.",
                "Put its files back as they were sealed, or move a copied folder out of the store, "
                "and run `./parcelseal recover-ledger`. Nothing is lost: the run can be sealed "
                "afterwards.",
            )

    def search(
        self, prefixes: Collection[str], most_forged: int | None = None
    ) -> UnrecordedBundles:
        """Return the bundles that the ledger lacks; see `search_unrecorded`."""
        return search_unrecorded(
            self.store, self.conn, self.keys, prefixes, most_forged=most_forged
        )

    def _begun_folders(self) -> list[str]:
        return [f"{bundle}/" for bundle in begun_bundles(self.conn)]

    def enter(self, unrecorded: UnrecordedBundles) -> list[str]:
        """Enter bundles between rows, then those that continue the chain; return their names."""
        return [*self.enter_between(unrecorded), *self.enter_following(unrecorded)]

    def enter_following(self, unrecorded: UnrecordedBundles) -> list[str]:
        """Enter the bundles that continue the chain; return their names in the chain's order."""
        entered: list[str] = []
        seq, link = self._end_of_chain() if unrecorded.bundles else (0, None)
        while following := _first_readable(unrecorded.after(link)):
            bundle, content = following
            if self._is_recorded(bundle, content):
                break
            seq += 1
            link = self._append(seq, link.sums_sha256 if link else "", bundle, content).link
            entered.append(bundle.name)
        return entered

    def _end_of_chain(self) -> tuple[int, Link | None]:
        """Return number and link of the last bundle that the ledger or a checkpoint has."""
        last = ledger.trusted_head(self.conn, self.keys)
        mark = newest_checkpoint(self.conn, self.keys)
        if mark is not None and (last is None or last.seq < mark.up_to_seq):
            return mark.up_to_seq, mark.link
        return (last.seq, last.link) if last else (0, None)

    def enter_between(self, unrecorded: UnrecordedBundles) -> list[str]:
        """Enter bundles whose rows are missing between others; return their names, newest first.

        The signed row after a gap names the digest of the bundle before it, and so does each
        bundle.
        """
        entered: list[str] = []
        for gap in unpruned_gaps(self.conn, self.keys):
            following = ledger.at(self.conn, gap.last + 1)
            if following is None or not following.is_authentic(self.keys):
                continue
            sums_sha256 = following.previous_sums_sha256
            for seq in range(gap.last, gap.first - 1, -1):
                fitting = [each for each in unrecorded.bundles if each.signed.sha256 == sums_sha256]
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
        """Lock a bundle and append its row."""
        if self.lock_until and not self._is_locked(bundle, content, self.lock_until):
            # All files: the search has read the names of a few.
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
                # Evidence does not become younger when it is entered again.
                sealed_at=min(content.finished_at, self.clock.now()),
                sums_sha256=bundle.signed.sha256,
                previous_sums_sha256=previous_sums_sha256,
                key_fingerprint=bundle.signed.signed_by,
            ),
        )
        begun = evidence_intent.c.bundle == bundle.name
        self.conn.execute(evidence_intent.delete().where(begun))
        return row

    def _is_locked(self, bundle: UnrecordedBundle, content: _Content, until: datetime) -> bool:
        """Return whether the seal of a bundle locked all its files; it locks the signature last."""
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
    """Return the first bundle whose sealed result.json is stored and is of its folder's run."""
    for bundle in following:
        result_json = bundle.folder.read_result()
        if result_json is None or not is_of_folder(result_json, bundle.name):
            continue
        try:
            content = _Content(columns_of(result_json), finished_at_of(result_json))
        except ValueError:
            continue
        return bundle, content
    return None
