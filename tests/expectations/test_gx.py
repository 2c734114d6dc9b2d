"""The pack's expectations are Great Expectations' own, or ours registered with it."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.policy.expectations import AnyExpectation, Expectation, are_enough

CLASSES = get_args(get_args(AnyExpectation)[0])
TYPES = sorted(one for kind in CLASSES for one in get_args(kind.model_fields["type"].annotation))
TITLE = {"en": "x", "zh-CN": "x"}
KWARGS = {
    "expect_column_values_to_be_in_set": {"column": "a", "value_set": [1, 2]},
    "expect_column_values_to_match_regex": {"column": "a", "regex": "x"},
    "expect_column_values_to_not_match_regex": {"column": "a", "regex": "x"},
    "expect_column_value_lengths_to_be_between": {"column": "a", "min_value": 1},
    "expect_column_values_to_be_between": {"column": "a", "max_value": 3},
    "expect_compound_columns_to_be_unique": {"column_list": ["a", "b"]},
    "expect_column_pair_values_a_to_be_greater_than_b": {"column_A": "a", "column_B": "b"},
    "expect_table_row_count_to_be_between": {"min_value": 1},
    "expect_column_values_to_be_resident_id_numbers": {"column": "a", "part": "form"},
    "expect_column_values_to_exist_in": {"column": "a", "collection": "c", "field": "f"},
    "expect_column_values_to_be_recent": {"column": "a", "period": "P1D"},
    "expect_records_to_be_distinct": {"columns": ["a"]},
    "expect_records_to_satisfy": {"condition": "a > 0"},
    "expect_related_records": {"collection": "c", "field": "f", "key": "a"},
}


def made(kind: str) -> Expectation:
    """An expectation of a type."""
    (cls,) = [one for one in CLASSES if kind in get_args(one.model_fields["type"].annotation)]
    kwargs = KWARGS.get(kind, {"column": "a"})
    given = {"id": "r", "type": kind, "kwargs": kwargs, "severity": "warn", "clause": "4.1"}
    return cls.model_validate({**given, "title": TITLE})  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_the_pack_is_one_that_great_expectations_takes(kind: str) -> None:
    """By name and kwargs: its own classes refuse what they do not know."""
    from include.expectations import gx  # imports Great Expectations, in seconds

    expectation = gx.configuration_of(made(kind)).to_domain_obj()
    assert expectation.expectation_type == kind
    assert expectation.severity.value == "warning"


def test_our_types_are_told_from_its_own() -> None:
    """Every type of ours is one that a pack can write, and stands under its name."""
    from great_expectations.expectations.registry import get_expectation_impl

    from include.expectations import gx

    assert set(gx.OURS) <= set(TYPES)
    for kind in set(TYPES) - set(gx.OURS):
        core = get_expectation_impl(kind).__mro__
        assert any(
            one.__module__.startswith("great_expectations.expectations.core") for one in core
        )


@given(
    rows=st.integers(0, 10**9),
    share=st.decimals("0.001", 1, places=3),
    broken=st.integers(0, 10**9),
)
def test_a_share_is_compared_without_rounding(rows: int, share: Decimal, broken: int) -> None:
    """Met exactly when the broken are no more than the rest allows."""
    broken = min(broken, rows)
    good = Fraction(rows - broken, rows) if rows else Fraction(1)
    assert are_enough(rows, broken, share) == (good >= Fraction(share))
