"""Tests that SQL conditions for formats and the same rules in Python give the same results."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.expectations import formats
from include.local.postgres import EmbeddedPostgres

TODAY = date(2026, 3, 2)
DIGITS = st.text("0123456789", min_size=17, max_size=17)
DAYS = st.builds(
    lambda year, month, day: f"{year:04}{month:02}{day:02}",
    st.sampled_from([0, 1, 1899, 1900, 1999, 2000, 2023, 2024, 2026, 2027]),
    st.integers(0, 13),
    st.integers(0, 32),
)
NUMBERS = st.one_of(
    st.builds(
        lambda digits, day, last: digits[:6] + day + digits[14:] + last,
        DIGITS,
        DAYS,
        st.sampled_from("0123456789Xx"),
    ),
    st.text(max_size=19).filter(lambda text: "\x00" not in text),
    st.none(),
)
PHONES = st.one_of(
    st.from_regex(r"\A[ -]?((\+|00)?86)?[ -]?1[0-9]([ -]?[0-9]){8,10}[ -]?\Z"),
    st.text("0123456789 -+a", max_size=20),
    st.none(),
)


@pytest.fixture(scope="module")
def connection(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as connection:
        yield connection


def evaluate(connection: psycopg.Connection, condition: str, value: str | None) -> bool | None:
    # OFFSET 0, because the planner would evaluate each branch of a CASE over a constant.
    query = f"SELECT {condition} FROM (SELECT %s::text AS v OFFSET 0) AS given"
    row = connection.execute(query.replace(" % ", " %% ").encode(), [value]).fetchone()
    assert row is not None
    return row[0]


def has_form(number: str) -> bool:
    return re.fullmatch("[0-9]{17}[0-9Xx]", number, re.ASCII) is not None


def is_day(text: str) -> bool:
    try:
        day = date(int(text[:4]), int(text[4:6]), int(text[6:]))
        return date(1900, 1, 1) <= day <= TODAY
    except ValueError:
        return False


@settings(max_examples=300, deadline=None)
@given(NUMBERS)
def test_sql_condition_accepts_id_number_only_if_its_birth_date_exists_in_calendar(
    connection: psycopg.Connection, number: str | None
):
    """The date must exist and must not be in the future. The condition is null for other texts."""
    is_broken = evaluate(
        connection, formats.not_resident_id_birth_date("v", f"'{TODAY:%Y%m%d}'"), number
    )
    expected = not is_day(number[6:14]) if number is not None and has_form(number) else None
    assert is_broken is expected


@settings(max_examples=300, deadline=None)
@given(NUMBERS)
def test_sql_condition_for_check_character_gives_same_result_as_algorithm_of_standard(
    connection: psycopg.Connection, number: str | None
):
    """The weighted sum modulo 11 selects one of eleven check characters (GB 11643-1999, 6)."""
    is_broken = evaluate(connection, formats.not_resident_id_check_character("v"), number)
    expected = None
    if number is not None and has_form(number):
        total = sum(
            int(digit) * weight for digit, weight in zip(number, formats.WEIGHTS, strict=False)
        )
        expected = number[17].upper() != "10X98765432"[total % 11]
    assert is_broken is expected


@pytest.mark.parametrize("last", "0123456789Xx")
def test_check_character_condition_accepts_only_x_for_example_number_of_standard(
    connection: psycopg.Connection, last: str
):
    """For the number in the standard's example, only X is right, in upper or lower case."""
    number = "11010519491231002" + last
    is_broken = evaluate(connection, formats.not_resident_id_check_character("v"), number)
    assert is_broken is (last.upper() != "X")


@settings(max_examples=300, deadline=None)
@given(PHONES)
def test_mobile_number_condition_gives_the_same_result_as_its_regular_expression(
    connection: psycopg.Connection, phone: str | None
):
    """For numbers of 11 digits, the condition uses faster SQL, not the regular expression."""
    is_broken = evaluate(connection, formats.not_mobile_number("v"), phone)
    assert is_broken is (None if phone is None else re.fullmatch(formats.MOBILE, phone) is None)
