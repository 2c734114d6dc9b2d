"""Tests of joining SQL conditions with AND and OR."""

from __future__ import annotations

import pytest
from psycopg.sql import SQL, Composable

from include.policy.fragments import all_of, any_of

FALSE, X, Y = SQL("false"), SQL("x"), SQL("y")


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [([], "false"), ([FALSE], "false"), ([FALSE, X], "(x)"), ([X, Y], "(x OR y)")],
)
def test_any_of_joins_sql_conditions_with_or(conditions: list[Composable], expected: str) -> None:
    assert any_of(conditions).as_string() == expected


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [([], "true"), ([X], "(x)"), ([X, FALSE], "false"), ([X, Y], "(x AND y)")],
)
def test_all_of_joins_sql_conditions_with_and(conditions: list[Composable], expected: str) -> None:
    assert all_of(conditions).as_string() == expected
