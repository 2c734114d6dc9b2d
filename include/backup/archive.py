"""Read the table of contents and the digests of a pg_dump archive in custom format from a stream.

The format is defined in PostgreSQL's src/bin/pg_dump/pg_backup_archiver.c and pg_backup_custom.c.
The module reads the archive versions 1.14 to 1.16, which PostgreSQL 12 to 18 write. Only the table
of contents is decoded. The data of each table is hashed without being decoded, so the digests of
all tables cost a backup almost no time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from include.backup.archive_entry import (
    SURROGATES,
    Entry,
    codec_of,
    encoding_of,
    without_column_versions,
)

MAGIC = b"PGDMP"
KNOWN_VERSIONS = {(1, 14), (1, 15), (1, 16)}
CUSTOM_FORMAT = 1
BLOCK_DATA = 1
BLOCK_LARGE_OBJECTS = 3
INT_WIDTH = 5  # sign byte and four bytes, little-endian
# COPY's end mark, then a chunk of length zero. COPY text contains no NUL byte, and in values each
# backslash is escaped. So these bytes occur only at the end of a table's data.
END_OF_DATA = b"\\.\n\n\n" + bytes(INT_WIDTH)
SECTION_NONE = 1
SECTION_BEFORE_DATA = 2
SECTION_DATA = 3
# Entries that a restore without owners omits, that pg_dump groups by owner, or that describe the
# dump and not the database.
NOT_RESTORED_AS_IS = {
    "ACL",
    "DEFAULT ACL",
    "ENCODING",
    "STDSTRINGS",
    "SEARCHPATH",
    "DATABASE",
    "DATABASE PROPERTIES",
    "BLOB METADATA",
    "PUBLICATION",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "SUBSCRIPTION",
    "SUBSCRIPTION TABLE",
}
# Comments and security labels on these objects are omitted. The name of such an entry begins with
# the type of the object.
LEFT_OUT_OBJECTS = ("DATABASE ", "PUBLICATION ", "SUBSCRIPTION ")
MAPPING_OPTIONS = " OPTIONS ("
SUM_MODULUS = 1 << 256


class ArchiveError(ValueError):
    """The error for bytes that are not a pg_dump archive in a supported version."""


@dataclass(frozen=True)
class BlockDigest:
    """The size and digest of the data of one table, as stored in the archive.

    Attributes:
        bytes: size of the data in bytes.
        sha256: SHA-256 (hex) of the data.
    """

    bytes: int
    sha256: str


@dataclass
class LargeObjects:
    """The number, size and checksum of all large objects of an archive.

    Attributes:
        count: number of large objects.
        bytes: total size of their content in bytes.
        sum: sum of the SHA-256 values of all large objects, modulo 2^256. The SHA-256 of an object
            covers its OID and its content. The sum does not depend on the order of the objects, nor
            on how pg_dump groups them by owner.
    """

    count: int = 0
    bytes: int = 0
    sum: int = 0


@dataclass
class _Block:
    dump_id: int
    size: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def take(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        self.digest.update(data)


class _NeedsMoreBytes(Exception):
    """The signal that the parser needs more bytes before it can continue.

    Its argument, if any, is the position in the received bytes up to which the parser has finished.
    """


@dataclass
class ArchiveReader:
    """A reader that receives an archive in pieces of any size, and keeps only digests of the data.

    Attributes:
        rows_of: dump ids of the tables for which `row_sums` is calculated.
        entries: entries of the table of contents; empty until the table of contents was read.
        head_size: total size of header and table of contents in bytes; 0 until they were read.
        head_sha256: SHA-256 (hex) of header and table of contents; empty until they were read.
        server_version: version of the server that was dumped; empty until the header was read.
        digests: digest of the data of each table, by dump id. A digest is set when all data of the
            table was read.
        row_sums: sum of the SHA-256 values of all rows of a table, modulo 2^256, by the dump id of
            the table. The sum does not depend on the order of the rows.
        large_objects: number, size and checksum of the large objects that were read so far.
    """

    rows_of: frozenset[int] = frozenset()
    entries: list[Entry] = field(default_factory=list)
    head_size: int = 0
    head_sha256: str = ""
    server_version: str = ""
    digests: dict[int, BlockDigest] = field(default_factory=dict)
    row_sums: dict[int, int] = field(default_factory=dict)
    large_objects: LargeObjects = field(default_factory=LargeObjects)
    _pending: bytes = b""
    _block: _Block | None = None
    _in_large_objects: bool = False
    _object: hashlib._Hash | None = None
    _row_start: bytes = b""

    def feed(self, piece: bytes) -> None:
        """Process the next bytes of the archive.

        Raises:
            ArchiveError: the bytes are not an archive, or the archive has an unknown version.
        """
        data = self._pending + piece if self._pending else piece
        position = 0
        try:
            if not self.head_size:
                position = self._read_head(data)
            while True:
                if self._block is None:
                    position = self._open_block(data, position)
                position = self._read_block(data, position)
        except _NeedsMoreBytes as signal:
            position = signal.args[0] if signal.args else position
        self._pending = data[position:]

    def close(self) -> None:
        """Check that the archive is complete. Call this method after the last piece.

        Raises:
            ArchiveError: the archive ends within its head or within a block of data.
        """
        if not self.head_size or self._block is not None or self._pending:
            raise ArchiveError("the archive ends in the middle")

    def tables(self) -> list[Entry]:
        """Return those entries of the table of contents that describe the rows of a table."""
        return [entry for entry in self.entries if entry.kind == "TABLE DATA"]

    def table_digests(self) -> dict[tuple[str, str], str]:
        """Return the SHA-256 (hex) of the data of each table.

        The key is the schema and the table name.
        """
        return {
            (entry.schema, entry.name): self.digests[entry.dump_id].sha256
            for entry in self.tables()
        }

    def schema_sha256(self) -> str:
        """Return a SHA-256 (hex) that covers the definitions of all objects in the archive.

        The definitions are sorted before they are hashed. Owners, privileges and data are not
        included.
        """
        lines = sorted(
            "\0".join((entry.kind, entry.schema, entry.name, entry.definition))
            for entry in self.entries
            if entry.section != SECTION_DATA
            and entry.kind not in NOT_RESTORED_AS_IS
            and not entry.name.startswith("DATABASE ")  # a comment on the database itself
        )
        return hashlib.sha256("\n".join(lines).encode("utf-8", SURROGATES)).hexdigest()

    def _read_head(self, data: bytes) -> int:
        if data[: len(MAGIC)] != MAGIC[: len(data)]:
            raise ArchiveError("not a pg_dump archive")
        cursor = _Cursor(data, len(MAGIC))
        version = (cursor.byte(), cursor.byte())
        if version not in KNOWN_VERSIONS:
            raise ArchiveError(f"archive version {version[0]}.{version[1]} is not supported")
        cursor.byte()  # revision
        int_size, cursor.offset_size, form = cursor.byte(), cursor.byte(), cursor.byte()
        if int_size != INT_WIDTH - 1 or form != CUSTOM_FORMAT:
            raise ArchiveError("not an archive in custom format")
        cursor.byte() if version >= (1, 15) else cursor.int()  # compression
        for _ in range(7):  # creation time
            cursor.int()
        cursor.string()  # database
        self.server_version = cursor.string()
        cursor.string()  # version of pg_dump
        entries = [self._read_entry(cursor, version) for _ in range(cursor.int())]
        self.entries, self.head_size = entries, cursor.position
        self.head_sha256 = hashlib.sha256(memoryview(data)[: self.head_size]).hexdigest()
        return cursor.position

    @staticmethod
    def _read_entry(cursor: _Cursor, version: tuple[int, int]) -> Entry:
        dump_id = cursor.int()
        cursor.int()  # had a dumper
        cursor.string()  # oid of the catalogue
        oid, name, kind = cursor.string(), cursor.string(), cursor.string()
        section = cursor.int()
        position = cursor.position + INT_WIDTH
        definition = cursor.string()
        cursor.string()  # drop statement
        cursor.string()  # copy statement
        schema = cursor.string()
        cursor.string()  # tablespace
        cursor.string()  # access method
        if version >= (1, 16):
            cursor.int()  # relation kind
        cursor.string()  # owner
        cursor.string()  # with oids
        while cursor.nullable_string() is not None:  # dependencies
            pass
        cursor.skip(1 + cursor.offset_size)
        if kind == "ENCODING":  # the first entry
            cursor.codec = codec_of(encoding_of(definition))
        return Entry(dump_id, int(oid or 0), name, kind, section, definition, schema, position)

    def _open_block(self, data: bytes, position: int) -> int:
        if len(data) - position < 1 + INT_WIDTH:
            raise _NeedsMoreBytes(position)
        kind = data[position]
        if kind not in (BLOCK_DATA, BLOCK_LARGE_OBJECTS):
            raise ArchiveError(f"unknown block type {kind}")
        self._block = _Block(_int(data, position + 1))
        self._in_large_objects = kind == BLOCK_LARGE_OBJECTS
        return position + 1 + INT_WIDTH

    def _read_block(self, data: bytes, position: int) -> int:
        block = self._block
        assert block is not None
        if self._in_large_objects:
            return self._read_large_objects(block, data, position)
        if block.dump_id in self.rows_of:
            return self._read_rows(block, data, position)
        end = data.find(END_OF_DATA, position)
        if end < 0:
            safe = max(position, len(data) - len(END_OF_DATA) + 1)
            block.take(memoryview(data)[position:safe])
            raise _NeedsMoreBytes(safe)
        end += len(END_OF_DATA)
        block.take(memoryview(data)[position:end])
        self._close_block(block)
        return end

    def _read_rows(self, block: _Block, data: bytes, position: int) -> int:
        total = self.row_sums.get(block.dump_id, 0)
        sha256, from_bytes = hashlib.sha256, int.from_bytes
        try:
            while True:
                if len(data) - position < INT_WIDTH:
                    raise _NeedsMoreBytes(position)
                size = from_bytes(data[position + 1 : position + INT_WIDTH], "little")
                end = position + INT_WIDTH + size
                if len(data) < end:
                    raise _NeedsMoreBytes(position)
                rows = self._row_start + data[position + INT_WIDTH : end]
                block.take(memoryview(data)[position:end])
                position = end
                if not size:
                    self._close_block(block)
                    return position
                # pg_dump 18 writes each row as one chunk, but the format does not guarantee this.
                whole, newline, self._row_start = rows.rpartition(b"\n")
                for row in whole.split(b"\n") if newline else ():
                    total += from_bytes(sha256(row).digest(), "big")
        finally:
            self.row_sums[block.dump_id] = total % SUM_MODULUS

    def _read_large_objects(self, block: _Block, data: bytes, position: int) -> int:
        # An object is its number, chunks, and a chunk of length zero; number zero ends the list.
        total = self.large_objects
        while True:
            if len(data) - position < INT_WIDTH:
                raise _NeedsMoreBytes(position)
            number = data[position : position + INT_WIDTH]
            size = _int(data, position)
            end = position + INT_WIDTH + (size if self._object else 0)
            if len(data) < end:
                raise _NeedsMoreBytes(position)
            block.take(memoryview(data)[position:end])
            position = end
            if self._object is None:
                if size == 0:
                    self._close_block(block)
                    return position
                self._object = hashlib.sha256(number)
                total.count += 1
            elif size:
                self._object.update(memoryview(data)[end - size : end])
                total.bytes += size
            else:
                digest = int.from_bytes(self._object.digest(), "big")
                total.sum = (total.sum + digest) % SUM_MODULUS
                self._object = None

    def _close_block(self, block: _Block) -> None:
        self.digests[block.dump_id] = BlockDigest(block.size, block.digest.hexdigest())
        self._block = None


def entries_with_data(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that pg_restore loads in its data section, in the order of the archive.

    The entry of a comment, of grants or of a security label names no section of pg_restore. It
    belongs to the same section as the entry before it. For example, the comment on a large object
    belongs to the data section.
    """
    section, chosen = SECTION_BEFORE_DATA, []
    for entry in entries:
        if entry.section != SECTION_NONE:
            section = entry.section
        if section == SECTION_DATA:
            chosen.append(entry)
    return chosen


def restored_definitions(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Return the definitions of the objects that pg_restore with the option ``--no-owner`` creates.

    The key is the label of the entry, as in `Entry.label`. Several entries may have the same label,
    so the value is a sorted list of definitions. The options of user mappings are removed, because
    pg_dump can read them only as a superuser.
    """
    definitions: dict[str, list[str]] = {}
    for entry in entries:
        if (
            entry.section == SECTION_DATA
            or entry.kind in NOT_RESTORED_AS_IS
            or entry.name.startswith(LEFT_OUT_OBJECTS)
        ):
            continue
        definition = without_column_versions(entry.definition)
        if entry.kind == "USER MAPPING":
            definition = definition.partition(MAPPING_OPTIONS)[0].rstrip(";\n")
        definitions.setdefault(entry.label, []).append(definition)
    return {label: sorted(group) for label, group in definitions.items()}


def read_archive(pieces: Iterable[bytes], rows_of: frozenset[int] = frozenset()) -> ArchiveReader:
    """Read a complete archive, and return its reader with all entries and digests.

    Args:
        pieces: bytes of the archive in pieces of any size.
        rows_of: dump ids of the tables for which `ArchiveReader.row_sums` is calculated.

    Raises:
        ArchiveError: the bytes are not a complete archive in a supported version.
    """
    reader = ArchiveReader(rows_of=rows_of)
    for piece in pieces:
        reader.feed(piece)
    reader.close()
    return reader


@dataclass
class _Cursor:
    data: bytes
    position: int
    offset_size: int = 8
    codec: str = "utf-8"

    def skip(self, count: int) -> int:
        start, self.position = self.position, self.position + count
        if self.position > len(self.data):
            raise _NeedsMoreBytes(0)
        return start

    def byte(self) -> int:
        return self.data[self.skip(1)]

    def int(self) -> int:
        return _int(self.data, self.skip(INT_WIDTH))

    def nullable_string(self) -> str | None:
        size = self.int()
        if size < 0:
            return None
        start = self.skip(size)
        return self.data[start : start + size].decode(self.codec, SURROGATES)

    def string(self) -> str:
        return self.nullable_string() or ""


def _int(data: bytes, position: int) -> int:
    value = int.from_bytes(data[position + 1 : position + INT_WIDTH], "little")
    return -value if data[position] else value
