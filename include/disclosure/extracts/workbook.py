"""Write an extract for a person: an Excel workbook with a password (ECMA-376 agile encryption).

openpyxl draws the sheet with its marks, headings, styles and printed pages, but without rows. The
XML of the rows is then inserted into this sheet while it is compressed in memory. openpyxl's own
write-only workbooks write the plaintext of a sheet to a temporary file, and take three times as
long.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from include.disclosure.extracts.cells import CellStyles, CellWriter, cell_writer
from include.disclosure.extracts.marking import (
    confidential,
    expiry_mark,
    in_both_languages,
    in_one_line,
    marking,
    purpose_mark,
    recipient_mark,
    request_mark,
)
from include.disclosure.extracts.model import (
    MAX_XLSX_ROWS,
    Marks,
    UnsuitableForExcel,
    require_at_most,
)
from include.disclosure.extracts.office_encryption import encrypt_workbook
from include.disclosure.extracts.output import EncryptedOutput
from include.disclosure.extracts.reading import BackgroundReader, Heartbeat, Row, row_batches
from include.disclosure.extracts.statements import PreparedQuery
from include.messages import Message, _
from include.workbooks.forms import escape_text
from include.workbooks.saving import unpack_archive

# Of the unencrypted file: its encryption takes six times as much memory.
MAX_BYTES = 32 * 1024 * 1024
MAX_XML_BYTES = 1024 * 1024 * 1024  # of the sheet before its compression
_USE_ZIP = "Choose the ZIP format, or restrict the request to fewer records."
_SHEET = "xl/worksheets/sheet1.xml"
_END_OF_ROWS = b"</sheetData>"
_DIMENSION = re.compile(rb"<dimension [^>]*/>")
# Measured on 100,000 rows: level 6 needs twice the time of level 2 and saves a fifth of the size.
_LEVEL = 2
_EPOCH = (1980, 1, 1, 0, 0, 0)  # earliest time of a ZIP entry
_PAGE_CODES = "&P / &N"


def write_workbook(
    query: PreparedQuery,
    marks: Marks,
    moment: datetime,
    password: str,
    output: EncryptedOutput,
    max_rows: int,
    heartbeat: Heartbeat,
) -> int:
    """Write the rows of a query as an encrypted workbook with one sheet.

    The sheet has the marks in its first rows and on each printed page. Numbers, dates and times
    keep their type if Excel represents them exactly. All other values are texts. Characters that a
    cell cannot hold are escaped as in `escape_text`.

    Args:
        query: query of the rows.
        marks: visible marking.
        moment: time of the rows, which becomes the time of the file.
        password: password of the workbook.
        output: file to write. Nothing is written before all rows were read.
        max_rows: largest number of rows. `MAX_XLSX_ROWS` also applies.
        heartbeat: reports progress.

    Returns:
        The number of rows.

    Raises:
        TooManyRows: there are more rows than permitted.
        UnsuitableForExcel: a value is too long for a cell, or the workbook is too large.
    """
    limit = min(max_rows, MAX_XLSX_ROWS)
    template = _Template(query, marks, moment)
    clear = io.BytesIO()
    statement = query.copy_text(limit + 1)
    with (
        BackgroundReader(
            query.connection, row_batches(query.connection, statement), heartbeat
        ) as batches,
        zipfile.ZipFile(clear, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive,
    ):
        rows = template.write(archive, iter(batches), clear)
        advice = _USE_ZIP if limit == MAX_XLSX_ROWS else "Restrict the request to fewer records."
        require_at_most(rows, limit, advice)
    clear.seek(0)
    encrypt_workbook(clear, password, output, heartbeat)
    return rows


class _Template:
    """A workbook that is complete except for its rows.

    Args:
        query: query of the rows.
        marks: visible marking.
        moment: time of the file.
    """

    def __init__(self, query: PreparedQuery, marks: Marks, moment: datetime) -> None:
        from openpyxl import Workbook  # importing it takes a tenth of a second

        self._book = Workbook()
        self._sheet: Any = self._book.active
        self._marks = marks
        self._moment = moment
        self._styles = CellStyles(self._book)
        columns = enumerate(query.columns, 1)
        self._writers = [cell_writer(column, at, self._styles) for at, column in columns]
        self._draw(query)

    def write(
        self, archive: zipfile.ZipFile, batches: Iterator[Sequence[Row]], clear: io.BytesIO
    ) -> int:
        """Write the parts of the workbook, and return the number of rows.

        Args:
            archive: archive to which the parts are written.
            batches: rows of the sheet.
            clear: content of the archive, for its size.
        """
        first = number = self._heading_row + 1
        head, _tail = self._sheet_parts(self._saved_parts())
        xml_bytes = 0
        with archive.open(_entry(_SHEET), "w") as file:
            file.write(head)
            for batch in batches:
                xml_bytes += file.write("".join(_rows_xml(batch, self._writers, number)).encode())
                number += len(batch)
                if clear.tell() > MAX_BYTES or xml_bytes > MAX_XML_BYTES:
                    raise UnsuitableForExcel(
                        "The extract is too large for an Excel workbook. No file was created.",
                        _USE_ZIP,
                    )
            last_cell = f"{self._writers[-1].letter}{number - 1}"
            self._sheet.auto_filter.ref = f"A{self._heading_row}:{last_cell}"
            parts = self._saved_parts()
            file.write(self._sheet_parts(parts)[1])
        for name, content in parts.items():
            if name != _SHEET:
                archive.writestr(_entry(name), content)
        return number - first

    def _draw(self, query: PreparedQuery) -> None:
        """Draw everything except the rows."""
        from openpyxl.styles import Alignment, Font, PatternFill

        sheet, zone = self._sheet, self._marks.zone
        sheet.title = f"extract-{self._marks.request}"[:31]
        zone_name = _("Timezone of all times")
        chinese, english = in_both_languages([*marking(self._marks), zone_name], zone)
        for row, texts in enumerate(zip(chinese, english, strict=True), 1):
            text = " / ".join(dict.fromkeys(texts))
            if row == len(chinese):
                text += f": {zone.key}"
            cell = self._text_cell(row, 1, text)
            cell.font = Font(bold=row <= 2, size=14 if row == 1 else 11, color="FFB02A25")
        self._heading_row = len(chinese) + 1
        wrapped = Alignment(vertical="top", wrap_text=True)
        for at, (column, writer) in enumerate(zip(query.columns, self._writers, strict=True), 1):
            title = in_one_line(column.column.title, zone, "\n")
            cell = self._text_cell(self._heading_row, at, title)
            cell.font, cell.alignment = Font(bold=True), wrapped
            cell.fill = PatternFill("solid", fgColor="FFE4E9F2")
            sheet.column_dimensions[writer.letter].width = writer.width
        sheet.row_dimensions[self._heading_row].height = 32  # points, for two lines
        sheet.freeze_panes = f"A{self._heading_row + 1}"
        self._set_up_pages()
        properties = self._book.properties
        properties.creator = "ParcelSeal"
        properties.title = in_one_line(confidential(), zone)
        created = self._moment.astimezone(UTC).replace(tzinfo=None, microsecond=0)
        properties.created = properties.modified = created

    def _text_cell(self, row: int, column: int, text: str) -> Any:
        cell = self._sheet.cell(row, column)
        cell.value = escape_text(text)
        cell.data_type = "s"  # openpyxl reads a text that starts with "=" as a formula
        return cell

    def _set_up_pages(self) -> None:
        """Set up the printed pages: A4 in landscape format, with the marks on each page."""
        from openpyxl.worksheet.properties import PageSetupProperties

        sheet, marks = self._sheet, self._marks
        sheet.page_setup.orientation = "landscape"
        sheet.page_setup.paperSize = 9  # A4
        sheet.page_setup.fitToWidth, sheet.page_setup.fitToHeight = 1, 0
        sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
        sheet.print_title_rows = f"{self._heading_row}:{self._heading_row}"
        header, footer = sheet.oddHeader, sheet.oddFooter
        # Excel permits 255 characters for all three parts with their codes.
        header.left.text = self._margin(confidential(), 40)
        header.center.text = self._margin(marks.company, 100) if marks.company else None
        header.right.text = self._margin(request_mark(marks), 90)
        footer.left.text = self._margin(recipient_mark(marks), 75)
        footer.center.text = self._margin(purpose_mark(marks), 75)
        footer.right.text = f"{self._margin(expiry_mark(marks), 80)}  {_PAGE_CODES}"

    def _margin(self, message: Message, most: int) -> str:
        """Return a message for a printed header or footer, in which ``&`` begins a field.

        Args:
            message: the message.
            most: largest number of characters in UTF-16.
        """
        line = " ".join(escape_text(in_one_line(message, self._marks.zone)).split())
        while len((text := line.replace("&", "&&")).encode("utf-16-le")) > 2 * most:
            line = line[:-2] + "…"
        return text

    def _saved_parts(self) -> dict[str, bytes]:
        from openpyxl.worksheet._writer import WorksheetWriter
        from openpyxl.writer.excel import ExcelWriter

        buffer = io.BytesIO()
        archive = zipfile.ZipFile(buffer, "w")

        class MemoryWriter(ExcelWriter):
            """Writes sheets in memory. openpyxl itself writes each sheet to a temporary file."""

            def write_worksheet(self, ws: Any) -> None:
                writer: Any = WorksheetWriter(ws, io.BytesIO())
                writer.write()
                ws._rels = writer._rels
                archive.writestr(ws.path[1:], writer.read())
                self.manifest.append(ws)

        MemoryWriter(self._book, archive).save()
        return unpack_archive(buffer.getvalue())

    def _sheet_parts(self, parts: dict[str, bytes]) -> tuple[bytes, bytes]:
        """Return the XML of the sheet before the rows, and after the rows."""
        head, end, tail = parts[_SHEET].rpartition(_END_OF_ROWS)
        assert end, "openpyxl wrote a sheet without rows"
        return _DIMENSION.sub(b"", head, count=1), end + tail  # the number of rows is not known yet


def _rows_xml(batch: Sequence[Row], writers: Sequence[CellWriter], first: int) -> Iterator[str]:
    for number, row in enumerate(batch, first):
        yield f'<row r="{number}">'
        for writer, value in zip(writers, row, strict=True):
            if value is not None:
                yield writer.xml(value, number)
        yield "</row>"


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    return entry
