"""Check digits follow the published rules, in both the plain and the column form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.sample_company.people import check_characters
from tests.support.id_numbers import id_check_character, is_id_number, s10_check_digit

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


def test_the_published_s10_number_is_valid() -> None:
    """UPU S10's own example: RA 47312482 9 US."""
    assert s10_check_digit("47312482") == "9"


@given(SERIAL)
def test_s10_check_digits_follow_the_remainder(serial: str) -> None:
    """11 less the remainder; 10 becomes 0 and 11 becomes 5."""
    total = sum(int(d) * w for d, w in zip(serial, (8, 6, 4, 2, 3, 5, 9, 7), strict=True))
    digit = int(s10_check_digit(serial))
    assert digit == [5, 0, 9, 8, 7, 6, 5, 4, 3, 2, 1][total % 11]
