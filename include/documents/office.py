"""Pieces of a Word file for which python-docx has no words: cells, fields, borders, numbering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from docx.enum.text import WD_ALIGN_PARAGRAPH
from docx.oxml import OxmlElement
from docx.oxml.ns import qn
from docx.shared import Pt, Twips

if TYPE_CHECKING:
    from docx.document import Document as File
    from docx.table import Table, _Cell, _Row
    from docx.text.paragraph import Paragraph

PANEL = "F0F2F5"  # behind labels


def element(tag: str, *children: Any, **attributes: object) -> Any:
    """An element of WordprocessingML (ECMA-376-1:2016, 17) with its children."""
    made: Any = OxmlElement(f"w:{tag}")
    for name, value in attributes.items():
        made.set(qn(f"w:{name}"), str(value))
    made.extend(children)
    return made


def say(line: Paragraph, text: str, *, chinese: bool, letters: str | None = None) -> None:
    """Add a text to a paragraph.

    Args:
        line: where; line feeds become line breaks.
        text: what.
        chinese: takes the Chinese font for signs that both scripts have, such as quotation marks.
        letters: a character style.
    """
    run = line.add_run(text, letters)
    if chinese:
        properties: Any = run._r.get_or_add_rPr()
        properties.get_or_add_rFonts().set(qn("w:hint"), "eastAsia")


def add_field(line: Paragraph, instruction: str) -> None:
    """Add what the program works out: ``PAGE``, ``NUMPAGES``."""
    shown = element("t")
    shown.text = "1"
    line._p.append(element("fldSimple", element("r", shown), instr=instruction))


def add_rule_below(line: Paragraph) -> None:
    """Draw a line across the page below a paragraph that has only its style, and leave room."""
    properties: Any = line._p.get_or_add_pPr()
    rule = element("bottom", val="single", sz=6, space=10, color="16181D")
    properties.append(element("pBdr", rule))
    line.paragraph_format.space_after = Pt(18)


def leave_room_above(line: Paragraph) -> None:
    """Keep a paragraph off the table above it."""
    line.paragraph_format.space_before = Pt(8)


def align_right(line: Paragraph) -> None:
    """Let the lines of a paragraph end below each other."""
    line.alignment = WD_ALIGN_PARAGRAPH.RIGHT


def add_number(file: File) -> int:
    """Begin a numbered list at 1 and return its number."""
    numbering: Any = file.part.numbering_part.element
    made = numbering.add_num(0)
    made.add_lvlOverride(ilvl=0).add_startOverride(1)
    return int(made.numId)


def set_number(line: Paragraph, number: int) -> None:
    """Make a paragraph an item of a numbered list."""
    properties: Any = line._p.get_or_add_pPr()
    listed = properties.get_or_add_numPr()
    listed.get_or_add_ilvl().val = 0
    listed.get_or_add_numId().val = number


def add_grid(file: File, widths: Sequence[int], *, framed: bool = True, about: str = "") -> Table:
    """Add a table without rows.

    Args:
        file: to its end.
        widths: of the columns, in twips (1/20 point).
        framed: with lines around the cells; its first column and row are labels.
        about: what it shows, for a screen reader.
    """
    grid: Table = file.add_table(0, len(widths))
    for column, width in zip(grid._tbl.tblGrid.gridCol_lst, widths, strict=True):
        column.w = Twips(width)
    properties: Any = grid._tbl.tblPr
    for child in list(properties):
        properties.remove(child)
    if framed:
        properties.append(element("tblStyle", val="TableGrid"))
    properties.append(element("tblW", w=sum(widths), type="dxa"))
    properties.append(element("tblLayout", type="fixed"))
    marks = {"firstRow": int(framed), "firstColumn": int(framed), "noHBand": 1, "noVBand": 1}
    properties.append(element("tblLook", val="06A0" if framed else "0600", **marks))
    if about:
        properties.append(element("tblCaption", val=about[:255]))
    return grid


def add_row(grid: Table, *, head: bool = False, whole: bool = True) -> tuple[_Cell, ...]:
    """Add a row and return its cells.

    Args:
        grid: to its end.
        head: repeated on every page.
        whole: never parted by the end of a page.
    """
    untyped: Any = grid  # python-docx gives this one method no types
    row: _Row = untyped.add_row()
    properties: Any = row._tr.get_or_add_trPr()
    if whole:
        properties.append(element("cantSplit"))
    if head:
        properties.append(element("tblHeader"))
    return row.cells


def shade(cell: _Cell) -> None:
    """Lay a panel behind a label."""
    _of(cell).append(element("shd", val="clear", color="auto", fill=PANEL))


def rule(cell: _Cell) -> None:
    """Draw a line to write on."""
    below = element("bottom", val="single", sz=6, space=0, color="16181D")
    _of(cell).append(element("tcBorders", below))


def _of(cell: _Cell) -> Any:
    return cell._tc.get_or_add_tcPr()
