"""Tests of the marks on workbooks and in ZIP files."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import msoffcrypto
import pytest
from openpyxl import load_workbook

from include.disclosure.extracts.extract import ExtractForm, Marks, write_extract
from include.disclosure.extracts.marking import marking
from include.messages import verbatim
from include.reports.i18n import Translator
from tests.disclosure.extracts.extract_fixtures import (
    MARKS,
    PASSWORD,
    FileWriter,
    snapshot,
    source,
)
from tests.disclosure.extracts.opening import unzip

QUERY = source("SELECT 1 AS a, '=1' AS b, '2' AS c", "a b c")
EXPIRY = "2027-01-01 00:00 UTC+08:00"


def _sheet(conninfo: str, marks: Marks) -> Any:
    out = io.BytesIO()
    with snapshot(conninfo) as connection:
        write_extract(connection, QUERY, marks, ExtractForm.XLSX, PASSWORD, out, max_rows=1)
    office = msoffcrypto.OfficeFile(out)
    office.load_key(PASSWORD)
    clear = io.BytesIO()
    office.decrypt(clear)
    return load_workbook(clear).worksheets[0]


def _texts(locale: str) -> list[str]:
    translator = Translator(locale, MARKS.zone.key)
    return [translator.text(message) for message in marking(MARKS)]


def test_first_rows_of_workbook_show_all_marks_in_both_languages(database: str) -> None:
    sheet = _sheet(database, MARKS)
    rows = [row[0] for row in sheet.iter_rows(values_only=True)]
    for number, (chinese, english) in enumerate(zip(_texts("zh_CN"), _texts("en"), strict=True)):
        assert chinese in rows[number]
        assert english in rows[number]
    joined = "\n".join(map(str, rows))
    for mark in ("1217", MARKS.recipient, "投诉处理 (complaint)", EXPIRY, "顺达快递", "Shanghai"):
        assert mark in joined


def test_printed_pages_of_workbook_show_all_marks(database: str) -> None:
    sheet = _sheet(database, MARKS)
    header, footer = sheet.oddHeader, sheet.oddFooter
    assert _texts("en")[0] in header.left.text
    assert "顺达快递" in header.center.text
    assert "1217" in header.right.text
    assert "王小明 && Co" in footer.left.text
    assert "投诉处理" in footer.center.text
    assert EXPIRY in footer.right.text
    heading = len(marking(MARKS)) + 2
    assert sheet.print_title_rows == f"${heading}:${heading}"
    assert sheet.freeze_panes == f"A{heading + 1}"
    assert sheet.auto_filter.ref == f"A{heading}:C{heading + 1}"
    assert [cell.value for cell in sheet[heading]] == ["标题 a", "标题 b", "标题 c"]


@pytest.mark.parametrize("text", ["&" * 300, "王" * 300, "&P&N" * 99, "😀" * 200, "=1\r\n" * 99])
def test_long_marks_fit_into_headers_of_excel(database: str, text: str) -> None:
    marks = replace(MARKS, recipient=text, purpose=verbatim(text), company=verbatim(text))
    sheet = _sheet(database, marks)
    for item in (sheet.oddHeader, sheet.oddFooter):
        printed = [part.text or "" for part in (item.left, item.center, item.right)]
        length = sum(len(part.encode("utf-16-le")) // 2 + 2 for part in printed)
        assert length <= 255
        for part in (item.left.text, item.center.text):
            assert not part.replace("&&", "").count("&")
    assert all(cell.data_type != "f" for row in sheet.iter_rows() for cell in row)


def test_formula_in_workbook_stays_text_when_a_person_edits_it(database: str) -> None:
    sheet = _sheet(database, MARKS)
    _number, formula, text = sheet[sheet.max_row]
    assert (formula.value, formula.data_type) == ("=1", "s")
    assert formula.quotePrefix
    assert not text.quotePrefix
    assert formula.number_format == text.number_format == "@"


def test_readme_of_zip_has_all_marks_in_both_languages(database: str, tmp_path: Path) -> None:
    with snapshot(database) as connection:
        _written, file = FileWriter(tmp_path).write(connection, QUERY, ExtractForm.ZIP)
    readme = unzip(file, PASSWORD, "READ-ME.txt")
    assert readme.startswith(b"\xef\xbb\xbf")
    lines = readme.decode("utf-8-sig").split("\r\n")
    for text in (*_texts("zh_CN"), *_texts("en")):
        assert text in lines
    assert sum(EXPIRY in line for line in lines) == 2


def test_expiry_without_timezone_is_refused(database: str) -> None:
    marks = replace(MARKS, expires_at=datetime(2026, 1, 1))  # noqa: DTZ001 - the refused value
    with pytest.raises(ValueError, match="needs a timezone"):
        _sheet(database, marks)
