"""Large files need no more memory than small ones, and a killed upload leaves nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import func, select

from include.state.connect import engine
from include.training.tables import training_completion, training_upload

LINES = 200_000
HEADER = "person,course,version,completed_on,passed\n"
ROOM = 30 * 1024  # KiB; the file has 8 MiB, and its rows as objects would take 100


def child(*words: str) -> list[str]:
    return [sys.executable, "-m", "tests.training.uploads.child", *words]


def write(file: Path, lines: int, end: str = "") -> None:
    with file.open("w", encoding="gb18030") as text:
        text.write(HEADER)
        text.writelines(
            f"E{at // 5:06},课程{at % 5},1,2025/{at % 12 + 1}/{at % 28 + 1},通过\n"
            for at in range(lines)
        )
        text.write(end)


def test_many_lines_are_stored_in_flat_memory(migrated_database: str, tmp_path: Path) -> None:
    """They go to the database as they are read."""
    file = tmp_path / "completions.csv"
    write(file, LINES)
    done = subprocess.run(
        child(migrated_database, "completions", str(file)),
        check=True,
        capture_output=True,
    )
    told = json.loads(done.stdout)
    assert told["added"] == LINES
    assert told["peak"] - told["base"] < ROOM


@pytest.mark.fault
def test_an_upload_that_is_killed_leaves_nothing(migrated_database: str, tmp_path: Path) -> None:
    """Although all of its rows were on the server; the next one takes the whole file."""
    file = tmp_path / "completions.csv"
    write(file, 1000)
    words = child(migrated_database, "completions", str(file))
    with subprocess.Popen([*words, "wait"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"stored\n"
        process.kill()
    with engine(migrated_database).connect() as conn:
        for table in (training_completion, training_upload):
            assert conn.scalar(select(func.count()).select_from(table)) == 0
    done = subprocess.run(words, check=True, capture_output=True)
    assert json.loads(done.stdout)["added"] == 1000
