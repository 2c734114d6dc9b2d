"""Models of the ``kwargs`` of expectations: the arguments of each expectation type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from include.policy.period import PositivePeriod
from include.policy.rules import Name, Rule, Text, require_items

Names = Annotated[tuple[Name, ...], AfterValidator(require_items)]
Condition = Annotated[Text, Field(max_length=2000)]
"""A boolean SQL expression over the columns of the record; ``:now`` is the moment of the check."""
NOW = re.compile(r"(?<![:\w]):now\b")

Scope = Literal["changed", "all"]


def uses_now(kwargs: Mapping[str, Any]) -> bool:
    """Return whether the SQL in an expectation's arguments uses ``:now``, the time of the check."""
    conditions = (kwargs.get(key) for key in ("condition", "where"))
    return any(NOW.search(sql) for sql in conditions if sql)


def _default_scope(kwargs: Mapping[str, Any]) -> Scope:
    """Return the default of ``scope``: ``all`` if the SQL uses ``:now``, otherwise ``changed``.

    With ``:now``, an unchanged record may break the expectation as time passes, so all records have
    to be checked again.
    """
    return "all" if uses_now(kwargs) else "changed"


class Kwargs(Rule):
    """Arguments that every expectation about records accepts.

    Attributes:
        mostly: Share of the records that has to meet the expectation, above 0 and at most 1.
    """

    mostly: Annotated[float, Field(gt=0, le=1)] = 1.0


class Column(Kwargs):
    """Arguments of an expectation about one column of the record.

    Attributes:
        column: Column of the record. A record in which the column is null is skipped.
    """

    column: Name


class NullableColumn(Column):
    """Arguments of the expectation that a column is not null.

    Attributes:
        column: Column of the record. A record in which the column is null breaks the expectation.
    """


class ColumnWhere(Column):
    """Arguments of an expectation about one column, with a condition that selects the records.

    Attributes:
        where: SQL condition that selects the records to check; default: all records.
    """

    where: Condition | None = None


class NotBlank(ColumnWhere):
    """Arguments of the expectation that a text has a visible character.

    Attributes:
        column: Column of the record. A record in which the column is null breaks the expectation.
    """


class Uncollected(Column):
    """Arguments of the expectation that a column, or a key inside a JSON column, has no value.

    Attributes:
        column: Column of the record. A record in which the column is null meets the expectation.
        path: Path of a key inside the JSON column, as a list of names; empty for the whole column.
    """

    path: tuple[Name, ...] = ()


class ValueSet(Column):
    """Arguments of the expectation that a value is in a list of allowed values.

    A record in which the column is null is skipped.

    Attributes:
        value_set: Allowed values.
    """

    value_set: Annotated[tuple[str | int | float | bool, ...], AfterValidator(require_items)]


class Regex(Column):
    """Arguments of the expectations about a regular expression.

    PostgreSQL's operator ``~`` matches the regular expression against the text representation of
    the value. For char(n) this text has no padding. A record in which the column is null is
    skipped.

    Attributes:
        regex: POSIX regular expression.
    """

    regex: Text


def _check_range(least: Any, most: Any) -> None:
    if least is None and most is None:
        raise ValueError("min_value or max_value is required")
    if least is not None and most is not None:
        if isinstance(least, str) is not isinstance(most, str):
            raise ValueError("min_value and max_value have different types")
        if _is_above(least, most):
            raise ValueError(f"min_value {least} is above max_value {most}")


def _is_above(least: Any, most: Any) -> bool:
    """Return whether the minimum of a range is above its maximum.

    The order of some values depends on the type of the column. For such values, return False.

    Args:
        least: the minimum; None if the range has none.
        most: the maximum; None if the range has none.
    """
    if not isinstance(least, str):
        return bool(least > most)
    if not (_LIKE_A_DAY.match(least) and _LIKE_A_DAY.match(most)):
        return False
    ends = datetime.fromisoformat(least), datetime.fromisoformat(most)
    if len(most) == len("2026-10-01"):  # a date includes its whole day
        ends = ends[0], ends[1] + timedelta(days=1)
    return (ends[0].tzinfo is None) == (ends[1].tzinfo is None) and ends[0] > ends[1]


def _check_bound(value: int | float | str) -> int | float | str:
    if isinstance(value, str) and _LIKE_A_DAY.match(value):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            message = "should be a day or moment of the calendar: 2026-10-01, 2026-10-01T08:30"
            raise ValueError(message) from None
    return value


class Lengths(Column):
    """Arguments of the expectation about the number of characters of a text.

    Both limits are included in the range.

    Attributes:
        min_value: Smallest number of characters.
        max_value: Largest number of characters.
    """

    min_value: Annotated[int, Field(ge=0)] | None = None
    max_value: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _range(self) -> Lengths:
        _check_range(self.min_value, self.max_value)
        return self


_LIKE_A_DAY = re.compile(r"\d{4}-\d{1,2}-\d", re.ASCII)
Bound = Annotated[int | float | Name, AfterValidator(_check_bound)]


class Between(Column):
    """Arguments of the expectation that a value is within a range.

    Attributes:
        min_value: Lowest value: a number, or a text in the format of the column's type, such as a
            date, a timestamp or a label of an enum type.
        max_value: Highest value, in the format of ``min_value``. If the column is a timestamp and
            this value is a date, the whole day in the pack's timezone is included.
        strict_min: Whether ``min_value`` itself is outside of the range.
        strict_max: Whether ``max_value`` itself is outside of the range.
    """

    min_value: Bound | None = None
    max_value: Bound | None = None
    strict_min: bool = False
    strict_max: bool = False

    @model_validator(mode="after")
    def _range(self) -> Between:
        _check_range(self.min_value, self.max_value)
        return self


class RowCount(Rule):
    """Arguments of the expectation about the number of rows in a table.

    Both limits are included in the range.

    Attributes:
        min_value: Smallest number of rows.
        max_value: Largest number of rows.
    """

    min_value: Annotated[int, Field(ge=0)] | None = None
    max_value: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _range(self) -> RowCount:
        _check_range(self.min_value, self.max_value)
        return self


class ColumnList(Kwargs):
    """Arguments of the expectation that a combination of values occurs in only one record.

    Attributes:
        column_list: Columns whose combined values are compared. If several records have the same
            values, all of them break the expectation. A record in which one of the columns is null
            is skipped.
    """

    column_list: Annotated[Names, Field(min_length=2)]


class ColumnPair(Kwargs):
    """Arguments of the expectation that a column has a greater value than another column.

    A record in which one of the columns is null is skipped.

    Attributes:
        column_A: Column with the greater value.
        column_B: Column with the smaller value.
        or_equal: Whether both values may be equal.
    """

    column_A: Name  # noqa: N815 - Great Expectations' own spelling
    column_B: Name  # noqa: N815
    or_equal: bool = False


class ResidentId(ColumnWhere):
    """Arguments of the expectations about the digits of a resident ID number (GB 11643-1999).

    Attributes:
        part: Property of the number that is checked: ``form`` (17 digits and a digit or X),
            ``birth_date`` (digits 7 to 14 are a date that is not in the future) or
            ``check_character``. ``birth_date`` and ``check_character`` check only numbers that meet
            ``form``, so a faulty number is reported only once.
    """

    part: Literal["form", "birth_date", "check_character"]


class ExistsIn(ColumnWhere):
    """Arguments of the expectation that a value occurs in another collection.

    Attributes:
        collection: Other collection of the same database, which lists the allowed values.
        field: Field of the other collection that contains the allowed values.
        retired_on: Field of the other collection with the date on which a value was withdrawn. The
            field is null if the value was not withdrawn.
    """

    collection: Name
    field: Name
    retired_on: Name | None = None


class ExistsAt(ExistsIn):
    """Arguments of the expectation that a value was valid on the date of the record.

    Another collection lists the values, with the dates between which each value is valid.

    Attributes:
        valid_from: Field of the other collection with the date from which a value is valid. If the
            field is null, the value is valid up to ``retired_on``.
        at: Date or timestamp column of the record. The value has to be valid on this day in the
            pack's timezone. The days in ``valid_from`` and ``retired_on`` count as valid. If the
            column is null, the value only has to be in the list.
    """

    valid_from: Name | None = None
    at: Name | None = None

    @model_validator(mode="after")
    def _dated(self) -> ExistsAt:
        if (self.at is None) != (self.valid_from is None and self.retired_on is None):
            raise ValueError("at requires valid_from or retired_on")
        return self


class ResidentIdDivision(ExistsIn):
    """Arguments of the expectation that a resident ID number has the code of a real division.

    Digits 1 to 6 of the number are the code of an administrative division. GB 11643-1999 takes this
    code from GB/T 2260. A withdrawn code stays in existing ID numbers. A number with a withdrawn
    code therefore breaks the expectation only if the code was withdrawn before the holder's birth
    (digits 7 to 14). A value that is not a resident ID number is skipped.

    Attributes:
        part: ``division``: digits 1 to 6 have to be in the list, and must not have been withdrawn
            before the holder's birth.
    """

    part: Literal["division"]


class Recent(ColumnWhere):
    """Arguments of the expectation that a date or timestamp is not older than a given period.

    Attributes:
        period: Greatest age, counted back from the time of the check in the pack's timezone. With
            ``P30D`` and a check on 31 October at 10:00, a timestamp before 1 October 10:00 is too
            old, and so is a date before 1 October.
    """

    period: PositivePeriod


class Distinct(Kwargs):
    """Arguments of the expectation that no two records have the same values in some columns.

    Attributes:
        columns: Columns whose combined values are compared. If several records have the same
            values, the record with the smallest primary key meets the expectation, and the others
            break it. A record in which one of the columns is null is skipped.
        where: SQL condition that selects the records to check; default: all records.
    """

    columns: Names
    where: Condition | None = None


class Satisfy(Kwargs):
    """Arguments of the expectation that a record meets an SQL condition.

    A record meets the condition if the result is unknown (null).

    Attributes:
        condition: SQL condition over the columns of the record. ``:now`` is the time of the check.
        where: SQL condition that selects the records to check; default: all records.
        scope: Records that an incremental check reads: ``changed`` or ``all``. Use ``all`` if a
            record that did not change can start to break the expectation, because time passes or
            another table changes. Default: ``all`` if the SQL uses ``:now``, otherwise ``changed``.
    """

    condition: Condition
    where: Condition | None = None
    scope: Scope = Field(default_factory=_default_scope)  # after the SQL, on which it depends


class Related(Kwargs):
    """Arguments of the expectation that related records exist, or do not exist.

    Attributes:
        collection: Other collection of the same database.
        field: Field of the other collection that refers to the checked record.
        key: Column of the checked record to which ``field`` refers.
        condition: SQL condition. ``other`` is the alias of the related record, ``record`` that of
            the checked record.
        where: SQL condition that selects the records to check; default: all records.
        present: ``true``: at least one related record has to exist. ``false``: no related record
            may exist.
        scope: Records that an incremental check reads: ``changed`` or ``all``. With ``changed``,
            only a full check notices changes of the other collection. Default: ``all`` if the SQL
            uses ``:now``, otherwise ``changed``.
    """

    collection: Name
    field: Name
    key: Name
    condition: Condition | None = None
    where: Condition | None = None
    present: bool = True
    scope: Scope = Field(default_factory=_default_scope)  # after the SQL, on which it depends
