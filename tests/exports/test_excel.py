"""Excel files of lists: types of cells, frozen heading, filter, print titles, formulas, limits."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from openpyxl import Workbook, load_workbook

from include.exports.excel import write_excel
from include.messages import _
from tests.exports.sample import COLUMNS, FORMULAS, ZONE, listing


def written(
    rows: int, locale: str = "en", *, total: int = 0, limit: int = 100, company: bool = True
) -> Workbook:
    """Return the workbook of a list, as a spreadsheet program reads it."""
    stream = io.BytesIO()
    table = listing(range(rows), total or rows, company=company)
    write_excel(table, locale, ZONE, stream, limit)
    return load_workbook(io.BytesIO(stream.getvalue()))


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_sheet_has_company_and_period_above_a_frozen_heading_with_filter_and_print_titles() -> None:
    sheet = written(20).worksheets[0]
    assert sheet["A1"].value == "Sample Courier Co."
    assert sheet["A2"].value == "Evidence bundles: 2026-07-01 to 2026-09-30"
    assert [cell.value for cell in sheet[3]] == [column.label.text for column in COLUMNS]
    assert sheet.freeze_panes == "A4"
    assert sheet.auto_filter.ref == "A3:G23"
    assert sheet.print_title_rows == "$3:$3"
    assert sheet.max_row == 23
    widths = [sheet.column_dimensions[letter].width for letter in "ABCDEFG"]
    assert widths == [column.width for column in COLUMNS]


def test_numbers_times_and_dates_keep_their_types_and_times_are_in_the_timezone_of_the_pack() -> (
    None
):
    sheet = written(1).worksheets[0]
    number, sealed, due, outcome = (sheet.cell(4, column) for column in range(1, 5))
    assert (number.value, number.data_type) == (0, "n")
    assert sealed.is_date
    assert sealed.value == datetime(2026, 11, 24, 14, 30)  # noqa: DTZ001 - Excel has no timezones
    assert sealed.number_format == "yyyy-mm-dd hh:mm"
    assert due.is_date
    assert due.number_format == "yyyy-mm-dd"
    assert outcome.value == "Passed"


def test_text_that_looks_like_a_formula_stays_a_quoted_text() -> None:
    """A spreadsheet would execute such a text, for example a run id that another person chose."""
    sheet = written(len(FORMULAS)).worksheets[0]
    for row, formula in enumerate(FORMULAS, 4):
        cell = sheet.cell(row, 5)
        assert cell.data_type == "s", formula
        assert cell.value == formula.replace("\r", "\\u000d")
        assert cell.quotePrefix or not cell.value.startswith(tuple("=+-@'\t")), formula
        assert cell.number_format == "@"
    about = {row[0].value: row[1] for row in written(1).worksheets[1].iter_rows()}
    assert about["Exported by"].value == "=officer"
    assert about["Exported by"].data_type == "s"
    assert about["Exported by"].quotePrefix


def test_control_characters_are_written_as_escapes() -> None:
    """XML allows no such character. openpyxl would refuse the file."""
    remark = written(1).worksheets[0].cell(4, 7).value
    assert (
        remark
        == "<script>alert(1)</script>\\u202e\\u0000\\u0007 &amp; _x005F_x0041_ 第一行\n第二行"
    )


def test_long_text_is_cut_at_the_largest_length_of_a_cell() -> None:
    stream, table = io.BytesIO(), listing([], 0)
    write_excel(
        table.__class__(**{**vars(table), "rows": iter([["x" * 40_000, *[None] * 6]])}),
        "en", ZONE, stream,
    )  # fmt: skip
    value = load_workbook(io.BytesIO(stream.getvalue())).worksheets[0]["A4"].value
    assert len(value) == 32_767
    assert value.endswith("…")


def test_second_sheet_states_company_policy_period_and_exporter() -> None:
    about = dict(written(2, "zh_CN").worksheets[1].iter_rows(values_only=True))
    assert about["单位"] == "示例快递有限公司"
    assert about["地址"] == "云南省昆明市官渡区示例路1号（邮编650200）"
    assert about["制度及版本"].startswith("《快递行业客户信息保护内部控制制度》")
    assert about["期间"] == "2026-07-01 至 2026-09-30"
    assert about["记录数"] == 2
    assert about["时间所用时区"] == "北京时间（UTC+08:00）"


def test_list_of_a_pack_without_a_company_has_no_letterhead() -> None:
    book = written(1, company=False)
    assert book.worksheets[0]["A1"].value == "Evidence bundles: 2026-07-01 to 2026-09-30"
    texts = [cell.value for sheet in book.worksheets for row in sheet.iter_rows() for cell in row]
    assert not [text for text in texts if "Sample Courier" in str(text)]


@pytest.mark.parametrize(
    ("locale", "note"),
    [
        ("en", "INCOMPLETE: this file has the first 10 of 5,000 rows."),
        ("zh_CN", "内容不完整：共 5,000 条，本文件仅含前 10 条。"),
    ],
)
def test_truncated_list_has_warning_on_both_sheets(locale: str, note: str) -> None:
    book = written(30, locale, total=5_000, limit=10)
    sheet = book.worksheets[0]
    assert str(sheet["A3"].value).startswith(note)
    assert sheet.max_row == 4 + 10
    assert str(book.worksheets[1].cell(book.worksheets[1].max_row, 2).value).startswith(note)
    assert "INCOMPLETE" not in str(written(10, limit=10).worksheets[0]["A3"].value)


def test_page_footer_has_page_number_and_escaped_company_name() -> None:
    sheet = written(1, "zh_CN").worksheets[0]
    assert sheet.oddFooter.right.text == "第&P页，共&N页"
    assert sheet.oddHeader.right.text == "示例快递有限公司"
    assert sheet.page_setup.orientation == "landscape"


def test_failed_export_leaves_no_temporary_file(temporary_folder: Path) -> None:
    """The state database may fail while rows are read."""

    def failing() -> Iterator[int]:
        yield from range(50)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        write_excel(listing(failing(), 50), "en", ZONE, io.BytesIO())
    assert list(temporary_folder.iterdir()) == []
    write_excel(listing(range(50), 50), "en", ZONE, io.BytesIO())
    assert list(temporary_folder.iterdir()) == []


def test_rows_are_written_while_they_are_read() -> None:
    """The rows of a large list are never in memory together."""
    read: list[int] = []

    def counted() -> Iterator[int]:
        for number in range(1_000):
            read.append(number)
            yield number

    write_excel(listing(counted(), 1_000), "en", ZONE, io.BytesIO(), limit=7)
    assert len(read) == 7


def test_warning_is_above_the_list() -> None:
    stream = io.BytesIO()
    warning = _("{count} bundles are missing from the evidence ledger.", count=3)
    write_excel(listing(range(2), 2, [warning]), "en", ZONE, stream)
    sheet = load_workbook(io.BytesIO(stream.getvalue())).worksheets[0]
    assert sheet["A3"].value == "3 bundles are missing from the evidence ledger."
    assert sheet.freeze_panes == "A5"
