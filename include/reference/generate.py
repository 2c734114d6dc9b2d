"""Write the generated pages of docs/reference, or report the pages that are out of date.

The pages have to be written again after a change of a command, a key of the policy pack, a
connection, a finding or a control: ``python -m include.reference``. With ``--check``, no file is
changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from include.reference.command_pages import command_pages
from include.reference.connection_pages import connection_pages
from include.reference.finding_pages import finding_pages
from include.reference.markdown import MARK, Page
from include.reference.pack_pages import pack_pages
from include.service_container import ROOT

FOLDER = Path("docs", "reference")
COMMAND = ".venv/bin/python -m include.reference"


def pages() -> Iterator[Page]:
    """Yield every generated page."""
    yield from command_pages()
    yield from connection_pages()
    yield from pack_pages()
    yield from finding_pages()


def problems(root: Path = ROOT) -> list[str]:
    """Return a message for each page that is missing, out of date, or no longer generated.

    Args:
        root: folder of the repository.
    """
    folder = root / FOLDER
    expected = {folder / page.path: page.text for page in pages()}
    messages = []
    for path, text in expected.items():
        if not path.exists():
            messages.append(f"{path.relative_to(root)} is missing.")
        elif path.read_text(encoding="utf-8") != text:
            messages.append(f"{path.relative_to(root)} is out of date.")
    messages += [
        f"{path.relative_to(root)} is not generated any more."
        for path in _generated(folder)
        if path not in expected
    ]
    return messages


def write(root: Path = ROOT) -> None:
    """Write every page, and delete earlier pages that are not generated any more."""
    folder = root / FOLDER
    expected = {folder / page.path: page.text for page in pages()}
    for path in _generated(folder):
        if path not in expected:
            path.unlink()
    for path, text in expected.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _generated(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*.md"))
        if path.read_text(encoding="utf-8").startswith(MARK)
    ]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Write or check the pages, and return the exit code: 1 if a check finds a problem, or 0."""
    parser = argparse.ArgumentParser(prog="python -m include.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    if not parser.parse_args(arguments).check:
        write(root)
        return 0
    remaining = problems(root)
    for problem in remaining:
        sys.stderr.write(f"{problem} Run {COMMAND} and commit the pages.\n")
    return 1 if remaining else 0


if __name__ == "__main__":
    raise SystemExit(main())
