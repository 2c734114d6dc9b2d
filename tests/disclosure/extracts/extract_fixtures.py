"""Marks, sources and writers for tests of extracts."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pyrage
from psycopg.sql import SQL

from include.disclosure.extracts.extract import (
    ExtractColumn,
    ExtractForm,
    ExtractSource,
    Marks,
    WrittenExtract,
    write_extract,
)
from include.messages import verbatim

PASSWORD = "K7QF-2MWX-9RTA-HC4D-VE8P-3NZG"
MARKS = Marks(
    request=1217,
    recipient="王小明 & Co",
    purpose=verbatim("投诉处理 (complaint)"),
    expires_at=datetime(2026, 12, 31, 16, tzinfo=UTC),
    zone=ZoneInfo("Asia/Shanghai"),
    company=verbatim("顺达快递 Shunda"),
)
CSV_NAME = "extract-1217.csv"


@cache
def identity() -> Any:
    """Return an age identity that all tests of a process share."""
    return pyrage.x25519.Identity.generate()


def secret_of(form: ExtractForm) -> str:
    """Return the password or public key for a form."""
    return str(identity().to_public()) if form is ExtractForm.AGE else PASSWORD


def source(query: str, names: str, values: Mapping[str, Any] | None = None) -> ExtractSource:
    """Return a source for a query.

    Args:
        query: query, in which ``%`` is written as ``%%``.
        names: names of the columns, separated by blanks.
        values: values of the placeholders.
    """
    columns = tuple(ExtractColumn(name, verbatim(f"标题 {name}")) for name in names.split())
    return ExtractSource(SQL(query), values or {}, columns)


@contextmanager
def snapshot(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    """Open a read-only transaction on a database."""
    with psycopg.connect(conninfo) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("SELECT 1")
        yield connection


@dataclass(frozen=True)
class FileWriter:
    """Writes extracts into files of a folder."""

    folder: Path

    def write(
        self,
        connection: psycopg.Connection[Any],
        query: ExtractSource,
        form: ExtractForm,
        *,
        max_rows: int = 1000,
        progress: Callable[[], None] = lambda: None,
    ) -> tuple[WrittenExtract, Path]:
        """Write an extract, and return its result and its file."""
        file = self.folder / f"extract.{form}"
        with file.open("wb") as out:
            written = write_extract(
                connection,
                query,
                MARKS,
                form,
                secret_of(form),
                out,
                max_rows=max_rows,
                progress=progress,
            )
        return written, file


class FailingSink(io.BytesIO):
    """A stream that fails after a number of bytes."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity

    def write(self, data: Any) -> int:
        """Append bytes, or fail if they exceed the capacity."""
        if self.tell() + len(data) > self._capacity:
            raise OSError("the store is full")
        return super().write(data)
