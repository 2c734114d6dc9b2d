"""Show files of sealed bundles to people, and only files that are as they were sealed.

A row of the ledger is used only if its signature is valid. A file is used only if its digest is
that of a SHA256SUMS that a trusted key signed and the ledger names.
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
    Refused,
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
    """Remembers the last `REMEMBERED` values for many threads.

    Args:
        seconds: for which a value is returned.
        steady: seconds of a clock that never goes back.
    """

    def __init__(self, seconds: float, steady: Callable[[], float]) -> None:
        self._seconds, self._steady = seconds, steady
        self._lock = threading.Lock()
        self._values: OrderedDict[_Key, tuple[float, _Value]] = OrderedDict()

    def get(self, key: _Key) -> _Value | None:
        """Return the value of a key; None if there is none, or if it is too old."""
        with self._lock:
            kept_at, value = self._values.get(key, (-math.inf, None))
        return value if self._steady() - kept_at < self._seconds else None

    def keep(self, key: _Key, value: _Value) -> None:
        """Remember a value, in place of the oldest one if there are too many."""
        with self._lock:
            self._values[key] = self._steady(), value
            self._values.move_to_end(key)
            while len(self._values) > REMEMBERED:
                self._values.popitem(last=False)


@dataclass(frozen=True)
class BundleCheck:
    """The result of checking a bundle.

    Attributes:
        problem: why the bundle cannot be believed; None when nothing wrong was found.
        complete: whether the content of every file was checked. An incomplete check is never
            shown as passed.
        is_waiting: whether the store lacks the signature: the state database has it, and the next
            seal puts it there.
    """

    problem: Message | None
    complete: bool = True
    is_waiting: bool = False

    @property
    def verified(self) -> bool:
        """Return whether every file was checked and nothing is wrong."""
        return self.complete and self.problem is None


class Shelf:
    """The evidence store and the keys that count, for many readers at once.

    Args:
        store: the evidence store.
        trusted: public keys (PEM) whose seals count.
        steady: seconds of a clock that never goes back.
        pending: returns the signature of a bundle by its folder, while its seal did not put it
            into the store; None when the state database has none.

    Raises:
        UsageError: a trusted key cannot be read.
    """

    def __init__(
        self,
        store: ObjectStore,
        trusted: Iterable[bytes],
        steady: Callable[[], float] = time.monotonic,
        pending: Callable[[str], bytes | None] = lambda _bundle: None,
    ) -> None:
        self.store = store
        self.keys = TrustedKeys(trusted)
        self._pending = pending
        self._results = _Memory[str, Result](BELIEVED_FOR, steady)
        self._checks = _Memory[str, BundleCheck](BELIEVED_FOR, steady)
        self._authentic = _Memory[tuple[bytes, bytes], bool](math.inf, steady)

    def is_authentic(self, row: LedgerRow) -> bool:
        """Return whether a trusted key signed a ledger row as it is; remembered by its content."""
        key = row.row_signature, row.signed_content()
        is_authentic = self._authentic.get(key)
        if is_authentic is None:
            is_authentic = self.keys.who_signed(*key) is not None
            self._authentic.keep(key, is_authentic)
        return is_authentic

    def result(self, row: LedgerRow) -> Result:
        """Return the result of a bundle, after its signature and digest were checked.

        It is remembered for `BELIEVED_FOR` seconds.

        Raises:
            Refused: the bundle does not hold, as far as its result goes.
            StoreError: the store cannot be read.
        """
        if not self.is_authentic(row):  # the remembered result is that of the row as it was signed
            raise Refused(_("its ledger row was changed"))
        if (known := self._results.get(row.sums_sha256)) is not None:
            return known
        content = read_result(self.folder(row), self.signed(row))
        try:
            result = Result.model_validate_json(content)
        except ValueError as error:
            raise Refused(_("result.json is not one of ParcelSeal")) from error
        self._results.keep(row.sums_sha256, result)
        return result

    def sizes(self, row: LedgerRow) -> dict[str, int]:
        """Return the size of each file in a bundle's folder, in bytes, as the store lists it.

        Of a folder with more files than a bundle has, only `MOST_LISTED` are named.
        """
        prefix = f"{row.bundle}/"
        listing = islice(self.store.list(prefix), MOST_LISTED)
        return {stored.key.removeprefix(prefix): stored.size for stored in listing}

    def checked(self, row: LedgerRow, previous: Callable[[], Link | None]) -> BundleCheck:
        """Return the check of a bundle, at most `BELIEVED_FOR` seconds old.

        Args:
            row: of the bundle.
            previous: returns the bundle to which it has to link, as `link_before` does.

        Raises:
            StoreError: the store cannot be read.
        """
        check = self._checks.get(row.sums_sha256)
        return self.check(row, previous()) if check is None else check

    def check(self, row: LedgerRow, previous: Link | None) -> BundleCheck:
        """Check a bundle now: its row, signature, link, names, and the content of its files.

        Reads at most `LARGEST` bytes of files, the smallest files first. A file that does not fit
        leaves the check incomplete.

        Args:
            row: of the bundle.
            previous: the bundle to which it has to link; None for the first one.

        Raises:
            StoreError: the store cannot be read.
        """
        sizes = self.sizes(row)
        try:
            complete = self._check_files(row, sizes, previous)
            check = BundleCheck(None, complete, is_waiting=SIGNATURE not in sizes)
        except Refused as refusal:
            check = BundleCheck(refusal.message)
        if SIGNATURE in sizes:  # else a seal may be about to put it there
            self._checks.keep(row.sums_sha256, check)
        return check

    def _check_files(self, row: LedgerRow, sizes: Mapping[str, int], previous: Link | None) -> bool:
        """Return whether every file was read; raises Refused for a bundle that does not hold."""
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
        """Return a bundle's list of files, after its signature and its ledger row were checked.

        Raises:
            Refused: they do not hold.
            StoreError: the store cannot be read.
        """
        if not self.is_authentic(row):
            raise Refused(_("its ledger row was changed"))
        signed = check_signature(self.folder(row), self.keys)
        if signed.sha256 != row.sums_sha256:
            raise Refused(_("SHA256SUMS is not the one that the ledger has"))
        return signed

    def open(self, row: LedgerRow, name: str, signed: SignedSums) -> IO[bytes]:
        """Return a copy of a file's content whose digest was checked, at its beginning.

        Args:
            row: of the bundle.
            name: of one of its files.
            signed: its list of files, SHA256SUMS and its signature themselves aside.

        Raises:
            KeyError: the bundle has no such file.
            Refused: the file is missing, damaged or was changed.
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
        """Return the number of the last bundle whose files were pruned by rule; 0 where none were.

        Only checkpoints count that a trusted key signed: anybody could write that files need not be
        there.
        """
        return pruned_up_to(conn, self.keys)

    def folder(self, row: LedgerRow) -> StoreFolder:
        """Return a bundle's folder in the store."""
        return StoreFolder(self.store, row.bundle, pending=lambda: self._pending(row.bundle))


@dataclass(frozen=True)
class SealedRun:
    """The sealed result of a run, verified against its signatures and digests.

    Attributes:
        row: of the ledger.
        result: the bundle's result.json.
        digests: SHA-256 of the files that were sealed, by name.
    """

    row: LedgerRow
    result: Result
    digests: Mapping[str, str]


def read_sealed(
    store: ObjectStore, conn: Connection, trusted: Iterable[bytes], dag_id: str, run_id: str
) -> SealedRun | None:
    """Return the sealed result of a run; None when the ledger has no bundle of the run.

    Args:
        store: the evidence store.
        conn: the state database.
        trusted: public keys (PEM) whose seals count.
        dag_id: the workflow.
        run_id: its run.

    Raises:
        ControlFailed: the row, the signature or result.json is not as it was sealed.
        StoreError: the store cannot be read.
    """
    row = ledger.find(conn, dag_id, run_id)
    if row is None:
        return None
    shelf = Shelf(store, trusted)
    try:
        return SealedRun(row, shelf.result(row), shelf.signed(row).sums.files)
    except Refused as refusal:
        raise ControlFailed(
            f"The evidence bundle {row.bundle} cannot be verified: {in_english(refusal.message)}.",
            "Keep it as it is, run `./parcelseal verify`, and find out who changed it.",
        ) from refusal


def refuse_sealed(conn: Connection, dag_id: str, run_id: str) -> None:
    """Refuse to work in a run that is sealed: no evidence would show the work.

    Args:
        conn: the live state database.
        dag_id: the workflow.
        run_id: its run.

    Raises:
        ControlFailed: the run is sealed.
    """
    if ledger.find(conn, dag_id, run_id) is not None:
        raise ControlFailed(
            "This run is sealed: nothing can be done in it any more.",
            "Start a new run of the workflow; it does what this run lacks.",
        )
