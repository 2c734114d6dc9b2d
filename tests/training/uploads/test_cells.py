"""What can be read in one way only is read; everything else is refused, and not repeated."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.training.uploads import cells
from include.training.uploads.cells import Unreadable

DAYS = st.dates(date(1900, 1, 1), date(2199, 12, 31))


@given(day=DAYS)
def test_a_day_is_read_however_it_is_written(day: date) -> None:
    """With zeros or without, full-width, with the time that an export adds."""
    year, month, of_month = day.year, day.month, day.day
    for written in (
        f"{day}",
        f" {year}/{month}/{of_month} ",
        f"{year}.{month}.{of_month}",
        f"{year}年{month}月{of_month}日",
        f"{year}年{month:02}月{of_month:02}",
        f"{day:%Y/%m/%d} 0:00",
        f"{day}T08:30:00.123456",
        "".join(chr(ord(one) + 0xFEE0) for one in str(day)),
        f"'{day}",
        f'="{day}"',
    ):
        assert cells.day(written) == day


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("2026-02-30", "2026-02-30 is a day that does not exist"),
        ("2026-13-01", "2026-13-01 is a day that does not exist"),
        ("5/1/2026", "5/1/2026 is no day: write 2026-01-05"),  # of May, or of January?
        ("05.01.2026", "05.01.2026 is no day"),
        ("26-01-05", "26-01-05 is no day"),
        ("2026-1/5", "2026-1/5 is no day"),
        ("2026/1/5日", "2026/1/5日 is no day"),
        ("2026-01-05 25:00", "is no day"),
        ("46027", "is no day"),  # what Excel keeps: a number that may be anything
        ("20260105", "is no day"),
        ("0206-01-05", "0206-01-05 is not between 1900 and 2199"),
        ("9999-12-31", "9999-12-31 is not between"),
        ("13800138000", "is no day"),
        ("110101199003070011", "is no day"),
        ("王芳", "is no day"),
        ("wang@courier.example", "is no day"),
        ("2026-01-05 王芳", "is no day"),
    ],
)
def test_what_is_no_day_is_refused(cell: str, why: str) -> None:
    """It is shown where it is a day or a short number, and nothing else is."""
    with pytest.raises(Unreadable) as refused:
        cells.day(cell)
    assert str(refused.value).startswith(why)


@pytest.mark.parametrize(
    ("read", "cell", "value"),
    [
        (cells.code, " E0007 ", "E0007"),
        (cells.code, "００７", "007"),
        (cells.code, "'007", "007"),
        (cells.code, '="007"', "007"),
        (cells.code, "营业员-7", "营业员-7"),
        (cells.code, "\u200e7\ufeff", "7"),
        (cells.name, "  王\u3000芳\r\n", "王 芳"),
        (cells.name, "'t Hooft", "'t Hooft"),
        (cells.name, "O\u2019Neill", "O\u2019Neill"),
        (cells.name, "王\u200b芳", "王芳"),
        (cells.name, "x\ny", "x y"),
        (cells.words, "第１营业部（东）", "第1营业部(东)"),
        (cells.words, "wang＠courier.example", "wang@courier.example"),
        (cells.day_of_year, "03-31", "03-31"),
        (cells.day_of_year, "3/1", "03-01"),
        (cells.day_of_year, "12月31日", "12-31"),
        (cells.whole(0, 100), "5.0", 5),
        (cells.whole(0, 100), " ０ ", 0),
        (cells.whole(0, 100), "'100", 100),
        (cells.one_of({"法律": "law", "law": "law"}), " LAW ", "law"),
        (cells.one_of({"法律": "law", "law": "law"}), "法律", "law"),
    ],
)
def test_a_cell_is_read_as_it_is_meant(
    read: Callable[[str], object], cell: str, value: object
) -> None:
    """Without what Excel and people leave around it."""
    assert read(cell) == value


@pytest.mark.parametrize("cell", ["yes", "Y", "是", "TRUE", "1", "１", " 通过", "有", "Passed"])
def test_yes_is_read(cell: str) -> None:
    """In English, Chinese and numbers."""
    assert cells.yes_no(cell) is True


@pytest.mark.parametrize("cell", ["no", "N", "否", "false", "0", "未通过", "无", "不合格"])
def test_no_is_read(cell: str) -> None:
    """Likewise."""
    assert cells.yes_no(cell) is False


@pytest.mark.parametrize(
    ("read", "cell", "why"),
    [
        (cells.code, "王 芳", "is no number or code"),
        (cells.code, "=1+1", "is no number or code"),
        (cells.code, "-7", "is no number or code"),
        (cells.code, "x" * 101, "is no number or code"),
        (cells.code, "E\x1b7", "holds a character that no text has"),
        (cells.name, "王\x07芳", "holds a character that no text has"),
        (cells.name, "王\U000e0fff", "holds a character that no text has"),
        (cells.name, "x" * 301, "is longer than 300 characters"),
        (cells.words, "'", "is empty"),
        (cells.day_of_year, "02-29", "02-29 is not a day of every year"),
        (cells.day_of_year, "31-Mar", "is no day of a year: write 03-31"),
        (cells.day_of_year, "31/3", "31/3 is not a day of every year"),
        (cells.whole(1, 120), "0", "0 is no whole number from 1 to 120"),
        (cells.whole(1, 120), "121", "121 is no whole number"),
        (cells.whole(1, 120), "-3", "-3 is no whole number"),
        (cells.whole(1, 120), "1.5", "1.5 is no whole number"),
        (cells.whole(1, 120), "1,000", "is no whole number"),
        (cells.whole(1, 120), "1E+05", "is no whole number"),
        (cells.whole(1, 120), "13800138000", "is no whole number"),
        (cells.yes_no, "maybe", "is neither yes nor no"),
        (cells.yes_no, "2", "2 is neither yes nor no"),
        (cells.yes_no, "王芳", "is neither yes nor no"),
        (cells.one_of({"法律": "law"}), "王芳", "is none of law"),
    ],
)
def test_a_cell_that_says_something_else_is_refused(
    read: Callable[[str], object], cell: str, why: str
) -> None:
    """Words are never repeated, numbers only where they are short."""
    with pytest.raises(Unreadable) as refused:
        read(cell)
    assert str(refused.value).startswith(why)


@given(cell=st.text(min_size=1))
def test_no_cell_is_repeated_that_could_be_a_person(cell: str) -> None:
    """Nor does any other text end the reading in another way."""
    for read in (cells.day, cells.day_of_year, cells.whole(0, 9), cells.yes_no, cells.code):
        try:
            read(cell)
        except Unreadable as error:
            said = str(error)
            letters = [one for one in cell if one.isalpha() and one not in "年月日"]
            assert not any(one in said for one in letters if not one.isascii())
            assert sum(map(str.isdigit, said.partition(" is ")[0])) <= 8


@pytest.mark.parametrize("cell", ["", " ", "\u3000", "\u200b", "\ufeff \t", "\u00a0"])
def test_what_nobody_sees_is_blank(cell: str) -> None:
    """Blanks of every width, and marks."""
    assert cells.blank(cell)
    assert not cells.blank(cell + "0")
