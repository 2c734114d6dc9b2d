"""Add a bundle to an inspection pack, and verify exactly the bytes that were added."""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from itertools import islice

from include.evidence.check import EvidenceRefused, check_bundle, check_row
from include.evidence.folder import (
    LARGEST_KEY,
    LARGEST_RESULT,
    LARGEST_SIGNATURE,
    LARGEST_SUMS,
    MOST_LISTED,
    PIECE,
    RESULT,
    SIGNATURE,
    SIGNER,
    SUMS,
    Folder,
    Link,
    Readable,
    StoreFolder,
    is_bundle_path,
)
from include.evidence.ledger import LedgerRow
from include.evidence.model import Result
from include.evidence.signing import TrustedKeys
from include.inspection.zip_stream import ZipStream, is_member_name
from include.messages import Message, _
from include.services.objectstore.base import ObjectDamaged, ObjectMissing, ObjectStore

FOLDER = "bundles"
"""Folder of the pack that contains the bundles."""

_NEEDED = {
    RESULT: LARGEST_RESULT,
    SIGNER: LARGEST_KEY,
    SUMS: LARGEST_SUMS,
    SIGNATURE: LARGEST_SIGNATURE,
}
"""Files whose content the verification needs, with their largest size in bytes."""


@dataclass(frozen=True)
class PackedBundle:
    """A bundle of an inspection pack.

    Attributes:
        row: ledger row of the bundle.
        problem: why the bundle does not verify; None if it verifies.
        findings: number of findings of the run; None if result.json cannot be read.
        is_removed: whether the files were removed at the end of their retention period.
        files: number of files in the pack.
        size: size of these files in bytes.
        left_out: number of files that the pack lacks, because their names are not safe.
    """

    row: LedgerRow
    problem: Message | None = None
    findings: int | None = None
    is_removed: bool = False
    files: int = 0
    size: int = 0
    left_out: int = 0

    @property
    def verified(self) -> bool:
        """Whether the bundle is in the pack and verifies."""
        return self.problem is None and not self.is_removed

    @property
    def folder(self) -> str:
        """The folder of the bundle in the pack."""
        return f"{FOLDER}/{self.row.bundle}"


@dataclass
class _PackedFolder(Folder):
    """The files of a bundle as they were packed. Only small files are kept in memory."""

    listed: set[str]
    digests: dict[str, str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)

    def names(self) -> set[str]:
        return self.listed

    def open(self, name: str) -> AbstractContextManager[Readable]:
        if name in self.contents:
            return io.BytesIO(self.contents[name])
        raise (ObjectDamaged if name in self.digests else ObjectMissing)(name)

    def sha256(self, name: str) -> str:
        if name in self.damaged:
            raise ObjectDamaged(name)
        if name not in self.digests:
            raise ObjectMissing(name)
        return self.digests[name]


class BundlePacker:
    """Adds bundles of an evidence store to an inspection pack.

    Args:
        store: the evidence store.
        keys: public keys whose seals are accepted.
        pending: function that takes the folder of a bundle. It returns the signature of the bundle
            if the signature may be in the state database only, otherwise None.
    """

    def __init__(
        self, store: ObjectStore, keys: TrustedKeys, pending: Callable[[str], bytes | None]
    ) -> None:
        self._store = store
        self._keys = keys
        self._pending = pending

    def pack(
        self, archive: ZipStream, row: LedgerRow, previous: Link | None, *, is_authentic: bool
    ) -> Generator[bytes | PackedBundle]:
        """Add all files of a bundle, and verify the bytes that were added.

        The last value that the iterator returns is the packed bundle. All other values are chunks
        of the archive.

        Args:
            archive: the pack.
            row: ledger row of the bundle.
            previous: the link that the bundle must have to its predecessor; None for the first
                bundle.
            is_authentic: whether a trusted key signed the row.

        Raises:
            StoreError: the store cannot be read.
        """
        if not is_bundle_path(row.bundle):  # the row was changed; no folder has this path
            yield PackedBundle(row, _("the row of this bundle in the evidence ledger was changed"))
            return
        sizes = self._sizes(row.bundle)
        source = StoreFolder(self._store, row.bundle, set(sizes), lambda: self._pending(row.bundle))
        packed = _PackedFolder(source.names())
        left_out = 0
        for name in sorted(packed.listed):
            if is_member_name(f"{FOLDER}/{row.bundle}/{name}"):
                yield from self._add(archive, row.bundle, source, name, packed, sizes.get(name, 0))
            else:
                left_out += 1
        yield PackedBundle(
            row,
            self._problem(packed, row, previous, is_authentic=is_authentic),
            _finding_count(packed.contents.get(RESULT, b"")),
            files=len(packed.digests),
            size=sum(sizes.get(name, 0) for name in packed.digests),
            left_out=left_out,
        )

    def _sizes(self, bundle: str) -> Mapping[str, int]:
        prefix = f"{bundle}/"
        listing = islice(self._store.list(prefix), MOST_LISTED)
        return {stored.key.removeprefix(prefix): stored.size for stored in listing}

    def _add(
        self,
        archive: ZipStream,
        bundle: str,
        source: StoreFolder,
        name: str,
        packed: _PackedFolder,
        size: int,
    ) -> Iterator[bytes]:
        """Add a file. A missing file is left out, and of a damaged file the readable part is added.

        Args:
            archive: the pack.
            bundle: folder of the bundle in the store.
            source: the bundle in the store.
            name: path of the file in the bundle.
            packed: receives digest and content of the file.
            size: size of the file in bytes according to the store.
        """
        member = f"{FOLDER}/{bundle}/{name}"
        kept, limit = bytearray(), _NEEDED.get(name, -1)

        def pieces(file: Readable) -> Iterator[bytes]:
            try:
                while piece := file.read(PIECE):
                    if len(kept) <= limit:
                        kept.extend(piece[: limit + 1 - len(kept)])
                    yield piece
            except (ObjectMissing, ObjectDamaged):
                packed.damaged.add(name)

        with ExitStack() as stack:
            try:
                file = stack.enter_context(source.open(name))
            except ObjectMissing:
                self._sizes(bundle)  # raises an error if the whole store is away
                return
            except ObjectDamaged:
                packed.damaged.add(name)
                return
            yield from archive.add_pieces(member, pieces(file), size)
        packed.digests[name] = archive.digests[member]
        if len(kept) <= limit:
            packed.contents[name] = bytes(kept)

    def _problem(
        self, packed: _PackedFolder, row: LedgerRow, previous: Link | None, *, is_authentic: bool
    ) -> Message | None:
        if not is_authentic:
            return _("the row of this bundle in the evidence ledger was changed")
        try:
            signed = check_bundle(packed, self._keys)
            check_row(row, signed, packed, previous)
        except EvidenceRefused as refusal:
            return refusal.message
        return None


def _finding_count(result: bytes) -> int | None:
    try:
        return len(Result.model_validate_json(result).findings)
    except ValueError:
        return None
