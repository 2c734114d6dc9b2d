"""Check digits follow the published rules, in both the plain and the column form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.local.sample.formats import (
    id_check_character,
    is_id_number,
    is_mobile,
    is_waybill_number,
    s10_check_digit,
)
from include.local.sample.people import check_characters

SEVENTEEN = st.text("0123456789", min_size=17, max_size=17)
SERIAL = st.text("0123456789", min_size=8, max_size=8)


@pytest.mark.parametrize(
    "number", ["11010519491231002X", "53010219200508011X", "11010519491231002x"]
)
def test_published_id_numbers_are_valid(number: str) -> None:
    """The examples of GB 11643-1999, and a lower-case x."""
    assert is_id_number(number)


@pytest.mark.parametrize(
    "number",
    [
        "530102192005080119",  # wrong check character
        "11010519490230002X",  # no such day
        "110105194912310021",
        "1101051949123100２X",  # a full-width digit
        "11010519491231002X ",
        "11010519491231002",
        "",
    ],
)
def test_wrong_id_numbers_are_refused(number: str) -> None:
    """Form, date and check character each count."""
    assert not is_id_number(number)


@given(SEVENTEEN)
def test_the_check_character_makes_the_weighted_sum_one(first_17: str) -> None:
    """ISO 7064 MOD 11-2: powers of two over all 18 places leave the remainder 1."""
    values = [10 if c == "X" else int(c) for c in first_17 + id_check_character(first_17)]
    assert sum(value * 2 ** (17 - place) for place, value in enumerate(values)) % 11 == 1


@given(SEVENTEEN, st.integers(0, 16), st.integers(1, 9))
def test_any_single_wrong_digit_changes_the_check_character(
    first_17: str, place: int, shift: int
) -> None:
    """What a check character is for."""
    wrong = str((int(first_17[place]) + shift) % 10)
    changed = first_17[:place] + wrong + first_17[place + 1 :]
    assert id_check_character(changed) != id_check_character(first_17)


@given(st.lists(SEVENTEEN, min_size=1, max_size=20))
def test_the_column_form_agrees_with_the_plain_one(numbers: list[str]) -> None:
    """The generator's own arithmetic is the same rule."""
    matrix = np.array([list(one.encode()) for one in numbers], np.uint8)
    assert bytes(check_characters(matrix)).decode() == "".join(map(id_check_character, numbers))


@pytest.mark.parametrize(
    "phone",
    [
        *("13800138000", "+86 138-0013-8000", "+8619912345678", "8613800138000"),
        *("0086 13800138000", "165 0000 1111"),
    ],
)
def test_mobile_numbers_are_valid_however_written(phone: str) -> None:
    """+86, spaces and hyphens are stripped first."""
    assert is_mobile(phone)


@pytest.mark.parametrize(
    "phone",
    ["12800001111", "1380013800", "138001380000", "1390O139000", "", "１３８００１３８０００"],
)
def test_other_numbers_are_refused(phone: str) -> None:
    """Wrong prefix, wrong length, letters, full-width digits."""
    assert not is_mobile(phone)


def test_the_published_s10_number_is_valid() -> None:
    """UPU S10's own example: RA 47312482 9 US."""
    assert s10_check_digit("47312482") == "9"
    assert is_waybill_number("RA473124829US")
    assert not is_waybill_number("RA473124828US")


@given(SERIAL)
def test_s10_check_digits_follow_the_remainder(serial: str) -> None:
    """11 less the remainder; 10 becomes 0 and 11 becomes 5."""
    total = sum(int(d) * w for d, w in zip(serial, (8, 6, 4, 2, 3, 5, 9, 7), strict=True))
    digit = int(s10_check_digit(serial))
    assert digit == [5, 0, 9, 8, 7, 6, 5, 4, 3, 2, 1][total % 11]


@pytest.mark.parametrize(
    ("number", "valid"),
    [
        ("SF1234567890123", True),
        ("123456789012", True),
        ("JD12345678901", True),
        ("JD1234567890123", True),
        ("SF123456789012", False),
        ("JD1234567890", False),
        ("JD12345678901234", False),
    ],
)
def test_domestic_waybill_numbers_have_their_carrier_s_form(number: str, *, valid: bool) -> None:
    """SF and JD publish forms without a check digit."""
    assert is_waybill_number(number) is valid
