"""Sample CSV files and their expected rows."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Sequence
from datetime import date

import pytest

from include.training.uploads.cells import UploadRefused
from include.training.uploads.reading import COLUMNS, Kind, Upload, Values

ROSTER = [
    {
        "person": "E0001",
        "name": "王芳",
        "mail": "wang@courier.example",
        "department": "第一营业部",
        "supervisor": "E0002",
        "head": "否",
        "joined_on": "2024-03-01",
        "left_on": "",
        "leave_from": "2026-02-01",
        "leave_until": "2026-03-01",
        "access": "是",
    },
    {
        "person": "E0002",
        "name": "李娜",
        "mail": "",
        "department": "第一营业部",
        "supervisor": "",
        "head": "是",
        "joined_on": "2020年1月5日",
        "left_on": "",
        "leave_from": "",
        "leave_until": "",
        "access": "否",
    },
]
ROSTER_READ: list[Values] = [
    (
        "E0001",
        "王芳",
        "wang@courier.example",
        "第一营业部",
        "E0002",
        False,
        date(2024, 3, 1),
        None,
        date(2026, 2, 1),
        date(2026, 3, 1),
        True,
    ),
    ("E0002", "李娜", None, "第一营业部", None, True, date(2020, 1, 5), None, None, None, False),
]
COURSES = [
    {
        "course": "ONB",
        "title": "入职培训",
        "topic": "入职",
        "version": "1.0",
        "published_on": "2024/1/1",
        "within_days": "30",
        "repeat_months": "",
        "due_each_year": "",
        "retake_within_days": "",
    },
    {
        "course": "LAW",
        "title": "个人信息保护法",
        "topic": "law",
        "version": "2",
        "published_on": "2025.6.1",
        "within_days": "60",
        "repeat_months": "",
        "due_each_year": "3月31日",
        "retake_within_days": "30",
    },
]
COMPLETIONS = [
    {
        "person": "E0001",
        "course": "ONB",
        "version": "1",
        "completed_on": "2024-03-20",
        "passed": "通过",
    },
    {
        "person": "E0002",
        "course": "LAW",
        "version": "2",
        "completed_on": "2025-07-01",
        "passed": "no",
    },
]
SAMPLES = {Kind.ROSTER: ROSTER, Kind.COURSES: COURSES, Kind.COMPLETIONS: COMPLETIONS}

ENCODINGS = {
    "UTF-8": b"",
    "UTF-8 with a mark": codecs.BOM_UTF8,
    "GB18030": b"",
    "UTF-16LE": codecs.BOM_UTF16_LE,
    "UTF-16BE": codecs.BOM_UTF16_BE,
}


def csv_file(
    rows: Sequence[dict[str, str]],
    *,
    encoding: str = "UTF-8",
    delimiter: str = ",",
    line_ending: str = "\r\n",
    quoting: int = csv.QUOTE_MINIMAL,
    header: Sequence[str] | None = None,
    prefix: str = "",
) -> bytes:
    """Return the content of a CSV file with the given rows."""
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=delimiter,
        lineterminator=line_ending,
        quoting=quoting,  # type: ignore[arg-type]  # a constant of csv
    )
    writer.writerow(header or list(rows[0]))
    for row in rows:
        writer.writerow(row.values())
    content = (prefix + text.getvalue()).encode(encoding.removesuffix(" with a mark"))
    return ENCODINGS[encoding] + content


def chinese_header(kind: Kind) -> list[str]:
    """Return the Chinese column names of a kind of file."""
    return [column.chinese for column in COLUMNS[kind]]


def upload_of(content: bytes, kind: Kind = Kind.ROSTER) -> Upload:
    return Upload(kind, "file.csv", io.BytesIO(content))


def read_rows(content: bytes, kind: Kind = Kind.ROSTER) -> list[Values]:
    return list(upload_of(content, kind).rows())


def faults_of(content: bytes, kind: Kind = Kind.ROSTER) -> list[str]:
    """Return the faults for which a file is refused."""
    with pytest.raises(UploadRefused) as error:
        read_rows(content, kind)
    return [fault.text for fault in error.value.faults]
