"""Tests that the memory of a process does not grow with the number of rows."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from include.disclosure.extracts.extract import MAX_XLSX_ROWS, ExtractForm
from include.service_container import ROOT

MIB = 2**20


@pytest.mark.parametrize(
    ("form", "rows", "growth"),
    [
        # The CSV has 32 MB.
        (ExtractForm.ZIP, 300_000, 8 * MIB),
        (ExtractForm.AGE, 300_000, 8 * MIB),
        # The compressed workbook has 4 MB, and its encryption six times as much.
        (ExtractForm.XLSX, MAX_XLSX_ROWS, 48 * MIB),
    ],
)
def test_memory_does_not_grow_with_rows(
    database: str, form: ExtractForm, rows: int, growth: int
) -> None:
    task = {"conninfo": database, "form": form, "ending": "measure", "rows": [10_000, rows]}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.disclosure.extracts.writer_program"],
        input=json.dumps(task),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < growth
