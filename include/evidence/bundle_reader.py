"""Read the files of sealed bundles, and refuse files that were changed since the seal.

A ledger row is used only if its signature is valid. A file is used only if three conditions are
met: SHA256SUMS of the bundle lists the digest of the file, a trusted key signed SHA256SUMS, and the
ledger row contains the digest of SHA256SUMS.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import IO, Generic, TypeVar

from sqlalchemy import Connection

from include.evidence import ledger
from include.evidence.check import (
    EvidenceRefused,
    SignedSums,
    check_digest,
    check_file,
    check_names,
    check_row,
    check_signature,
    check_signer,
    read_result,
    refusing_unreadable,
)
from include.evidence.checkpoint import pruned_up_to
from include.evidence.folder import MOST_LISTED, PIECE, SIGNATURE, SUMS, Link, StoreFolder
from include.evidence.ledger import LedgerRow
from include.evidence.model import Result
from include.evidence.signing import TrustedKeys
from include.messages import Message, _, in_english
from include.services.errors import ControlFailed
from include.services.objectstore.base import ObjectStore

REMEMBERED = 4096  # results and rows whose signatures were checked
BELIEVED_FOR = 600.0  # seconds after which a result is read and checked again
LARGEST = 256 * 1024 * 1024  # bytes of a bundle that are checked for a page
IN_MEMORY = 8 * 1024 * 1024  # bytes of a file; larger content is in a temporary file

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class _Memory(Generic[_Key, _Value]):
    """A thread-safe cache. It keeps the 4096 values that were added last.

    Args:
        seconds: time for which a value is returned after it was added, in seconds.
        monotonic: returns the current reading of a monotonic clock, in seconds.
    """

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._seconds, self._monotonic = seconds, monotonic
        self._lock = threading.Lock()
        self._values: OrderedDict[_Key, tuple[float, _Value]] = OrderedDict()

    def get(self, key: _Key) -> _Value | None:
        """Return the cached value of a key; None if the value is missing or too old."""
        with self._lock:
            kept_at, value = self._values.get(key, (-math.inf, None))
        return value if self._monotonic() - kept_at < self._seconds else None

    def keep(self, key: _Key, value: _Value) -> None:
        """Add a value to the cache. If the cache is full, remove the value that was added first."""
        with self._lock:
            self._values[key] = self._monotonic(), value
            self._values.move_to_end(key)
            while len(self._values) > REMEMBERED:
                self._values.popitem(last=False)


@dataclass(frozen=True)
class BundleCheck:
    """The result of checking a bundle.

    Attributes:
        problem: the reason why the bundle is not valid; None if the check found no problem.
        complete: whether the content of every file was checked. A bundle with an incomplete check
            is never shown as passed.
        has_pending_signature: whether the signature is still missing in the store and exists only
            in the state database. The next seal puts it into the store.
    """

    problem: Message | None
    complete: bool = True
    has_pending_signature: bool = False

    @property
    def verified(self) -> bool:
        """Return whether the bundle is valid and the content of each of its files was checked."""
        return self.complete and self.problem is None


class BundleReader:
    """Reads and checks bundles of the evidence store; several threads can use it at once.

    Args:
        store: the evidence store.
        trusted: public keys (PEM) whose seals are accepted.
        monotonic: returns the current reading of a monotonic clock, in seconds.
        pending: function that takes the folder of a bundle. It returns the signature of the bundle
            if the signature may be in the state database only, otherwise None.

    Raises:
        UsageError: a trusted key cannot be read.
    """

    def __init__(
        self,
        store: ObjectStore,
        trusted: Iterable[bytes],
        monotonic: Callable[[], float] = time.monotonic,
        pending: Callable[[str], bytes | None] = lambda _bundle: None,
    ) -> None:
        self.store = store
        self.keys = TrustedKeys(trusted)
        self._pending = pending
        self._results = _Memory[str, Result](BELIEVED_FOR, monotonic)
        self._checks = _Memory[str, BundleCheck](BELIEVED_FOR, monotonic)
        self._authentic = _Memory[tuple[bytes, bytes], bool](math.inf, monotonic)

    def is_authentic(self, row: LedgerRow) -> bool:
        """Return whether a trusted key signed the present content of a ledger row.

        The answer is cached until the content or the signature of the row changes.
        """
        key = row.row_signature, row.signed_content()
        is_authentic = self._authentic.get(key)
        if is_authentic is None:
            is_authentic = self.keys.signer_of(*key) is not None
            self._authentic.keep(key, is_authentic)
        return is_authentic

    def result(self, row: LedgerRow) -> Result:
        """Check the signature of a bundle and the digest of its result.json; return the result.

        The result is cached for 10 minutes.

        Raises:
            EvidenceRefused: the ledger row, the signature or the digest of result.json is not
                valid, or result.json was not written by ParcelSeal.
            StoreError: the store cannot be read.
        """
        if not self.is_authentic(row):  # cached results belong to signed rows only
            raise EvidenceRefused(_("the row of this bundle in the evidence ledger was changed"))
        if (remembered := self._results.get(row.sums_sha256)) is not None:
            return remembered
        content = read_result(self.folder(row), self.signed(row))
        try:
            result = Result.model_validate_json(content)
        except ValueError as error:
            raise EvidenceRefused(
                _("the result file of the bundle was not written by ParcelSeal")
            ) from error
        self._results.keep(row.sums_sha256, result)
        return result

    def sizes(self, row: LedgerRow) -> dict[str, int]:
        """Return the size in bytes of each file in a bundle's folder, by file name.

        The sizes come from the store's list of objects. If the folder has more files than a bundle
        may have, some files are left out.
        """
        prefix = f"{row.bundle}/"
        listing = islice(self.store.list(prefix), MOST_LISTED)
        return {stored.key.removeprefix(prefix): stored.size for stored in listing}

    def checked(self, row: LedgerRow, previous: Callable[[], Link | None]) -> BundleCheck:
        """Return the cached result of checking a bundle. If none is cached, check the bundle now.

        A result is cached for 10 minutes.

        Args:
            row: ledger row of the bundle.
            previous: function that returns the link that the bundle must have to its predecessor,
                or None for the first bundle. It is called only if no result is cached.

        Raises:
            StoreError: the store cannot be read.
        """
        check = self._checks.get(row.sums_sha256)
        return self.check(row, previous()) if check is None else check

    def check(self, row: LedgerRow, previous: Link | None) -> BundleCheck:
        """Check a bundle now: ledger row, signature, link, file names and content of the files.

        The check reads at most 256 MiB, and the smallest files first. If the bundle is larger, the
        largest files are not read, and the check is incomplete.

        Args:
            row: ledger row of the bundle.
            previous: the link that the bundle must have to its predecessor; None for the first
                bundle.

        Raises:
            StoreError: the store cannot be read.
        """
        sizes = self.sizes(row)
        try:
            complete = self._check_files(row, sizes, previous)
            check = BundleCheck(None, complete, has_pending_signature=SIGNATURE not in sizes)
        except EvidenceRefused as refusal:
            check = BundleCheck(refusal.message)
        if SIGNATURE in sizes:  # else a seal may be about to put it there
            self._checks.keep(row.sums_sha256, check)
        return check

    def _check_files(self, row: LedgerRow, sizes: Mapping[str, int], previous: Link | None) -> bool:
        """Check the signature, file names, ledger row and content of a bundle.

        At most 256 MiB are read, and the smallest files first.

        Args:
            row: ledger row of the bundle.
            sizes: size in bytes of each file in the bundle's folder, by file name.
            previous: the link that the bundle must have to its predecessor; None for the first
                bundle.

        Returns:
            Whether the content of every file was checked.

        Raises:
            EvidenceRefused: the bundle is not valid.
        """
        folder = StoreFolder(self.store, row.bundle, set(sizes))
        signed = self.signed(row)
        check_names(sizes, signed)
        room = LARGEST
        for name in sorted(signed.sums.files, key=lambda name: (sizes[name], name)):
            room -= sizes[name]
            if room < 0:
                break
            check_file(folder, name, signed)
        check_signer(folder, signed)
        check_row(row, signed, folder, previous)
        return room >= 0

    def signed(self, row: LedgerRow) -> SignedSums:
        """Check the signature of a bundle's SHA256SUMS and the ledger row; return SHA256SUMS.

        Raises:
            EvidenceRefused: the ledger row or the signature is not valid, or the row contains the
                digest of another SHA256SUMS.
            StoreError: the store cannot be read.
        """
        if not self.is_authentic(row):
            raise EvidenceRefused(_("the row of this bundle in the evidence ledger was changed"))
        signed = check_signature(self.folder(row), self.keys)
        if signed.sha256 != row.sums_sha256:
            raise EvidenceRefused(
                _("the bundle's list of checksums differs from the list in the evidence ledger")
            )
        return signed

    def open(self, row: LedgerRow, name: str, signed: SignedSums) -> IO[bytes]:
        """Return a temporary copy of a bundle's file, after checking the digest of the file.

        The copy is open for reading from its first byte.

        Args:
            row: ledger row of the bundle.
            name: name of the file in the bundle.
            signed: the bundle's SHA256SUMS, whose signature was checked.

        Raises:
            KeyError: the bundle has no such file.
            EvidenceRefused: the file is missing, is damaged or was changed.
            StoreError: the store cannot be read.
        """
        expected = signed.sha256 if name == SUMS else signed.sums.files.get(name)
        if expected is None and name != SIGNATURE:
            raise KeyError(name)
        digest = hashlib.sha256()
        copy = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - handed over
        try:
            with refusing_unreadable(name), self.folder(row).open(name) as source:
                while piece := source.read(PIECE):
                    digest.update(piece)
                    copy.write(piece)
            if expected is not None:
                check_digest(name, digest.hexdigest(), expected)
        except BaseException:
            copy.close()
            raise
        copy.seek(0)
        return copy

    def pruned_up_to(self, conn: Connection) -> int:
        """Return the last pruned bundle's sequence number; 0 if no bundle was pruned.

        The number is read from the newest checkpoint. A checkpoint is ignored if no trusted key
        signed it. With a forged checkpoint, an intruder could pretend that deleted bundles were
        pruned.
        """
        return pruned_up_to(conn, self.keys)

    def folder(self, row: LedgerRow) -> StoreFolder:
        """Return an object that reads the files of a bundle from the store."""
        return StoreFolder(self.store, row.bundle, pending=lambda: self._pending(row.bundle))


@dataclass(frozen=True)
class SealedRun:
    """The sealed result of a run, after its signatures and digests were verified.

    Attributes:
        row: ledger row of the run's bundle.
        result: the bundle's result.json.
        digests: SHA-256 digest of each sealed file, by name.
    """

    row: LedgerRow
    result: Result
    digests: Mapping[str, str]


def read_sealed(
    store: ObjectStore, conn: Connection, trusted: Iterable[bytes], dag_id: str, run_id: str
) -> SealedRun | None:
    """Return the sealed result of a run; None if the ledger has no bundle of the run.

    Args:
        store: the evidence store.
        conn: connection to the state database.
        trusted: public keys (PEM) whose seals are accepted.
        dag_id: DAG id of the workflow.
        run_id: Airflow id of the run.

    Raises:
        ControlFailed: the ledger row, the signature or result.json was changed since the seal.
        StoreError: the store cannot be read.
    """
    row = ledger.find(conn, dag_id, run_id)
    if row is None:
        return None
    bundle_reader = BundleReader(store, trusted)
    try:
        return SealedRun(row, bundle_reader.result(row), bundle_reader.signed(row).sums.files)
    except EvidenceRefused as refusal:
        raise ControlFailed(
            f"The evidence bundle {row.bundle} cannot be verified: {in_english(refusal.message)}.",
            "Keep the bundle unchanged, run `./parcelseal verify`, and find out who changed it.",
        ) from refusal


def refuse_sealed(conn: Connection, dag_id: str, run_id: str) -> None:
    """Raise ControlFailed if a run is sealed.

    A sealed run must not do further work, because its bundle would not show this work.

    Args:
        conn: connection to the state database. In a drill, pass the live state database, not a
            copy.
        dag_id: DAG id of the workflow.
        run_id: Airflow id of the run.

    Raises:
        ControlFailed: the run is sealed.
    """
    if ledger.find(conn, dag_id, run_id) is not None:
        raise ControlFailed(
            "The evidence of this run is sealed, so its tasks cannot run again.",
            "Start a new run of the workflow; the new run completes the remaining work.",
        )
