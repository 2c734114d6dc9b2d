"""Conditions of SQL that are put together from others."""

from __future__ import annotations

import pytest
from psycopg.sql import SQL, Composable

from include.policy.fragments import all_of, any_of

FALSE, X, Y = SQL("false"), SQL("x"), SQL("y")


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [([], "false"), ([FALSE], "false"), ([FALSE, X], "(x)"), ([X, Y], "(x OR y)")],
)
def test_either_is_true_if_one_condition_is(conditions: list[Composable], expected: str) -> None:
    assert any_of(conditions).as_string() == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [([], "true"), ([X], "(x)"), ([X, FALSE], "false"), ([X, Y], "(x AND y)")],
)
def test_both_is_true_if_all_conditions_are(conditions: list[Composable], expected: str) -> None:
    assert all_of(conditions).as_string() == expected
