"""Write a ZIP file as a stream of chunks, without a temporary file and with little memory."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import PurePosixPath

CHUNK = 256 * 1024  # bytes that are collected before a chunk is returned
_COMPRESSED_SUFFIXES = frozenset({"", ".csv", ".html", ".json", ".jsonl", ".pem", ".txt"})
_FASTEST = 1  # level of compression
_FILE_MODE = 0o644
_UNIX = 3
_EARLIEST_YEAR = 1980  # of a ZIP entry


class _ChunkBuffer:
    """A write-only stream without positions. `zipfile` then writes sizes after each file."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self._pieces.append(bytes(data))
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing, because the buffer has no file."""

    def take(self) -> bytes:
        content = b"".join(self._pieces)
        self._pieces, self.size = [], 0
        return content


class ZipStream:
    """Returns the bytes of a ZIP file in chunks while files are added.

    Each method returns an iterator of chunks. The caller must exhaust it before the next call. A
    file above 4 GiB, and an archive above 4 GiB, use the ZIP64 format.

    Args:
        written_at: time of all entries.
    """

    def __init__(self, written_at: datetime) -> None:
        self._buffer = _ChunkBuffer()
        self._archive = zipfile.ZipFile(self._buffer, "w", allowZip64=True)  # type: ignore[call-overload]
        year = max(written_at.year, _EARLIEST_YEAR)
        self._written_at = (year, *written_at.timetuple()[1:6])
        self.digests: dict[str, str] = {}

    def add(self, name: str, content: bytes) -> Iterator[bytes]:
        """Add a file whose content is in memory.

        Args:
            name: path of the file in the archive.
            content: content of the file.
        """
        yield from self.add_pieces(name, [content], len(content))

    def add_pieces(self, name: str, pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
        """Add a file whose content is read in pieces, and keep its SHA-256 in `digests`.

        Args:
            name: path of the file in the archive.
            pieces: content of the file.
            size: expected size in bytes. It decides whether the file uses the ZIP64 format.

        Raises:
            ValueError: the name is not a plain relative path, or the archive has it already.
            RuntimeError: the content is above 4 GiB, but the expected size is not.
        """
        if not is_member_name(name) or name in self.digests:
            raise ValueError(f"{name!r} cannot be the name of a file in the archive")
        entry = zipfile.ZipInfo(name, self._written_at)
        entry.create_system, entry.external_attr = _UNIX, _FILE_MODE << 16
        entry.file_size = size
        is_text = PurePosixPath(name).suffix.lower() in _COMPRESSED_SUFFIXES
        entry.compress_type = zipfile.ZIP_DEFLATED if is_text else zipfile.ZIP_STORED
        entry._compresslevel = _FASTEST  # type: ignore[attr-defined]
        digest = hashlib.sha256()
        with self._archive.open(entry, "w") as member:
            for piece in pieces:
                digest.update(piece)
                member.write(piece)
                if self._buffer.size >= CHUNK:
                    yield self._buffer.take()
        self.digests[name] = digest.hexdigest()
        if self._buffer.size >= CHUNK:
            yield self._buffer.take()

    def finish(self) -> Iterator[bytes]:
        """Complete the archive. Without this call, no program can open the archive."""
        self._archive.close()
        yield self._buffer.take()

    def abandon(self) -> None:
        """Release the archive. Chunks that were not taken are lost."""
        self._archive.close()
        self._buffer.take()


def is_member_name(name: str) -> bool:
    """Return whether a path is safe as the name of a file in an archive.

    A safe path stays inside the folder into which the archive is unpacked, on every system.
    """
    parts = name.split("/")
    return (
        name.isprintable()
        and "\\" not in name
        and not any(part in ("", ".", "..") for part in parts)
        and ":" not in parts[0]
    )
