"""``sampling return``: taken with its remarks, or refused with every fault and exit code 2."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from openpyxl import Workbook
from sqlalchemy import Engine

from include.cli import app
from include.cli import sampling as command
from include.sampling import issue
from include.sampling.workpapers import form
from include.services.clock import FixedClock
from include.state.connect import engine
from tests.sampling.drawn import ISSUED, Draw, committed, draw, returned
from tests.sampling.workpapers.support import edited


@pytest.fixture
def state(migrated_database: str) -> Engine:
    """An empty state database."""
    return engine(migrated_database)


@pytest.fixture
def issued(state: Engine, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """A draw whose workpapers are out."""
    place = SimpleNamespace(state=state, clock=FixedClock(ISSUED))
    monkeypatch.setattr(command, "workplace", lambda: place)
    monkeypatch.setattr(command, "local_stack", nullcontext)
    made = draw(committed())
    with state.begin() as conn:
        made.issue(conn)
    return made


def run(
    capsys: pytest.CaptureFixture[str], file: Path, *more: str, by: str = "auditor"
) -> tuple[int, str, str]:
    """Hand a file in; exit code, stdout and stderr."""
    code = app._run(["sampling", "return", str(file), "--by", by, *more])
    told = capsys.readouterr()
    return code, told.out, told.err


def back(state: Engine) -> list[bool]:
    with state.connect() as conn:
        return [one.handed_in is not None for one in issue.all_issued(conn)]


def test_filled_in_workpapers_are_taken(
    state: Engine, issued: Draw, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With what should be known of them, in words and as JSON."""
    file = tmp_path / "done.xlsx"
    file.write_bytes(returned(issued.papers, {issued.papers.papers[0].population: (1,)}))
    code, out, said = run(capsys, file)
    assert (code, said) == (0, "")
    part = f"2026Q3-1-{issued.papers.draw_sha256[:6]}"
    items = len(issued.papers.papers[0].items)
    assert out.startswith(f"taken: {part}, {items} items\n")
    assert "remark: " in out
    assert "conclude_audit" in out
    code, out, _said = run(capsys, file, "--json")
    told = json.loads(out)
    assert (code, told["workpapers"], told["audit"]) == (0, part, "2026Q3")
    assert (told["stage"], told["items"]) == (1, items)
    assert len(told["remarks"]) == 1
    assert back(state) == [True]


def test_every_fault_is_told_and_nothing_is_taken(
    state: Engine, issued: Draw, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, each with its sheet and cell; stdout stays empty."""

    def spoil(book: Workbook) -> None:
        sheet = book[issued.papers.sheets["shares"]]
        for row in (1, 2, 3):
            sheet.cell(form.HEADER_ROW + row, len(form.FIXED) + 1).value = f"[b]perhaps {row}"

    file = tmp_path / "done.xlsx"
    file.write_bytes(edited(returned(issued.papers), spoil))
    code, out, said = run(capsys, file)
    assert (code, out) == (2, "")
    assert "3 faults" in said
    for row in (1, 2, 3):
        assert f"cell F{form.HEADER_ROW + row}: “[b]perhaps {row}” is none of the answers" in said
    code, out, _said = run(capsys, file, "--json")
    assert code == 2
    assert json.loads(out)["error"].count("is none of the answers") == 3
    assert back(state) == [False]


@pytest.mark.usefixtures("issued")
def test_what_is_no_file_is_wrong_usage(
    state: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is not there, a folder, text, one of endless length, and nobody's."""
    text, large = tmp_path / "text.xlsx", tmp_path / "large.xlsx"
    text.write_text("no workbook")
    with large.open("wb") as stream:
        os.truncate(stream.fileno(), 64 * 1024**3)  # of which nothing is on the disk
    cases = {
        tmp_path / "missing.xlsx": "cannot be read: No such file or directory",
        tmp_path: "cannot be read: Is a directory",
        text: "no Excel workbook",
        large: "The file is larger than such a workbook can be",
    }
    for file, why in cases.items():
        code, out, said = run(capsys, file)
        assert (code, out) == (2, "")
        assert why in said
    assert run(capsys, text, by=" ")[0] == 2
    assert back(state) == [False]
