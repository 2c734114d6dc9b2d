"""Translate expectations that Great Expectations defines into SQL that fits the column types.

Great Expectations compares a column with arguments of YAML's types, but for many column types
PostgreSQL has no operator for this comparison. Great Expectations also pads char(n) values before
it matches a pattern, and treats a date as midnight at the start of the day. This module casts the
arguments to the type that the column has in the database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from include.expectations.types import (
    CALENDAR,
    NUMBERS,
    ColumnType,
    Kind,
    in_zone,
    local_form,
    text_literal,
)
from include.policy.expectations import Expectation
from include.policy.kwargs import Between, ColumnPair, Lengths, Regex, ValueSet

DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_LARGEST = 2**63 - 1
Value = str | int | float | bool


@dataclass(frozen=True)
class Bound:
    """The lower or upper limit of a range, as SQL.

    Attributes:
        sql: SQL expression of the limit, cast to the type that is used to compare the column.
        comparison: operator that is true for values in the range, as in ``value <= sql`` for an
            upper limit.
    """

    sql: str
    comparison: str


def broken_sql(
    expectation: Expectation,
    columns: Mapping[str, str],
    types: Mapping[str, ColumnType],
    timezone: str,
) -> str | None:
    """Return the SQL condition under which a record breaks an expectation of Great Expectations.

    Args:
        expectation: an expectation that fits the types of its columns (`include.expectations.fit`).
        columns: SQL of the record's columns, by name.
        types: types of the columns, by name.
        timezone: IANA name of the policy pack's timezone, in which days begin and end.

    Returns:
        The condition, whose value is null if the value of the column is null. If the SQL of this
        expectation does not depend on column types, the function returns None, and
        `include.expectations.conditions` builds the SQL.
    """
    kwargs = expectation.kwargs
    if isinstance(kwargs, ValueSet):
        column, kind = columns[kwargs.column], types[kwargs.column]
        members = ", ".join(
            value_set_member_sql(value, kind, timezone) for value in kwargs.value_set
        )
        return f"NOT ({equal_form(column, kind)} IN ({members}))"
    if isinstance(kwargs, Regex):
        column, kind = columns[kwargs.column], types[kwargs.column]
        operator = "~*" if kind.kind is Kind.CASELESS else "~"
        matches = f"({text_form(column, kind)} {operator} {text_literal(kwargs.regex)})"
        return matches if "_not_" in expectation.type else f"NOT {matches}"
    if isinstance(kwargs, Lengths):
        length = length_form(columns[kwargs.column], types[kwargs.column])
        ends = [(kwargs.min_value, ">="), (kwargs.max_value, "<=")]
        inside = [f"{length} {sign} {end}::bigint" for end, sign in ends if end is not None]
        return f"NOT ({' AND '.join(inside)})"
    if isinstance(kwargs, Between):
        return _outside(kwargs, columns[kwargs.column], types[kwargs.column], timezone)
    if isinstance(kwargs, ColumnPair):
        return _not_greater(kwargs, columns, types, timezone)
    return None


def text_form(column: str, kind: ColumnType) -> str:
    """Return SQL that casts a column to text.

    Values of char(n) lose their padding, and values of money have no currency sign.

    Args:
        column: SQL expression of the column.
        kind: type of the column.
    """
    return f"{column}::numeric::text" if kind.kind is Kind.MONEY else f"{column}::text"


def length_form(column: str, kind: ColumnType) -> str:
    """Return SQL for the length of a column's value.

    The SQL counts bytes for bytea, bits for bit strings, and characters for all other types.

    Args:
        column: SQL expression of the column.
        kind: type of the column.
    """
    if kind.kind is Kind.BYTES:
        return f"octet_length({column})"
    if kind.kind is Kind.BITS:
        return f"length({column})"
    return f"char_length({text_form(column, kind)})"


def equal_form(column: str, kind: ColumnType) -> str:
    """Return SQL that casts a column to the type in which it is compared with allowed values.

    Args:
        column: SQL expression of the column.
        kind: type of the column.
    """
    match kind.kind:
        case Kind.TEXT:
            return f"{column}::text"
        case Kind.CASELESS:
            return f"lower({column}::text)"
        case Kind.MONEY:
            return f"{column}::numeric"
        case _:
            return f"{column}::{kind.sql}"


def value_set_member_sql(value: Value, kind: ColumnType, timezone: str) -> str:
    """Return SQL for one allowed value, cast to the type in which the column is compared.

    `equal_form` casts the column to the same type.

    Args:
        value: value in the policy pack.
        kind: type of the column.
        timezone: IANA name of the timezone in which dates, and times without an offset, are
            interpreted.
    """
    literal = text_literal(castable_text(value))
    match kind.kind:
        case Kind.TEXT if kind.sql == "pg_catalog.bpchar":
            return f"{text_literal(castable_text(value).rstrip(' '))}::text"
        case Kind.TEXT:
            return f"{literal}::text"
        case Kind.CASELESS:
            return f"lower({literal}::text)"
        case Kind.MONEY:
            return f"{literal}::numeric"
        case Kind.LOCAL | Kind.MOMENT:
            return _end(value, kind, timezone, 0)
        case _:
            return f"{literal}::{kind.sql}"


def castable_text(value: Value) -> str:
    """Return a value of the policy pack as text that PostgreSQL can cast to a column type."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def order_form(column: str, kind: ColumnType) -> str:
    """Return SQL that casts a column to the type in which it is compared with limits of a range.

    Args:
        column: SQL expression of the column.
        kind: type of the column.
    """
    match kind.kind:
        case Kind.TEXT:
            return f'{column}::text COLLATE "C"'
        case Kind.CASELESS:
            return f'lower({column}::text) COLLATE "C"'
        case Kind.MONEY:
            return f"{column}::numeric"
        case Kind.INTEGER if kind.sql == "pg_catalog.oid":
            return f"{column}::bigint"
        case _:
            return f"{column}::{kind.sql}"


def bounds(kwargs: Between, kind: ColumnType, timezone: str) -> dict[str, Bound]:
    """Return the limits of a range, by name of the argument that defines them.

    The names are ``min_value`` and ``max_value``. A missing limit is not in the result.

    Args:
        kwargs: arguments of the expectation.
        kind: type of the column.
        timezone: IANA name of the timezone in which dates, and times without an offset, are
            interpreted.
    """
    ends: dict[str, Bound] = {}
    if kwargs.min_value is not None:
        is_after = kwargs.strict_min and _is_whole_day(kwargs.min_value, kind)
        sign = ">" if kwargs.strict_min and not is_after else ">="
        ends["min_value"] = Bound(_end(kwargs.min_value, kind, timezone, int(is_after)), sign)
    if kwargs.max_value is not None:
        is_day = _is_whole_day(kwargs.max_value, kind)
        sign = "<" if kwargs.strict_max or is_day else "<="
        after = int(is_day and not kwargs.strict_max)
        ends["max_value"] = Bound(_end(kwargs.max_value, kind, timezone, after), sign)
    return ends


def _is_whole_day(value: Value, kind: ColumnType) -> bool:
    is_day = isinstance(value, str) and DAY.fullmatch(value) is not None
    return is_day and kind.kind in (Kind.LOCAL, Kind.MOMENT)


def _end(value: Value, kind: ColumnType, timezone: str, days_after: int) -> str:
    text = castable_text(value)
    literal = text_literal(text)
    match kind.kind:
        case Kind.INTEGER if isinstance(value, int) and abs(value) <= _LARGEST:
            return f"{literal}::bigint"
        case Kind.INTEGER | Kind.EXACT | Kind.MONEY:
            return f"{literal}::numeric"
        case Kind.TEXT | Kind.CASELESS:
            form = f"lower({literal}::text)" if kind.kind is Kind.CASELESS else f"{literal}::text"
            return f'{form} COLLATE "C"'
        case Kind.LOCAL | Kind.MOMENT if DAY.fullmatch(text):
            start = f"({literal}::date + {days_after})::timestamp"
            return start if kind.kind is Kind.LOCAL else in_zone(start, timezone)
        case Kind.MOMENT if not _has_offset(text):
            return in_zone(f"{literal}::timestamp", timezone)
        case _:
            return f"{literal}::{kind.sql}"


def _has_offset(moment: str) -> bool:
    return re.search(r"(?:Z|[+-]\d\d(?::?\d\d)?)$", moment[len("2026-10-01") :]) is not None


def _outside(kwargs: Between, column: str, kind: ColumnType, timezone: str) -> str:
    value = order_form(column, kind)
    inside = [
        f"{value} {end.comparison} {end.sql}" for end in bounds(kwargs, kind, timezone).values()
    ]
    return f"NOT ({' AND '.join([*inside, *_numbers_only(column, kind)])})"


def _numbers_only(column: str, kind: ColumnType) -> list[str]:
    """Return a list with the SQL condition that a number is not NaN ("not a number").

    PostgreSQL sorts NaN above all numbers, so a range without an upper limit would contain NaN. The
    list is empty for a type that has no NaN.

    Args:
        column: SQL expression of the column.
        kind: type of the column.
    """
    if kind.kind in (Kind.EXACT, Kind.FLOAT):
        return [f"{column}::{kind.sql} <> 'NaN'::{kind.sql}"]
    return []


def _not_greater(
    kwargs: ColumnPair,
    columns: Mapping[str, str],
    types: Mapping[str, ColumnType],
    timezone: str,
) -> str:
    names = (kwargs.column_A, kwargs.column_B)
    kinds = [types[name].kind for name in names]
    a, b = (order_form(columns[name], types[name]) for name in names)
    if set(kinds) <= CALENDAR and kinds[0] is not kinds[1]:
        as_day = Kind.DAY in kinds
        a, b = (local_form(columns[name], types[name], timezone, as_day) for name in names)
    sign = ">=" if kwargs.or_equal else ">"
    numbers = [number for name in names for number in _numbers_only(columns[name], types[name])]
    return f"NOT ({' AND '.join([f'{a} {sign} {b}', *numbers])})"


def are_comparable(a: ColumnType, b: ColumnType) -> bool:
    """Return whether PostgreSQL can decide which of two columns has the greater value.

    Args:
        a: type of the first column.
        b: type of the second column.
    """
    families = (NUMBERS, CALENDAR, {Kind.TEXT}, {Kind.CASELESS}, {Kind.TIME}, {Kind.INTERVAL})
    if any(a.kind in family and b.kind in family for family in families):
        return True
    return a.sql == b.sql and a.kind in (Kind.ENUM, Kind.WORD)
