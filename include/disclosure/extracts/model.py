"""Define the content of extracts, their marking and their errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from psycopg.sql import Composable

from include.messages import Message
from include.services.errors import ControlFailed

MAX_XLSX_ROWS = 100_000  # of a workbook; programs take long to open a larger encrypted workbook


class ExtractForm(StrEnum):
    """The file format of an extract."""

    XLSX = "xlsx"  # Excel workbook with a password (ECMA-376 agile encryption)
    ZIP = "zip"  # CSV file in a ZIP archive with a password (WinZip AE-2, AES-256)
    AGE = "age"  # CSV file for a program, encrypted to an age key


@dataclass(frozen=True)
class ExtractColumn:
    """A column of an extract.

    Attributes:
        name: technical name, which is the heading in CSV files.
        title: name for readers, which is the heading in workbooks.
    """

    name: str
    title: Message


@dataclass(frozen=True)
class Marks:
    """The visible marks of an extract.

    Attributes:
        request: number of the approved request.
        recipient: name of the only permitted user.
        purpose: approved purpose.
        expires_at: end of the approved use, timezone-aware.
        zone: timezone of all times that readers see. It must be a zone of the IANA database.
        company: name of the company; None if the policy pack has no letterhead.
    """

    request: int
    recipient: str
    purpose: Message
    expires_at: datetime
    zone: ZoneInfo
    company: Message | None


@dataclass(frozen=True)
class ExtractSource:
    """The query of an extract.

    Attributes:
        query: SELECT statement with one output column for each item of ``columns``, in this order
            and with these names. Each percent sign is written as ``%%``.
        values: values of the placeholders in the query.
        columns: columns of the extract. Their names differ from each other.
    """

    query: Composable
    values: Mapping[str, Any]
    columns: tuple[ExtractColumn, ...]


@dataclass(frozen=True)
class WrittenExtract:
    """The result of writing an extract.

    Attributes:
        rows: number of rows, without headings.
        size: size of the encrypted file in bytes.
        sha256: SHA-256 (hex) of the encrypted file.
    """

    rows: int
    size: int
    sha256: str


class TooManyRows(ControlFailed):
    """The error for a query with more rows than the extract may have."""


class UnsuitableForExcel(ControlFailed):
    """The error for rows that an Excel workbook cannot hold unchanged."""


class ByteSink(Protocol):
    """A stream to which the encrypted file is written, such as an `ObjectWriter`."""

    def write(self, data: bytes, /) -> int:
        """Append all given bytes, and return their number."""
        ...


def require_at_most(
    rows: int, max_rows: int, advice: str = "Restrict the request to fewer records."
) -> None:
    """Raise an error if a query returned more rows than the extract may have.

    Args:
        rows: number of rows that were read. Reading stops after ``max_rows`` + 1.
        max_rows: largest number of rows.
        advice: advice to the user.

    Raises:
        TooManyRows: there are more rows than ``max_rows``.
    """
    if rows > max_rows:
        raise TooManyRows(
            f"The extract would contain more than {max_rows:,} rows. No file was created.",
            advice,
        )
