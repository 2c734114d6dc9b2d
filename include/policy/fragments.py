"""SQL of a pack's author, and values, as parts of statements that have parameters.

Statements with such parts are executed with parameters, if only an empty mapping: psycopg then
reads ``%%`` as a percent sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg.sql import SQL, Composable, Identifier, Literal

_FALSE = SQL("false")


def pack_sql(text: str) -> Composable:
    """SQL of the pack's author as it is; a percent sign in it is no parameter."""
    return SQL(text.replace("%", "%%"))


def literal(value: Any) -> Composable:
    """A value as a literal; a percent sign in it is no parameter."""
    return fixed(Literal(value))


def quoted(*parts: str) -> Composable:
    """A qualified name; a percent sign in it is no parameter."""
    return fixed(Identifier(*parts))


def fixed(part: Composable) -> Composable:
    """A part without parameters, made elsewhere; a percent sign in it is none."""
    return pack_sql(part.as_string(None))


def any_of(conditions: Sequence[Composable]) -> Composable:
    """Return the condition that at least one of some conditions is met; false without any."""
    possible = [condition for condition in conditions if condition != _FALSE]
    return SQL("({})").format(SQL(" OR ").join(possible)) if possible else _FALSE


def all_of(conditions: Sequence[Composable]) -> Composable:
    """Return the condition that all of some conditions are met; true without any."""
    if _FALSE in conditions:
        return _FALSE
    return SQL("({})").format(SQL(" AND ").join(conditions)) if conditions else SQL("true")


def negated(condition: Composable) -> Composable:
    """A condition that must not hold; unknown counts as not holding."""
    return SQL("(({}) IS NOT TRUE)").format(condition)
