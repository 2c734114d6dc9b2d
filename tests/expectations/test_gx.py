"""Tests that Great Expectations knows every expectation that a policy pack may use.

ParcelSeal registers the expectations that Great Expectations does not define itself.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.policy.expectations import AnyExpectation, Expectation, is_within_mostly

CLASSES = get_args(get_args(AnyExpectation)[0])
TYPES = sorted(name for kind in CLASSES for name in get_args(kind.model_fields["type"].annotation))
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


def make_expectation(kind: str) -> Expectation:
    """Create an expectation of the given type.

    Args:
        kind: name of the type.
    """
    (cls,) = [cls for cls in CLASSES if kind in get_args(cls.model_fields["type"].annotation)]
    kwargs = KWARGS.get(kind, {"column": "a"})
    fields = {"id": "r", "type": kind, "kwargs": kwargs, "severity": "warn", "clause": "4.1"}
    return cls.model_validate({**fields, "title": TITLE})  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", TYPES)
def test_great_expectations_accepts_every_type_of_expectation_of_a_policy_pack(kind: str) -> None:
    """The classes of Great Expectations refuse unknown types and arguments."""
    from include.expectations import gx  # imports Great Expectations, in seconds

    expectation = gx.configuration_of(make_expectation(kind)).to_domain_obj()
    assert expectation.expectation_type == kind
    assert expectation.severity.value == "warning"


def test_each_expectation_type_is_defined_by_this_project_or_great_expectations() -> None:
    from great_expectations.expectations.registry import get_expectation_impl

    from include.expectations import gx

    assert set(gx.OURS) <= set(TYPES)
    for kind in set(TYPES) - set(gx.OURS):
        core = get_expectation_impl(kind).__mro__
        assert any(
            base.__module__.startswith("great_expectations.expectations.core") for base in core
        )


@given(
    rows=st.integers(0, 10**9),
    share=st.decimals("0.001", 1, places=3),
    broken=st.integers(0, 10**9),
)
def test_is_within_mostly_returns_true_if_exact_rate_of_passed_records_is_at_least_mostly(
    rows: int, share: Decimal, broken: int
) -> None:
    broken = min(broken, rows)
    good = Fraction(rows - broken, rows) if rows else Fraction(1)
    assert is_within_mostly(rows, broken, share) == (good >= Fraction(share))
