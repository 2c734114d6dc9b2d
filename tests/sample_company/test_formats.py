"""Tests that check digits follow the published rules, for single values and for columns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.sample_company.identities import check_characters
from tests.support.id_numbers import id_check_character, is_id_number, s10_check_digit

SEVENTEEN = st.text("0123456789", min_size=17, max_size=17)
SERIAL = st.text("0123456789", min_size=8, max_size=8)


@pytest.mark.parametrize(
    "number", ["11010519491231002X", "53010219200508011X", "11010519491231002x"]
)
def test_is_id_number_accepts_published_id_numbers(number: str) -> None:
    """The numbers are the examples of GB 11643-1999, and one of them with a lower-case x."""
    assert is_id_number(number)


@pytest.mark.parametrize(
    "number",
    [
        "530102192005080119",  # wrong check character
        "11010519490230002X",  # invalid date
        "110105194912310021",
        "1101051949123100２X",  # a full-width digit
        "11010519491231002X ",
        "11010519491231002",
        "",
    ],
)
def test_is_id_number_returns_false_if_format_birth_date_or_check_character_is_invalid(
    number: str,
) -> None:
    """The function verifies the format, the birth date and the check character."""
    assert not is_id_number(number)


@given(SEVENTEEN)
def test_weighted_sum_of_an_id_number_is_1_modulo_11(first_17: str) -> None:
    """By ISO 7064 MOD 11-2, the sum weighted by powers of two has the remainder 1."""
    values = [10 if c == "X" else int(c) for c in first_17 + id_check_character(first_17)]
    assert sum(value * 2 ** (17 - index) for index, value in enumerate(values)) % 11 == 1


@given(SEVENTEEN, st.integers(0, 16), st.integers(1, 9))
def test_change_of_one_digit_of_an_id_number_changes_its_check_character(
    first_17: str, index: int, shift: int
) -> None:
    wrong = str((int(first_17[index]) + shift) % 10)
    changed = first_17[:index] + wrong + first_17[index + 1 :]
    assert id_check_character(changed) != id_check_character(first_17)


@given(st.lists(SEVENTEEN, min_size=1, max_size=20))
def test_check_characters_of_a_column_equal_those_of_single_id_numbers(numbers: list[str]) -> None:
    """The sample generator computes the same check characters for a whole column at once."""
    matrix = np.array([list(number.encode()) for number in numbers], np.uint8)
    assert bytes(check_characters(matrix)).decode() == "".join(map(id_check_character, numbers))


def test_check_digit_of_the_published_s10_example_is_correct() -> None:
    """The number is the example of UPU S10: RA 47312482 9 US."""
    assert s10_check_digit("47312482") == "9"


@given(SERIAL)
def test_s10_check_digit_is_computed_from_the_remainder_of_the_weighted_sum(serial: str) -> None:
    """The digit is 11 minus the remainder, where 10 becomes 0 and 11 becomes 5."""
    total = sum(int(d) * w for d, w in zip(serial, (8, 6, 4, 2, 3, 5, 9, 7), strict=True))
    digit = int(s10_check_digit(serial))
    assert digit == [5, 0, 9, 8, 7, 6, 5, 4, 3, 2, 1][total % 11]
