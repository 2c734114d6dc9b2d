"""Write a confidential extract of database rows to a stream.

The file is encrypted before its bytes reach the stream. Neither this process nor a library writes
plaintext to a file, not even to a temporary file. Therefore a process that fails or is killed
(SIGKILL) leaves no plaintext behind. Plaintext is only in the memory of the process, which the
operating system may write to swap space: encrypt the swap space, or do without it.

Memory does not grow with the number of rows. A ZIP or age file needs a few pieces of 256 KiB. A
workbook is compressed in memory before its encryption, so its size is limited (`MAX_XLSX_ROWS`,
`workbook.MAX_BYTES`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from include.disclosure.extracts.model import (
    MAX_XLSX_ROWS,
    ByteSink,
    ExtractColumn,
    ExtractForm,
    ExtractSource,
    Marks,
    TooManyRows,
    UnsuitableForExcel,
    WrittenExtract,
)
from include.disclosure.extracts.output import EncryptedOutput
from include.disclosure.extracts.reading import Heartbeat
from include.disclosure.extracts.statements import prepare, print_settings

__all__ = [
    "MAX_XLSX_ROWS",
    "ByteSink",
    "ExtractColumn",
    "ExtractForm",
    "ExtractSource",
    "Marks",
    "TooManyRows",
    "UnsuitableForExcel",
    "WrittenExtract",
    "write_extract",
]


def write_extract(
    connection: psycopg.Connection[Any],
    source: ExtractSource,
    marks: Marks,
    form: ExtractForm,
    secret: str,
    out: ByteSink,
    *,
    max_rows: int,
    progress: Callable[[], None] = lambda: None,
) -> WrittenExtract:
    """Write the rows of a query as an encrypted file.

    If the function raises an error, the bytes in ``out`` are an incomplete file that no program
    opens. The caller must discard them. The transaction of the caller stays usable after every
    error except a lost connection.

    Workbooks and ZIP files are for people. Their times have the timezone of the marks, and no text
    becomes a formula. An age file is for programs: it has the unchanged values, and times in UTC.

    Args:
        connection: connection with an open REPEATABLE READ, READ ONLY transaction. Its client
            encoding is UTF-8. A thread of this function uses the connection until the function
            returns, so neither ``out`` nor ``progress`` may use it.
        source: query of the rows, and their columns.
        marks: visible marking. An age file has no marking.
        form: file format.
        secret: password of the workbook or ZIP file, or the public key of the age file
            (``age1...``).
        out: stream to which the encrypted file is written.
        max_rows: largest number of rows. For workbooks, `MAX_XLSX_ROWS` also applies.
        progress: callback that is called about once a second, in the thread of the caller. An error
            that it raises ends the extract.

    Raises:
        TooManyRows: the query returns more rows than permitted.
        UnsuitableForExcel: a value or the whole workbook is too large.
        UsageError: the public key is invalid.
        ValueError: the columns of the query differ from those of the source, the expiry has no
            timezone, or the client encoding is not UTF-8.
        psycopg.Error: the database refused the query or failed.
    """
    if marks.expires_at.tzinfo is None:
        raise ValueError("the expiry of an extract needs a timezone")
    output, heartbeat = EncryptedOutput(out), Heartbeat(progress)
    # The savepoint restores the settings of the caller, and its transaction after an error.
    with connection.transaction(force_rollback=True):
        zone = "UTC" if form is ExtractForm.AGE else marks.zone.key
        moment = print_settings(connection, zone)
        query = prepare(connection, source)
        match form:
            case ExtractForm.XLSX:
                from include.disclosure.extracts.workbook import write_workbook

                rows = write_workbook(query, marks, moment, secret, output, max_rows, heartbeat)
            case ExtractForm.ZIP:
                from include.disclosure.extracts.archive import write_archive

                rows = write_archive(query, marks, moment, secret, output, max_rows, heartbeat)
            case ExtractForm.AGE:
                from include.disclosure.extracts.age import write_age

                rows = write_age(query, secret, output, max_rows, heartbeat)
    output.raise_error()
    return WrittenExtract(rows, output.size, output.sha256)
