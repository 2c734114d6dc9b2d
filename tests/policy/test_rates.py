"""Rates are parsed, rounded and formatted exactly."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.policy.rates import (
    exact_text,
    parse_rate,
    percent_text,
    require_between_0_and_1,
    round_up,
)
from include.services.errors import UsageError


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("0.07", Fraction(7, 100)),
        ("7%", Fraction(7, 100)),
        (" 7 % ", Fraction(7, 100)),
        (".07", Fraction(7, 100)),
        ("7.%", Fraction(7, 100)),
        ("0", Fraction(0)),
        ("1", Fraction(1)),
        ("100%", Fraction(1)),
        ("1/30", Fraction(1, 30)),
        ("７％", Fraction(7, 100)),
        ("0.123456789012345678901234567890", Fraction(12345678901234567890123456789, 10**29)),
    ],
)
def test_parse_rate_returns_exact_fraction_of_decimal_percentage_or_ratio(
    text: str, rate: Fraction
) -> None:
    """Decimals, percentages and ratios are accepted, also in characters of a Chinese keyboard."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "nan",
        "inf",
        "-0.1",
        "+0.1",
        "7e-2",
        "0x1",
        "7%%",
        "seven",
        "1/0",
        "%",
        ".",
        "1 000",
    ],
)
def test_parse_rate_error_for_invalid_text_contains_the_expected_format(text: str) -> None:
    """Every comparison with `nan` is false, so `nan` as a rate would accept any population."""
    with pytest.raises(UsageError, match="not a rate") as refused:
        parse_rate(text, "tolerable rate")
    assert "0.07 or 7%" in str(refused.value)
    assert "tolerable rate" in str(refused.value)


def test_parse_rate_raises_usage_error_for_decimal_comma() -> None:
    """The text `0,07` could mean 7 or 0.07."""
    with pytest.raises(UsageError, match="comma"):
        parse_rate("0,07")


@pytest.mark.parametrize("text", ["7", "1.0001", "101%", "2/1"])
def test_parse_rate_raises_usage_error_for_rate_above_1(text: str) -> None:
    """A number without its percent sign, such as 7, must not be read as 700%."""
    with pytest.raises(UsageError, match="above 1"):
        parse_rate(text)


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(1)])
def test_require_between_0_and_1_raises_usage_error_for_0_and_1(rate: Fraction) -> None:
    """No sample can prove a tolerable rate of 0 or 1, or a confidence of 0 or 1."""
    with pytest.raises(UsageError, match="between 0 and 1"):
        require_between_0_and_1(rate, "tolerable rate")


def test_round_up_of_seven_percent_of_100_returns_exactly_7() -> None:
    """With floats the product is 7.000000000000001, and it would be rounded up to 8."""
    assert -(-0.07 * 100 // 1) == 8
    assert round_up(parse_rate("0.07") * 100, 0) == 7


@given(st.fractions(min_value=0, max_value=1))
def test_parse_rate_of_exact_text_returns_the_same_rate(rate: Fraction) -> None:
    """Evidence must state exactly the rate of the sampling plan."""
    if rate.denominator < 10**20:
        assert parse_rate(exact_text(rate)) == rate


@given(st.fractions(min_value=0, max_value=1), st.integers(0, 12))
def test_round_up_returns_at_least_the_rate_and_adds_less_than_one_unit_of_the_last_digit(
    rate: Fraction, places: int
) -> None:
    """A limit may be rounded too high by less than one unit of the last digit, never too low."""
    rounded = round_up(rate, places)
    assert 0 <= Fraction(rounded) - rate < Fraction(1, 10**places)


def test_percent_text_is_rounded_up_and_has_no_trailing_zeros() -> None:
    assert percent_text(Fraction(7, 100)) == "7%"
    assert percent_text(Fraction(1, 400)) == "0.25%"
    assert percent_text(Fraction(1, 3), 1) == "33.4%"
    assert round_up(Fraction(1, 3), 2) == Decimal("0.34")
