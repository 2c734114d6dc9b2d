"""Tests of the limits of an extract."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.disclosure.extracts import workbook
from include.disclosure.extracts.extract import (
    MAX_XLSX_ROWS,
    ExtractForm,
    TooManyRows,
    UnsuitableForExcel,
)
from include.services.errors import ControlFailed
from tests.disclosure.extracts.extract_fixtures import (
    PASSWORD,
    FileWriter,
    snapshot,
    source,
)
from tests.disclosure.extracts.opening import CANNOT_OPEN, open_extract, open_sheet

SERIES = "SELECT n FROM generate_series(1, %(rows)s) AS n"


@pytest.mark.parametrize("form", ExtractForm)
@pytest.mark.parametrize("most", [0, 1, 3000])
def test_extract_with_more_rows_than_permitted_is_never_complete(
    database: str, tmp_path: Path, form: ExtractForm, most: int
) -> None:
    writer = FileWriter(tmp_path)
    with snapshot(database) as connection:
        query = source(SERIES, "n", {"rows": most})
        written, file = writer.write(connection, query, form, max_rows=most)
        assert written.rows == most
        assert written.size == file.stat().st_size
        query = source(SERIES, "n", {"rows": most + 1})
        with pytest.raises(TooManyRows, match=f"more than {most:,} rows") as refused:
            writer.write(connection, query, form, max_rows=most)
        assert isinstance(refused.value, ControlFailed)
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(CANNOT_OPEN):
        open_extract(file, form)


def test_workbook_with_more_than_its_own_limit_advises_zip(database: str, tmp_path: Path) -> None:
    query = source(SERIES, "n", {"rows": MAX_XLSX_ROWS + 1})
    with (
        snapshot(database) as connection,
        pytest.raises(TooManyRows, match=r"more than 100,000 rows.*ZIP"),
    ):
        FileWriter(tmp_path).write(connection, query, ExtractForm.XLSX, max_rows=10**6)


@pytest.mark.parametrize("text", ["repeat('王', 32767)", "repeat('😀', 16383) || 'a'"])
def test_workbook_refuses_cell_longer_than_excel_allows(
    database: str, tmp_path: Path, text: str
) -> None:
    writer = FileWriter(tmp_path)
    with snapshot(database) as connection:
        _written, file = writer.write(
            connection, source(f"SELECT {text} AS t", "t"), ExtractForm.XLSX
        )
        *_marks, (value,) = open_sheet(file, PASSWORD).iter_rows(values_only=True)
        assert (value,) == connection.execute(f"SELECT {text}".encode()).fetchone()
        for longer in (f"{text} || 'x'", f"'<' || {text}"):
            with pytest.raises(UnsuitableForExcel, match=r"column t is longer.*Choose the ZIP"):
                writer.write(connection, source(f"SELECT {longer} AS t", "t"), ExtractForm.XLSX)


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_XML_BYTES"])
def test_too_large_workbook_is_refused(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(workbook, limit, 1_000_000)
    query = source("SELECT md5(n::text) AS t FROM generate_series(1, 40000) AS n", "t")
    with (
        snapshot(database) as connection,
        pytest.raises(UnsuitableForExcel, match=r"too large for an Excel workbook.*ZIP"),
    ):
        FileWriter(tmp_path).write(connection, query, ExtractForm.XLSX, max_rows=40000)
