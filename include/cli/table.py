"""Tables of what was asked for: for the eye in a terminal, one line each in a pipe."""

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
"""The cell of a row by the name of its column."""


def fields(*names: str, form: str = "") -> dict[str, Callable[[Any], object]]:
    """Return columns with the names of the values that they show.

    Args:
        names: of attributes of a row, or of values if it is a mapping.
        form: how values are formatted, as in ``format``; by default they stay as they are.
    """
    return {name.replace("_", " "): partial(_field, name, form) for name in names}


def _field(name: str, form: str, row: object) -> object:
    value = value_of(row, name)
    return format(value, form) if form else value


def print_table(rows: Iterable[RowT], columns: Columns[RowT]) -> None:
    """Print a table, whatever characters its cells have.

    Args:
        rows: what it is about.
        columns: its columns; in a cell, None is blank, True and False are words.
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
    """Print a list as JSON or as a table; return whether remarks may follow.

    Args:
        as_json: whether a program asks.
        content: for the program.
        rows: for the table.
        columns: of the table.
        nothing: printed instead of a table without rows.
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
