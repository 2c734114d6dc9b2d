"""Save Office files (.xlsx, .docx) so that the same content always gives the same bytes."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openpyxl import Workbook

_EPOCH = (1980, 1, 1, 0, 0, 0)  # earliest time of a zip entry
_NUMBERED = re.compile(rb"(?:&#[0-9]+;)+")


def pack_archive(parts: Mapping[str, bytes]) -> bytes:
    """Pack the parts of an Office file into a ZIP archive, in the given order.

    The archive does not depend on the current time, the platform or the version of zlib: the parts
    are stored uncompressed, because different versions of zlib compress differently.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as target:
        for name, content in parts.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o600 << 16
            entry.create_system = 3
            target.writestr(entry, content)
    return buffer.getvalue()


def unpack_archive(archive: bytes) -> dict[str, bytes]:
    """Return the parts of an Office file, in the order of the archive.

    The function is only for files that this program created: it has no protection against harmful
    archives.
    """
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        return {name: source.read(name) for name in source.namelist()}


def decode_character_references(part: bytes) -> bytes:
    """Replace the character references (``&#38190;``) in an XML part by UTF-8 characters.

    If lxml is installed, openpyxl writes non-ASCII characters as references, which makes a Chinese
    sheet almost three times as long. A part that declares an encoding other than UTF-8 is returned
    unchanged; a part without a declaration is UTF-8 (XML 1.0 (2008-11-26) 4.3.3).
    """
    if part.startswith(b"<?xml") and b"utf-8" not in part[:100].lower():
        return part
    return _NUMBERED.sub(_decode_numbers, part)


def _decode_numbers(match: re.Match[bytes]) -> bytes:
    numbers = [int(number) for number in match.group()[2:-1].split(b";&#")]
    return "".join(chr(number) if number > 0x7F else f"&#{number};" for number in numbers).encode()


def save_workbook(book: Workbook, title: str, issued_at: datetime) -> bytes:
    """Return the content of the .xlsx file of a workbook.

    Args:
        book: the workbook.
        title: title in the file properties.
        issued_at: time of issue, which replaces every time in the file.
    """
    from openpyxl.writer.excel import ExcelWriter  # not needed for Word files

    issued = issued_at.astimezone(UTC).replace(tzinfo=None, microsecond=0)
    book.properties.creator = "ParcelSeal"
    book.properties.title = title
    book.properties.created = book.properties.modified = issued
    buffer = io.BytesIO()
    # Workbook.save would write the current time
    ExcelWriter(book, zipfile.ZipFile(buffer, "w")).save()
    parts = unpack_archive(buffer.getvalue())
    return pack_archive(
        {name: decode_character_references(content) for name, content in parts.items()}
    )
