"""How records are looked through: what is named, what is counted, what changed since."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.expectations.broken import Finder, Kept
from include.expectations.check import Check, Snapshot
from include.expectations.conditions import Records, condition_of
from include.expectations.marks import Mark, usable, written_since
from include.local.postgres import EmbeddedPostgres
from include.policy import load_pack
from include.policy.expectations import AnyExpectation, Suite
from include.policy.kwargs import ExistsIn, Related
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
RULES = "".join(RULE.format(part=one) for one in ("form", "birth_date", "check_character"))
SUITE = "- collection: person\n  expectations:\n" + RULES
GOOD, WRONG = "11010519491231002X", "110105194912310021"


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection]:
    """Five persons, three of whom have a wrong number."""
    with psycopg.connect(database) as found:
        found.execute("CREATE TABLE person (id bigint PRIMARY KEY, number text)")
        for key, number in enumerate([GOOD, WRONG, WRONG, "x", None], start=1):
            found.execute("INSERT INTO person VALUES (%s, %s)", [key, number])
        yield found


@pytest.fixture
def people(tmp_path: Path) -> tuple[Suite, Records]:
    """What is expected of their numbers."""
    pack = load_pack(write_pack(tmp_path / "pack", datamap__shop=MAP, quality__person=SUITE))
    database = pack.database("shop")
    return pack.suites[0], Records(
        database.collections["person"], database, ("id", "number"), ("id",)
    )


@pytest.mark.parametrize(("most", "named"), [(None, 2), (1, 1), (0, 0)])
def test_all_are_counted_and_as_many_named_as_asked_for(
    connection: psycopg.Connection, people: tuple[Suite, Records], most: int | None, named: int
) -> None:
    """Who must know every one, as the review of a batch does, sets no limit."""
    suite, records = people
    kept = Kept()
    view = Snapshot(connection)
    results = Check(view, records, suite.expectations, NOW, kept, most=most).run()
    assert [one.broken for one in results] == [1, 0, 2]
    assert len(kept.keys["check_character"]) == named


def test_postgresql_judges_records_in_its_workers(
    connection: psycopg.Connection, people: tuple[Suite, Records]
) -> None:
    """Also behind what is computed once for several rules: else a check takes twice as long."""
    suite, records = people
    connection.execute("SET LOCAL min_parallel_table_scan_size = 0")
    connection.execute("SET LOCAL parallel_setup_cost = 0")
    connection.execute("SET LOCAL parallel_tuple_cost = 0")
    dialect = Snapshot(connection).engine.dialect
    conditions = [condition_of(one, records, NOW) for one in suite.expectations]
    finder = Finder(connection, dialect, records, None, Kept(), None)
    query = finder._query([one for one in conditions if one is not None]).compile(dialect=dialect)
    plan = connection.execute(f"EXPLAIN {query}".encode(), query.params).fetchall()
    assert plan[0][0].startswith("Gather")
    assert "octets of column 2" in str(query)


@settings(max_examples=200, deadline=None)
@given(mark=st.integers(3, 2**34), ahead=st.integers(-(2**31) + 1, 2**31 - 1))
def test_transaction_numbers_go_round_a_circle(
    postgres: EmbeddedPostgres, mark: int, ahead: int
) -> None:
    """Later is what is less than half of the circle ahead, as PostgreSQL itself has it."""
    number = (mark + ahead) % 2**32
    condition = written_since("row", Mark("v", "x", mark, NOW))
    query = f"SELECT {condition} FROM (SELECT '{number}'::xid AS xmin) AS row"
    with psycopg.connect(postgres.conninfo("postgres"), autocommit=True) as found:
        row = found.execute(query.encode()).fetchone()
    assert row is not None
    assert row[0] is (ahead >= 0 and number != 2)


@given(
    transaction=st.integers(0, 2**63),
    deleted=st.none() | st.tuples(st.integers(0, 2**63), st.integers(0, 2**63)),
    uncounted=st.integers(0, 2**40),
)
def test_a_mark_is_read_as_it_was_written(
    transaction: int, deleted: tuple[int, int] | None, uncounted: int
) -> None:
    """Also where the server does not know what was deleted."""
    mark = Mark("0" * 12, "0" * 32, transaction, NOW, deleted, uncounted)
    assert Mark.parse(str(mark)) == mark
    assert Mark.parse(f"{'0' * 32}/5@{NOW.isoformat()}") is None  # of another version


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"transaction": 1_000 + 2**31}, False),  # PostgreSQL compares no further
        ({"transaction": 999}, False),
        ({"identity": "other"}, False),
        ({"at": NOW - timedelta(seconds=1)}, False),  # the clock was set back
    ],
)
def test_a_mark_is_used_only_where_it_tells_what_came_after(
    change: dict[str, Any], good: bool
) -> None:
    """Same tables and server, later by the clock, and not too many transactions ago."""
    last = Mark("v", "same", 1_000, NOW)
    present = replace(Mark("v", "same", 2_000, NOW), **change)
    assert usable(last, present) is good
    assert not usable(None, present)


def test_every_rule_that_asks_another_collection_is_known_to_usual_runs() -> None:
    """Else what is written there would be looked at a week later: see marks.py and scope.py."""
    given = [one.model_fields["kwargs"].annotation for one in get_args(get_args(AnyExpectation)[0])]
    named = {kind for one in given for kind in get_args(one) or [one]}
    asking = {kind for kind in named if "collection" in getattr(kind, "model_fields", {})}
    assert asking
    assert all(issubclass(kind, Related | ExistsIn) for kind in asking)
