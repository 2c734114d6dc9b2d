"""Build fragments of SQL statements from SQL text in the policy pack and from values.

A fragment contains each percent sign as ``%%``. Psycopg reads ``%%`` as a percent sign only if the
statement is executed with parameters. If a statement has none, pass an empty mapping.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.sql import SQL, Composable, Identifier, Literal

_FALSE = SQL("false")


def pack_sql(text: str) -> Composable:
    """Return an SQL text of the policy pack as a fragment, with its percent signs escaped."""
    return SQL(text.replace("%", "%%"))


def literal(value: Any) -> Composable:
    """Return a value as an SQL literal with its percent signs escaped."""
    return escape_percent(Literal(value))


def quoted(*parts: str) -> Composable:
    """Return a quoted SQL name, such as ``"schema"."table"``, with its percent signs escaped.

    Args:
        parts: the names that are joined with dots, such as schema and table.
    """
    return escape_percent(Identifier(*parts))


def escape_percent(part: Composable) -> Composable:
    """Return an SQL fragment in which each percent sign is written as ``%%``.

    The fragment must not have query parameters.

    Args:
        part: the fragment.
    """
    return pack_sql(part.as_string(None))


def any_of(conditions: Sequence[Composable]) -> Composable:
    """Join SQL conditions with OR. Without any conditions, return the condition ``false``."""
    possible = [condition for condition in conditions if condition != _FALSE]
    return SQL("({})").format(SQL(" OR ").join(possible)) if possible else _FALSE


def all_of(conditions: Sequence[Composable]) -> Composable:
    """Join SQL conditions with AND. Without any conditions, return the condition ``true``."""
    if _FALSE in conditions:
        return _FALSE
    return SQL("({})").format(SQL(" AND ").join(conditions)) if conditions else SQL("true")


def is_not_true(condition: Composable) -> Composable:
    """Return an SQL condition that is true if another condition is false or null."""
    return SQL("(({}) IS NOT TRUE)").format(condition)
