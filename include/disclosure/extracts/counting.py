"""Count the records and columns of an encrypted extract. The module shares no code with writing."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any

from include.disclosure.extracts.model import ExtractForm

_FROZEN = re.compile(rb'ySplit="([0-9]+)"')  # rows above the first record
_SHEET = "xl/worksheets/sheet1.xml"
_HEAD = 64 * 1024  # bytes of the sheet in which the frozen rows are stated


@dataclass(frozen=True)
class CountedExtract:
    """The size of the table in an extract.

    Attributes:
        records: number of rows below the row with the headings.
        columns: number of columns in the widest row.
    """

    records: int
    columns: int


def count_extract(file: IO[bytes], form: ExtractForm, password: str) -> CountedExtract | None:
    """Decrypt an extract, and count its records and columns.

    Args:
        file: the encrypted file, which can be read from any position.
        form: form of the extract.
        password: password of a ZIP or Excel file.

    Returns:
        The counts; None for an age file, which only the receiving machine can decrypt.

    Raises:
        RuntimeError: the password is wrong.
    """
    if form is ExtractForm.AGE:
        return None
    return _count_zip(file, password) if form is ExtractForm.ZIP else _count_xlsx(file, password)


def _count_zip(file: IO[bytes], password: str) -> CountedExtract:
    import pyzipper

    with pyzipper.AESZipFile(file) as archive:
        archive.setpassword(password.encode())
        [name] = [name for name in archive.namelist() if name.endswith(".csv")]
        with archive.open(name) as member:
            csv.field_size_limit(2**31 - 1)  # the largest text of a column has 1 GB
            return _count(csv.reader(io.TextIOWrapper(member, "utf-8-sig", newline="")))


def _count_xlsx(file: IO[bytes], password: str) -> CountedExtract:
    import msoffcrypto
    import openpyxl

    office, plain = msoffcrypto.OfficeFile(file), io.BytesIO()
    office.load_key(password=password)
    office.decrypt(plain)
    with zipfile.ZipFile(plain) as archive, archive.open(_SHEET) as sheet:
        frozen = _FROZEN.search(sheet.read(_HEAD))
    above = int(frozen.group(1)) - 1 if frozen else 0  # rows above the headings
    rows: Any = openpyxl.load_workbook(plain, read_only=True).worksheets[0]
    return _count(rows.iter_rows(min_row=above + 1, values_only=True))


def _count(rows: Iterable[Sequence[Any]]) -> CountedExtract:
    records, columns = -1, 0
    for row in rows:
        records += 1
        columns = max(columns, len(row))
    return CountedExtract(max(records, 0), columns)
