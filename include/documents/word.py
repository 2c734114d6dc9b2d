"""Create a Word file (.docx) of an official document, which people can edit before they submit it.

The file is built from the XML files in templates/docx, which define its appearance: fonts for
Chinese and for Latin letters, heading styles, A4 pages. python-docx adds the content. The default
template of python-docx is not used, because it has 250 styles, a picture and names of people.
"""

from __future__ import annotations

import io
import re
from datetime import UTC
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from include.documents.document_texts import MAX_UNBROKEN, DocumentTexts, section_numbers
from include.documents.html import NAME_WIDTH_EM, WARNING_WIDTH_EM, full_name
from include.documents.model import Document, Entry, Form, Section, column_shares
from include.messages import _
from include.reports.i18n import language_tag, visible
from include.reports.model import Paragraph, Steps, Table
from include.workbooks.saving import pack_archive, unpack_archive

if TYPE_CHECKING:
    from docx.document import Document as File
    from docx.table import _Cell, _Row
    from docx.text.paragraph import Paragraph as Line

_TEMPLATE = Path(__file__).parent / "templates" / "docx"
_WIDTH = 9298  # twips (1/20 point) between the margins of the page
_FORM = (2800, _WIDTH - 2800)
_SIGNATURE = (_WIDTH - 6000, 2800, 3200)


def render_docx(document: Document, locale: str, timezone: str) -> bytes:
    """Create the Word file of a document in one language.

    The same document always gives the same bytes.

    Args:
        document: the document.
        locale: ``en`` or ``zh_CN``.
        timezone: IANA name of the timezone in which times are shown.

    Raises:
        ValueError: the locale is unknown, or a time has no timezone.
    """
    import docx  # not at the top, because DAG files import this module

    words = DocumentTexts(locale, timezone)
    file = docx.Document(io.BytesIO(_template()))
    _describe(file, document, words)
    writing = _DocumentWriter(file, words)
    writing.add_margins(document)
    writing.add_head(document)
    for section, number in zip(document.sections, section_numbers(document), strict=True):
        writing.add_section(section, number)
    writing.add_end(document)
    buffer = io.BytesIO()
    file.save(buffer)
    return pack_archive(unpack_archive(buffer.getvalue()))


@lru_cache
def _template() -> bytes:
    paths = sorted(path for path in _TEMPLATE.rglob("*") if path.is_file())
    return pack_archive(
        {path.relative_to(_TEMPLATE).as_posix(): path.read_bytes() for path in paths}
    )


def _describe(file: File, document: Document, words: DocumentTexts) -> None:
    """Set the properties of a Word file: the document's title, reference, language and time.

    No property names a person or a computer.

    Args:
        file: the Word file.
        document: the document.
        words: converter to the language of the file.
    """
    properties = file.core_properties
    properties.title = full_name(document, words)[:255]
    properties.identifier = visible(document.reference)[:255]
    properties.language = language_tag(words.translator.locale)
    properties.created = properties.modified = document.dated.astimezone(UTC).replace(microsecond=0)


class _DocumentWriter:
    """Adds the content of a document to a Word file, in one language."""

    def __init__(self, file: File, words: DocumentTexts) -> None:
        from include.documents import word_elements  # here: it imports python-docx

        self._elements = word_elements
        self._file = file
        self._words = words
        self._below_table = False

    def add_margins(self, document: Document) -> None:
        """Add the texts in the page margins of a document to the Word file.

        These are a warning at the top, and the document name and page number at the bottom.
        """
        section = self._file.sections[0]
        if document.warning:
            above = section.header.paragraphs[0]
            above.style = "Marked"
            warning = self._words.text(document.warning)
            self._add_text(above, self._words.margin(warning, WARNING_WIDTH_EM))
        name = self._words.margin(full_name(document, self._words), NAME_WIDTH_EM)
        below = section.footer.paragraphs[0]
        self._add_text(below, f"{name}\t")
        page, pages = "\ue000", "\ue001"
        words = self._words.translator.text(_("Page {page} of {pages}", page=page, pages=pages))
        for part in re.split(f"([{page}{pages}])", words):
            if part in (page, pages):
                self._elements.add_field(below, "PAGE" if part == page else "NUMPAGES")
            else:
                self._add_text(below, part)

    def add_head(self, document: Document) -> None:
        """Add the warning, sender, address, reference, date, title and salutation of a document."""
        words = self._words
        if document.warning:
            self._add_line(words.text(document.warning), "Marked Text")
        if document.sender:
            self._add_line(words.text(document.sender), "Sender")
        if document.sender_address:
            self._add_line(words.text(document.sender_address), "Sender Address")
        for line in words.letterhead(document):
            self._add_line(line, "Letterhead")
        last = self._add_line(words.text(document.title), "Title")
        if document.subtitle:
            last = self._add_line(words.text(document.subtitle), "Subtitle")
        self._elements.add_rule_below(last)
        if document.addressee:
            self._add_line(words.opening(document.addressee))

    def add_section(self, section: Section, number: int | None) -> None:
        """Add a section of a document, with its heading and its blocks."""
        heading = self._words.heading(section, number)
        if heading:
            self._add_line(heading, "Heading 1")
        for block in section.blocks:
            if isinstance(block, Form):
                self._add_form(block, heading)
            elif isinstance(block, Table):
                self._add_table(block)
            elif isinstance(block, Steps):
                self._add_steps(block)
            else:
                self._add_paragraph(block)

    def add_end(self, document: Document) -> None:
        """Add the signature entries and the final note of a document."""
        if document.signature:
            self._keep_last_line_with_next()
            self._add_line("").paragraph_format.keep_with_next = True
            grid = self._elements.add_grid(self._file, _SIGNATURE, framed=False)
            for entry in document.signature:
                self._add_signature(entry, *self._elements.add_row(grid))
            for row in grid.rows:
                _keep_with_next(row)
            self._below_table = True
        if document.footer:
            self._add_line(self._words.text(document.footer), "Note")
        elif self._below_table:  # a document must not end with a table
            self._add_line("")

    def _keep_last_line_with_next(self) -> None:
        """Keep the last paragraph, or the last row of the last table, on the page of the next."""
        if self._below_table:
            _keep_with_next(self._file.tables[-1].rows[-1])
        elif self._file.paragraphs:
            self._file.paragraphs[-1].paragraph_format.keep_with_next = True

    def _add_form(self, form: Form, heading: str) -> None:
        if not form.entries:
            return
        if self._below_table:  # Word would merge two adjacent tables
            self._add_line("")
        grid = self._elements.add_grid(self._file, _FORM, caption=heading)
        for entry in form.entries:
            lines = self._words.lines(entry)
            label, value = self._elements.add_row(
                grid, keep_together=sum(map(len, lines)) < MAX_UNBROKEN
            )
            self._fill_cell(label, self._words.text(entry.label), "Cell Label", shaded=True)
            if lines:
                style = "Cell List" if len(lines) > 1 else "Cell"
                for index, line in enumerate(lines):
                    self._fill_cell(value, line, style, is_first=not index)
            else:
                character_style = "Lacking" if entry.required else "Absent"
                self._fill_cell(value, self._words.absent(entry), character_style=character_style)
        self._below_table = True

    def _add_table(self, table: Table) -> None:
        caption = self._words.text(table.caption)
        self._add_line(caption, "Caption")
        rows = self._words.grid(table)
        widths = [int(_WIDTH * share) for share in column_shares(rows)]
        grid = self._elements.add_grid(self._file, widths, caption=caption)
        numeric = self._words.numeric_columns(table)
        for number, row in enumerate(rows):
            keep_together = max(map(len, row)) < MAX_UNBROKEN
            cells = self._elements.add_row(grid, is_head=not number, keep_together=keep_together)
            for index, (cell, value) in enumerate(zip(cells, row, strict=True)):
                label = not number or not index
                style = "Cell Label" if label else "Cell"
                self._fill_cell(cell, value, style, shaded=label, align_right=numeric[index])
        self._below_table = True
        if note := self._words.omitted_rows_note(table):
            self._add_line(note)

    def _add_steps(self, steps: Steps) -> None:
        number = self._elements.start_numbered_list(self._file)
        for item in steps.items:
            line = self._add_line(self._words.text(item), "List Number")
            self._elements.add_to_list(line, number)

    def _add_paragraph(self, paragraph: Paragraph) -> None:
        self._add_line(self._words.text(paragraph.text))

    def _add_signature(self, entry: Entry, _before: _Cell, label: _Cell, value: _Cell) -> None:
        lines = self._words.lines(entry)
        self._fill_cell(label, self._words.text(entry.label), align_right=True)
        self._fill_cell(value, "\n".join(lines))
        if not lines:
            self._elements.add_signing_line(value)

    def _add_line(self, text: str, style: str | None = None) -> Line:
        line = self._file.add_paragraph(style=style)
        if self._below_table and style is None:
            self._elements.leave_room_above(line)
        self._below_table = False
        self._add_text(line, text)
        return line

    def _fill_cell(
        self,
        cell: _Cell,
        text: str,
        style: str = "Cell",
        *,
        character_style: str | None = None,
        shaded: bool = False,
        align_right: bool = False,
        is_first: bool = True,
    ) -> None:
        line = cell.paragraphs[0] if is_first else cell.add_paragraph()
        line.style = style
        if align_right:
            self._elements.align_right(line)
        if shaded:
            self._elements.shade(cell)
        self._add_text(line, text, character_style)

    def _add_text(self, line: Line, text: str, character_style: str | None = None) -> None:
        if text:
            self._elements.add_text(
                line, text, chinese=self._words.chinese, character_style=character_style
            )


def _keep_with_next(row: _Row) -> None:
    """Keep a row of a table on the page of the next row, or of the paragraph below the table."""
    for cell in row.cells:
        for line in cell.paragraphs:
            line.paragraph_format.keep_with_next = True
