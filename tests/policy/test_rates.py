"""Rates are exact, and what is no rate is named."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.policy.rates import between, ceiling, exact, parse_rate, percent
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
def test_a_rate_is_read_exactly(text: str, rate: Fraction) -> None:
    """Decimals, percentages and ratios, also as a Chinese keyboard writes them."""
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
def test_what_is_no_rate_is_refused_with_the_way_to_write_one(text: str) -> None:
    """`nan` compares with nothing, so that it would accept any population."""
    with pytest.raises(UsageError, match="no rate") as refused:
        parse_rate(text, "tolerable rate")
    assert "0.07 or 7%" in str(refused.value)
    assert "tolerable rate" in str(refused.value)


def test_a_decimal_comma_is_told_as_what_it_is() -> None:
    """`0,07` is neither 7 nor 0.07 until somebody says so."""
    with pytest.raises(UsageError, match="comma"):
        parse_rate("0,07")


@pytest.mark.parametrize("text", ["7", "1.0001", "101%", "2/1"])
def test_more_than_all_is_refused(text: str) -> None:
    """A forgotten percent sign does not become 700%."""
    with pytest.raises(UsageError, match="above 1"):
        parse_rate(text)


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(1)])
def test_none_and_all_decide_nothing(rate: Fraction) -> None:
    """A tolerable rate or a confidence of 0 or 1 cannot be shown by a sample."""
    with pytest.raises(UsageError, match="between 0 and 1"):
        between(rate, "tolerable rate")


def test_seven_per_cent_of_a_hundred_is_seven() -> None:
    """In doubles it is 7.000000000000001, and its ceiling 8."""
    assert -(-0.07 * 100 // 1) == 8
    assert ceiling(parse_rate("0.07") * 100, 0) == 7


@given(st.fractions(min_value=0, max_value=1))
def test_a_rate_survives_being_written_and_read(rate: Fraction) -> None:
    """What an artifact states is the very rate that was planned with."""
    if rate.denominator < 10**20:
        assert parse_rate(exact(rate)) == rate


@given(st.fractions(min_value=0, max_value=1), st.integers(0, 12))
def test_rounding_never_tells_less_than_there_is(rate: Fraction, places: int) -> None:
    """A limit may be told too high by less than one digit, never too low."""
    told = ceiling(rate, places)
    assert 0 <= Fraction(told) - rate < Fraction(1, 10**places)


def test_people_read_percentages() -> None:
    """Without zeros that nobody wrote."""
    assert percent(Fraction(7, 100)) == "7%"
    assert percent(Fraction(1, 400)) == "0.25%"
    assert percent(Fraction(1, 3), 1) == "33.4%"
    assert ceiling(Fraction(1, 3), 2) == Decimal("0.34")
