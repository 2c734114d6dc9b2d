"""Workpapers as they are issued: safe in any spreadsheet program, and the same every time."""

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


def test_the_same_workpapers_give_the_same_bytes():
    """Their SHA-256 is sealed; another process with other hashes writes the same file."""
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


def test_the_file_says_when_it_was_issued_and_not_when_it_was_written():
    """In the properties the moment of issue in UTC, in the archive the earliest a zip can say."""
    content = write(workpapers())
    core = parts(content)["docProps/core.xml"].decode()
    assert re.findall(r"2\d{3}-[^<]+", core) == ["2026-10-05T01:30:00Z"] * 2
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_nothing_in_the_file_is_a_formula_a_macro_or_a_link():
    """Items begin with = + - @: every one is a text in the file's own words."""
    made = parts(write(workpapers()))
    sheets = [name for name in made if name.startswith("xl/worksheets/")]
    assert len(sheets) == 4
    for name in sheets:
        assert not re.search(rb"<(\w+:)?f[ />]", made[name])
        kinds = set(re.findall(rb'<c [^>]*?\bt="(\w+)"', made[name]))
        assert b"inlineStr" in kinds
        assert kinds <= {b"inlineStr", b"n"}
    assert not [name for name in made if re.search("vba|macro|external|connections", name, re.I)]
    assert not [name for name, body in made.items() if b'TargetMode="External"' in body]


def test_items_stay_text_when_their_cell_is_edited():
    """Excel keeps what has a quote prefix as text; the format of cells to fill in is text too."""
    sheet = opened()["accesses"]
    first = form.HEADER_ROW + 1
    assert sheet.cell(first, 4).value == "=1+1"
    assert sheet.cell(first, 4).data_type == "s"
    assert sheet.cell(first, 4).quotePrefix
    assert [sheet.cell(first, column).number_format for column in (4, 5, 6, 7, 8)] == ["@"] * 5


def test_only_what_is_filled_in_can_be_changed():
    """Answers, notes and three cells for people are unlocked; there is no password."""
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


def test_a_sheet_of_a_population_is_ready_to_work_with():
    """Drop-down lists, frozen heads, a filter, heads on every printed page."""
    sheet = opened()["accesses"]
    lists = [one for one in sheet.data_validations.dataValidation if one.type == "list"]
    assert [one.formula1 for one in lists] == ['"符合 Yes,不符合 No,不适用 N/A,找不到 Not found"']
    assert str(lists[0].sqref) == "F6:G25"
    assert sheet.freeze_panes == "E6"
    assert sheet.auto_filter.ref == "A5:H25"
    assert not sheet.protection.autoFilter  # not kept from it
    assert sheet.print_title_rows == "$4:$5"
    assert sheet.page_setup.orientation == "landscape"
    assert sheet.page_setup.fitToWidth == 1


def test_both_languages_stand_where_they_are_needed():
    """Titles, questions, criteria and how to fill in, in Chinese and English."""
    book = opened()
    sheet = book["accesses"]
    assert sheet["A1"].value == "客户记录的查阅 / Openings of customer records"
    assert sheet["F4"].value == (
        "查阅是否为处理订单所必需？\nWas the opening needed for an order?\n\n"
        "依据 Source:\n工作日志载有该订单。\nThe log of work names the order."
    )
    assert [cell.value for cell in sheet[5]] == [*form.FIXED, "needed", "reason", form.NOTE]
    words = [
        cell.value or "" for row in book[form.INSTRUCTIONS].iter_rows(max_col=2) for cell in row
    ]
    for one in ("2026Q3", "ab" * 32, "2026-10-05 09:30 UTC+08:00", *form.WORDS.values()):
        assert one in words
    assert any("未设密码" in one for one in words)
    assert any("without a password. That guards against slips only" in one for one in words)


def test_the_reader_finds_the_draw_on_a_very_hidden_sheet():
    """Its cells can be read by people too, once a program shows the sheet."""
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
def test_every_population_gets_a_name_that_excel_takes(populations: list[str]):
    """31 UTF-16 units, no reserved characters, unique but for case; never a name of our own."""
    names = form.sheet_names(populations)
    assert list(names) == populations
    for name in names.values():
        assert 1 <= len(name.encode("utf-16-le")) // 2 <= 31
        assert not re.search(r"[\[\]:*?/\\\x00-\x1f]", name)
        assert name == name.strip()
        assert not name.startswith("'")
        assert not name.endswith("'")
    alike = [one.casefold() for one in (*names.values(), form.INSTRUCTIONS, form.DRAW, "History")]
    assert len(set(alike)) == len(alike)


def test_populations_with_the_same_beginning_have_sheets_of_their_own():
    """A name is cut at 31 characters; the second gets a number."""
    names = form.sheet_names(["x" * 40, "X" * 41, "history", "''"])
    assert list(names.values()) == ["x" * 31, f"{'X' * 28} ~2", "history ~2", "_"]


def test_a_very_long_key_ends_in_its_digest():
    """Excel holds 32,767 characters of a cell; two keys that begin alike still differ."""
    first, second = form.shown("k" * 40_000), form.shown("k" * 40_001)
    assert first != second
    assert len(first) < 1_001
    assert re.search(r"… \(40000, SHA-256 [0-9a-f]{64}\)\Z", first)


def test_what_would_not_fit_is_refused():
    """More than one workbook is made for; attributes or items that could not be told apart."""
    many = tuple(f"k{one}" for one in range(form.MOST_ITEMS + 1))
    with pytest.raises(UsageError, match="5001 items were drawn"):
        write(workpapers(paper(many)))
    attribute = Attribute("a", verbatim("?"), verbatim("!"))
    wide = replace(
        paper(("k",)), attributes=tuple(replace(attribute, id=f"a{one}") for one in range(41))
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
