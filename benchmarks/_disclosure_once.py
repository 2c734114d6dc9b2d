"""Measure one extract of `benchmarks.disclosure` in a separate process.

``python -m benchmarks._disclosure_once FILE`` reads parameters as JSON from FILE and writes the
result into FILE. The parts are an extract of ParcelSeal, a workbook that is made with openpyxl and
msoffcrypto alone, and a run of `expire_grants`.
"""

from __future__ import annotations

import io
import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
from psycopg.sql import SQL

from benchmarks import _disclosure_data as data
from include.disclosure.extracts.extract import (
    ExtractColumn,
    ExtractForm,
    ExtractSource,
    Marks,
    write_extract,
)
from include.messages import verbatim
from include.reports.i18n import warm

MARKS = Marks(
    1, "bench", verbatim("bench"), datetime(2026, 12, 31, tzinfo=UTC), ZoneInfo("UTC"), None
)


def ours(parameters: dict[str, Any]) -> dict[str, Any]:
    """Measure an extract that ParcelSeal writes."""
    text = data.query(parameters["most_rows"]).replace("%", "%%")
    columns = tuple(ExtractColumn(name, verbatim(name)) for name in data.COLUMNS)
    begun = time.monotonic()
    with psycopg.connect(parameters["conninfo"]) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with Path(parameters["out"]).open("wb") as out:
            written = write_extract(
                connection,
                ExtractSource(SQL(text), {}, columns),
                MARKS,
                ExtractForm(parameters["form"]),
                parameters["secret"],
                out,
                max_rows=parameters["rows"],
            )
    return {"seconds": time.monotonic() - begun, "rows": written.rows, "size": written.size}


def plain_workbook(parameters: dict[str, Any]) -> dict[str, Any]:
    """Measure the same workbook, made with openpyxl and msoffcrypto alone."""
    from msoffcrypto.format.ooxml import OOXMLFile
    from openpyxl import Workbook

    begun = time.monotonic()
    book, rows = Workbook(write_only=True), 0
    sheet = book.create_sheet("extract")
    sheet.append(data.COLUMNS)
    with psycopg.connect(parameters["conninfo"]) as connection:
        cursor = connection.cursor("rows")
        cursor.itersize = 10_000
        cursor.execute(data.query(parameters["most_rows"]))
        for row in cursor:
            sheet.append(
                [
                    value.replace(tzinfo=None) if isinstance(value, datetime) else value
                    for value in row
                ]
            )
            rows += 1
    clear, encrypted = io.BytesIO(), io.BytesIO()
    book.save(clear)
    OOXMLFile(clear).encrypt(parameters["secret"], encrypted)
    Path(parameters["out"]).write_bytes(encrypted.getvalue())
    size = len(encrypted.getvalue())
    return {"seconds": time.monotonic() - begun, "rows": rows, "size": size}


def expire(parameters: dict[str, Any]) -> dict[str, Any]:
    """Measure a run of `expire_grants`."""
    from benchmarks import _disclosure_expiry  # its imports need memory, which the parts compare

    return _disclosure_expiry.expire(parameters)


PARTS = {"ours": ours, "plain_workbook": plain_workbook, "expire": expire}


def main() -> None:
    """Measure the part that the file names, and write the result into the file."""
    file = Path(sys.argv[1])
    parameters = json.loads(file.read_text())
    file.write_text(json.dumps(PARTS[parameters["part"]](parameters)))


if __name__ == "__main__":
    warm()  # as in the process from which Airflow forks tasks
    main()
    sys.stdout.flush()
    os._exit(0)  # as Airflow's task processes do
