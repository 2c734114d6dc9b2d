"""Tests of parsing ISO 8601 durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from include.policy.period import IsoPeriod, Period

_N = st.integers(0, 9999)


@given(*[st.none() | _N] * 7)
def test_period_parse_converts_years_to_months_and_weeks_to_days_and_hours_to_seconds(
    y, mo, w, d, h, mi, s
) -> None:
    date = "".join(f"{n}{u}" for n, u in [(y, "Y"), (mo, "M"), (w, "W"), (d, "D")] if n is not None)
    clock = "".join(f"{n}{u}" for n, u in [(h, "H"), (mi, "M"), (s, "S")] if n is not None)
    text = f"P{date}{'T' if clock else ''}{clock}"
    if text == "P":
        with pytest.raises(ValueError, match="ISO 8601"):
            Period.parse(text)
        return
    period = Period.parse(text)
    assert period.months == (y or 0) * 12 + (mo or 0)
    assert period.days == (w or 0) * 7 + (d or 0)
    assert period.seconds == (h or 0) * 3600 + (mi or 0) * 60 + (s or 0)
    assert str(period) == text


@pytest.mark.parametrize(
    "text",
    ["", "P", "PT", "P1DT", "2Y", "P2", "p2y", "P-1D", "-P1D", "P1.5D", "P1D2Y", "P2Y ", "PT1D",
     "P２Y", "90 days", "P1D\n", None, 90],
)  # fmt: skip
def test_period_parse_raises_value_error_for_text_that_is_no_iso_8601_duration(
    text: object,
) -> None:
    """Fractions, signs, a wrong order of parts, full-width digits and numbers are not accepted."""
    with pytest.raises(ValueError, match="ISO 8601 duration such as P2Y"):
        Period.parse(text)


def test_period_is_serialised_to_json_as_its_iso_8601_text() -> None:
    adapter = TypeAdapter(IsoPeriod)
    assert adapter.dump_json(adapter.validate_json('"P1Y6M"')) == b'"P1Y6M"'
