"""Tests that expectations which do not fit the types of their columns are reported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.expectations.check import Check, Snapshot
from include.expectations.conditions import Records
from include.expectations.fit import expectation_problems, misfits
from include.expectations.types import read_types
from include.messages import in_english
from include.registry import load_pack
from tests.expectations.test_base_types import NOW, expectation
from tests.policy.packs import problem_lines, write_pack

TABLE = """
CREATE TYPE state AS ENUM ('new', 'old');
CREATE TABLE t (id int PRIMARY KEY, s state, u uuid, n numeric(6, 2), i smallint, b boolean,
  d date, l timestamp, m timestamptz, w text, c char(3), j json, a int[], p money, x inet)
"""
COLUMNS = ("id", "s", "u", "n", "i", "b", "d", "l", "m", "w", "c", "j", "a", "p", "x")
FIELDS = ", ".join(f"{{name: {name}}}" for name in COLUMNS)
MAP = f"fides_key: shop\ncollections: [{{name: t, fields: [{FIELDS}]}}]\n"
BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
REGEX = "expect_column_values_to_match_regex"
PAIR = "expect_column_pair_values_a_to_be_greater_than_b"


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database) as connection:
        connection.execute(TABLE)
        yield connection


def test_value_set_of_2000_values_is_accepted_despite_column_limit_of_postgresql_queries(
    connection: psycopg.Connection,
) -> None:
    """A query can have at most 1,664 columns, so it must not have one column for each value."""
    codes = expectation("r", IN_SET, column="i", value_set=tuple(range(2_000)))
    assert misfits(connection, codes, read_types(connection, "public", "t"), "UTC") == []


@pytest.mark.parametrize(
    ("kind", "kwargs", "fault"),
    [
        (IN_SET, {"column": "s", "value_set": ("new", "lost")}, "value_set[1] is not a value"),
        (IN_SET, {"column": "s", "value_set": ("new", "old")}, None),
        (IN_SET, {"column": "u", "value_set": ("12",)}, "value_set[0] is not a value of the type"),
        (IN_SET, {"column": "w", "value_set": ("a", 12)}, "value_set[1] is not a value of"),
        (IN_SET, {"column": "i", "value_set": (1, 40000)}, "value_set[1] is not a value"),
        (IN_SET, {"column": "i", "value_set": (1, 2.5)}, "value_set[1] is not a value"),
        (IN_SET, {"column": "b", "value_set": (1, "yes", True)}, "value_set[0] is not a value"),
        (IN_SET, {"column": "d", "value_set": ("today",)}, "value_set[0] is not a value"),
        (IN_SET, {"column": "j", "value_set": ("1",)}, "which this expectation does not support"),
        (IN_SET, {"column": "a", "value_set": ("{1}", "1")}, "value_set[1] is not a value"),
        (BETWEEN, {"column": "d", "max_value": "2024-02-29T10:00"}, "max_value is not a value"),
        (BETWEEN, {"column": "l", "max_value": "2024-02-29T10:00Z"}, "max_value is not a value"),
        (BETWEEN, {"column": "m", "max_value": "2024-02-29T10:00+08:00"}, None),
        (BETWEEN, {"column": "d", "max_value": 20240229}, "max_value is not a value of the type d"),
        (BETWEEN, {"column": "n", "max_value": "ten"}, "max_value is not a value of the type n"),
        (BETWEEN, {"column": "n", "min_value": "2.10", "max_value": "10"}, None),
        (BETWEEN, {"column": "n", "min_value": "10", "max_value": "2.10"}, "no value of the type"),
        (BETWEEN, {"column": "s", "min_value": "old", "max_value": "new"}, "no value of the type"),
        (BETWEEN, {"column": "w", "max_value": 5}, "max_value is not a value of the type text"),
        (BETWEEN, {"column": "x", "min_value": "10.0.0.1", "max_value": "10.0.0.300"}, "max_value"),
        (BETWEEN, {"column": "j", "max_value": 5}, "the column j has the type json"),
        (BETWEEN, {"column": "b", "max_value": 5}, "the column b has the type boolean"),
        (
            REGEX,
            {"column": "w", "regex": "("},
            "the regular expression of the expectation is invalid",
        ),
        (REGEX, {"column": "d", "regex": "x"}, "the column d has the type date"),
        (PAIR, {"column_A": "d", "column_B": "m"}, None),
        (PAIR, {"column_A": "d", "column_B": "n"}, "values of the types date and numeric(6,2)"),
    ],
    ids=str,
)  # fmt: skip
def test_misfit_message_contains_name_of_argument_that_does_not_fit_the_column_type(
    connection: psycopg.Connection, kind: str, kwargs: dict[str, Any], fault: str | None
) -> None:
    """Without this check, PostgreSQL would refuse the whole scan or misread the argument."""
    types = read_types(connection, "public", "t")
    unfit = misfits(connection, expectation("r", kind, **kwargs), types, "Asia/Shanghai")
    messages = [in_english(misfit.message) for misfit in unfit]
    assert bool(messages) is (fault is not None)
    assert fault is None or fault in messages[0]


def test_expectation_that_does_not_fit_its_column_is_reported_with_file_line_and_path(
    database: str, tmp_path: Path
) -> None:
    """`config check` lists all of these problems before a run."""
    rule = "{severity: warn, clause: '5.1', title: {en: a, zh-CN: b}, id: "
    suite = f"""\
- collection: t
  expectations:
    - {rule} a, type: {IN_SET}, kwargs: {{column: s, value_set: [new,
        lost, gone]}}}}
    - {rule} b, type: {REGEX},
       kwargs: {{column: j, regex: x}}}}
    - {rule} c, type: {BETWEEN}, kwargs: {{column: m,
        max_value: 2024-02-29, min_value: 2024-03-01T00:00+08:00}}}}
    - {rule} d, type: {BETWEEN}, kwargs: {{column: gone, max_value: 1}}}}
"""
    suite = suite.replace("column: gone", "column: i")
    pack = load_pack(write_pack(tmp_path, datamap__shop=MAP, quality__t=suite))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(TABLE)
        problems = expectation_problems(pack, pack.database("shop"), connection)
    locations = [str(problem).split(": ")[:2] for problem in problems]
    assert locations == [
        ["quality/t.yaml:4", "[0].expectations[0].kwargs.value_set[1]"],
        ["quality/t.yaml:4", "[0].expectations[0].kwargs.value_set[2]"],
        ["quality/t.yaml:5", "[0].expectations[1].type"],
        ["quality/t.yaml:8", "[0].expectations[2].kwargs.min_value"],
    ]


def test_check_skips_only_the_expectation_that_does_not_fit_its_column(
    connection: psycopg.Connection, tmp_path: Path
) -> None:
    """The detail for engineers names the argument and contains no SQLSTATE."""
    pack = load_pack(write_pack(tmp_path, datamap__shop=MAP))
    database = pack.database("shop")
    columns = tuple(read_types(connection, "public", "t"))
    records = Records(database.collections["t"], database, columns, ("id",))
    rules = [
        expectation("a", IN_SET, column="s", value_set=("lost",)),
        expectation("b", IN_SET, column="s", value_set=("new",)),
    ]
    connection.execute("INSERT INTO t (id, s) VALUES (1, 'old')")
    receiver = type("Names", (), {"add": lambda *_: None, "forget": lambda *_: None})()
    faulty, sound = Check(Snapshot(connection), records, rules, NOW, receiver).run()
    assert faulty.fault is not None
    assert faulty.fault.detail is not None
    assert in_english(faulty.fault.detail) == "value_set[0] is not a value of the type state"
    assert (sound.fault, sound.broken) == (None, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("max_value: 2024-13-45", "should be a day or moment of the calendar"),
        ("max_value: 2024-02-30T10:00", "should be a day or moment of the calendar"),
        ("min_value: 2024-03-01, max_value: 2024-02-01", "min_value 2024-03-01 is above"),
        ("min_value: 2024-03-02T00:01, max_value: 2024-03-01", "min_value 2024-03-02T00:01 is abo"),
    ],
)
def test_load_pack_reports_range_with_invalid_date_or_with_minimum_above_maximum(
    tmp_path: Path, arguments: str, message: str
) -> None:
    rule = f"{{id: a, type: {BETWEEN}, severity: warn, clause: '5.1', title: {{en: a, zh-CN: b}}, "
    suite = f"- collection: t\n  expectations:\n    - {rule}kwargs: {{column: d, {arguments}}}}}\n"
    lines = problem_lines(write_pack(tmp_path, datamap__shop=MAP, quality__t=suite))
    assert lines
    assert lines[0].startswith("quality/t.yaml:3: [0].expectations[0].kwargs")
    assert message in lines[0]


def test_load_pack_accepts_range_of_texts_that_look_like_months(tmp_path: Path) -> None:
    rule = f"{{id: a, type: {BETWEEN}, severity: warn, clause: '5.1', title: {{en: a, zh-CN: b}}, "
    kwargs = "kwargs: {column: s, min_value: 4711-12, max_value: 4711-99}"
    suite = f"- collection: t\n  expectations:\n    - {rule}{kwargs}}}\n"
    assert load_pack(write_pack(tmp_path, datamap__shop=MAP, quality__t=suite)).suites
