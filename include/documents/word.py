"""A document as a Word file (.docx), which people can still edit before they hand it in.

It begins with the parts in templates/docx, which say how it looks: fonts for Chinese beside those
for Latin letters, real headings, A4. python-docx fills them. Its own template is not used, for its
250 styles, its picture and the names in it.
"""

from __future__ import annotations

import io
from datetime import UTC
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from include.documents.html import NAME, WARNING, full_name
from include.documents.model import Document, Entry, Form, Section, shares
from include.documents.words import LONG, Words, numbers
from include.reports.i18n import language_tag, visible
from include.reports.model import Paragraph, Steps, Table
from include.workbooks.saving import archived, parts_of

if TYPE_CHECKING:
    from docx.document import Document as File
    from docx.table import _Cell
    from docx.text.paragraph import Paragraph as Line

_TEMPLATE = Path(__file__).parent / "templates" / "docx"
_WIDTH = 9298  # twips (1/20 point) between the margins of the page
_FORM = (2800, _WIDTH - 2800)
_SIGNATURE = (_WIDTH - 6000, 2800, 3200)


def render_docx(document: Document, locale: str, timezone: str) -> bytes:
    """Render a document in one language; the same document gives the same bytes.

    Args:
        document: what to say.
        locale: ``en`` or ``zh_CN``.
        timezone: IANA name; moments are shown in it.

    Raises:
        ValueError: unknown locale, or a moment without timezone.
    """
    import docx  # here: DAG files reach this module

    words = Words(locale, timezone)
    file = docx.Document(io.BytesIO(_template()))
    _describe(file, document, words)
    writing = _Writing(file, words)
    writing.margins(document)
    writing.head(document)
    for section, number in zip(document.sections, numbers(document), strict=True):
        writing.section(section, number)
    writing.end(document)
    buffer = io.BytesIO()
    file.save(buffer)
    return archived(parts_of(buffer.getvalue()))


@lru_cache
def _template() -> bytes:
    paths = sorted(path for path in _TEMPLATE.rglob("*") if path.is_file())
    return archived({path.relative_to(_TEMPLATE).as_posix(): path.read_bytes() for path in paths})


def _describe(file: File, document: Document, words: Words) -> None:
    """Title, number, language and moment; no name of a person or machine."""
    about = file.core_properties
    about.title = full_name(document, words)[:255]
    about.identifier = visible(document.reference)[:255]
    about.language = language_tag(words.translator.locale)
    about.created = about.modified = document.dated.astimezone(UTC).replace(microsecond=0)


class _Writing:
    """Writes into one file, in one language."""

    def __init__(self, file: File, words: Words) -> None:
        from include.documents import office  # here: it imports python-docx

        self._office = office
        self._file = file
        self._words = words
        self._below_table = False

    def margins(self, document: Document) -> None:
        """Write the margins of each page: the warning above, name and page number below."""
        section = self._file.sections[0]
        if document.marked:
            above = section.header.paragraphs[0]
            above.style = "Marked"
            warning = self._words.text(document.marked)
            self._say(above, self._words.margin(warning, WARNING))
        name = self._words.margin(full_name(document, self._words), NAME)
        below = section.footer.paragraphs[0]
        self._say(below, f"{name}\t")
        self._office.add_field(below, "PAGE")
        self._say(below, " / ")
        self._office.add_field(below, "NUMPAGES")

    def head(self, document: Document) -> None:
        """Sender, number, day; title and addressee."""
        words = self._words
        if document.marked:
            self._line(words.text(document.marked), "Marked Text")
        if document.sender:
            self._line(words.text(document.sender), "Sender")
        for line in words.letterhead(document):
            self._line(line, "Letterhead")
        last = self._line(words.text(document.title), "Title")
        if document.subtitle:
            last = self._line(words.text(document.subtitle), "Subtitle")
        self._office.add_rule_below(last)
        if document.addressee:
            self._line(words.opening(document.addressee))

    def section(self, section: Section, number: int | None) -> None:
        """A heading and what is under it."""
        heading = self._words.heading(section, number)
        if heading:
            self._line(heading, "Heading 1")
        for block in section.blocks:
            if isinstance(block, Form):
                self._form(block, heading)
            elif isinstance(block, Table):
                self._table(block)
            elif isinstance(block, Steps):
                self._steps(block)
            else:
                self._paragraph(block)

    def end(self, document: Document) -> None:
        """Where it is signed, and the small note."""
        if document.signature:
            self._line("").paragraph_format.keep_with_next = True
            grid = self._office.add_grid(self._file, _SIGNATURE, framed=False)
            for entry in document.signature:
                self._signed(entry, *self._office.add_row(grid))
            self._below_table = True
        if document.footer:
            self._line(self._words.text(document.footer), "Note")
        elif self._below_table:  # a table may not be the last of a page's text
            self._line("")

    def _form(self, form: Form, heading: str) -> None:
        if not form.entries:
            return
        if self._below_table:  # two tables that follow each other would become one
            self._line("")
        grid = self._office.add_grid(self._file, _FORM, about=heading)
        for entry in form.entries:
            lines = self._words.lines(entry)
            label, value = self._office.add_row(grid, whole=sum(map(len, lines)) < LONG)
            self._cell(label, self._words.text(entry.label), "Cell Label", shaded=True)
            if lines:
                style = "Cell List" if len(lines) > 1 else "Cell"
                for at, line in enumerate(lines):
                    self._cell(value, line, style, first=not at)
            else:
                letters = "Lacking" if entry.required else "Absent"
                self._cell(value, self._words.absent(entry), letters=letters)
        self._below_table = True

    def _table(self, table: Table) -> None:
        caption = self._words.text(table.caption)
        self._line(caption, "Caption")
        rows = self._words.grid(table)
        widths = [int(_WIDTH * share) for share in shares(rows)]
        grid = self._office.add_grid(self._file, widths, about=caption)
        ends = self._words.ends(table)
        for number, row in enumerate(rows):
            whole = max(map(len, row)) < LONG
            cells = self._office.add_row(grid, head=not number, whole=whole)
            for at, (cell, value) in enumerate(zip(cells, row, strict=True)):
                label = not number or not at
                style = "Cell Label" if label else "Cell"
                self._cell(cell, value, style, shaded=label, end=ends[at])
        self._below_table = True
        if cut := self._words.cut(table):
            self._line(cut)

    def _steps(self, steps: Steps) -> None:
        number = self._office.add_number(self._file)
        for item in steps.items:
            line = self._line(self._words.text(item), "List Number")
            self._office.set_number(line, number)

    def _paragraph(self, paragraph: Paragraph) -> None:
        self._line(self._words.text(paragraph.text))

    def _signed(self, entry: Entry, _before: _Cell, label: _Cell, value: _Cell) -> None:
        lines = self._words.lines(entry)
        self._cell(label, self._words.text(entry.label), end=True)
        self._cell(value, "\n".join(lines))
        if not lines:
            self._office.rule(value)

    def _line(self, text: str, style: str | None = None) -> Line:
        line = self._file.add_paragraph(style=style)
        if self._below_table and style is None:
            self._office.leave_room_above(line)
        self._below_table = False
        self._say(line, text)
        return line

    def _cell(
        self,
        cell: _Cell,
        text: str,
        style: str = "Cell",
        *,
        letters: str | None = None,
        shaded: bool = False,
        end: bool = False,
        first: bool = True,
    ) -> None:
        line = cell.paragraphs[0] if first else cell.add_paragraph()
        line.style = style
        if end:
            self._office.align_right(line)
        if shaded:
            self._office.shade(cell)
        self._say(line, text, letters)

    def _say(self, line: Line, text: str, letters: str | None = None) -> None:
        if text:
            self._office.say(line, text, chinese=self._words.chinese, letters=letters)
