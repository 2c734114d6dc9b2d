"""Models of quality/*.yaml: the expectations for the records of each collection.

An expectation uses the configuration format of Great Expectations (``type``, ``kwargs``). The
policy pack adds an id, the severity, the number of the policy clause and a title.
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
    NotBlank,
    NullableColumn,
    Recent,
    Regex,
    Related,
    ResidentId,
    ResidentIdDivision,
    RowCount,
    Satisfy,
    Uncollected,
    ValueSet,
    uses_now,
)
from include.policy.period import Period
from include.policy.rules import (
    Clause,
    Identifier,
    Name,
    Rule,
    Texts,
    require_items,
    translated_message,
)


def is_within_mostly(rows: int, broken: int, mostly: Decimal) -> bool:
    """Return whether the share of records that meet an expectation is at least `mostly`.

    The share is not rounded. Return True if there are no records.

    Args:
        rows: number of checked records.
        broken: number of records that break the expectation.
        mostly: required share of records that meet the expectation, from 0 to 1.
    """
    return rows == 0 or broken <= rows * (1 - mostly)


class Expectation(Rule):
    """A condition that records of a collection have to meet.

    Attributes:
        id: Stable name, unique in its collection.
        type: Type of the expectation, named as in Great Expectations.
        kwargs: Arguments of the expectation. Each type has its own arguments.
        severity: Outcome if more records break the expectation than ``mostly`` allows: with
            ``fail`` the run fails, with ``warn`` it needs attention.
        clause: Number of the policy clause, in quotes.
        title: The condition in words, for reports.
    """

    id: Identifier
    type: str
    kwargs: Rule
    severity: Literal["fail", "warn"]
    clause: Clause
    title: Texts

    @property
    def message(self) -> Message:
        """Return the title as a message for reports."""
        return translated_message(self.title)

    @property
    def mostly(self) -> Decimal:
        """Return the exact share of records, from 0 to 1, that must meet the expectation."""
        return Decimal(str(getattr(self.kwargs, "mostly", 1)))

    @property
    def digest(self) -> str:
        """Return the SHA-256 digest of ``type`` and ``kwargs``, in hexadecimal.

        A change of the title, the severity or ``mostly`` does not change the digest.
        """
        kwargs = self.kwargs.model_dump(mode="json", exclude={"mostly"})
        return hashlib.sha256(json.dumps([self.type, kwargs], sort_keys=True).encode()).hexdigest()

    @property
    def depends_on_time(self) -> bool:
        """Return whether a valid record may later break the expectation without being changed.

        This is possible if the SQL of the expectation uses ``:now``. If the pack states ``scope:
        changed`` for the expectation, its author declares that a valid record stays valid, so
        return False.
        """
        kwargs = self.kwargs
        scope = getattr(kwargs, "scope", "all")
        return scope == "all" and uses_now(kwargs.model_dump(include={"condition", "where"}))

    def columns(self) -> tuple[str, ...]:
        """Return the names of the columns of the checked record that the expectation uses."""
        return tuple(columns_in(self.kwargs.model_dump(mode="json")).values())


def columns_in(kwargs: Mapping[str, Any]) -> dict[tuple[str | int, ...], str]:
    """Return the columns of the checked record that an expectation's ``kwargs`` name.

    Returns:
        Path of keys and indexes in the ``kwargs`` -> name of the column at this path.
    """
    columns: dict[tuple[str | int, ...], str] = {}
    for key in ("column", "column_A", "column_B", "key", "at"):
        if isinstance(name := kwargs.get(key), str):
            columns[key,] = name
    for key in ("column_list", "columns"):
        items = kwargs.get(key)
        if isinstance(items, list):
            columns |= {(key, at): name for at, name in enumerate(items) if isinstance(name, str)}
    return columns


class NotNull(Expectation):
    """Requires that a value is not null."""

    type: Literal["expect_column_values_to_not_be_null"]
    kwargs: NullableColumn


class InSet(Expectation):
    """Requires that a value is in a list of allowed values."""

    type: Literal["expect_column_values_to_be_in_set"]
    kwargs: ValueSet


class MatchRegex(Expectation):
    """Requires that a text matches a regular expression."""

    type: Literal["expect_column_values_to_match_regex"]
    kwargs: Regex


class NotMatchRegex(Expectation):
    """Requires that a text does not match a regular expression."""

    type: Literal["expect_column_values_to_not_match_regex"]
    kwargs: Regex


class LengthsBetween(Expectation):
    """Requires that the number of characters of a text is within a range."""

    type: Literal["expect_column_value_lengths_to_be_between"]
    kwargs: Lengths


class ValuesBetween(Expectation):
    """Requires that a value is within a range."""

    type: Literal["expect_column_values_to_be_between"]
    kwargs: Between


class Unique(Expectation):
    """Requires unique values. All records that share a value break the expectation."""

    type: Literal["expect_column_values_to_be_unique"]
    kwargs: Column


class CompoundUnique(Expectation):
    """Requires unique combinations of values. All equal records break the expectation.

    `DistinctRecords` differs: the first of equal records meets the expectation.
    """

    type: Literal["expect_compound_columns_to_be_unique"]
    kwargs: ColumnList


class PairGreater(Expectation):
    """Requires that a column has a greater value than another column.

    For example, the end of a contract has to be after its start.
    """

    type: Literal["expect_column_pair_values_a_to_be_greater_than_b"]
    kwargs: ColumnPair


class TableRows(Expectation):
    """Requires that the number of rows in the table is within a range."""

    type: Literal["expect_table_row_count_to_be_between"]
    kwargs: RowCount


class NotBlankValues(Expectation):
    """Requires that a value is not null and contains at least one visible character.

    Spaces, line breaks and zero-width characters are not visible.
    """

    type: Literal["expect_column_values_to_not_be_blank"]
    kwargs: NotBlank


class MobileNumbers(Expectation):
    """Requires that a value is a mobile number of mainland China, with or without +86.

    The number may contain spaces and hyphens.
    """

    type: Literal["expect_column_values_to_be_mobile_numbers"]
    kwargs: ColumnWhere


class EmailAddresses(Expectation):
    """Requires that a value is an e-mail address."""

    type: Literal["expect_column_values_to_be_email_addresses"]
    kwargs: ColumnWhere


class ResidentIds(Expectation):
    """Requires that a value is a resident ID number (GB 11643-1999)."""

    type: Literal["expect_column_values_to_be_resident_id_numbers"]
    kwargs: Annotated[ResidentId | ResidentIdDivision, Field(discriminator="part")]


class Existing(Expectation):
    """Requires that another collection contains the value, such as the code of a city."""

    type: Literal["expect_column_values_to_exist_in"]
    kwargs: ExistsAt


class RecentValues(Expectation):
    """Requires that a date or timestamp is not older than a given period."""

    type: Literal["expect_column_values_to_be_recent"]
    kwargs: Recent


class DistinctRecords(Expectation):
    """Requires unique combinations of values. The first of equal records meets the expectation.

    The record with the smallest primary key is the first. The other records with the same values
    break the expectation.
    """

    type: Literal["expect_records_to_be_distinct"]
    kwargs: Distinct


class SatisfyingRecords(Expectation):
    """Requires that a record meets an SQL condition that the company wrote."""

    type: Literal["expect_records_to_satisfy"]
    kwargs: Satisfy


class RelatedRecords(Expectation):
    """Requires that a related record exists or, with ``present: false``, that none exists.

    An example of a related record is a customer's consent.
    """

    type: Literal["expect_related_records"]
    kwargs: Related


class Unneeded(Expectation):
    """Requires that a field has no value, because no purpose of processing needs it.

    ParcelSeal makes these expectations from purposes.yaml.
    """

    type: Literal["expect_column_values_to_not_be_collected"] = (
        "expect_column_values_to_not_be_collected"
    )
    kwargs: Uncollected


AnyExpectation = Annotated[
    NotNull
    | InSet
    | MatchRegex
    | NotMatchRegex
    | LengthsBetween
    | ValuesBetween
    | Unique
    | CompoundUnique
    | PairGreater
    | TableRows
    | NotBlankValues
    | MobileNumbers
    | EmailAddresses
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
    """How reports group the records that break an expectation, for example by department.

    Attributes:
        column: Column of the record. For each value of this column, reports count the records that
            break an expectation.
        collection: Collection with the display names. ``column`` holds its primary key. Default:
            reports show the values themselves.
        label: Field of ``collection`` that contains the display name. If the field is personal, it
            is never shown.
    """

    column: Name
    collection: Name | None = None
    label: Name | None = None

    @model_validator(mode="after")
    def _label_with_collection(self) -> Breakdown:
        if (self.collection is None) != (self.label is None):
            raise ValueError("collection and label are required together")
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
    """The column that an incremental check uses to find the changed records of a collection.

    Attributes:
        column: Timestamp, date or number that grows with every change of a record.
        late_arrivals: Margin below the watermark, which is the value of ``column`` up to which the
            last sealed check read the records. An incremental check also reads the records within
            this margin, because some of them may have been committed or loaded late. A period, or a
            number if ``column`` is a number. For a number column the key is required: with the
            default, every check is full.
    """

    column: Name
    late_arrivals: Margin = Period.parse("PT2H")


class Suite(Rule):
    """A suite: the expectations for the records of one collection.

    Attributes:
        database: Database of the data map; required if several databases have the collection.
        collection: Collection of the data map.
        breakdown: How reports group the records that break an expectation, for example by
            department.
        changed: Column that an incremental check uses to find changed records. Without it, every
            check reads all records.
        incoming: Whether `review_intake` checks the collection batch by batch. Otherwise
            `check_quality` checks it.
        expectations: Conditions that the records have to meet.
    """

    database: Name | None = None
    collection: Name
    breakdown: Breakdown | None = None
    changed: ChangeColumn | None = None
    incoming: bool = False
    expectations: Annotated[tuple[AnyExpectation, ...], AfterValidator(require_items)]
