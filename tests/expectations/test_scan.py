"""Tests of the scan for records that break expectations."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from include.expectations.broken import Finder, KeyList
from include.expectations.check import Check, Snapshot
from include.expectations.conditions import Records, condition_of
from include.policy.expectations import Suite
from include.registry import load_pack
from tests.policy.packs import write_pack

NOW = datetime(2026, 3, 2, 5, tzinfo=UTC)
MAP = """\
fides_key: shop
collections:
  - name: person
    fields:
      - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true}}
      - {name: number, data_categories: [user.government_id]}
"""
RULE = """\
    - id: {part}
      type: expect_column_values_to_be_resident_id_numbers
      kwargs: {{column: number, part: {part}}}
      severity: fail
      clause: "5.1"
      title: {{en: a, zh-CN: b}}
"""
RULES = "".join(RULE.format(part=part) for part in ("form", "birth_date", "check_character"))
SUITE = "- collection: person\n  expectations:\n" + RULES
GOOD, WRONG = "11010519491231002X", "110105194912310021"


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    """Provide a table of five persons, of whom three have a wrong ID number."""
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE person (id bigint PRIMARY KEY, number text)")
        for key, number in enumerate([GOOD, WRONG, WRONG, "x", None], start=1):
            connection.execute("INSERT INTO person VALUES (%s, %s)", [key, number])
        yield connection


@pytest.fixture
def people(tmp_path: Path) -> tuple[Suite, Records]:
    """Provide the suite for the ID numbers of the persons, and the records to check."""
    pack = load_pack(write_pack(tmp_path / "pack", datamap__shop=MAP, quality__person=SUITE))
    database = pack.database("shop")
    return pack.suites[0], Records(
        database.collections["person"], database, ("id", "number"), ("id",)
    )


@pytest.mark.parametrize(("most", "named"), [(None, 2), (1, 1), (0, 0)])
def test_check_stores_limited_number_of_record_keys_but_counts_all_records(
    connection: psycopg.Connection, people: tuple[Suite, Records], most: int | None, named: int
) -> None:
    suite, records = people
    keys = KeyList()
    view = Snapshot(connection)
    results = Check(view, records, suite.expectations, NOW, keys, most=most).run()
    assert [result.broken for result in results] == [1, 0, 2]
    assert len(keys.keys["check_character"]) == named


def test_scan_for_records_that_break_expectations_uses_parallel_workers(
    connection: psycopg.Connection, people: tuple[Suite, Records]
) -> None:
    """A column that is computed once for several expectations must not prevent parallel workers."""
    suite, records = people
    connection.execute("SET LOCAL min_parallel_table_scan_size = 0")
    connection.execute("SET LOCAL parallel_setup_cost = 0")
    connection.execute("SET LOCAL parallel_tuple_cost = 0")
    dialect = Snapshot(connection).engine.dialect
    conditions = [condition_of(expectation, records, NOW) for expectation in suite.expectations]
    finder = Finder(connection, dialect, records, None, KeyList(), None)
    query = finder._query([condition for condition in conditions if condition is not None]).compile(
        dialect=dialect
    )
    plan = connection.execute(f"EXPLAIN {query}".encode(), query.params).fetchall()
    assert plan[0][0].startswith("Gather")
    assert "octets of column 2" in str(query)
