"""Tables of what was asked for: for the eye in a terminal, one line each in a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from include.cli.console import results

UNFOLDED = 100_000  # columns of a pipe: a program reads one record per line


def print_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under the names of their columns, whatever characters their cells have."""
    table = Table(box=None)
    for name in names:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    if results.is_terminal:
        results.print(table)
    else:
        Console(file=results.file, width=UNFOLDED, highlight=False).print(table)


def _cell(content: str) -> Text:
    from include.reports.i18n import visible

    return Text(visible(content).replace("\n", "\\n").replace("\t", "\\t"))
