"""How keys are written: what is a key, and what is a person's number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.holds.keys import refuse_personal, refuse_personal_key, split
from include.services.errors import UsageError

DATABASES = st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True)
# Store numbers with a date, ST151-2024-1125, are told from mobile numbers by that date.
MOBILES = st.from_regex(r"1[3-9][0-9]{9}", fullmatch=True).filter(lambda one: one[3:5] != "20")


@given(DATABASES, st.text())
def test_a_key_behind_its_database_is_itself(database: str, key: str) -> None:
    """Whatever it has, slashes too; without a slash there is no database."""
    assert split(f"{database}/{key}") == (database, key)
    assert split(key.replace("/", "")) == (None, key.replace("/", ""))


@given(DATABASES, st.from_regex(r"[0-9]{1,30}", fullmatch=True))
def test_digits_behind_a_database_are_always_a_key(database: str, key: str) -> None:
    """Every record can be held, whatever its number looks like."""
    refuse_personal_key("A hold's value", f"{database}/{key}")


@given(DATABASES, MOBILES)
def test_a_mobile_number_alone_is_refused_and_not_repeated(database: str, number: str) -> None:
    """As are one before the slash and one with its country code."""
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
