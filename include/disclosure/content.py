"""The content of a request for customer information, and the plan that the requester is shown.

A request is data, never SQL text: a purpose, fields, a selection of records, and a number of days.
The digest of content and plan is what people approve. It covers the masks and the figures, so a
changed policy pack or more records than planned make an approval void.
"""

from __future__ import annotations

import hashlib
import json
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, model_validator

from include.disclosure.extracts.model import ExtractForm
from include.disclosure.rules import LARGEST_DURATION, DisplayMask, FilterKind
from include.frozen import StrictModel

MOST_FIELDS, MOST_FILTERS, MOST_CODES = 200, 20, 1000
MOST_KEYS = 1_000_000
MOST_KEY_LENGTH = 200


class DeliveryForm(StrEnum):
    """The form in which approved information is delivered.

    Attributes:
        XLSX: Excel workbook with a password.
        ZIP: CSV file in a ZIP archive with a password.
        AGE: CSV file for a program, encrypted to an age key.
        LOGIN: database login that reads the approved columns of the approved records.
    """

    XLSX = "xlsx"
    ZIP = "zip"
    AGE = "age"
    LOGIN = "login"

    @property
    def file_form(self) -> ExtractForm:
        """Return the file format of an extract.

        Raises:
            ValueError: the delivery is not a file.
        """
        return ExtractForm(str(self))


class Filter(StrictModel):
    """A condition on one column of the requested collection.

    Attributes:
        column: column of the collection.
        kind: kind of the column in use.yaml.
        start: first day or smallest number; empty for no lower limit.
        end: last day or largest number; empty for no upper limit.
        values: accepted values of a code column.
    """

    column: str
    kind: FilterKind
    start: str = ""
    end: str = ""
    values: Annotated[tuple[str, ...], Field(max_length=MOST_CODES)] = ()

    @model_validator(mode="after")
    def _fits_kind(self) -> Filter:
        has_range = bool(self.start or self.end)
        if self.kind in (FilterKind.DATE, FilterKind.NUMBER):
            if not has_range or self.values:
                raise ValueError("a range needs a start or an end, and no values")
            parse = date.fromisoformat if self.kind is FilterKind.DATE else _number
            limits = [parse(limit) for limit in (self.start, self.end) if limit]
            if limits != sorted(limits):
                raise ValueError("the range ends before it starts")
        elif self.kind is FilterKind.CODE and (has_range or not self.values):
            raise ValueError("a list of codes needs values, and no range")
        elif self.kind is FilterKind.KEY and (has_range or self.values):
            raise ValueError("the keys of a request are stored apart from its content")
        return self


def _number(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except ArithmeticError:
        raise ValueError(f"{text} is not a number") from None
    if not number.is_finite():
        raise ValueError(f"{text} is not a number")
    return number


class RequestContent(StrictModel):
    """The content of a request, as the requester entered it.

    Attributes:
        requester: account of the employee who receives the information.
        purpose: purpose of purposes.yaml.
        database: mapped database.
        collection: collection of the database.
        fields: requested columns, in the order of the data map.
        unmasked: those of the columns whose values must not be masked.
        filters: conditions that a record has to meet; all of them apply.
        keys_sha256: digest of the uploaded keys, see `digest_keys`; empty without a list of keys.
        keys: number of different uploaded keys.
        days: days from the approval until the access ends.
        case: reference of the case for which the information is needed.
        form: form of the delivery.
        recipient: age public key of the receiving machine; empty for other forms.
    """

    requester: str
    purpose: str
    database: str
    collection: str
    fields: Annotated[tuple[str, ...], Field(min_length=1, max_length=MOST_FIELDS)]
    unmasked: tuple[str, ...] = ()
    filters: Annotated[tuple[Filter, ...], Field(min_length=1, max_length=MOST_FILTERS)]
    keys_sha256: str = ""
    keys: Annotated[int, Field(ge=0, le=MOST_KEYS)] = 0
    days: Annotated[int, Field(ge=1, le=LARGEST_DURATION)]
    case: str
    form: DeliveryForm
    recipient: str = ""


class PlannedColumn(StrictModel):
    """A column of a planned extract.

    Attributes:
        name: name of the column.
        mask: mask of its values; ``show`` for unchanged values.
    """

    name: str
    mask: DisplayMask


class UsePlan(StrictModel):
    """The fields and figures of a request, as the requester and the approvers see them.

    Attributes:
        refused_fields: requested fields that the purpose does not need. A request with such fields
            cannot be approved.
        columns: columns of the extract with their masks.
        records: number of records that the selection matches.
        people: number of data subjects of these records.
        minors: number of records about people under 18; None if the policy pack does not say who
            is under 18.
        excluded: number of matching records that are left out, because their data subject asked
            for erasure.
        unknown_keys: number of uploaded keys that match no record.
        needs_second_approval: whether unmasked values or minors require a second approval.
    """

    refused_fields: tuple[str, ...] = ()
    columns: tuple[PlannedColumn, ...] = ()
    records: int = 0
    people: int = 0
    minors: int | None = None
    excluded: int = 0
    unknown_keys: int = 0
    needs_second_approval: bool = True

    def exceeds(self, approved: UsePlan) -> bool:
        """Return whether this plan delivers anything that an approved plan does not.

        Fewer records, for example after a deletion, are covered by the approval.
        """
        return (
            bool(self.refused_fields)
            or self.columns != approved.columns
            or self.records > approved.records
            or self.people > approved.people
            or (self.minors is None) != (approved.minors is None)
            or (self.minors or 0) > (approved.minors or 0)
        )


def digest_request(content: RequestContent, plan: UsePlan) -> str:
    """Return the SHA-256, in hex, of a request and its plan. Approvals are bound to it."""
    return digest_document(content.model_dump(mode="json"), plan.model_dump(mode="json"))


def digest_document(content: Any, plan: Any) -> str:
    """Return the SHA-256, in hex, of a request and its plan, both as JSON values."""
    document = {"content": content, "plan": plan}
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def digest_keys(keys: frozenset[str]) -> str:
    """Return the SHA-256, in hex, of a set of keys; empty for an empty set."""
    if not keys:
        return ""
    digest = hashlib.sha256()
    for key in sorted(keys):
        encoded = key.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.hexdigest()
