"""Tests of the memory of large uploads, and of killed uploads."""

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
MAX_EXTRA_KIB = 30 * 1024  # KiB; the file has 8 MiB, and its rows would take 100 MiB


def child_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.training.uploads.upload_process", *arguments]


def write(file: Path, lines: int, end: str = "") -> None:
    with file.open("w", encoding="gb18030") as text:
        text.write(HEADER)
        text.writelines(
            f"E{index // 5:06},课程{index % 5},1,2025/{index % 12 + 1}/{index % 28 + 1},通过\n"
            for index in range(lines)
        )
        text.write(end)


def test_large_upload_uses_constant_memory(migrated_database: str, tmp_path: Path) -> None:
    file = tmp_path / "completions.csv"
    write(file, LINES)
    process = subprocess.run(
        child_command(migrated_database, "completions", str(file)),
        check=True,
        capture_output=True,
    )
    result = json.loads(process.stdout)
    assert result["added"] == LINES
    assert result["peak"] - result["base"] < MAX_EXTRA_KIB


@pytest.mark.fault
def test_killed_upload_stores_nothing(migrated_database: str, tmp_path: Path) -> None:
    file = tmp_path / "completions.csv"
    write(file, 1000)
    command = child_command(migrated_database, "completions", str(file))
    with subprocess.Popen([*command, "wait"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"stored\n"
        process.kill()
    with engine(migrated_database).connect() as conn:
        for table in (training_completion, training_upload):
            assert conn.scalar(select(func.count()).select_from(table)) == 0
    uploaded = subprocess.run(command, check=True, capture_output=True)
    assert json.loads(uploaded.stdout)["added"] == 1000
