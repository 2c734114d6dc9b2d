"""Tests that each extract contains exactly the rows and columns of its query."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from include.disclosure.extracts.extract import ExtractForm
from include.disclosure.extracts.statements import FORMULA_STARTS, MARK
from include.local.postgres import EmbeddedPostgres
from tests.disclosure.extracts.extract_fixtures import (
    CSV_NAME,
    PASSWORD,
    FileWriter,
    identity,
    snapshot,
    source,
)
from tests.disclosure.extracts.opening import Rows, decrypt_age, open_sheet, parse_csv, unzip
from tests.support.databases import temporary_database

_TYPES = {
    "name": "text",
    "short": "varchar(200)",
    "padded": "char(6)",
    "code": "code",  # an enum
    "number": "bigint",
    "amount": "numeric",
    "price": "numeric(12,2)",
    "ratio": "double precision",
    "active": "boolean",
    "born": "date",
    "seen": "timestamptz",
    "local": "timestamp",
    "detail": "jsonb",
    "span": "interval",
    "raw": "bytea",
    "tags": "text[]",
    "key": "uuid",
}
_NAMES = " ".join(["row", *_TYPES])
_TEXT_TYPES = ("name", "short", "padded", "code", "detail", "tags")
_CODES = ("=1+1", "-x", "plain", "'quoted")
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")

_STARTS = [*FORMULA_STARTS, MARK, "''=", " =", "x", "_x0041_", "\\u0041"]
_SPECIAL = ["", "\r\n", '"', '""', ",", "\\.", "\\N", "NULL", "𠀀😀", "\u202e王", "\ufffe"]

characters = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
texts = st.one_of(
    st.text(characters, max_size=12),
    st.builds(str.__add__, st.sampled_from(_STARTS), st.text(characters, max_size=5)),
    st.sampled_from(_SPECIAL),
)
years = {"min_value": datetime(1, 1, 2), "max_value": datetime(9999, 12, 30)}  # noqa: DTZ001
rows_of_table = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.none() | texts,
            "short": st.none() | texts,
            "padded": st.none() | st.sampled_from(["=a", "b", "", "'"]),
            "code": st.none() | st.sampled_from(_CODES),
            "number": st.none() | st.integers(-(2**63), 2**63 - 1),
            "amount": st.none()
            | st.decimals(
                allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20
            )
            | st.sampled_from([Decimal("NaN"), Decimal("1e-400"), Decimal("0.00")]),
            "price": st.none() | st.decimals(-(10**9), 10**9, places=2),
            "ratio": st.none() | st.floats(),
            "active": st.none() | st.booleans(),
            "born": st.none() | st.dates(),
            "seen": st.none() | st.datetimes(**years, timezones=st.just(UTC)),
            "local": st.none() | st.datetimes(),
            "detail": st.none()
            | st.one_of(texts, st.integers(), st.lists(texts, max_size=2)).map(Jsonb),
            "span": st.none() | st.timedeltas(timedelta(days=-9999), timedelta(days=9999)),
            "raw": st.none() | st.binary(max_size=5),
            "tags": st.none() | st.lists(texts, max_size=3),
            "key": st.none() | st.uuids(),
        }
    ),
    max_size=6,
)


@pytest.fixture(scope="module")
def table(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The connection string of a database with the empty table `sample`."""
    columns = ", ".join(f"{name} {kind}" for name, kind in _TYPES.items())
    codes = ", ".join("'" + code.replace("'", "''") + "'" for code in _CODES)
    with temporary_database(postgres) as name:
        conninfo = postgres.conninfo(name)
        with psycopg.connect(conninfo) as connection:
            connection.execute(f"CREATE TYPE code AS ENUM ({codes})".encode())
            connection.execute(f"CREATE TABLE sample (row serial, {columns})".encode())
        yield conninfo


def _fill(conninfo: str, rows: list[dict[str, Any]]) -> None:
    names = ", ".join(_TYPES)
    values = ", ".join(f"%({name})s" for name in _TYPES)
    with psycopg.connect(conninfo) as connection:
        connection.execute("TRUNCATE sample RESTART IDENTITY")
        for row in rows:
            connection.execute(f"INSERT INTO sample ({names}) VALUES ({values})".encode(), row)


def _printed(connection: psycopg.Connection[Any], zone: str) -> Rows:
    """Return the rows as PostgreSQL prints them, with another statement than the extract."""
    special = {
        "padded": "rpad(padded, 6)",
        "active": "CASE WHEN active THEN 't' WHEN NOT active THEN 'f' END",
    }
    columns = ", ".join(special.get(name, f"{name}::text") for name in _NAMES.split())
    with psycopg.connect(connection.info.dsn, password=connection.info.password) as other:
        for name, value in (
            ("TimeZone", zone),
            ("DateStyle", "ISO, YMD"),
            ("IntervalStyle", "iso_8601"),
            ("bytea_output", "hex"),
        ):
            other.execute("SELECT set_config(%s, %s, false)", [name, value])
        return other.execute(f"SELECT {columns} FROM sample ORDER BY row".encode()).fetchall()


def _without_mark(value: str | None) -> str | None:
    return value[1:] if value is not None and value.startswith(MARK) else value


@given(rows=rows_of_table)
@example(rows=[dict.fromkeys(_TYPES)])
def test_every_form_contains_exactly_the_rows_of_the_query(
    table: str, rows: list[dict[str, Any]]
) -> None:
    _fill(table, rows)
    query = source("SELECT * FROM sample ORDER BY row", _NAMES)
    heading = tuple(_NAMES.split())
    with snapshot(table) as connection, tempfile.TemporaryDirectory() as folder:
        writer = FileWriter(Path(folder))
        written, file = writer.write(connection, query, ExtractForm.AGE)
        assert written.rows == len(rows)
        clear = decrypt_age(file, str(identity())).decode()
        assert parse_csv(clear) == [heading, *_printed(connection, "UTC")]

        written, file = writer.write(connection, query, ExtractForm.ZIP)
        assert written.rows == len(rows)
        clear = unzip(file, PASSWORD, CSV_NAME).decode()
        expected = _printed(connection, "Asia/Shanghai")
        _require_guarded(parse_csv(clear.removeprefix("\ufeff")), [heading, *expected])

        written, file = writer.write(connection, query, ExtractForm.XLSX)
        assert written.rows == len(rows)
        _require_same_cells(open_sheet(file, PASSWORD), expected)


def _require_guarded(actual: Rows, expected: Rows) -> None:
    """Require that texts have an apostrophe before a formula, and are unchanged otherwise."""
    assert actual[0] == expected[0]
    assert len(actual) == len(expected)
    texts_at = [at for at, name in enumerate(expected[0]) if name in _TEXT_TYPES]
    for row, original in zip(actual[1:], expected[1:], strict=True):
        for at, (value, text) in enumerate(zip(row, original, strict=True)):
            if at not in texts_at:
                assert value == text
                continue
            assert _without_mark(value) == text
            assert value is None or not value.startswith(tuple(FORMULA_STARTS))
            is_marked = text is not None and text.startswith((*FORMULA_STARTS, MARK))
            assert (value != text) == is_marked


def _require_same_cells(sheet: Any, expected: Rows) -> None:
    heading_row = next(
        row for row in range(1, 20) if str(sheet.cell(row, 1).value).endswith("标题 row")
    )
    assert sheet.freeze_panes == f"A{heading_row + 1}"
    assert sheet.max_row == heading_row + len(expected)
    for number, row in enumerate(expected, heading_row + 1):
        for at, text in enumerate(row, 1):
            cell = sheet.cell(number, at)
            assert cell.data_type != "f"
            name = _NAMES.split()[at - 1]
            _require_same_cell(name, cell.value, text)


def _require_same_cell(name: str, value: Any, text: str | None) -> None:
    if text in (None, ""):
        assert value in (None, "")
    elif isinstance(value, bool):
        assert (name, text) == ("active", "t" if value else "f")
    elif isinstance(value, str):
        assert name not in ("active", "price")
        assert _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), value) == text
    elif name in ("seen", "local"):
        assert text is not None
        moment = datetime.fromisoformat(text).replace(tzinfo=None)
        assert abs(value - moment) <= timedelta(milliseconds=1)
    elif name == "born":
        assert value.date() == date.fromisoformat(str(text))
    else:
        assert name in ("row", "number", "amount", "price", "ratio")
        assert value == (float(str(text)) if name == "ratio" else Decimal(str(text))) or (
            float(value) == float(str(text))
        )
        assert len(str(text).lstrip("-").replace(".", "").lstrip("0")) <= 15 or name == "ratio"


def test_values_of_placeholders_and_percent_signs_reach_every_form(
    database: str, tmp_path: Path
) -> None:
    query = source(
        "SELECT '100%%' || %(word)s AS text, count(*) AS rows FROM generate_series(1, %(n)s) -- x",
        "text rows",
        {"word": "%s'; --", "n": 7},
    )
    with snapshot(database) as connection:
        _written, file = FileWriter(tmp_path).write(connection, query, ExtractForm.AGE)
        clear = decrypt_age(file, str(identity()))
        _written, archive = FileWriter(tmp_path).write(connection, query, ExtractForm.ZIP)
    assert clear == b"text,rows\n100%%s'; --,7\n"
    assert unzip(archive, PASSWORD, CSV_NAME) == b"\xef\xbb\xbftext,rows\r\n100%%s'; --,7\r\n"


def test_names_of_columns_may_contain_any_characters(database: str, tmp_path: Path) -> None:
    query = source('SELECT 1 AS "a""%%b", 2 AS "选择"', 'a"%b 选择')
    with snapshot(database) as connection:
        _written, file = FileWriter(tmp_path).write(connection, query, ExtractForm.ZIP)
    csv = unzip(file, PASSWORD, CSV_NAME).decode("utf-8-sig")
    assert csv == '"a""%b",选择\r\n1,2\r\n'


@pytest.mark.parametrize("names", ["a", "b a", "a b c"])
def test_extract_is_refused_if_columns_differ_from_those_of_the_query(
    database: str, tmp_path: Path, names: str
) -> None:
    with snapshot(database) as connection, pytest.raises(ValueError, match="the columns a, b"):
        FileWriter(tmp_path).write(
            connection, source("SELECT 1 AS a, 2 AS b", names), ExtractForm.ZIP
        )


def test_long_numbers_stay_texts_in_workbook(database: str, tmp_path: Path) -> None:
    query = source(
        "SELECT 999999999999999 AS short, 1234567890123456 AS long,"
        " '0012345678901234567' AS waybill, 123456789.1234567 AS amount",
        "short long waybill amount",
    )
    with snapshot(database) as connection:
        _written, file = FileWriter(tmp_path).write(connection, query, ExtractForm.XLSX)
    *_marks, row = open_sheet(file, PASSWORD).iter_rows(values_only=True)
    assert row == (
        999999999999999,
        "1234567890123456",
        "0012345678901234567",
        "123456789.1234567",
    )


def test_workbook_keeps_dates_that_excel_does_not_represent_as_texts(
    database: str, tmp_path: Path
) -> None:
    dates = ("infinity", "1900-02-28", "1900-03-01", "9999-12-31", "10000-01-01", "0044-03-15 BC")
    query = source(
        "SELECT day, day::timestamp AS time FROM unnest(%(days)s::date[]) AS day",
        "day time",
        {"days": list(dates)},
    )
    with snapshot(database) as connection:
        _written, file = FileWriter(tmp_path).write(connection, query, ExtractForm.XLSX)
    values = list(open_sheet(file, PASSWORD).iter_rows(values_only=True))[-len(dates) :]
    days = [value if isinstance(value, str) else value.date().isoformat() for value, _ in values]
    assert days == list(dates)
    assert [isinstance(day, str) for day, _ in values] == [True, True, False, False, True, True]
    assert [isinstance(time, str) for _, time in values] == [True, True, False, False, True, True]


def test_times_have_the_timezone_of_the_marks_for_people_and_utc_for_programs(
    database: str, tmp_path: Path
) -> None:
    query = source("SELECT timestamptz '2026-01-01 23:30Z' AS at", "at")
    writer = FileWriter(tmp_path)
    with snapshot(database) as connection:
        connection.execute("SET LOCAL TimeZone = 'America/New_York'")
        _written, file = writer.write(connection, query, ExtractForm.AGE)
        assert decrypt_age(file, str(identity())) == b"at\n2026-01-01 23:30:00+00\n"
        _written, file = writer.write(connection, query, ExtractForm.ZIP)
        assert b"2026-01-02 07:30:00+08" in unzip(file, PASSWORD, CSV_NAME)
        _written, file = writer.write(connection, query, ExtractForm.XLSX)
        *_marks, (moment,) = open_sheet(file, PASSWORD).iter_rows(values_only=True)
        assert moment == datetime(2026, 1, 2, 7, 30)  # noqa: DTZ001 - Excel has no timezones
        assert connection.execute("SHOW TimeZone").fetchone() == ("America/New_York",)
