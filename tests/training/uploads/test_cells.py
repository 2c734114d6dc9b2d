"""Tests of parsing cells: unambiguous values are accepted, and errors quote no personal data."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.training.uploads import cells
from include.training.uploads.cells import InvalidCell

DAYS = st.dates(date(1900, 1, 1), date(2199, 12, 31))


@given(day=DAYS)
def test_date_is_accepted_in_every_unambiguous_notation(day: date) -> None:
    year, month, of_month = day.year, day.month, day.day
    for written in (
        f"{day}",
        f" {year}/{month}/{of_month} ",
        f"{year}.{month}.{of_month}",
        f"{year}年{month}月{of_month}日",
        f"{year}年{month:02}月{of_month:02}",
        f"{day:%Y/%m/%d} 0:00",
        f"{day}T08:30:00.123456",
        "".join(chr(ord(character) + 0xFEE0) for character in str(day)),
        f"'{day}",
        f'="{day}"',
    ):
        assert cells.read_day(written) == day


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2026-02-30", "2026-02-30 is a date that does not exist"),
        ("2026-13-01", "2026-13-01 is a date that does not exist"),
        ("5/1/2026", "5/1/2026 is not a date: write 2026-01-05"),  # May or January?
        ("05.01.2026", "05.01.2026 is not a date"),
        ("26-01-05", "26-01-05 is not a date"),
        ("2026-1/5", "2026-1/5 is not a date"),
        ("2026/1/5日", "2026/1/5日 is not a date"),
        ("2026-01-05 25:00", "is not a date"),
        ("46027", "is not a date"),  # Excel's day number, which may be any number
        ("20260105", "is not a date"),
        ("0206-01-05", "0206-01-05 is not between 1900 and 2199"),
        ("9999-12-31", "9999-12-31 is not between"),
        ("13800138000", "is not a date"),
        ("110101199003070011", "is not a date"),
        ("王芳", "is not a date"),
        ("wang@courier.example", "is not a date"),
        ("2026-01-05 王芳", "is not a date"),
    ],
)
def test_invalid_or_ambiguous_date_raises_invalid_cell_error(cell: str, expected: str) -> None:
    with pytest.raises(InvalidCell) as error:
        cells.read_day(cell)
    assert str(error.value).startswith(expected)


@pytest.mark.parametrize(
    ("read", "cell", "value"),
    [
        (cells.read_code, " E0007 ", "E0007"),
        (cells.read_code, "００７", "007"),
        (cells.read_code, "'007", "007"),
        (cells.read_code, '="007"', "007"),
        (cells.read_code, "营业员-7", "营业员-7"),
        (cells.read_code, "\u200e7\ufeff", "7"),
        (cells.read_name, "  王\u3000芳\r\n", "王 芳"),
        (cells.read_name, "'t Hooft", "'t Hooft"),
        (cells.read_name, "O\u2019Neill", "O\u2019Neill"),
        (cells.read_name, "王\u200b芳", "王芳"),
        (cells.read_name, "x\ny", "x y"),
        (cells.read_text, "第１营业部（东）", "第1营业部(东)"),
        (cells.read_text, "wang＠courier.example", "wang@courier.example"),
        (cells.read_day_of_year, "03-31", "03-31"),
        (cells.read_day_of_year, "3/1", "03-01"),
        (cells.read_day_of_year, "12月31日", "12-31"),
        (cells.integer_reader(0, 100), "5.0", 5),
        (cells.integer_reader(0, 100), " ０ ", 0),
        (cells.integer_reader(0, 100), "'100", 100),
        (cells.choice_reader({"法律": "law", "law": "law"}), " LAW ", "law"),
        (cells.choice_reader({"法律": "law", "law": "law"}), "法律", "law"),
    ],
)
def test_cell_readers_normalise_spaces_quotes_full_width_and_invisible_characters(
    read: Callable[[str], object], cell: str, value: object
) -> None:
    assert read(cell) == value


@pytest.mark.parametrize("cell", ["yes", "Y", "是", "TRUE", "1", "１", " 通过", "有", "Passed"])
def test_cells_with_a_word_for_yes_are_parsed_as_true(cell: str) -> None:
    assert cells.read_yes_no(cell) is True


@pytest.mark.parametrize("cell", ["no", "N", "否", "false", "0", "未通过", "无", "不合格"])
def test_cells_with_a_word_for_no_are_parsed_as_false(cell: str) -> None:
    assert cells.read_yes_no(cell) is False


@pytest.mark.parametrize(
    ("read", "cell", "expected"),
    [
        (cells.read_code, "王 芳", "is not a valid number or code"),
        (cells.read_code, "=1+1", "is not a valid number or code"),
        (cells.read_code, "-7", "is not a valid number or code"),
        (cells.read_code, "x" * 101, "is not a valid number or code"),
        (cells.read_code, "E\x1b7", "contains a character that is not part of text"),
        (cells.read_name, "王\x07芳", "contains a character that is not part of text"),
        (cells.read_name, "王\U000e0fff", "contains a character that is not part of text"),
        (cells.read_name, "x" * 301, "is longer than 300 characters"),
        (cells.read_text, "'", "is empty"),
        (cells.read_day_of_year, "02-29", "02-29 is not a day of every year"),
        (cells.read_day_of_year, "31-Mar", "is not a month and day: write 03-31"),
        (cells.read_day_of_year, "31/3", "31/3 is not a day of every year"),
        (cells.integer_reader(1, 120), "0", "0 is not a whole number from 1 to 120"),
        (cells.integer_reader(1, 120), "121", "121 is not a whole number"),
        (cells.integer_reader(1, 120), "-3", "-3 is not a whole number"),
        (cells.integer_reader(1, 120), "1.5", "1.5 is not a whole number"),
        (cells.integer_reader(1, 120), "1,000", "is not a whole number"),
        (cells.integer_reader(1, 120), "1E+05", "is not a whole number"),
        (cells.integer_reader(1, 120), "13800138000", "is not a whole number"),
        (cells.read_yes_no, "maybe", "is neither yes nor no"),
        (cells.read_yes_no, "2", "2 is neither yes nor no"),
        (cells.read_yes_no, "王芳", "is neither yes nor no"),
        (cells.choice_reader({"法律": "law"}), "王芳", "is not in the list law"),
    ],
)
def test_cell_readers_raise_invalid_cell_error_for_invalid_values(
    read: Callable[[str], object], cell: str, expected: str
) -> None:
    with pytest.raises(InvalidCell) as error:
        read(cell)
    assert str(error.value).startswith(expected)


@given(cell=st.text(min_size=1))
def test_error_for_invalid_cell_contains_no_non_ascii_letters_or_long_numbers_of_the_cell(
    cell: str,
) -> None:
    for read in (
        cells.read_day,
        cells.read_day_of_year,
        cells.integer_reader(0, 9),
        cells.read_yes_no,
        cells.read_code,
    ):
        try:
            read(cell)
        except InvalidCell as error:
            message = str(error)
            letters = [
                character for character in cell if character.isalpha() and character not in "年月日"
            ]
            assert not any(letter in message for letter in letters if not letter.isascii())
            assert sum(map(str.isdigit, message.partition(" is ")[0])) <= 8


@pytest.mark.parametrize("cell", ["", " ", "\u3000", "\u200b", "\ufeff \t", "\u00a0"])
def test_cell_with_only_invisible_characters_is_blank(cell: str) -> None:
    assert cells.is_blank(cell)
    assert not cells.is_blank(cell + "0")
