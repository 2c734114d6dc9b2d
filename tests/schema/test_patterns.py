"""Tests of counting values by pattern inside PostgreSQL, so that no value leaves the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.local.postgres import EmbeddedPostgres
from include.schema.live import read_schema
from include.schema.patterns import SAMPLE, Counts, TableCounts, count_patterns
from tests.schema.support import scratch
from tests.support.id_numbers import id_check_character, is_id_number


def count_table(connection: psycopg.Connection[Any], table: str = "t") -> TableCounts:
    return count_patterns(connection, read_schema(connection).tables["public", table])


def counts_of_values(connection: psycopg.Connection[Any], values: Sequence[str | None]) -> Counts:
    with connection.transaction(force_rollback=True):
        connection.execute("CREATE TABLE t (v text)")
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO t VALUES (%s)", [(value,) for value in values])
        return count_table(connection).columns["v"]


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("mobile", ["13812345678", "+86 138-1234-5678", "0086 13812345678", "(138) 1234 5678"],
         ["12812345678", "1381234567", "138123456789", "abc"]),
        ("phone", ["+1 (415) 555-2671", "+44 20 7946 0958", "(0)30 901820-10", "010-88880001"],
         ["2024-01-01", "12.50", "12345", "123-45-6789", "4155552671"]),
        ("resident_id", ["11010519491231002X", "11010519491231002x"],
         ["110105194912310021", "11010519491231002", "010105194912310029"]),
        ("email", ["a@b.example", "jürgen@müller.example"], ["a@b", "@b.example", "a b@c.example"]),
        ("card", ["4111111111111111", "5500 0055 5555 5559", "3782-822463-10005"],
         ["4111111111111112", "411111", "9111111111111111"]),
        ("ssn", ["123-45-6789"], ["123456789", "12-345-6789"]),
        ("chinese_name", ["王明", "欧阳小红"], ["北京市", "王", "王明明明明", "Wang"]),
        ("latin_name", ["James Smith", "Mary A. Jones", "Vincent van Gogh", "Sean O'Brien"],
         ["james smith", "James", "RTX 4090", "A lot of words in a row here"]),
        ("given_name", ["James Smith", "maria"], ["Deep Purple", "王明"]),
        ("address", ["海淀区中关村大街5号3号楼201室", "幸福街51号", "123 Main St", "Hauptstraße 5",
                     "Rua Dr. Falcão Filho, 155"],
         ["北京", "hello", "12", "Main"]),
        ("birth_date", ["1980-01-31", "19800131", "2001/12/01"], ["1880-01-01", "12.1.80"]),
        ("ip", ["10.0.0.1"], ["10.0.0", "1.2.3.4.5"]),
    ],
)  # fmt: skip
def test_each_pattern_matches_the_usual_spellings_of_its_values_and_nothing_else(
    postgres: EmbeddedPostgres, pattern: str, good: list[str], bad: list[str]
) -> None:
    with scratch(postgres) as connection:
        assert counts_of_values(connection, good).share(pattern) == 1.0
        assert counts_of_values(connection, bad).share(pattern) == 0.0


@settings(max_examples=25, deadline=None)
@given(
    bodies=st.lists(
        st.tuples(
            st.sampled_from(["110105", "440524", "653129"]), st.dates(
                min_value=date(1900, 1, 1),
                max_value=date(2020, 12, 31)),
            st.integers(0, 999), st.booleans(),
        ), min_size=1, max_size=20),
)  # fmt: skip
def test_resident_id_pattern_matches_only_numbers_with_correct_check_character(
    courier: psycopg.Connection[Any], bodies: list[Any]
) -> None:
    """The SQL is compared with Python code for GB 11643, for right and wrong check characters."""
    values = []
    for code, born, sequence, right in bodies:
        first = f"{code}{born:%Y%m%d}{sequence:03}"
        check = id_check_character(first)
        values.append(first + (check if right else ("1" if check != "1" else "2")))
    courier.rollback()
    assert counts_of_values(courier, values).like["resident_id"] == sum(map(is_id_number, values))


def test_blank_values_are_not_counted_as_filled(postgres: EmbeddedPostgres) -> None:
    """Blank values are null, empty texts and spaces. In an empty table the share is 0."""
    with scratch(postgres) as connection:
        counts = counts_of_values(connection, [None, "", "  ", "a@b.example"])
        assert (counts.rows, counts.filled, counts.share("email")) == (4, 1, 1.0)
        assert counts_of_values(connection, []).share("email") == 0.0


def test_very_long_values_and_values_with_sql_code_are_counted_as_filled(
    postgres: EmbeddedPostgres,
) -> None:
    """The values have quotes, ten megabytes, zero-width characters or formulas."""
    values = ["'; DROP TABLE t; --", "x" * 10_000_000, "\u202eabc\u200b", "=cmd()", "\\x00", "%s{}"]
    with scratch(postgres) as connection:
        assert counts_of_values(connection, values).filled == len(values)


def test_count_patterns_reads_a_sample_of_a_large_table(postgres: EmbeddedPostgres) -> None:
    """If the row estimate is outdated, the first rows are read instead of a sample."""
    script = """CREATE TABLE t (v text); INSERT INTO t SELECT 'a' || n || '@x.example'
    FROM generate_series(1, 200000) n; ANALYZE t;"""
    with scratch(postgres, script) as connection:
        counts = count_table(connection).columns["v"]
        assert 0 < counts.rows <= SAMPLE
        assert counts.share("email") == 1.0
        connection.execute("TRUNCATE t; INSERT INTO t VALUES ('a@x.example')")
        assert count_table(connection).columns["v"].rows == 1


def test_count_patterns_omits_json_keys_that_could_be_personal_data(
    postgres: EmbeddedPostgres,
) -> None:
    """Such keys are rare, or look like a phone number or a person."""
    script = """CREATE TABLE t (v jsonb, w json);
    INSERT INTO t SELECT jsonb_build_object('phone', '1380000' || lpad(n::text, 4, '0'),
        'u' || n, 1, '13812345678', 1, 'a@b.example', 2), '[1, 2]' FROM generate_series(1, 50) n;
    INSERT INTO t VALUES ('"text"', NULL), (NULL, 'null'), ('{"once": 1}', '{}');"""
    with scratch(postgres, script) as connection:
        counts = count_table(connection)
    assert set(counts.keys["v"]) == {"phone"}
    assert counts.keys["v"]["phone"].share("mobile") == 1.0
    assert "w" not in counts.keys


def test_table_without_select_privilege_is_reported_with_sqlstate(
    postgres: EmbeddedPostgres,
) -> None:
    """The transaction must stay usable after the error."""
    with scratch(postgres, "CREATE TABLE t (v text); CREATE ROLE reader_of_nothing") as connection:
        connection.execute("SET ROLE reader_of_nothing")
        assert count_table(connection).refused == "42501"
        assert connection.execute("SELECT 1").fetchone() == (1,)
        connection.execute("RESET ROLE")
        connection.execute("DROP ROLE reader_of_nothing")


def test_slow_query_is_cancelled_and_the_next_table_is_read(
    postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cause may be a view that calls a slow function, or a busy server."""
    monkeypatch.setattr("include.schema.patterns.TIMEOUT", 0.2)
    script = """CREATE FUNCTION slow() RETURNS text LANGUAGE sql AS 'SELECT pg_sleep(5)::text';
    CREATE MATERIALIZED VIEW m AS SELECT 1 AS x; CREATE VIEW t AS SELECT slow() AS v FROM m;"""
    with scratch(postgres, script) as connection:
        assert count_table(connection).refused == "57014"
        assert count_table(connection, "m").refused == ""


def test_count_patterns_returns_counts_on_read_only_connection(
    courier: psycopg.Connection[Any],
) -> None:
    """The function writes nothing, not even a temporary table."""
    courier.rollback()
    courier.read_only = True
    try:
        table = read_schema(courier).tables["public", "customer"]
        assert count_patterns(courier, table).columns["phone"].share("mobile") > 0.95
    finally:
        courier.rollback()
        courier.read_only = None
