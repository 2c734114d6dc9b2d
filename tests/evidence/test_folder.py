"""Folders of bundles: the signature that a seal has not stored yet, and all other files."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager

from hypothesis import example, given
from hypothesis import strategies as st

from include.evidence import ledger
from include.evidence.folder import SIGNATURE, DiskFolder, Folder, Readable, StoreFolder
from include.services.objectstore.base import ObjectDamaged
from tests.evidence.support import Evidence


class UnevenReader(io.BytesIO):
    """A stream that returns pieces of given sizes, as a network connection does."""

    def __init__(self, content: bytes, pieces: list[int]) -> None:
        super().__init__(content)
        self.pieces = pieces
        self.read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        piece = self.pieces.pop(0) if self.pieces else 50
        data = super().read(piece if size is None or size < 0 else min(size, piece))
        self.read_bytes += len(data)
        return data


class SingleFileFolder(Folder):
    """A folder with a single file."""

    def __init__(self, reader: UnevenReader) -> None:
        self.reader = reader

    def names(self) -> set[str]:
        return {"file"}

    def open(self, name: str) -> AbstractContextManager[Readable]:
        return self.reader


@given(
    content=st.binary(max_size=40),
    limit=st.integers(0, 40),
    pieces=st.lists(st.integers(1, 9), max_size=9),
)
@example(content=bytes(9), limit=1, pieces=[1])
def test_reading_a_bundle_file_reads_at_most_one_byte_more_than_the_size_limit(
    content: bytes, limit: int, pieces: list[int]
) -> None:
    """A larger file is refused before it is read completely, for pieces of any size."""
    reader = UnevenReader(content, pieces)
    try:
        assert SingleFileFolder(reader).read("file", limit) == content
        assert len(content) <= limit
    except ObjectDamaged:
        assert len(content) > limit
    assert reader.read_bytes <= limit + 1


def test_signature_is_read_from_the_state_database_if_the_store_does_not_have_it_yet(
    chain: Evidence,
) -> None:
    """All other files come from the store, and so does the signature as soon as it is stored."""
    row = ledger.rows(chain.conn)[0]
    path = chain.root / row.bundle
    files = {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }
    stored = StoreFolder(chain.store, row.bundle, pending=lambda: b"pending")
    assert not stored.lacks_signature
    assert stored.names() == DiskFolder(path).names() == set(files)
    assert {name: stored.read(name) for name in files} == files
    (path / SIGNATURE).unlink()
    pending = StoreFolder(chain.store, row.bundle, pending=lambda: b"pending")
    assert pending.lacks_signature
    assert pending.names() == set(files)
    assert {name: pending.read(name) for name in files} == {**files, SIGNATURE: b"pending"}
    unsigned = StoreFolder(chain.store, row.bundle)
    assert not unsigned.lacks_signature
    assert unsigned.names() == set(files) - {SIGNATURE}
