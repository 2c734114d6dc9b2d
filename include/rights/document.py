"""Write the list of rights in docs/connections.md: ``python -m include.rights.document``."""

from __future__ import annotations

import re
from pathlib import Path

from include.rights.declared import declared_rights

PAGE = Path(__file__).parents[2] / "docs" / "connections.md"
BEGIN = "<!-- rights: written by python -m include.rights.document -->"
END = "<!-- end of rights -->"


def rights_table() -> str:
    """Return the declared rights as a table in Markdown."""
    lines = ["| login | statement | workflows | reason |", "|---|---|---|---|"]
    for right in declared_rights():
        cells = (right.connection, f"`{_in_capitals(right.grant)}`", right.workflows, right.reason)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _in_capitals(grant: str) -> str:
    return re.sub(r"\{(\w+)\}", lambda name: name[1].upper(), grant)


def with_table(page: str) -> str:
    """Return a page with the current table between its two marks.

    Raises:
        ValueError: the page lacks a mark.
    """
    before, begin, rest = page.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no marks around the list of rights")
    return f"{before}{BEGIN}\n{rights_table()}\n{END}{after}"


def main() -> None:
    """Write the table into the page."""
    PAGE.write_text(with_table(PAGE.read_text()))


if __name__ == "__main__":
    main()
