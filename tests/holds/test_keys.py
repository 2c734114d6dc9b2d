"""Tests that record keys are distinguished from phone and ID numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.holds.keys import refuse_personal, refuse_personal_key, split_key
from include.services.errors import UsageError

DATABASES = st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True)
# A store number such as ST151-2024-1125 contains a date and does not count as a mobile number.
MOBILES = st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True).filter(lambda text: text[3:5] != "20")


@given(DATABASES, st.text())
def test_split_key_separates_database_prefix_from_key_at_first_slash(
    database: str, key: str
) -> None:
    assert split_key(f"{database}/{key}") == (database, key)
    assert split_key(key.replace("/", "")) == (None, key.replace("/", ""))


@given(DATABASES, st.from_regex(r"[0-9]{1,30}", fullmatch=True))
def test_refuse_personal_key_accepts_digits_after_database_prefix(database: str, key: str) -> None:
    """Every record can be put on hold, even if its number looks like a phone number."""
    refuse_personal_key("A hold's value", f"{database}/{key}")


@given(DATABASES, MOBILES)
def test_refuse_personal_key_refuses_mobile_number_without_quoting_it(
    database: str, number: str
) -> None:
    for value in (
        number,
        f"{number}/12",
        f"{database}/+86{number}",
        f"{database}/{number[:3]} {number[3:7]} {number[7:]}",
    ):
        with pytest.raises(UsageError) as refused:
            refuse_personal_key("A hold's value", value)
        assert number not in str(refused.value)
    with pytest.raises(UsageError):
        refuse_personal("A hold's reason", f"called {number}")
