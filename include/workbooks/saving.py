"""The file of a workbook: the same content always gives the same bytes, and can be sealed."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime

from openpyxl import Workbook
from openpyxl.writer.excel import ExcelWriter

_EPOCH = (1980, 1, 1, 0, 0, 0)  # of a zip file: the earliest it can say


def saved(book: Workbook, title: str, issued_at: datetime) -> bytes:
    """Return the file (.xlsx).

    Args:
        book: finished.
        title: among its properties.
        issued_at: the moment of issue, which stands for every time in it.
    """
    issued = issued_at.astimezone(UTC).replace(tzinfo=None, microsecond=0)
    book.properties.creator = "ParcelSeal"
    book.properties.title = title
    book.properties.created = book.properties.modified = issued
    made = io.BytesIO()
    # Not Workbook.save, which puts the present time in
    ExcelWriter(book, zipfile.ZipFile(made, "w")).save()
    fixed = io.BytesIO()
    # Stored, not compressed: another zlib would give other bytes for the same workbook
    with zipfile.ZipFile(made) as source, zipfile.ZipFile(fixed, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o600 << 16
            entry.create_system = 3
            target.writestr(entry, source.read(name))
    return fixed.getvalue()
