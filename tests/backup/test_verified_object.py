"""Test that a stream which is compared with a manifest reads only as many bytes as needed."""

from __future__ import annotations

import hashlib
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from include.backup.point_folder import ObjectRecord
from include.backup.source import VerifiedObject
from include.encryption.crypto import ContentRefused


class CountingReader(io.BytesIO):
    """A stored object that counts the bytes that are read from it."""

    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.read_bytes += len(data)
        return data


def record_of(content: bytes) -> ObjectRecord:
    digest = hashlib.sha256(content).hexdigest()
    return ObjectRecord(key="dump", size=len(content), sha256=digest, checksum="")


@given(
    content=st.binary(max_size=60),
    stored=st.binary(max_size=200),
    intact=st.booleans(),
    sizes=st.lists(st.integers(-1, 50), max_size=8),
)
@example(content=b"abc", stored=b"abcdef", intact=False, sizes=[-1])
def test_verified_object_reads_at_most_a_byte_beyond_its_size(
    content: bytes, stored: bytes, intact: bool, sizes: list[int]
) -> None:
    """This applies to any requested size, and also if all remaining bytes are requested."""
    reader = CountingReader(content if intact else stored)
    verified = VerifiedObject(reader, record_of(content))
    is_refused = False
    data = b""
    try:
        for size in sizes:
            data += verified.read(size)
        verified.verify()
    except ContentRefused:
        is_refused = True
    assert is_refused == (reader.getvalue() != content)
    assert content.startswith(data) or is_refused
    assert reader.read_bytes <= len(content) + 1


def test_verified_object_read_of_zero_bytes_reads_nothing() -> None:
    """A size of zero must not be treated like -1, which requests all remaining bytes."""
    verified = VerifiedObject(io.BytesIO(b"abc"), record_of(b"abc"))
    assert verified.read(0) == b""
    assert verified.read() == b"abc"


@pytest.mark.parametrize(("stored", "why"), [(b"abcd", "more than 3"), (b"ab", "2 bytes instead")])
def test_verified_object_raises_content_refused_error_if_size_differs_from_recorded_size(
    stored: bytes, why: str
) -> None:
    """A longer object is refused while it is read, a shorter object at its end."""
    with pytest.raises(ContentRefused, match=why):
        VerifiedObject(io.BytesIO(stored), record_of(b"abc")).verify()
