"""The ``kwargs`` of expectations: what each type has to be told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from include.policy.period import PositivePeriod
from include.policy.rules import Name, Rule, Text, some

Names = Annotated[tuple[Name, ...], AfterValidator(some)]
Condition = Annotated[Text, Field(max_length=2000)]
"""A boolean SQL expression over the columns of the record; ``:now`` is the moment of the check."""
NOW = re.compile(r"(?<![:\w]):now\b")

Scope = Literal["changed", "all"]


def says_now(given: Mapping[str, Any]) -> bool:
    """Whether the SQL among an expectation's kwargs asks for the moment of the check."""
    written = (given.get(key) for key in ("condition", "where"))
    return any(NOW.search(sql) for sql in written if sql)


def _scope(given: Mapping[str, Any]) -> Scope:
    """Time breaks records that nobody touched: what asks for it looks at all unless told not to."""
    return "all" if says_now(given) else "changed"


class Kwargs(Rule):
    """What every expectation takes.

    Attributes:
        mostly: share of the records (0 to 1) that has to be as expected.
    """

    mostly: Annotated[float, Field(gt=0, le=1)] = 1.0


class Column(Kwargs):
    """About one column of the record."""

    column: Name


class ColumnWhere(Column):
    """About one column of some of the records; ``where`` says of which."""

    where: Condition | None = None


class Uncollected(Column):
    """A column that holds no value, or a key that its JSON does not have."""

    path: tuple[Name, ...] = ()


class ValueSet(Column):
    """The values a column may have; null is not looked at."""

    value_set: Annotated[tuple[str | int | float | bool, ...], AfterValidator(some)]


class Regex(Column):
    """A POSIX regular expression, as for PostgreSQL's ``~``; null values are skipped.

    It is matched against the canonical text of the value, for char(n) without padding.
    """

    regex: Text


def _in_order(least: Any, most: Any) -> None:
    if least is None and most is None:
        raise ValueError("min_value or max_value is required")
    if least is not None and most is not None:
        if isinstance(least, str) is not isinstance(most, str):
            raise ValueError("min_value and max_value are of different kinds")
        if _is_above(least, most):
            raise ValueError(f"min_value {least} is above max_value {most}")


def _is_above(least: Any, most: Any) -> bool:
    """Return whether a range is empty; False if its order depends on the column's type."""
    if not isinstance(least, str):
        return bool(least > most)
    if not (_LIKE_A_DAY.match(least) and _LIKE_A_DAY.match(most)):
        return False
    ends = datetime.fromisoformat(least), datetime.fromisoformat(most)
    if len(most) == len("2026-10-01"):  # the whole day
        ends = ends[0], ends[1] + timedelta(days=1)
    return (ends[0].tzinfo is None) == (ends[1].tzinfo is None) and ends[0] > ends[1]


def _bound(value: int | float | str) -> int | float | str:
    if isinstance(value, str) and _LIKE_A_DAY.match(value):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            message = "should be a day or moment of the calendar: 2026-10-01, 2026-10-01T08:30"
            raise ValueError(message) from None
    return value


class Lengths(Column):
    """Characters of a text, both ends included."""

    min_value: Annotated[int, Field(ge=0)] | None = None
    max_value: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _range(self) -> Lengths:
        _in_order(self.min_value, self.max_value)
        return self


_LIKE_A_DAY = re.compile(r"\d{4}-\d{1,2}-\d", re.ASCII)
Bound = Annotated[int | float | Name, AfterValidator(_bound)]


class Between(Column):
    """Lowest and highest value of a column.

    Attributes:
        min_value: a number, or a text in the form of the column's type: a day, a moment, a label.
        max_value: as ``min_value``. For timestamps, a day includes all of that day in the pack's
            timezone.
        strict_min: whether ``min_value`` itself is outside of the range.
        strict_max: whether ``max_value`` itself is outside of the range.
    """

    min_value: Bound | None = None
    max_value: Bound | None = None
    strict_min: bool = False
    strict_max: bool = False

    @model_validator(mode="after")
    def _range(self) -> Between:
        _in_order(self.min_value, self.max_value)
        return self


class RowCount(Rule):
    """Rows of the whole table, both ends included."""

    min_value: Annotated[int, Field(ge=0)] | None = None
    max_value: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _range(self) -> RowCount:
        _in_order(self.min_value, self.max_value)
        return self


class ColumnList(Kwargs):
    """Columns that are looked at together."""

    column_list: Annotated[Names, Field(min_length=2)]


class ColumnPair(Kwargs):
    """Two columns that are compared; records in which one is null are not looked at."""

    column_A: Name  # noqa: N815 - Great Expectations' own spelling
    column_B: Name  # noqa: N815
    or_equal: bool = False


class ResidentId(ColumnWhere):
    """Which part of a resident ID number (GB 11643-1999) is looked at.

    Attributes:
        part: ``form`` (17 digits and a digit or X), ``birth_date`` (digits 7 to 14 are a real date,
            not in the future) or ``check_character``; the last two only look at numbers of the
            right form, so that one fault is one finding.
    """

    part: Literal["form", "birth_date", "check_character"]


class ExistsIn(ColumnWhere):
    """Values that a field of another collection of the same database lists.

    Attributes:
        collection: the list.
        field: its values.
        retired_on: its field with the day on which a value was withdrawn; empty where it was not.
    """

    collection: Name
    field: Name
    retired_on: Name | None = None


class ExistsAt(ExistsIn):
    """Values that have to stand in a list, on the day of the record where the list has days.

    Attributes:
        valid_from: the list's field with the day from which a value holds; empty for always.
        at: the record's column with its day or moment; days are compared, both ends included. A
            record without one is held against the whole list.
    """

    valid_from: Name | None = None
    at: Name | None = None

    @model_validator(mode="after")
    def _dated(self) -> ExistsAt:
        if (self.at is None) != (self.valid_from is None and self.retired_on is None):
            raise ValueError("at goes together with valid_from or retired_on")
        return self


class ResidentIdDivision(ExistsIn):
    """Digits 1 to 6 of a resident ID number: a code of an administrative division.

    GB 11643-1999 takes the address code from GB/T 2260. Codes retire and numbers stay: one that
    was withdrawn before the holder was born (digits 7 to 14) cannot have been given to them, every
    other listed one can. Numbers of another form are not looked at.
    """

    part: Literal["division"]


class Recent(ColumnWhere):
    """A moment or date that may be at most a period ago."""

    period: PositivePeriod


class Distinct(Kwargs):
    """Columns in which no two records are alike; the later twin (by key) is the broken one.

    Records in which one of the columns is null are not looked at.
    """

    columns: Names
    where: Condition | None = None


class Satisfy(Kwargs):
    """A condition that every record meets; one that is neither true nor false is met.

    Attributes:
        scope: what incremental checks examine: ``changed`` records, or ``all`` where the answer
            changes without the record, as with another table. Without it ``all`` where ``:now`` is
            asked for, else ``changed``.
    """

    condition: Condition
    where: Condition | None = None
    scope: Scope = Field(default_factory=_scope)  # after the SQL, on which it depends


class Related(Kwargs):
    """Records of another collection that have to be there, or may not be.

    Attributes:
        collection: the other collection, of the same database.
        field: its field that leads to this record.
        key: this record's column that it leads to.
        condition: SQL over the other record, which is named ``other``; this one is ``record``.
        present: whether at least one has to be there, or none may.
        scope: what incremental checks examine: ``changed`` records only, so that a change of the
            other collection waits for a full check, or ``all``. Without it ``all`` where ``:now``
            is asked for, else ``changed``.
    """

    collection: Name
    field: Name
    key: Name
    condition: Condition | None = None
    where: Condition | None = None
    present: bool = True
    scope: Scope = Field(default_factory=_scope)  # after the SQL, on which it depends
