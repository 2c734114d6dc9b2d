"""Tests of issued workpapers: safe in every spreadsheet program, and reproducible."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook, load_workbook

from include.messages import verbatim
from include.sampling.workpapers.writing import Attribute, Item, Paper, form, write
from include.services.errors import UsageError
from tests.sampling.workpapers.support import HOSTILE, paper, workpapers

ROOT = Path(__file__).parents[3]


def opened() -> Workbook:
    return load_workbook(io.BytesIO(write(workpapers())))


def parts(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_write_gives_same_bytes_for_same_workpapers():
    """The SHA-256 of the file is sealed.

    Hash seeds and timezones of processes have no influence.
    """
    code = (
        "import hashlib; from tests.sampling.workpapers.support import workpapers, write; "
        "print(hashlib.sha256(write(workpapers())).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "TZ": zone},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, zone in (("1", "UTC"), ("2", "Asia/Shanghai"))
    }
    assert len(digests) == 1
    later = replace(workpapers(), issued_at=datetime(2026, 10, 6, tzinfo=UTC))
    assert write(later) != write(workpapers())


def test_workbook_properties_contain_issue_time_of_workpapers_and_not_time_of_writing():
    """The properties have the time of issue in UTC; the archive has the earliest time of zip."""
    content = write(workpapers())
    core = parts(content)["docProps/core.xml"].decode()
    assert re.findall(r"2\d{3}-[^<]+", core) == ["2026-10-05T01:30:00Z"] * 2
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_workbook_has_no_formula_macro_or_link():
    """Items that start with = + - @ are texts and not formulas."""
    files = parts(write(workpapers()))
    sheets = [name for name in files if name.startswith("xl/worksheets/")]
    assert len(sheets) == 4
    for name in sheets:
        assert not re.search(rb"<(\w+:)?f[ />]", files[name])
        kinds = set(re.findall(rb'<c [^>]*?\bt="(\w+)"', files[name]))
        assert b"inlineStr" in kinds
        assert kinds <= {b"inlineStr", b"n"}
    assert not [name for name in files if re.search("vba|macro|external|connections", name, re.I)]
    assert not [name for name, body in files.items() if b'TargetMode="External"' in body]


def test_cell_with_item_that_looks_like_formula_has_text_format_and_quote_prefix():
    """Excel keeps a cell with a quote prefix as text. Cells to fill in have the text format."""
    sheet = opened()["accesses"]
    first = form.HEADER_ROW + 1
    assert sheet.cell(first, 4).value == "=1+1"
    assert sheet.cell(first, 4).data_type == "s"
    assert sheet.cell(first, 4).quotePrefix
    assert [sheet.cell(first, column).number_format for column in (4, 5, 6, 7, 8)] == ["@"] * 5


def test_only_cells_that_auditors_fill_in_are_unlocked():
    """Auditors fill in answers, notes and three cells on the first sheet.

    The protection has no password.
    """
    book = opened()
    for sheet in book:
        assert sheet.protection.sheet
        assert sheet.protection.password is None
    assert book.security.lockStructure
    for name, last in (("accesses", len(HOSTILE)), ("del_etions_", 3)):
        open_cells = {
            (cell.row, cell.column)
            for row in book[name].iter_rows()
            for cell in row
            if not cell.protection.locked
        }
        rows = range(form.HEADER_ROW + 1, form.HEADER_ROW + 1 + last)
        assert open_cells == {(row, column) for row in rows for column in (6, 7, 8)}
    people = [
        row[0].value
        for row in book[form.INSTRUCTIONS].iter_rows(max_col=2)
        if not row[1].protection.locked
    ]
    assert people == [form.PERFORMED_BY, form.PERFORMED_ON, form.REVIEWED_BY]


def test_sheet_has_answer_dropdowns_and_a_filter_and_repeats_header_on_printed_pages():
    sheet = opened()["accesses"]
    lists = [rule for rule in sheet.data_validations.dataValidation if rule.type == "list"]
    assert [rule.formula1 for rule in lists] == ['"符合 Yes,不符合 No,不适用 N/A,找不到 Not found"']
    assert str(lists[0].sqref) == "F6:G25"
    assert sheet.freeze_panes == "E6"
    assert sheet.auto_filter.ref == "A5:H25"
    assert not sheet.protection.autoFilter  # filtering stays allowed
    assert sheet.print_title_rows == "$4:$5"
    assert sheet.page_setup.orientation == "landscape"
    assert sheet.page_setup.fitToWidth == 1


def test_sheet_texts_are_in_english_and_chinese():
    """Titles, questions, criteria and instructions are in English and Chinese."""
    book = opened()
    sheet = book["accesses"]
    assert sheet["A1"].value == "客户记录的查阅 / Accesses to customer records"
    assert sheet["F4"].value == (
        "查阅是否为处理订单所必需？\nWas the opening needed for an order?\n\n"
        "依据 Source:\n工作日志载有该订单。\nThe log of work names the order."
    )
    assert [cell.value for cell in sheet[5]] == [*form.FIXED, "needed", "reason", form.NOTE]
    words = [
        cell.value or "" for row in book[form.INSTRUCTIONS].iter_rows(max_col=2) for cell in row
    ]
    for expected in (
        "2026 年第三季度 / third quarter of 2026",
        "ab" * 32,
        "2026-10-05 09:30 UTC+08:00",
        *form.WORDS.values(),
    ):
        assert expected in words
    assert any("未设密码" in word for word in words)
    assert any("without a password, against accidental changes only" in word for word in words)


def test_hidden_sheet_contains_digests_of_sample_draw_and_sampling_frames():
    """If a program shows the sheet, people can read its cells."""
    sheet = opened()[form.DRAW]
    assert sheet.sheet_state == "veryHidden"
    rows = dict(sheet.iter_rows(max_col=2, values_only=True))
    assert rows == {
        "format": "parcelseal.workpapers/2",
        "audit": "2026Q3",
        "stage": "1",
        "draw_sha256": "ab" * 32,
        "sheet of accesses": "accesses",
        "frame_sha256 of accesses": "cd" * 32,
        "sheet of del/etions?": "del_etions_",
        "frame_sha256 of del/etions?": "cd" * 32,
    }


@given(st.lists(st.text(max_size=60), unique=True, max_size=12))
def test_sheet_names_are_valid_in_excel(populations: list[str]):
    """A name has at most 31 UTF-16 units and no reserved characters, and no two names are equal."""
    names = form.sheet_names(populations)
    assert list(names) == populations
    for name in names.values():
        assert 1 <= len(name.encode("utf-16-le")) // 2 <= 31
        assert not re.search(r"[\[\]:*?/\\\x00-\x1f]", name)
        assert name == name.strip()
        assert not name.startswith("'")
        assert not name.endswith("'")
    folded = [
        name.casefold() for name in (*names.values(), form.INSTRUCTIONS, form.DRAW, "History")
    ]
    assert len(set(folded)) == len(folded)


def test_sheet_names_with_same_beginning_are_distinct():
    """Names are cut at 31 characters, and the second name gets a number."""
    names = form.sheet_names(["x" * 40, "X" * 41, "history", "''"])
    assert list(names.values()) == ["x" * 31, f"{'X' * 28} ~2", "history ~2", "_"]


def test_cell_text_of_very_long_item_key_is_shortened_and_ends_in_sha256_of_key():
    """Excel limits a cell to 32,767 characters. Long keys with the same beginning stay distinct."""
    first, second = form.cell_text("k" * 40_000), form.cell_text("k" * 40_001)
    assert first != second
    assert len(first) < 1_001
    assert re.search(r"… \(40000, SHA-256 [0-9a-f]{64}\)\Z", first)


def test_workpapers_with_too_many_items_or_ambiguous_attribute_names_raise_error():
    many = tuple(f"k{number}" for number in range(form.MOST_ITEMS + 1))
    with pytest.raises(UsageError, match="5001 items were drawn"):
        write(workpapers(paper(many)))
    attribute = Attribute("a", verbatim("?"), verbatim("!"))
    wide = replace(
        paper(("k",)), attributes=tuple(replace(attribute, id=f"a{number}") for number in range(41))
    )
    with pytest.raises(UsageError, match="accesses has 41 attributes"):
        write(workpapers(wide))
    for twins in ((attribute, replace(attribute, id=" Ａ")), (replace(attribute, id=form.NOTE),)):
        with pytest.raises(ValueError, match="cannot be told apart"):
            replace(paper(), attributes=twins)
    item = Item(1, 1, 1, "k", "s")
    with pytest.raises(ValueError, match="one number"):
        Paper("p", verbatim("P"), (attribute,), (item, item), "", 2)
    with pytest.raises(ValueError, match="one population"):
        workpapers(paper(), paper())
