"""The file of a workbook: the same content always gives the same bytes, and can be sealed."""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime

from openpyxl import Workbook
from openpyxl.writer.excel import ExcelWriter

from include.workbooks.archive import archived, parts_of, utf8


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
    parts = parts_of(made.getvalue())
    return archived({name: utf8(content) for name, content in parts.items()})
