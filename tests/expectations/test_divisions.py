"""Tests of the expectations about administrative division codes in addresses and ID numbers.

An ID number may contain a code that was retired after the person's birth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.expectations.broken import KeyList
from include.expectations.check import Check, Snapshot
from include.expectations.conditions import Records
from include.policy import PolicyPack
from include.registry import load_pack
from tests.policy.packs import problem_lines, write_pack

NOW = datetime(2026, 3, 2, tzinfo=UTC)
MAP = """\
fides_key: shop
collections:
  - name: division
    fields: [{name: code}, {name: valid_from}, {name: retired_on}]
  - name: person
    fields: [{name: id, fides_meta: {primary_key: true}}, {name: code}, {name: number}, {name: at}]
"""
RULE = """\
- collection: person
  expectations:
    - id: rule
      type: {type}
      kwargs: {{{kwargs}, collection: division, field: code}}
      severity: fail
      clause: "5.1"
      title: {{en: a, zh-CN: b}}
"""
TABLES = """
CREATE TABLE division (code char(6), valid_from date, retired_on date);
CREATE TABLE person (id int PRIMARY KEY, code text, number text, at timestamptz);
"""
IN_LIST = "expect_column_values_to_exist_in"
ID_NUMBER = "expect_column_values_to_be_resident_id_numbers"
CODES = st.sampled_from(["110101", "110103", "530102"])
DAYS = st.dates(date(2010, 1, 1), date(2010, 1, 4))
DIVISIONS = st.lists(st.tuples(CODES, st.none() | DAYS, st.none() | DAYS), max_size=4)


@dataclass
class Registry:
    """Administrative divisions and persons, in a transaction that is never committed."""

    connection: psycopg.Connection
    folder: Path

    def pack(self, kind: str, kwargs: str) -> PolicyPack:
        rule = RULE.format(type=kind, kwargs=kwargs)
        return load_pack(write_pack(self.folder, datamap__shop=MAP, quality__person=rule))

    def broken(self, kind: str, kwargs: str, timezone: str = "UTC") -> set[int]:
        """Return the ids of the persons that break an expectation.

        Args:
            kind: type of the expectation.
            kwargs: arguments of the expectation as YAML.
            timezone: IANA name of the policy pack's timezone.
        """
        pack = self.pack(kind, kwargs)
        (suite,) = pack.suites
        database = pack.database("shop")
        columns = ("id", "code", "number", "at")
        person = database.collections["person"]
        records = Records(person, database, columns, ("id",), timezone=timezone)
        keys = KeyList()
        check = Check(Snapshot(self.connection), records, suite.expectations, NOW, keys)
        (result,) = check.run()
        assert result.fault is None
        return {int(key) for (key,) in keys.keys[suite.expectations[0].id]}

    def divisions(self, *rows: tuple[str, date | None, date | None]) -> None:
        for row in rows:
            self.connection.execute("INSERT INTO division VALUES (%s, %s, %s)", row)

    def person(self, key: int, *, code: str = "", number: str = "", at: object = None) -> None:
        row = [key, code or None, number or None, at]
        self.connection.execute("INSERT INTO person VALUES (%s, %s, %s, %s)", row)


@pytest.fixture
def registry(database: str, tmp_path: Path) -> Iterator[Registry]:
    """Provide empty tables of divisions and persons."""
    with psycopg.connect(database) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(TABLES)
        connection.commit()
        yield Registry(connection, tmp_path)
        connection.rollback()


def number(code: str, born: str) -> str:
    """Return an ID number with a check character that may be wrong.

    Args:
        code: administrative division code.
        born: date of birth as ``YYYYMMDD``.
    """
    return f"{code}{born}0010"


def test_id_number_breaks_expectation_if_division_code_is_unknown_or_was_retired_before_birth(
    registry: Registry,
) -> None:
    registry.divisions(("110101", None, None), ("110103", None, date(2010, 7, 1)))
    registry.person(1, number=number("110101", "20200101"))
    registry.person(2, number=number("110103", "19990101"))
    registry.person(3, number=number("110103", "20100701"))  # the code's last day
    registry.person(4, number=number("110103", "20100702"))
    registry.person(5, number=number("999999", "19990101"))
    kwargs = "column: number, part: division, retired_on: retired_on"
    assert registry.broken(ID_NUMBER, kwargs) == {4, 5}
    assert registry.broken(ID_NUMBER, "column: number, part: division") == {5}


def test_expectation_about_division_codes_ignores_malformed_id_numbers(
    registry: Registry,
) -> None:
    """Other expectations check the format and the date of birth."""
    registry.divisions(("110101", None, date(2010, 7, 1)))
    for key, id_number in enumerate(("", "x", "99999919990101001", number("110101", "19990230"))):
        registry.person(key, number=id_number)
    kwargs = "column: number, part: division, retired_on: retired_on"
    assert registry.broken(ID_NUMBER, kwargs) == set()


@pytest.mark.parametrize(
    ("kind", "is_local"), [("date", True), ("timestamp", True), ("timestamptz", False)]
)
def test_timestamptz_is_compared_with_retirement_date_of_division_code_in_pack_timezone(
    registry: Registry, kind: str, is_local: bool
) -> None:
    registry.connection.execute(f"ALTER TABLE person ALTER COLUMN at TYPE {kind}")
    registry.divisions(("110101", None, date(2026, 3, 1)))
    registry.person(1, code="110101", at="2026-03-01 15:59+00")
    registry.person(2, code="110101", at="2026-03-01 16:01+00")
    kwargs = "column: code, at: at, retired_on: retired_on"
    assert registry.broken(IN_LIST, kwargs) == set()
    assert registry.broken(IN_LIST, kwargs, "Asia/Shanghai") == (set() if is_local else {2})


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(DIVISIONS, st.lists(st.tuples(CODES, st.none() | DAYS), max_size=8))
def test_division_code_is_valid_from_first_to_last_day_of_its_validity(
    registry: Registry,
    listed: list[tuple[str, date | None, date | None]],
    people: list[tuple[str, date | None]],
) -> None:
    """The first and the last day are included. A missing first or last day sets no limit."""
    registry.divisions(*listed)
    first, last = date.min, date.max
    expected: dict[str, set[int]] = {"at": set(), "born": set()}
    for key, (code, day) in enumerate(people):
        born = day or date(2010, 1, 2)
        registry.person(key, code=code, number=number(code, f"{born:%Y%m%d}"), at=day)
        periods = [
            (begin or first, end or last) for known_code, begin, end in listed if known_code == code
        ]
        if not any(day is None or begin <= day <= end for begin, end in periods):
            expected["at"].add(key)
        if not any(born <= end for _, end in periods):
            expected["born"].add(key)
    dated = "column: code, at: at, valid_from: valid_from, retired_on: retired_on"
    assert registry.broken(IN_LIST, dated) == expected["at"]
    divided = "column: number, part: division, retired_on: retired_on"
    assert registry.broken(ID_NUMBER, divided) == expected["born"]
    registry.connection.rollback()


@pytest.mark.parametrize(
    ("kind", "kwargs", "expected"),
    [
        (IN_LIST, "column: code, at: at", "at requires valid_from or retired_on"),
        (IN_LIST, "column: code, retired_on: retired_on", "at requires"),
        (IN_LIST, "column: code, at: when, retired_on: retired_on", "has no field 'when'"),
        (IN_LIST, "column: code, at: at, valid_from: begin", "has no field 'begin'"),
        (ID_NUMBER, "column: number, part: division, retired_on: end", "has no field 'end'"),
        (ID_NUMBER, "column: number, part: form", "this key is unknown"),
    ],
)
def test_load_pack_reports_unknown_or_missing_fields_of_division_expectation(
    tmp_path: Path, kind: str, kwargs: str, expected: str
) -> None:
    rule = RULE.format(type=kind, kwargs=kwargs)
    lines = problem_lines(write_pack(tmp_path, datamap__shop=MAP, quality__person=rule))
    assert any(expected in line for line in lines), lines
    assert all(line.startswith("quality/person.yaml:5") for line in lines)
