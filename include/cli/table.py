"""Print lists as tables on a terminal, as lines in a pipe, or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from include.cli.console import print_json, print_line, results, value_of

UNFOLDED = 100_000  # columns of a pipe: a program reads one record per line
RowT = TypeVar("RowT")
Columns = Mapping[str, Callable[[RowT], object]]
"""Functions that return the cell of a row, by the heading of the column."""


def fields(*names: str, form: str = "") -> dict[str, Callable[[Any], object]]:
    """Return columns for `print_table`; each column shows one attribute of a row.

    The heading of a column is the name of the attribute, with spaces instead of underscores.

    Args:
        names: names of attributes of a row, or of keys if the row is a mapping.
        form: format specification for the values, as in ``format``; empty for no formatting.
    """
    return {name.replace("_", " "): partial(_field, name, form) for name in names}


def _field(name: str, form: str, row: object) -> object:
    value = value_of(row, name)
    return format(value, form) if form else value


def print_table(rows: Iterable[RowT], columns: Columns[RowT]) -> None:
    """Print a table. Markup in cells is printed literally.

    Args:
        rows: rows of the table.
        columns: heading of a column -> function that returns the cell of a row.
    """
    table = Table(box=None)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(cell(row)) for cell in columns.values()))
    if results.is_terminal:
        results.print(table)
    else:
        Console(file=results.file, width=UNFOLDED, highlight=False).print(table)


def print_list(
    as_json: bool,
    content: Mapping[str, Any],
    rows: Sequence[RowT],
    columns: Columns[RowT],
    nothing: str = "",
) -> bool:
    """Print a list as JSON or as a table.

    Args:
        as_json: whether to print the JSON object instead of the table.
        content: the JSON object.
        rows: rows of the table.
        columns: columns of the table.
        nothing: text that is printed instead of a table without rows; empty to print the empty
            table.

    Returns:
        Whether the list was printed as a table.
    """
    if as_json:
        print_json(content)
    elif rows or not nothing:
        print_table(rows, columns)
    else:
        print_line(nothing)
    return not as_json


def _cell(content: object) -> Text:
    from include.reports.i18n import visible

    if isinstance(content, bool):
        content = "yes" if content else "no"
    text = "" if content is None else str(content)
    return Text(visible(text).replace("\n", "\\n").replace("\t", "\\t"))
