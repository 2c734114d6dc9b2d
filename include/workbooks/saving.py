"""Save Office files (.xlsx, .docx): the same content always gives the same bytes."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openpyxl import Workbook

_EPOCH = (1980, 1, 1, 0, 0, 0)  # of a zip file: the earliest it can say
_NUMBERED = re.compile(rb"(?:&#[0-9]+;)+")


def archived(parts: Mapping[str, bytes]) -> bytes:
    """Pack the parts of an Office file, in their order, without the time or the machine.

    Stored, not compressed: another zlib would give other bytes for the same content.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as target:
        for name, content in parts.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o600 << 16
            entry.create_system = 3
            target.writestr(entry, content)
    return buffer.getvalue()


def parts_of(archive: bytes) -> dict[str, bytes]:
    """The parts of an Office file that was made here, in their order."""
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        return {name: source.read(name) for name in source.namelist()}


def utf8(part: bytes) -> bytes:
    """Write the letters of an XML part that are written as numbers (``&#38190;``) as themselves.

    openpyxl writes every letter beyond ASCII as a number where lxml is installed, which makes a
    Chinese sheet almost three times as long. A part without a declaration is UTF-8 (XML 1.0
    (2008-11-26) 4.3.3).
    """
    if part.startswith(b"<?xml") and b"utf-8" not in part[:100].lower():
        return part
    return _NUMBERED.sub(_letters, part)


def _letters(found: re.Match[bytes]) -> bytes:
    numbers = [int(number) for number in found.group()[2:-1].split(b";&#")]
    return "".join(chr(number) if number > 0x7F else f"&#{number};" for number in numbers).encode()


def saved(book: Workbook, title: str, issued_at: datetime) -> bytes:
    """Return the file (.xlsx).

    Args:
        book: finished.
        title: among its properties.
        issued_at: the moment of issue, which stands for every time in it.
    """
    from openpyxl.writer.excel import ExcelWriter  # Word files are saved without it

    issued = issued_at.astimezone(UTC).replace(tzinfo=None, microsecond=0)
    book.properties.creator = "ParcelSeal"
    book.properties.title = title
    book.properties.created = book.properties.modified = issued
    buffer = io.BytesIO()
    # Not Workbook.save, which puts the present time in
    ExcelWriter(book, zipfile.ZipFile(buffer, "w")).save()
    parts = parts_of(buffer.getvalue())
    return archived({name: utf8(content) for name, content in parts.items()})
