"""Test that LibreOffice, a program with its own decryption, opens an encrypted workbook."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from include.disclosure.extracts.extract import ExtractForm
from tests.disclosure.extracts.extract_fixtures import PASSWORD, FileWriter, snapshot, source
from tests.disclosure.extracts.opening import convert_with_libreoffice, parse_csv

QUERY = """
SELECT 42 AS number, 12.50::numeric(8,2) AS price, date '2026-02-28' AS day,
    timestamptz '2026-02-28 16:00:01Z' AS time, true AS active, NULL::text AS missing,
    '1234567890123456789' AS waybill, '=1+1' AS formula, E'a "b",\n王😀' AS text
FROM generate_series(1, 2)
"""
NAMES = "number price day time active missing waybill formula text"
ROW = (
    "42",
    "12.50",
    "2026-02-28",
    "2026-03-01 00:00:01",
    "TRUE",
    None,
    "1234567890123456789",
    "=1+1",
    'a "b",\n王😀',
)


def test_libreoffice_shows_the_rows_of_a_workbook(database: str, tmp_path: Path) -> None:
    with snapshot(database) as connection:
        _written, file = FileWriter(tmp_path).write(
            connection, source(QUERY, NAMES), ExtractForm.XLSX
        )
    *_marks, heading, first, second = parse_csv(convert_with_libreoffice(file, PASSWORD, tmp_path))
    assert heading == tuple(f"标题 {name}" for name in NAMES.split())
    assert first == second == ROW
    with pytest.raises(subprocess.CalledProcessError):
        convert_with_libreoffice(file, "wrong", tmp_path)
