"""The command ``sampling return`` stores correct workpapers, or refuses them with every fault."""

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
from tests.sampling.draw_fixtures import (
    ISSUED,
    Draw,
    committed_population,
    make_draw,
    returned_workbook,
)
from tests.sampling.workpapers.support import edited


@pytest.fixture
def state(migrated_database: str) -> Engine:
    """Return a state database without audit samples."""
    return engine(migrated_database)


@pytest.fixture
def issued(state: Engine, monkeypatch: pytest.MonkeyPatch) -> Draw:
    """Issue the workpapers of a draw."""
    stub = SimpleNamespace(state=state, clock=FixedClock(ISSUED))
    monkeypatch.setattr(command, "command_services", lambda: stub)
    monkeypatch.setattr(command, "local_stack", nullcontext)
    draw = make_draw(committed_population())
    with state.begin() as conn:
        draw.issue(conn)
    return draw


def run(
    capsys: pytest.CaptureFixture[str], file: Path, *more: str, by: str = "auditor"
) -> tuple[int, str, str]:
    """Run ``sampling return`` with a file. Return the exit code, stdout and stderr."""
    code = app._run(["sampling", "return", str(file), "--by", by, *more])
    output = capsys.readouterr()
    return code, output.out, output.err


def returned_flags(state: Engine) -> list[bool]:
    with state.connect() as conn:
        return [issued_papers.handed_in is not None for issued_papers in issue.all_issued(conn)]


def test_sampling_return_command_stores_completed_workpapers(
    state: Engine, issued: Draw, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The printed text and the JSON object contain the remarks."""
    file = tmp_path / "done.xlsx"
    file.write_bytes(returned_workbook(issued.papers, {issued.papers.papers[0].population: (1,)}))
    code, out, err = run(capsys, file)
    assert (code, err) == (0, "")
    part = f"2026Q3-1-{issued.papers.draw_sha256[:6]}"
    items = len(issued.papers.papers[0].items)
    assert out.startswith(f"imported: {part}, {items} items\n")
    assert "remark: " in out
    assert "conclude_audit" in out
    code, out, _said = run(capsys, file, "--json")
    result = json.loads(out)
    assert (code, result["workpapers"], result["audit"]) == (0, part, "2026Q3")
    assert (result["stage"], result["items"]) == (1, items)
    assert len(result["remarks"]) == 1
    assert returned_flags(state) == [True]


def test_sampling_return_command_with_faulty_workpapers_stores_nothing(
    state: Engine, issued: Draw, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stderr has each fault with its sheet and cell, and stdout is empty."""

    def spoil(book: Workbook) -> None:
        sheet = book[issued.papers.sheets["shares"]]
        for row in (1, 2, 3):
            sheet.cell(form.HEADER_ROW + row, len(form.FIXED) + 1).value = f"[b]perhaps {row}"

    file = tmp_path / "done.xlsx"
    file.write_bytes(edited(returned_workbook(issued.papers), spoil))
    code, out, err = run(capsys, file)
    assert (code, out) == (2, "")
    assert "3 faults" in err
    for row in (1, 2, 3):
        assert f"cell F{form.HEADER_ROW + row}: “[b]perhaps {row}” is not one of the answers" in err
    code, out, _said = run(capsys, file, "--json")
    assert code == 2
    assert json.loads(out)["error"].count("is not one of the answers") == 3
    assert returned_flags(state) == [False]


@pytest.mark.usefixtures("issued")
def test_sampling_return_command_with_unreadable_file_exits_with_2(
    state: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cases are a missing file, a folder, a text file, a huge file, and an empty user id."""
    text, large = tmp_path / "text.xlsx", tmp_path / "large.xlsx"
    text.write_text("no workbook")
    with large.open("wb") as stream:
        os.truncate(stream.fileno(), 64 * 1024**3)  # a sparse file
    cases = {
        tmp_path / "missing.xlsx": "cannot be read: No such file or directory",
        tmp_path: "cannot be read: Is a directory",
        text: "not an Excel workbook",
        large: "The file exceeds the allowed size of a workbook",
    }
    for file, why in cases.items():
        code, out, err = run(capsys, file)
        assert (code, out) == (2, "")
        assert why in err
    assert run(capsys, text, by=" ")[0] == 2
    assert returned_flags(state) == [False]
