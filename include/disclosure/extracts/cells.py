"""Write the cells of a workbook as XML (ECMA-376-1:2016, 18.3.1.4).

The values are texts as PostgreSQL prints them, with the settings of `statements.print_settings`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from include.disclosure.extracts.model import UnsuitableForExcel
from include.disclosure.extracts.statements import (
    BOOLEAN,
    DATE,
    FLOATS,
    FORMULA_STARTS,
    INTEGERS,
    MARK,
    NUMERIC,
    TIMESTAMPS,
    QueryColumn,
)
from include.workbooks.forms import escape_text

if TYPE_CHECKING:
    from openpyxl import Workbook

_DIGITS = 15  # significant digits of a number in Excel
_MOST_CHARACTERS = 32_767  # of a cell in Excel, in UTF-16
_DECIMAL = re.compile(r"-?0*([0-9]*)(?:\.([0-9]+))?")
_LONGEST_DECIMAL = 20  # characters; a smaller fraction could become 0
_FLOAT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:e[+-][0-9]+)?")
_SMALLEST, _LARGEST = 2.23e-308, 9.99e307  # magnitude of numbers in Excel
_DAY_ZERO = date(1899, 12, 30).toordinal()
# Excel numbers 29 February 1900, which did not exist. Earlier days differ between programs.
_FIRST_DAY = date(1900, 3, 1).toordinal() - _DAY_ZERO
_FORMULA_STARTS = tuple(FORMULA_STARTS + MARK)
# Characters that XML or `escape_text` replaces. All other texts are written unchanged.
_REPLACED = re.compile(
    "[&<>\\\\xX\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200e\u200f\u202a-\u202e"
    "\u2066-\u2069\ufffe\uffff]"
)

Convert = Callable[[str], "float | str | None"]
"""Returns the number of a cell for a printed value, or None if the cell has to be a text."""


class CellStyles:
    """The styles of cells, as indexes of a workbook's style table.

    Attributes:
        text: a text, which stays a text when a person edits it.
        quoted: a text that would become a formula when a person edits it, if the cell had no quote
            prefix.
    """

    def __init__(self, book: Workbook) -> None:
        self._book = book
        self._indexes: dict[tuple[str, bool], int] = {}
        self.text = self.index("@")
        self.quoted = self.index("@", is_quoted=True)

    def index(self, number_format: str, *, is_quoted: bool = False) -> int:
        """Return the index of a style, which is added if the workbook does not have it.

        Args:
            number_format: number format of Excel.
            is_quoted: whether the cell has a quote prefix.
        """
        from openpyxl.cell import Cell

        key = number_format, is_quoted
        if key not in self._indexes:
            cell = Cell(self._book.worksheets[0], row=1, column=1)
            cell.number_format = number_format
            cell.quotePrefix = is_quoted
            self._indexes[key] = cell.style_id
        return self._indexes[key]


class CellWriter:
    """Writes the cells of a column.

    Attributes:
        letter: letter of the column, such as ``C``.
        width: width of the column in characters.
    """

    def __init__(
        self,
        title: str,
        letter: str,
        width: int,
        styles: CellStyles,
        convert: Convert | None,
        number_style: int,
        number_type: str,
    ) -> None:
        self.letter = letter
        self.width = width
        self._title = title
        self._convert = convert
        self._number = f's="{number_style}" t="{number_type}"><v>'
        self._text = f's="{styles.text}" t="inlineStr"><is><t xml:space="preserve">'
        self._quoted = self._text.replace(f's="{styles.text}"', f's="{styles.quoted}"')

    def xml(self, value: str, row: int) -> str:
        """Return the XML of a cell.

        Args:
            value: value of the cell.
            row: number of the row.

        Raises:
            UnsuitableForExcel: the value is too long for a cell.
        """
        if self._convert is not None and (number := self._convert(value)) is not None:
            return f'<c r="{self.letter}{row}" {self._number}{number}</v></c>'
        start = self._quoted if value.startswith(_FORMULA_STARTS) else self._text
        if _REPLACED.search(value):
            value = escape_text(value)
            self._require_short(value)
            value = escape(value)
        elif len(value) > _MOST_CHARACTERS // 2:
            self._require_short(value)
        return f'<c r="{self.letter}{row}" {start}{value}</t></is></c>'

    def _require_short(self, text: str) -> None:
        if len(text.encode("utf-16-le")) // 2 > _MOST_CHARACTERS:
            raise UnsuitableForExcel(
                f"A value of the column {self._title} is longer than the {_MOST_CHARACTERS:,} "
                "characters that a cell of Excel can hold. No file was created.",
                "Choose the ZIP format.",
            )


def cell_writer(column: QueryColumn, at: int, styles: CellStyles) -> CellWriter:
    """Return the writer for the cells of a column.

    Args:
        column: column of the query.
        at: number of the column, from 1.
        styles: styles of the workbook.
    """
    from openpyxl.utils import get_column_letter

    convert: Convert | None = None
    number_format, width, number_type = "General", 24, "n"
    if column.oid == BOOLEAN:
        convert, width, number_type = _boolean, 10, "b"
    elif column.oid in INTEGERS:
        convert, number_format, width = _integer, "0", 18
    elif column.oid == NUMERIC:
        convert, width = _decimal, 18
        if column.scale:
            number_format = "0." + "0" * min(column.scale, _DIGITS)
    elif column.oid in FLOATS:
        convert, width = _float, 18
    elif column.oid == DATE:
        convert, number_format, width = _day, "yyyy-mm-dd", 12
    elif column.oid in TIMESTAMPS:
        convert, number_format, width = _time, "yyyy-mm-dd hh:mm:ss", 20
    style = styles.index(number_format)
    letter = get_column_letter(at)
    return CellWriter(column.column.name, letter, width, styles, convert, style, number_type)


def _boolean(value: str) -> str:
    return "1" if value == "t" else "0"


def _integer(value: str) -> str | None:
    return value if len(value) <= _DIGITS else None


def _decimal(value: str) -> str | None:
    if len(value) > _LONGEST_DECIMAL or not (match := _DECIMAL.fullmatch(value)):
        return None  # NaN and Infinity, among others
    whole, fraction = match.group(1), match.group(2) or ""
    digits = len(whole) + len(fraction) if whole else len(fraction.lstrip("0"))
    return value if digits <= _DIGITS else None


def _float(value: str) -> str | None:
    if not _FLOAT.fullmatch(value):
        return None
    magnitude = abs(float(value))
    return value if magnitude == 0 or _SMALLEST <= magnitude <= _LARGEST else None


def _day(value: str) -> int | None:
    if len(value) != 10:  # such as infinity, or a year with five digits
        return None
    try:
        number = date.fromisoformat(value).toordinal() - _DAY_ZERO
    except ValueError:
        return None
    return number if number >= _FIRST_DAY else None


def _time(value: str) -> float | None:
    """Return Excel's number of a local time. The timezone is among the marks."""
    if value[4:5] != "-" or value.endswith("BC"):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:  # Python and Excel end with the year 9999
        return None
    days = moment.toordinal() - _DAY_ZERO
    if days < _FIRST_DAY:
        return None
    seconds = moment.hour * 3600 + moment.minute * 60 + moment.second
    return days + (seconds + moment.microsecond / 1e6) / 86_400
