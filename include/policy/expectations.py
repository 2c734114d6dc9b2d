"""quality/*.yaml: what collected records are expected to be.

An expectation has the form of Great Expectations' own configuration (``type``, ``kwargs``) and
beside it what a company has to say of it: a stable id, how bad it is, the clause, a title.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, model_validator

from include.messages import Message
from include.policy.kwargs import (
    Between,
    Column,
    ColumnList,
    ColumnPair,
    ColumnWhere,
    Distinct,
    ExistsAt,
    Lengths,
    Recent,
    Regex,
    Related,
    ResidentId,
    ResidentIdDivision,
    RowCount,
    Satisfy,
    Uncollected,
    ValueSet,
    says_now,
)
from include.policy.period import Period
from include.policy.rules import Clause, Identifier, Name, Rule, Texts, in_languages, some


def are_enough(rows: int, broken: int, mostly: Decimal) -> bool:
    """Whether so many broken records leave the share that has to be as expected, without rounding.

    Where there is no record, none is broken.
    """
    return rows == 0 or broken <= rows * (1 - mostly)


class Expectation(Rule):
    """One expectation of a suite.

    Attributes:
        id: stable name of the rule within its collection.
        severity: ``fail`` turns the run red when more records break it than ``mostly`` allows,
            ``warn`` asks for attention.
        clause: policy clause.
        title: what is expected, by language.
    """

    id: Identifier
    type: str
    kwargs: Rule
    severity: Literal["fail", "warn"]
    clause: Clause
    title: Texts

    @property
    def message(self) -> Message:
        """The title for a report."""
        return in_languages(self.title)

    @property
    def mostly(self) -> Decimal:
        """The share that has to be as expected, exactly as written."""
        return Decimal(str(getattr(self.kwargs, "mostly", 1)))

    @property
    def digest(self) -> str:
        """Hex digest of what is checked; title, severity and threshold do not belong to it."""
        checked = self.kwargs.model_dump(mode="json", exclude={"mostly"})
        return hashlib.sha256(json.dumps([self.type, checked], sort_keys=True).encode()).hexdigest()

    @property
    def depends_on_time(self) -> bool:
        """Whether time alone may break a record: its SQL asks for ``:now``.

        False where the author says `scope: changed`, as of what time can only make good.
        """
        kwargs = self.kwargs
        told = getattr(kwargs, "scope", "all")
        return told == "all" and says_now(kwargs.model_dump(include={"condition", "where"}))

    def columns(self) -> tuple[str, ...]:
        """The record's columns that it names."""
        return tuple(columns_in(self.kwargs.model_dump(mode="json")).values())


def columns_in(kwargs: Mapping[str, Any]) -> dict[tuple[str | int, ...], str]:
    """The record's columns that an expectation's kwargs name, by their place in them."""
    found: dict[tuple[str | int, ...], str] = {}
    for key in ("column", "column_A", "column_B", "key", "at"):
        if isinstance(name := kwargs.get(key), str):
            found[key,] = name
    for key in ("column_list", "columns"):
        items = kwargs.get(key)
        if isinstance(items, list):
            found |= {(key, at): one for at, one in enumerate(items) if isinstance(one, str)}
    return found


class NotNull(Expectation):
    """A required column."""

    type: Literal["expect_column_values_to_not_be_null"]
    kwargs: Column


class InSet(Expectation):
    """A closed list of values."""

    type: Literal["expect_column_values_to_be_in_set"]
    kwargs: ValueSet


class MatchRegex(Expectation):
    """The form of a text."""

    type: Literal["expect_column_values_to_match_regex", "expect_column_values_to_not_match_regex"]
    kwargs: Regex


class LengthsBetween(Expectation):
    """The length of a text."""

    type: Literal["expect_column_value_lengths_to_be_between"]
    kwargs: Lengths


class ValuesBetween(Expectation):
    """A range."""

    type: Literal["expect_column_values_to_be_between"]
    kwargs: Between


class Unique(Expectation):
    """A column without repeated values; every one of the repeated records is broken."""

    type: Literal["expect_column_values_to_be_unique"]
    kwargs: Column


class CompoundUnique(Expectation):
    """Columns that together are never repeated."""

    type: Literal["expect_compound_columns_to_be_unique"]
    kwargs: ColumnList


class PairGreater(Expectation):
    """One column above the other, as an end after its beginning."""

    type: Literal["expect_column_pair_values_a_to_be_greater_than_b"]
    kwargs: ColumnPair


class TableRows(Expectation):
    """A table that is not empty, or not too full."""

    type: Literal["expect_table_row_count_to_be_between"]
    kwargs: RowCount


class Formatted(Expectation):
    """A text that is there, a mobile number (after +86, spaces and hyphens), an e-mail address."""

    type: Literal[
        "expect_column_values_to_not_be_blank",
        "expect_column_values_to_be_mobile_numbers",
        "expect_column_values_to_be_email_addresses",
    ]
    kwargs: ColumnWhere


class ResidentIds(Expectation):
    """A resident ID number (GB 11643-1999)."""

    type: Literal["expect_column_values_to_be_resident_id_numbers"]
    kwargs: Annotated[ResidentId | ResidentIdDivision, Field(discriminator="part")]


class Existing(Expectation):
    """A value that another collection lists, such as an administrative division."""

    type: Literal["expect_column_values_to_exist_in"]
    kwargs: ExistsAt


class RecentValues(Expectation):
    """A record that was confirmed within a period."""

    type: Literal["expect_column_values_to_be_recent"]
    kwargs: Recent


class DistinctRecords(Expectation):
    """No record twice."""

    type: Literal["expect_records_to_be_distinct"]
    kwargs: Distinct


class SatisfyingRecords(Expectation):
    """A condition of the company's own."""

    type: Literal["expect_records_to_satisfy"]
    kwargs: Satisfy


class RelatedRecords(Expectation):
    """Records of another collection: a consent that covers the purpose."""

    type: Literal["expect_related_records"]
    kwargs: Related


class Unneeded(Expectation):
    """A field that no purpose needs holds no value; made from purposes.yaml."""

    type: Literal["expect_column_values_to_not_be_collected"] = (
        "expect_column_values_to_not_be_collected"
    )
    kwargs: Uncollected


AnyExpectation = Annotated[
    NotNull
    | InSet
    | MatchRegex
    | LengthsBetween
    | ValuesBetween
    | Unique
    | CompoundUnique
    | PairGreater
    | TableRows
    | Formatted
    | ResidentIds
    | Existing
    | RecentValues
    | DistinctRecords
    | SatisfyingRecords
    | RelatedRecords
    | Unneeded,
    Field(discriminator="type"),
]


class Breakdown(Rule):
    """By what broken records are counted in a report: departments, branches.

    Attributes:
        column: column of the record.
        collection: where its values are named; None when they are names themselves.
        label: the field that holds the name.
    """

    column: Name
    collection: Name | None = None
    label: Name | None = None

    @model_validator(mode="after")
    def _both(self) -> Breakdown:
        if (self.collection is None) != (self.label is None):
            raise ValueError("collection and label go together")
        return self


def _margin(value: object) -> Period | int:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    period = Period.parse(value) if isinstance(value, str) else None
    if period is None or not (period.months or period.days or period.seconds):
        raise ValueError(
            "should be an ISO 8601 duration such as PT2H, or a whole number above 0 for a column "
            "of numbers"
        )
    return period


Margin = Annotated[
    Period | int,
    PlainValidator(_margin),
    PlainSerializer(lambda margin: margin if isinstance(margin, int) else margin.text),
]


class ChangeColumn(Rule):
    """The column that identifies the changed records of a collection.

    Attributes:
        column: a moment, a date, or a number that grows with every change.
        late_arrivals: margin below the watermark that an incremental check reads again, since
            records may be committed or loaded late: a period, or a number for a numeric column.
    """

    column: Name
    late_arrivals: Margin = Period.parse("PT2H")


class Suite(Rule):
    """The expectations for the records of one collection.

    Attributes:
        database: database of the data map; needed where several have the collection.
        collection: collection of the data map.
        breakdown: by what broken records are counted.
        changed: the change column; without it every check examines all records.
        incoming: the collection is checked batch by batch by `review_intake`, not by
            `check_quality`.
        expectations: at least one.
    """

    database: Name | None = None
    collection: Name
    breakdown: Breakdown | None = None
    changed: ChangeColumn | None = None
    incoming: bool = False
    expectations: Annotated[tuple[AnyExpectation, ...], AfterValidator(some)]
