"""Verification of evidence: every bundle, the ledger, and the chain that binds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select, text

from include.evidence import ledger
from include.evidence.adopt import pending_signature, pending_signatures
from include.evidence.check import (
    Refused,
    SignedSums,
    check_bundle,
    check_row,
    check_signature,
)
from include.evidence.checkpoint import Checkpoint, check_tombstones, checkpoints, pruned_up_to
from include.evidence.folder import (
    DEPTH,
    LARGEST_KEY,
    SIGNATURE,
    SIGNER,
    DiskFolder,
    Link,
    StoreFolder,
    check_commands,
    commands_for,
    link_to,
)
from include.evidence.ledger import LedgerRow
from include.evidence.signing import TrustedKeys, fingerprint
from include.evidence.versions import hidden_remarks
from include.messages import Message, _, in_english
from include.services.errors import UsageError
from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore
from include.state.connect import StateLock, lock_number
from include.state.tables import evidence_intent


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    Attributes:
        verified: something was checked, and everything that was checked is valid.
        bundles: how many bundles of the ledger are not pruned, or 1 for one bundle.
        first_bad: the first bundle that is not valid, None if all are.
        problem: what is wrong with it.
        remarks: facts for the reader that are no failures.
        commands: lines for a shell that check ``first_bad``, or the newest bundle, without
            ParcelSeal.
    """

    verified: bool
    bundles: int
    first_bad: str | None = None
    problem: Message | None = None
    remarks: list[Message] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    @property
    def reason(self) -> str | None:
        """The problem in English, in one line; None when verified."""
        return in_english(self.problem) if self.problem else None


@dataclass(frozen=True)
class _Evidence:
    """Ledger and store at a moment without a seal under way."""

    store: ObjectStore
    keys: TrustedKeys
    rows: list[LedgerRow]
    pruned: list[LedgerRow]
    checkpoint: Checkpoint | None
    begun: set[str]
    signatures: dict[str, bytes]
    folders: dict[str, set[str]]

    def folder(self, bundle: str) -> StoreFolder:
        listed = self.folders.get(bundle, set())
        return StoreFolder(self.store, bundle, listed, lambda: self.signatures.get(bundle))

    @property
    def start(self) -> Link | None:
        return self.checkpoint.link if self.checkpoint else None


class _Bad(Exception):
    def __init__(self, bundle: str, problem: Message) -> None:
        super().__init__(bundle)
        self.bundle = bundle
        self.problem = problem


def verify_all(store: ObjectStore, conn: Connection, trusted: Iterable[bytes]) -> Verification:
    """Verify every bundle, every ledger row and the chain; reads the whole store.

    Seals wait while ledger and store are listed, not while files are read.

    Args:
        store: the evidence store.
        conn: the state database.
        trusted: public keys (PEM) whose seals count.

    Raises:
        UsageError: a trusted key cannot be read.
        StoreError: the store cannot be read.
    """
    evidence = _take_stock(store, conn, TrustedKeys(trusted))
    remarks = list(_remarks(evidence))
    count = len(evidence.rows)
    try:
        _check_chain(evidence)
    except _Bad as bad:
        sums = {row.bundle: row.sums_sha256 for row in evidence.rows}.get(bad.bundle, "")
        remarks += hidden_remarks(store, bad.bundle, evidence.keys, sums)
        commands = commands_for(store, bad.bundle, evidence.keys.fingerprints)
        return Verification(False, count, bad.bundle, bad.problem, remarks, commands)
    if not evidence.rows:
        nothing = _("there is no evidence to verify: the ledger and the store hold no bundle")
        return Verification(False, 0, None, nothing, remarks)
    newest = evidence.rows[-1]
    commands = commands_for(store, newest.bundle, [newest.key_fingerprint])
    return Verification(True, count, remarks=remarks, commands=commands)


def verify_one(
    store: ObjectStore, bundle: str, trusted: Iterable[bytes], conn: Connection | None = None
) -> Verification:
    """Verify one bundle of a store, with its ledger row and its link where the ledger is at hand.

    Raises:
        UsageError: a trusted key cannot be read.
        StoreError: the store cannot be read.
    """
    keys = TrustedKeys(trusted)
    bundle = bundle.strip("/")
    folder = StoreFolder(
        store, bundle, pending=lambda: pending_signature(conn, bundle) if conn else None
    )
    commands = commands_for(store, bundle, keys.fingerprints)
    remarks = []
    if conn is None:
        remarks.append(_("the ledger was not at hand; the chain was not checked"))
    if folder.lacks_signature:
        remarks.append(_unsigned(bundle))
    try:
        if conn is not None:
            _refuse_pruned(conn, bundle, keys)
        signed = check_bundle(folder, keys)
        if conn is not None:
            _check_in_ledger(conn, bundle, signed, folder, keys)
    except Refused as bad:
        remarks += hidden_remarks(store, bundle, keys)
        return Verification(False, 1, bundle, bad.message, remarks, commands)
    return Verification(True, 1, remarks=remarks, commands=commands)


def verify_path(path: Path, trusted: Iterable[bytes] | None = None) -> Verification:
    """Verify a bundle's folder on a disk, without ledger, as an outsider has it.

    Args:
        path: the folder.
        trusted: public keys (PEM) whose seals count; None takes the bundle's own signer.pem, and
            remarks that its fingerprint is still to be compared.

    Raises:
        UsageError: there is no such folder, or a trusted key cannot be read.
    """
    if not path.is_dir():
        raise UsageError(f"There is no folder {path}.")
    folder = DiskFolder(path)
    remarks = []
    fingerprints: list[str] = []
    near: bool | None = None
    problem = None
    try:
        keys = _own_key(folder) if trusted is None else TrustedKeys(trusted)
        fingerprints = keys.fingerprints
        if trusted is None:
            remarks.append(
                _(
                    "checked with the bundle's own key; compare its fingerprint {fingerprint} "
                    "with the published one",
                    fingerprint=fingerprints[0],
                )
            )
        signed = check_bundle(folder, keys)
        near = _check_neighbour(path, signed)
        if near is False:
            remarks.append(_("the bundle before it was not at hand; the link was not checked"))
    except Refused as bad:
        problem = bad.message
    commands = check_commands(str(path), fingerprints, previous_at_hand=near is not False)
    if problem:
        return Verification(False, 1, str(path), problem, remarks, commands)
    return Verification(True, 1, remarks=remarks, commands=commands)


def _check_chain(evidence: _Evidence) -> None:
    """Check everything in the chain's order; raises _Bad for the first that does not hold."""
    if evidence.checkpoint:
        _check_checkpoint(evidence, evidence.checkpoint)
        try:
            check_tombstones(evidence.pruned, evidence.checkpoint, evidence.keys)
        except Refused as refusal:
            raise _Bad(evidence.checkpoint.bundle, refusal.message) from refusal
    for row in evidence.rows:
        if not row.is_authentic(evidence.keys):
            raise _Bad(_bundle_meant_by(row, evidence), _("its ledger row was changed"))
    unrecorded = {bundle: _signed(evidence, bundle) for bundle in _unrecorded(evidence)}
    followers = {
        signed.sums.previous: bundle for bundle, signed in unrecorded.items() if signed is not None
    }
    previous = evidence.start
    seq = evidence.checkpoint.up_to_seq if evidence.checkpoint else 0
    for row in evidence.rows:
        seq += 1
        try:
            if row.seq != seq:
                lost = followers.get(previous) or _linked_by(evidence, row) or row.bundle
                raise _Bad(lost, _("its ledger row, number {seq}, is missing", seq=seq))
            folder = evidence.folder(row.bundle)
            check_row(row, check_bundle(folder, evidence.keys), folder, previous)
        except Refused as bad:
            raise _Bad(row.bundle, bad.message) from bad
        previous = row.link
    follower = followers.get(previous)
    # The seal of a waiting bundle was killed before its ledger row: the next seal enters it.
    waiting = {follower} & evidence.begun
    if unknown := sorted(unrecorded.keys() - waiting):
        first = follower if follower in unknown else unknown[0]
        raise _Bad(first, _("the ledger does not have it"))


def _check_checkpoint(evidence: _Evidence, checkpoint: Checkpoint) -> None:
    if not checkpoint.is_authentic(evidence.keys):
        raise _Bad(checkpoint.bundle, _("the checkpoint of pruned evidence was changed"))
    try:
        signed = check_signature(evidence.folder(checkpoint.bundle), evidence.keys)
    except Refused as bad:
        raise _Bad(checkpoint.bundle, bad.message) from bad
    if signed.sha256 != checkpoint.sums_sha256:
        raise _Bad(checkpoint.bundle, _("SHA256SUMS is not the one that the checkpoint has"))


def _take_stock(store: ObjectStore, conn: Connection, keys: TrustedKeys) -> _Evidence:
    folders: dict[str, set[str]] = {}
    with _no_seal_under_way(conn):
        every = ledger.rows(conn)
        marks = checkpoints(conn)
        begun = set(conn.scalars(select(evidence_intent.c.bundle)))
        signatures = pending_signatures(conn)
        for stored in store.list():
            parts = stored.key.split("/")
            if len(parts) > DEPTH:  # objects higher up are extracts of incidents
                folders.setdefault("/".join(parts[:DEPTH]), set()).add("/".join(parts[DEPTH:]))
    checkpoint = marks[-1] if marks else None
    pruned = checkpoint.up_to_seq if checkpoint else 0
    gone = {row.bundle for row in every if row.seq <= pruned}
    gone |= {mark.bundle for mark in marks[:-1]}
    for bundle in gone - {mark.bundle for mark in marks[-1:]}:
        folders.pop(bundle, None)  # a prune that did not finish; the checkpoint stands
    kept = [row for row in every if row.seq > pruned]
    tombstones = [row for row in every if row.seq <= pruned]
    return _Evidence(store, keys, kept, tombstones, checkpoint, begun, signatures, folders)


@contextmanager
def _no_seal_under_way(conn: Connection) -> Iterator[None]:
    lock = {"lock": lock_number(conn, StateLock.EVIDENCE)}
    ours = not conn.in_transaction()
    conn.execute(text("SELECT pg_advisory_lock_shared(:lock)"), lock)
    try:
        yield
    except BaseException:
        conn.invalidate()  # the session ends, and its lock: its transaction may be aborted
        raise
    conn.execute(text("SELECT pg_advisory_unlock_shared(:lock)"), lock)
    if ours:
        conn.rollback()  # nothing was written; files are read without an open transaction


def _unrecorded(evidence: _Evidence) -> list[str]:
    """Return signed folders that neither ledger nor checkpoint names."""
    recorded = {row.bundle for row in evidence.rows}
    if evidence.checkpoint:
        recorded.add(evidence.checkpoint.bundle)
    signed = (bundle for bundle, names in evidence.folders.items() if SIGNATURE in names)
    return sorted(set(signed) - recorded)


def _signed(evidence: _Evidence, bundle: str) -> SignedSums | None:
    try:
        return check_signature(evidence.folder(bundle), evidence.keys)
    except Refused:
        return None


def _bundle_meant_by(row: LedgerRow, evidence: _Evidence) -> str:
    """Return the bundle that a changed row was written for, going by the digest that it has."""
    for bundle in sorted(evidence.folders):
        signed = _signed(evidence, bundle)
        if signed and signed.sha256 == row.sums_sha256:
            return bundle
    return row.bundle


def _linked_by(evidence: _Evidence, row: LedgerRow) -> str | None:
    """Return the bundle that a row's bundle says comes before it."""
    signed = _signed(evidence, row.bundle)
    return signed.sums.previous.bundle if signed and signed.sums.previous else None


def _refuse_pruned(conn: Connection, bundle: str, keys: TrustedKeys) -> None:
    row = ledger.find_bundle(conn, bundle)
    if row is not None and row.seq <= pruned_up_to(conn, keys):
        raise Refused(_("its files were removed at the end of their retention period"))


def _check_in_ledger(
    conn: Connection, bundle: str, signed: SignedSums, folder: StoreFolder, keys: TrustedKeys
) -> None:
    row = ledger.find_bundle(conn, bundle)
    if row is None:
        raise Refused(_("the ledger does not have it"))
    if not row.is_authentic(keys):
        raise Refused(_("its ledger row was changed"))
    check_row(row, signed, folder, link_before(conn, row))


def link_before(conn: Connection, row: LedgerRow) -> Link | None:
    """Return the link of a bundle to its predecessor or a checkpoint; None for neither."""
    before = ledger.at(conn, row.seq - 1)
    if before:
        return before.link
    marks = (mark for mark in checkpoints(conn) if mark.up_to_seq == row.seq - 1)
    return next((mark.link for mark in marks), None)


def _own_key(folder: DiskFolder) -> TrustedKeys:
    try:
        pem = folder.read(SIGNER, LARGEST_KEY)
        fingerprint(pem)
    except (ObjectMissing, ObjectDamaged, UsageError) as error:
        raise Refused(_("signer.pem is missing or is no Ed25519 public key")) from error
    return TrustedKeys([pem])


def _check_neighbour(path: Path, signed: SignedSums) -> bool | None:
    """Check the link to the neighbouring folder: False if it is missing, None without a link."""
    previous = signed.sums.previous
    if previous is None:
        return None
    try:
        digest = DiskFolder(path.absolute()).sha256(link_to(previous.bundle))
    except ObjectMissing:
        return False
    except ObjectDamaged:
        digest = ""
    if digest != previous.sums_sha256:
        raise Refused(_("the bundle before it, {bundle}, was changed", bundle=previous.bundle))
    return True


def _remarks(evidence: _Evidence) -> Iterator[Message]:
    recorded = {row.bundle for row in evidence.rows}
    pruned = evidence.checkpoint.up_to_seq if evidence.checkpoint else 0
    if lost := pruned - len(evidence.pruned):
        yield _(
            "the ledger lacks {count} rows of pruned bundles: a cleared task of their runs would "
            "not be refused",
            count=lost,
        )
    for bundle, names in sorted(evidence.folders.items()):
        if SIGNATURE not in names and bundle not in recorded:
            yield _("{bundle} is unfinished: it has no signature and is no bundle", bundle=bundle)
        elif bundle in evidence.begun and bundle not in recorded:
            yield _("{bundle} waits for its ledger row: the next seal enters it", bundle=bundle)
        elif evidence.folder(bundle).lacks_signature:
            yield _unsigned(bundle)


def _unsigned(bundle: str) -> Message:
    return _("{bundle} waits for its signature: the next seal puts it there", bundle=bundle)
