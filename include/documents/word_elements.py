"""Create elements of a Word file that python-docx does not support, such as page-number fields."""

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

PANEL = "F0F2F5"  # background of labels


def element(tag: str, *children: Any, **attributes: object) -> Any:
    """Create an XML element of a Word file, in WordprocessingML (ECMA-376-1:2016, 17).

    Args:
        tag: tag of the element, without the prefix ``w:``.
        children: child elements.
        attributes: names and values of the element's attributes; the names are without the prefix
            ``w:`` too.
    """
    new_element: Any = OxmlElement(f"w:{tag}")
    for name, value in attributes.items():
        new_element.set(qn(f"w:{name}"), str(value))
    new_element.extend(children)
    return new_element


def add_text(
    line: Paragraph, text: str, *, chinese: bool, character_style: str | None = None
) -> None:
    """Add a text to a paragraph.

    Args:
        line: the paragraph.
        text: the text. Line feeds become line breaks.
        chinese: whether punctuation that Chinese and Latin fonts both have, such as quotation
            marks, is shown in the Chinese font.
        character_style: name of a character style; None for the style of the paragraph.
    """
    run = line.add_run(text, character_style)
    if chinese:
        properties: Any = run._r.get_or_add_rPr()
        properties.get_or_add_rFonts().set(qn("w:hint"), "eastAsia")


def add_field(line: Paragraph, instruction: str) -> None:
    """Add to a paragraph a field whose value Word calculates, such as the page number.

    Args:
        line: the paragraph.
        instruction: ``PAGE`` for the page number, or ``NUMPAGES`` for the number of pages.
    """
    text = element("t")
    text.text = "1"
    line._p.append(element("fldSimple", element("r", text), instr=instruction))


def add_rule_below(paragraph: Paragraph) -> None:
    """Draw a horizontal line below a paragraph, and leave space below the line."""
    properties: Any = paragraph._p.get_or_add_pPr()
    rule = element("bottom", val="single", sz=6, space=10, color="16181D")
    properties.append(element("pBdr", rule))
    paragraph.paragraph_format.space_after = Pt(18)


def leave_room_above(line: Paragraph) -> None:
    """Leave space between a paragraph and the table above it.

    Args:
        line: the paragraph.
    """
    line.paragraph_format.space_before = Pt(8)


def align_right(line: Paragraph) -> None:
    """Align a paragraph to the right.

    Args:
        line: the paragraph.
    """
    line.alignment = WD_ALIGN_PARAGRAPH.RIGHT


def start_numbered_list(file: File) -> int:
    """Create a numbered list that starts at 1, and return its id."""
    numbering: Any = file.part.numbering_part.element
    numbering_instance = numbering.add_num(0)
    numbering_instance.add_lvlOverride(ilvl=0).add_startOverride(1)
    return int(numbering_instance.numId)


def add_to_list(line: Paragraph, number: int) -> None:
    """Make a paragraph an item of a numbered list.

    Args:
        line: the paragraph.
        number: id of the list, from `start_numbered_list`.
    """
    properties: Any = line._p.get_or_add_pPr()
    number_properties = properties.get_or_add_numPr()
    number_properties.get_or_add_ilvl().val = 0
    number_properties.get_or_add_numId().val = number


def add_grid(file: File, widths: Sequence[int], *, framed: bool = True, caption: str = "") -> Table:
    """Add a table without rows at the end of a Word file.

    Args:
        file: the Word file.
        widths: widths of the columns in twips (1/20 point).
        framed: True for a table whose cells have borders and whose first row and column are
            headers.
        caption: description of the table for screen readers.
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
    if caption:
        properties.append(element("tblCaption", val=caption[:255]))
    return grid


def add_row(grid: Table, *, is_head: bool = False, keep_together: bool = True) -> tuple[_Cell, ...]:
    """Add a row to a table, and return the cells of the row.

    Args:
        grid: the table.
        is_head: whether the row is a header row. If the table extends over several pages, Word
            repeats this row on each of them.
        keep_together: whether Word keeps the whole row on one page.
    """
    untyped: Any = grid  # python-docx has no types for this method
    row: _Row = untyped.add_row()
    properties: Any = row._tr.get_or_add_trPr()
    if keep_together:
        properties.append(element("cantSplit"))
    if is_head:
        properties.append(element("tblHeader"))
    return row.cells


def shade(cell: _Cell) -> None:
    """Set the background colour of a cell that contains a label."""
    _cell_properties(cell).append(element("shd", val="clear", color="auto", fill=PANEL))


def add_signing_line(cell: _Cell) -> None:
    """Draw a line at the bottom of a cell, on which a person signs."""
    below = element("bottom", val="single", sz=6, space=0, color="16181D")
    _cell_properties(cell).append(element("tcBorders", below))


def _cell_properties(cell: _Cell) -> Any:
    return cell._tc.get_or_add_tcPr()
