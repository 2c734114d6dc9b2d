"""Tests that expectations on each base type of PostgreSQL give the expected results.

The tests cover the expectations that Great Expectations defines.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Identifier, Literal
from pydantic import TypeAdapter

from include.expectations.broken import Finder, KeyList
from include.expectations.check import Check, Snapshot
from include.expectations.conditions import Records, condition_of
from include.expectations.fit import misfits
from include.expectations.types import read_types
from include.messages import verbatim
from include.policy.datamap import MappedCollection, MappedDatabase
from include.policy.expectations import AnyExpectation, Expectation
from tests.expectations.base_types import DECLARED, TIMEZONE, TYPES, WITHOUT_VALUES, BaseType, same

NOW = datetime(2026, 3, 2, 5, tzinfo=UTC)
PATTERN = "^.{3}$"
REFUSED = "refused"
FORM: TypeAdapter[Any] = TypeAdapter(AnyExpectation)
Row = tuple[str | None, str | None]


def expectation(name: str, kind: str, **kwargs: Any) -> Expectation:
    common = {"severity": "fail", "clause": "5.1", "title": {"en": "a", "zh-CN": "b"}}
    rule: Expectation = FORM.validate_python({"id": name, "type": kind, "kwargs": kwargs} | common)
    return rule


def rows_of(base: BaseType) -> list[Row]:
    """Return rows for two columns of a type: each sample, the first sample twice, and null."""
    samples = list(base.samples)
    if not samples:
        return [(None, None)]
    return [
        *zip(samples, [*samples[1:], samples[0]], strict=True),
        (samples[0], samples[0]),
        (None, samples[0]),
        (samples[1], None),
    ]


def broken(rows: list[Row], good: Callable[[str], bool]) -> set[int]:
    return {at for at, (value, _) in enumerate(rows) if value is not None and not good(value)}


def repeated(keys: list[Hashable]) -> set[int]:
    counts = Counter(keys)
    return {at for at, key in enumerate(keys) if key is not None and counts[key] > 1}


@dataclass(frozen=True)
class Case:
    """An expectation about a column of one type, and its expected result.

    Attributes:
        expectation: the expectation.
        broken: rows that break the expectation; None if the expectation must be refused for the
            type.
    """

    expectation: Expectation
    broken: set[int] | None


def cases(column: str, base: BaseType, count: int) -> Iterator[Case]:
    rows = rows_of(base)
    rows += [(None, None)] * (count - len(rows))
    about = {"column": column}
    yield Case(
        expectation(f"on.{column}.null", "expect_column_values_to_not_be_null", **about),
        {at for at, (value, _) in enumerate(rows) if value is None},
    )
    equal = base.equal
    first = equal(base.samples[0]) if equal and base.samples else None
    value_set = (base.first,)
    yield Case(
        expectation(
            f"on.{column}.set", "expect_column_values_to_be_in_set", **about, value_set=value_set
        ),
        broken(rows, lambda value: equal(value) == first) if equal else None,
    )
    yield Case(
        expectation(f"on.{column}.unique", "expect_column_values_to_be_unique", **about),
        repeated([equal(a) if a is not None else None for a, _ in rows]) if equal else None,
    )
    yield Case(
        expectation(
            f"on.{column}.compound",
            "expect_compound_columns_to_be_unique",
            column_list=(column, f"{column}_2"),
        ),
        repeated([(equal(a), equal(b)) if a is not None and b is not None else None
                  for a, b in rows]) if equal else None,
    )  # fmt: skip
    text = base.text
    for word, matches in (("match", True), ("not_match", False)):
        yield Case(
            expectation(
                f"on.{column}.{word}",
                f"expect_column_values_to_{word}_regex",
                **about,
                regex=PATTERN,
            ),
            broken(rows, lambda value, matches=matches: bool(re.search(PATTERN, text(value)))
                   is matches) if text else None,
        )  # fmt: skip
    length = base.lengths()
    yield Case(
        expectation(
            f"on.{column}.length",
            "expect_column_value_lengths_to_be_between",
            **about,
            min_value=2,
            max_value=3,
        ),
        broken(rows, lambda value: 2 <= length(value) <= 3) if length else None,
    )
    order = base.order
    low, high = base.ends or (base.first, base.first)
    if not isinstance(low, bool):
        yield Case(
            expectation(
                f"on.{column}.range",
                "expect_column_values_to_be_between",
                **about,
                min_value=low,
                max_value=high,
            ),
            broken(rows, base.in_range) if order else None,
        )
    for or_equal in (False, True):
        yield Case(
            expectation(
                f"on.{column}.pair_{or_equal}".lower(),
                "expect_column_pair_values_a_to_be_greater_than_b",
                column_A=column,
                column_B=f"{column}_2",
                or_equal=or_equal,
            ),
            _not_greater(rows, order, or_equal) if order else None,
        )


def _not_greater(rows: list[Row], order: Callable[[str], Any], or_equal: bool) -> set[int]:
    broken_rows = set()
    for at, (a, b) in enumerate(rows):
        if a is None or b is None:
            continue
        keys = order(a), order(b)
        is_good = None not in keys and (keys[0] > keys[1] or (or_equal and keys[0] == keys[1]))
        if not is_good:
            broken_rows.add(at)
    return broken_rows


def make_table(connection: psycopg.Connection, columns: Mapping[str, BaseType]) -> Records:
    """Create and fill a table with two columns for each type."""
    definitions = [
        SQL("{} {}").format(Identifier(f"{name}{end}"), _type(base.declared or name))
        for name, base in columns.items()
        for end in ("", "_2")
    ]
    connection.execute(
        SQL("CREATE TABLE every (id int PRIMARY KEY, {})").format(SQL(", ").join(definitions))
    )
    lines = []
    for at in range(longest(columns)):
        values: list[Composable] = [Literal(at)]
        for name, base in columns.items():
            rows = rows_of(base)
            for value in rows[at] if at < len(rows) else (None, None):
                cast = "{}::numeric::money" if name == "money" else "{}"
                values.append(SQL(cast).format(Literal(value)))
        lines.append(SQL("({})").format(SQL(", ").join(values)))
    connection.execute(SQL("INSERT INTO every VALUES {}").format(SQL(", ").join(lines)))
    collection = MappedCollection(name="every", schema_name="public", table="every", fields={})
    database = MappedDatabase(
        name="types", title=verbatim("types"), connection="x", schema_name="public",
        rto=timedelta(1), rpo=timedelta(1), collections={"every": collection},
    )  # fmt: skip
    names = ["id", *(f"{name}{end}" for name in columns for end in ("", "_2"))]
    return Records(collection, database, tuple(names), ("id",), timezone=TIMEZONE)


def longest(columns: Mapping[str, BaseType]) -> int:
    return max(len(rows_of(base)) for base in columns.values())


def all_cases(columns: Mapping[str, BaseType]) -> list[Case]:
    count = longest(columns)
    return [case for name, base in columns.items() for case in cases(name, base, count)]


def expected_of(cases: list[Case]) -> dict[str, Any]:
    return {case.expectation.id: REFUSED if case.broken is None else case.broken for case in cases}


def _type(name: str) -> SQL:
    return SQL('"char"' if name == "char" else name)


def test_every_type_of_expectation_gives_the_expected_result_on_columns_of_every_base_type(
    database: str,
) -> None:
    """The test reads the types from the server, so it fails for a new type of PostgreSQL.

    An expectation that does not apply to a type is refused with a reason, not with a SQLSTATE.
    """
    with psycopg.connect(database) as connection:
        live = {
            row[0]
            for row in connection.execute(
                "SELECT typname::text FROM pg_type WHERE typtype = 'b' AND typcategory <> 'A' "
                "AND typnamespace = 'pg_catalog'::regnamespace"
            )
        }
        assert live - WITHOUT_VALUES <= TYPES.keys()
        columns = {name: base for name, base in TYPES.items() if name in live}
        for name, (statement, base) in DECLARED.items():
            connection.execute(statement.encode())
            columns[name] = base
        records = make_table(connection, columns)
        types = read_types(connection, "public", "every")
        every_case = all_cases(columns)
        answers: dict[str, Any] = {}
        conditions = {}
        for case in every_case:
            rule = case.expectation
            if unfit := misfits(connection, rule, types, TIMEZONE):
                answers[rule.id] = REFUSED
                assert "SQLSTATE" not in unfit[0].message.text
            else:
                condition = condition_of(rule, records, NOW, types)
                assert condition is not None
                conditions[rule.id] = condition
        keys = KeyList()
        dialect = Snapshot(connection).engine.dialect
        counts = Finder(connection, dialect, records, None, keys, None).find(conditions)
    answers |= {name: {int(key[0]) for key in keys.keys[name]} for name in counts}
    expected = expected_of(every_case)
    assert {
        name: (answers[name], broken_rows)
        for name, broken_rows in expected.items()
        if answers[name] != broken_rows
    } == {}


def test_check_reports_expected_records_and_great_expectations_result_has_same_number(
    database: str,
) -> None:
    """The test includes ranges with limits that the class of Great Expectations does not accept."""
    names = ("int4", "text", "timestamptz", "inet", "json")
    columns = {name: TYPES[name] for name in names}
    every_case = all_cases(columns)
    keys = KeyList()
    with psycopg.connect(database) as connection:
        records = make_table(connection, columns)
        expectations = [case.expectation for case in every_case]
        results = Check(Snapshot(connection), records, expectations, NOW, keys).run()
    expected = expected_of(every_case)
    for result in results:
        broken_rows = expected[result.rule.id]
        assert (result.fault is not None) is (broken_rows == REFUSED), result.rule.id
        if result.fault is None:
            assert result.broken == len(broken_rows), result.rule.id
            assert {int(key[0]) for key in keys.keys[result.rule.id]} == broken_rows
            assert result.evr is not None
            assert result.evr.result["unexpected_count"] == len(broken_rows)


ARRAYS = """
SELECT a.typname::text, e.typname::text FROM pg_type a JOIN pg_type e ON e.typarray = a.oid
WHERE e.typtype = 'b' AND e.typnamespace = 'pg_catalog'::regnamespace
"""


def test_equality_expectation_fits_array_column_only_if_item_type_has_equality(
    database: str,
) -> None:
    """Expectations about patterns, lengths and ranges are refused for arrays."""
    with psycopg.connect(database) as connection:
        items = dict(connection.execute(ARRAYS).fetchall())
        columns = {
            name: BaseType(("{}", "{NULL}"), equal=same if TYPES[item].equal else None)
            for name, item in items.items()
            if item in TYPES
        }
        make_table(connection, columns)
        types = read_types(connection, "public", "every")
        for case in all_cases(columns):
            unfit = misfits(connection, case.expectation, types, TIMEZONE)
            assert bool(unfit) is (case.broken is None), case.expectation.id
