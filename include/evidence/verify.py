"""Verify evidence: the bundles, the rows of the evidence ledger, and the links between bundles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection, select, text

from include.evidence import ledger
from include.evidence.check import (
    EvidenceRefused,
    SignedSums,
    check_bundle,
    check_row,
    check_signature,
    read_result,
)
from include.evidence.checkpoint import Checkpoint, check_tombstones, checkpoints, pruned_up_to
from include.evidence.control_index import IndexedControl, controls_in, index_rows
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
from include.evidence.ledger_recovery import pending_signature, pending_signatures
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
        verified: whether the verification passed: at least one bundle was checked, and no problem
            was found.
        bundles: number of bundles that the verification covers: those in the ledger that are not
            pruned, or 1 if a single bundle was verified.
        first_bad: folder of the first bundle that is not valid; None if all bundles are valid.
        problem: why the verification did not pass; None if it passed.
        remarks: facts that the reader should know, but that do not make the verification fail.
        commands: shell commands that check the bundle ``first_bad`` without ParcelSeal; if all
            bundles are valid, commands for the newest bundle.
    """

    verified: bool
    bundles: int
    first_bad: str | None = None
    problem: Message | None = None
    remarks: list[Message] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    @property
    def reason(self) -> str | None:
        """Return the problem in English; None if the verification passed."""
        return in_english(self.problem) if self.problem else None


@dataclass(frozen=True)
class _Evidence:
    """The content of the ledger and the store, read while no seal was running.

    Attributes:
        store: the evidence store.
        keys: public keys whose seals are accepted.
        rows: ledger rows of the bundles that are not pruned, ordered by sequence number.
        pruned: ledger rows of pruned bundles, ordered by sequence number.
        checkpoint: the newest checkpoint; None if no bundle was pruned.
        begun: folders of bundles whose seal has started and not finished.
        signatures: signatures that the store may not have yet, by bundle folder.
        folders: names of the stored files, by bundle folder.
        history: rows of the history index, by the sequence number of the bundle.
    """

    store: ObjectStore
    keys: TrustedKeys
    rows: list[LedgerRow]
    pruned: list[LedgerRow]
    checkpoint: Checkpoint | None
    begun: set[str]
    signatures: dict[str, bytes]
    folders: dict[str, set[str]]
    history: dict[int, frozenset[IndexedControl]]

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
    """Verify every bundle of the store, every ledger row and the links between bundles.

    Other processes cannot seal while the function lists the ledger and the store. They can seal
    while it reads files.

    Args:
        store: the evidence store.
        conn: connection to the state database.
        trusted: public keys (PEM) whose seals are accepted.

    Raises:
        UsageError: a trusted key cannot be read.
        StoreError: the store cannot be read.
    """
    evidence = _read_evidence(store, conn, TrustedKeys(trusted))
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
        nothing = _(
            "there is no evidence to verify: the evidence ledger and the evidence "
            "store have no bundle"
        )
        return Verification(False, 0, None, nothing, remarks)
    newest = evidence.rows[-1]
    commands = commands_for(store, newest.bundle, [newest.key_fingerprint])
    return Verification(True, count, remarks=remarks, commands=commands)


def verify_one(
    store: ObjectStore, bundle: str, trusted: Iterable[bytes], conn: Connection | None = None
) -> Verification:
    """Verify one bundle of a store.

    Args:
        store: the evidence store.
        bundle: folder of the bundle, relative to the store.
        trusted: public keys (PEM) whose seals are accepted.
        conn: connection to the state database, to verify the ledger row and the link to the
            previous bundle as well; None to verify only the bundle.

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
        remarks.append(
            _("the evidence ledger was not available, so the chain of bundles was not verified")
        )
    if folder.lacks_signature:
        remarks.append(_unsigned(bundle))
    try:
        if conn is not None:
            _refuse_pruned(conn, bundle, keys)
        signed = check_bundle(folder, keys)
        if conn is not None:
            _check_in_ledger(conn, bundle, signed, folder, keys)
    except EvidenceRefused as bad:
        remarks += hidden_remarks(store, bundle, keys)
        return Verification(False, 1, bundle, bad.message, remarks, commands)
    return Verification(True, 1, remarks=remarks, commands=commands)


def verify_path(path: Path, trusted: Iterable[bytes] | None = None) -> Verification:
    """Verify a copy of a bundle on a disk, without access to the evidence ledger.

    Args:
        path: folder of the bundle.
        trusted: public keys (PEM) whose seals are accepted. If None, the key in the bundle's
            signer.pem is used, and a remark asks the reader to compare its fingerprint with the
            published one.

    Raises:
        UsageError: the folder is missing, or a trusted key cannot be read.
    """
    if not path.is_dir():
        raise UsageError(f"The folder {path} does not exist.")
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
                    "the bundle was checked with the public key that it contains; compare the "
                    "key's fingerprint {fingerprint} with the fingerprint that the company "
                    "published",
                    fingerprint=fingerprints[0],
                )
            )
        signed = check_bundle(folder, keys)
        near = _check_neighbour(path, signed)
        if near is False:
            remarks.append(
                _(
                    "the previous bundle was not available, so it was not checked that this "
                    "bundle follows it in the chain"
                )
            )
    except EvidenceRefused as bad:
        problem = bad.message
    commands = check_commands(str(path), fingerprints, previous_at_hand=near is not False)
    if problem:
        return Verification(False, 1, str(path), problem, remarks, commands)
    return Verification(True, 1, remarks=remarks, commands=commands)


def _check_chain(evidence: _Evidence) -> None:
    """Check all evidence from the oldest to the newest bundle.

    Raises:
        _Bad: a bundle, the checkpoint or the ledger is not valid. The error names the first bundle
            with a problem.
    """
    if evidence.checkpoint:
        _check_checkpoint(evidence, evidence.checkpoint)
        try:
            check_tombstones(evidence.pruned, evidence.checkpoint, evidence.keys)
        except EvidenceRefused as refusal:
            raise _Bad(evidence.checkpoint.bundle, refusal.message) from refusal
    for row in evidence.rows:
        if not row.is_authentic(evidence.keys):
            raise _Bad(
                _bundle_of_changed_row(row, evidence),
                _("the row of this bundle in the evidence ledger was changed"),
            )
    unrecorded = {bundle: _signed(evidence, bundle) for bundle in _unrecorded(evidence)}
    followers = {
        signed.sums.previous: bundle for bundle, signed in unrecorded.items() if signed is not None
    }
    previous = evidence.start
    misindexed: _Bad | None = None
    seq = evidence.checkpoint.up_to_seq if evidence.checkpoint else 0
    for row in evidence.rows:
        seq += 1
        try:
            if row.seq != seq:
                lost = followers.get(previous) or _linked_by(evidence, row) or row.bundle
                raise _Bad(
                    lost,
                    _(
                        "the row of this bundle in the evidence ledger, number {number}, "
                        "is missing",
                        number=seq,
                    ),
                )
            folder = evidence.folder(row.bundle)
            signed = check_bundle(folder, evidence.keys)
            check_row(row, signed, folder, previous)
            misindexed = misindexed or _index_problem(evidence, row, read_result(folder, signed))
        except EvidenceRefused as bad:
            raise _Bad(row.bundle, bad.message) from bad
        previous = row.link
    follower = followers.get(previous)
    # The seal of a waiting bundle was killed before its ledger row: the next seal enters it.
    waiting = {follower} & evidence.begun
    if unknown := sorted(unrecorded.keys() - waiting):
        first = follower if follower in unknown else unknown[0]
        raise _Bad(first, _("the evidence ledger has no row for this bundle"))
    if misindexed is not None:  # after all checks of the evidence, which does not depend on it
        raise misindexed


def _index_problem(evidence: _Evidence, row: LedgerRow, result_json: bytes) -> _Bad | None:
    """Return the problem of a bundle that differs from its rows in the history index.

    Return None if there is no difference, or if the index has no rows of the bundle yet.

    Args:
        evidence: the content of the ledger and the store.
        row: ledger row of the bundle.
        result_json: content of the bundle's result.json.
    """
    indexed = evidence.history.get(row.seq)
    if indexed is None or indexed == frozenset(controls_in(result_json)):
        return None
    differs = _(
        "the bundle is valid, but the history of controls in the state database states other "
        "results than the bundle; the pictures on the compliance pages are therefore wrong"
    )
    return _Bad(row.bundle, differs)


def _check_checkpoint(evidence: _Evidence, checkpoint: Checkpoint) -> None:
    if not checkpoint.is_authentic(evidence.keys):
        raise _Bad(
            checkpoint.bundle,
            _("the signed checkpoint, which replaces removed bundles in the chain, was changed"),
        )
    try:
        signed = check_signature(evidence.folder(checkpoint.bundle), evidence.keys)
    except EvidenceRefused as bad:
        raise _Bad(checkpoint.bundle, bad.message) from bad
    if signed.sha256 != checkpoint.sums_sha256:
        raise _Bad(
            checkpoint.bundle,
            _(
                "the bundle's list of checksums differs from the list in the signed checkpoint "
                "of removed bundles"
            ),
        )


def _read_evidence(store: ObjectStore, conn: Connection, keys: TrustedKeys) -> _Evidence:
    folders: dict[str, set[str]] = {}
    with _no_seal_under_way(conn):
        every = ledger.rows(conn)
        marks = checkpoints(conn)
        begun = set(conn.scalars(select(evidence_intent.c.bundle)))
        signatures = pending_signatures(conn)
        history = index_rows(conn)
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
    return _Evidence(store, keys, kept, tombstones, checkpoint, begun, signatures, folders, history)


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
    """Return the folders that have a signature, but no ledger row and no checkpoint names them."""
    recorded = {row.bundle for row in evidence.rows}
    if evidence.checkpoint:
        recorded.add(evidence.checkpoint.bundle)
    signed = (bundle for bundle, names in evidence.folders.items() if SIGNATURE in names)
    return sorted(set(signed) - recorded)


def _signed(evidence: _Evidence, bundle: str) -> SignedSums | None:
    try:
        return check_signature(evidence.folder(bundle), evidence.keys)
    except EvidenceRefused:
        return None


def _bundle_of_changed_row(row: LedgerRow, evidence: _Evidence) -> str:
    """Return the folder of the bundle that a ledger row described before it was changed.

    The bundle is found by the SHA256SUMS digest in the row. If no bundle has this digest, return
    the folder that the row names now.

    Args:
        row: the changed row.
        evidence: the content of the ledger and the store.
    """
    for bundle in sorted(evidence.folders):
        signed = _signed(evidence, bundle)
        if signed and signed.sha256 == row.sums_sha256:
            return bundle
    return row.bundle


def _linked_by(evidence: _Evidence, row: LedgerRow) -> str | None:
    """Return the folder of the predecessor to which the bundle of a ledger row links.

    Return None if the bundle has no predecessor or no valid signature.
    """
    signed = _signed(evidence, row.bundle)
    return signed.sums.previous.bundle if signed and signed.sums.previous else None


def _refuse_pruned(conn: Connection, bundle: str, keys: TrustedKeys) -> None:
    row = ledger.find_bundle(conn, bundle)
    if row is not None and row.seq <= pruned_up_to(conn, keys):
        raise EvidenceRefused(
            _("the files of the bundle were removed at the end of their retention period")
        )


def _check_in_ledger(
    conn: Connection, bundle: str, signed: SignedSums, folder: StoreFolder, keys: TrustedKeys
) -> None:
    row = ledger.find_bundle(conn, bundle)
    if row is None:
        raise EvidenceRefused(_("the evidence ledger has no row for this bundle"))
    if not row.is_authentic(keys):
        raise EvidenceRefused(_("the row of this bundle in the evidence ledger was changed"))
    check_row(row, signed, folder, link_before(conn, row))


def link_before(conn: Connection, row: LedgerRow) -> Link | None:
    """Return the link that the bundle of a ledger row must have to its predecessor.

    The link comes from the previous ledger row, or from a checkpoint if this row is missing. Return
    None if both are missing, as for the first bundle.
    """
    before = ledger.row_at(conn, row.seq - 1)
    if before:
        return before.link
    marks = (mark for mark in checkpoints(conn) if mark.up_to_seq == row.seq - 1)
    return next((mark.link for mark in marks), None)


def _own_key(folder: DiskFolder) -> TrustedKeys:
    try:
        pem = folder.read(SIGNER, LARGEST_KEY)
        fingerprint(pem)
    except (ObjectMissing, ObjectDamaged, UsageError) as error:
        raise EvidenceRefused(
            _("the bundle's public key is missing or is not a valid Ed25519 key")
        ) from error
    return TrustedKeys([pem])


def _check_neighbour(path: Path, signed: SignedSums) -> bool | None:
    """Compare the previous bundle on the disk with the digest that a bundle's link states for it.

    Args:
        path: folder of the bundle. The link contains the path of the previous bundle, relative to
            this folder.
        signed: the bundle's SHA256SUMS.

    Returns:
        True if the link is valid, False if the folder of the previous bundle is missing, None if
        the bundle has no link.

    Raises:
        EvidenceRefused: the previous bundle was changed.
    """
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
        raise EvidenceRefused(
            _("the previous bundle, {bundle}, was changed", bundle=previous.bundle)
        )
    return True


def _remarks(evidence: _Evidence) -> Iterator[Message]:
    recorded = {row.bundle for row in evidence.rows}
    pruned = evidence.checkpoint.up_to_seq if evidence.checkpoint else 0
    if lost := pruned - len(evidence.pruned):
        yield _(
            "{count} rows of removed bundles are missing from the evidence ledger, so "
            "ParcelSeal cannot refuse to repeat tasks of the runs that sealed these bundles",
            count=lost,
        )
    missing = sum(bool(row.controls) and row.seq not in evidence.history for row in evidence.rows)
    if missing:
        yield _(
            "the history of controls in the state database lacks {count} bundles; each seal adds "
            "some of them, and `recover-ledger` adds all",
            count=missing,
        )
    for bundle, names in sorted(evidence.folders.items()):
        if SIGNATURE not in names and bundle not in recorded:
            yield _(
                "{bundle} is unfinished: it has no signature, so it is not an evidence bundle",
                bundle=bundle,
            )
        elif bundle in evidence.begun and bundle not in recorded:
            yield _(
                "{bundle} has no row in the evidence ledger yet; the next run that seals "
                "evidence enters the row",
                bundle=bundle,
            )
        elif evidence.folder(bundle).lacks_signature:
            yield _unsigned(bundle)


def _unsigned(bundle: str) -> Message:
    return _(
        "the signature of {bundle} is not in the evidence store yet; the next run that seals a "
        "bundle will store it there",
        bundle=bundle,
    )
