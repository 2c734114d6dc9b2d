"""Count affected records and affected people, in total and by data category."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.sql import SQL, Composable, Identifier, Literal

from include.incident.counting.affected_records import AffectedRecords, SubjectRecords, each_key
from include.incident.counting.live_database import LiveCollection, is_below
from include.incident.counting.snapshot import (
    column,
    first_and_last,
    lookup_join,
    min_max_aggregates,
    name_expression,
)
from include.incident.rules import Lookup
from include.policy.fragments import any_of, pack_sql

_BITS = 62  # of a bigint that stays positive


class CategoryBits:
    """Data categories as bits of integer SQL columns ``m0``, ``m1`` etc., one bit per category.

    In a row of a query, a bit is set if the row has a value of the category.

    Args:
        names: data categories that have a bit.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._places = {name: divmod(at, _BITS) for at, name in enumerate(names)}
        self._masks = range(max(len(names) - 1, 0) // _BITS + 1)

    def columns(self, values: Mapping[str, Composable], whole: Collection[str] = ()) -> Composable:
        """Return SQL for the columns ``m0``, ``m1`` etc. of a row.

        Args:
            values: data category -> SQL condition that the row has a value of the category.
                Categories without a bit are ignored.
            whole: categories that are known to have a value in every row. Their bits are set
                without evaluating the condition.
        """
        constant = [0 for _ in self._masks]
        parts: list[list[Composable]] = [[] for _ in self._masks]
        for name, condition in values.items():
            if name not in self._places:
                continue
            mask, bit = self._places[name]
            if name in whole:
                constant[mask] |= 1 << bit
            else:
                has = SQL("CASE WHEN {} THEN {}::bigint ELSE 0 END")
                parts[mask].append(has.format(condition, Literal(1 << bit)))
        return SQL(", ").join(
            SQL("{} AS {}").format(
                SQL(" | ").join([SQL("{}::bigint").format(Literal(constant[mask])), *parts[mask]]),
                self._column(mask),
            )
            for mask in self._masks
        )

    @property
    def merged(self) -> Composable:
        """SQL that combines the columns ``m0``, ``m1`` etc. of all rows of a person."""
        return SQL(", ").join(
            SQL("bit_or({0}) AS {0}").format(self._column(mask)) for mask in self._masks
        )

    def has(self, name: str) -> Composable:
        """Return the SQL condition that the bit of a data category is set."""
        mask, bit = self._places[name]
        return SQL("{} & {}::bigint <> 0").format(self._column(mask), Literal(1 << bit))

    @staticmethod
    def _column(mask: int) -> Composable:
        return Identifier(f"m{mask}")


@dataclass(frozen=True)
class RecordCounts:
    """Counts of the affected records of one collection.

    Attributes:
        count: number of affected records, each counted once.
        undated: number of affected records without a time.
        first: time of the oldest affected record; None if no record has a time.
        last: time of the newest affected record; None if no record has a time.
        valued: data category -> number of affected records that have a value of this category;
            empty if categories were not counted.
    """

    count: int = 0
    undated: int = 0
    first: datetime | None = None
    last: datetime | None = None
    valued: Mapping[str, int] = field(default_factory=dict)


def count_records(
    affected: AffectedRecords, collection: LiveCollection, values: Mapping[str, Composable]
) -> RecordCounts:
    """Count the affected records of a collection in one query.

    Args:
        affected: affected records of the database.
        collection: collection whose records are counted.
        values: data category -> SQL condition on the row ``r``. For each condition, the records
            that fulfil it are counted as well (`RecordCounts.valued`). The conditions are ignored
            if several SQL statements are needed to select the affected records.
    """
    matches = affected.record_matches(collection)
    if not matches:
        return RecordCounts()
    at = collection.at.sql if collection.at else SQL("NULL::timestamptz")
    if len(matches) == 1:
        source = SQL("{} WHERE {}").format(matches[0].source, matches[0].where)
    else:
        parts = [
            SQL("SELECT {}, {} AS made_at FROM {} WHERE {}").format(
                SQL(", ").join(collection.identity), at, match.source, match.where
            )
            for match in matches
        ]
        source = SQL("({}) AS r").format(SQL(" UNION ").join(parts))
        at, values = SQL("made_at"), {}
    valued = [
        SQL(", count(*) FILTER (WHERE {})").format(condition) for condition in values.values()
    ]
    query = SQL("SELECT count(*), count({}), {}{} FROM {}").format(
        at,
        min_max_aggregates(at, collection.at.type if collection.at else None),
        SQL("").join(valued),
        source,
    )
    row = affected.live.connection.execute(query, affected.values).fetchone()
    assert row is not None
    count, dated, first, last, *rest = row
    first, last = first_and_last(
        affected.live.connection, [(first, last)], at, source, affected.values
    )
    undated = count - dated if collection.at else 0
    return RecordCounts(count, undated, first, last, dict(zip(values, rest, strict=True)))


_MOMENT = re.compile(r"(?<!:):moment\b")
_SET_PLANNER = "SELECT set_config(name, %s, true) FROM unnest(%s::text[]) AS name"
_PLANNER_SETTINGS = ["enable_nestloop", "enable_sort"]


@dataclass(frozen=True)
class SubjectCounts:
    """Counts of affected people. Each person is counted once.

    Attributes:
        count: number of affected people.
        categories: data category -> number of people with a value of it in an affected record.
        sensitive: number of people who are under 14 or have a value of a sensitive category.
        minors: number of people under 14; None if the database has no ages.
        age_unknown: number of people of unknown age.
        unlisted: number of people whose key is in a record, but not in the subject table.
        departments: department -> number of people for whom the department is responsible.
    """

    count: int = 0
    categories: Mapping[str, int] = field(default_factory=dict)
    sensitive: int = 0
    minors: int | None = None
    age_unknown: int = 0
    unlisted: int = 0
    departments: Mapping[str, int] = field(default_factory=dict)


def count_subjects(
    affected: AffectedRecords, sensitive: Sequence[str]
) -> tuple[SubjectCounts, dict[str, RecordCounts]]:
    """Count the affected people of a database, each once, and the affected records by collection.

    Args:
        affected: affected records of the database.
        sensitive: sensitive data categories. Their subcategories are sensitive as well.
    """
    live, subject = affected.live, affected.live.rule.subject
    rows = {
        department: count_records(affected, collection, collection.values)
        for department, collection in affected.collections.items()
    }
    names = sorted(
        {
            department
            for collection in affected.collections.values()
            for department in collection.values
        }
    )
    bits = CategoryBits(names)
    parts = [_subjects_with_bits(affected, pair, bits, rows) for pair in affected.subject_records()]
    if not parts:
        return SubjectCounts(minors=None if subject.minor is None else 0), rows
    department, department_join = department_expression(affected)
    minor, unknown = age_conditions(affected)
    is_unlisted = SQL("{} IS NULL").format(live.person)
    conditions = [bits.has(department) for department in names]
    sensitive_bits = [
        bits.has(department) for department in names if is_below(department, sensitive)
    ]
    conditions += [
        any_of(sensitive_conditions(affected, sensitive_bits)),
        minor,
        any_of([is_unlisted, unknown]),
        is_unlisted,
    ]
    query = SQL(
        "SELECT {}, count(*), {} FROM (SELECT k, {} FROM ({}) AS pair WHERE k IS NOT NULL"
        " GROUP BY k) AS p LEFT JOIN {} AS s ON {} = p.k{} GROUP BY 1"
    ).format(
        department, count_aggregates(conditions), bits.merged, SQL(" UNION ALL ").join(parts),
        live.people, live.person, department_join,
    )  # fmt: skip
    with prefer_hash_joins(affected):
        groups = live.connection.execute(query, affected.values).fetchall()
    count, *rest = sum_groups(groups, len(conditions) + 1)
    unlisted, age_unknown, minors, is_sensitive = (rest.pop() for _ in range(4))
    people = SubjectCounts(
        count=count,
        categories=nonzero_counts(dict(zip(names, rest, strict=True))),
        sensitive=is_sensitive,
        minors=None if subject.minor is None else minors,
        age_unknown=age_unknown,
        unlisted=unlisted,
        departments=count_by_department(groups),
    )
    return people, rows


@contextmanager
def prefer_hash_joins(affected: AffectedRecords) -> Iterator[None]:
    """Inside a with block, make PostgreSQL use hash joins if there are many affected people.

    PostgreSQL estimates that a subquery yields 200 people. With this estimate, it would look up
    each of a million people separately.

    Args:
        affected: affected records of the database.
    """
    if affected.has_few_subjects:
        yield
        return
    affected.live.connection.execute(_SET_PLANNER, ["off", _PLANNER_SETTINGS])
    yield
    affected.live.connection.execute(_SET_PLANNER, ["on", _PLANNER_SETTINGS])


def sum_groups(groups: Sequence[Sequence[Any]], width: int) -> list[int]:
    """Return the sum of each numeric column over all rows of a query with GROUP BY.

    Args:
        groups: rows of the query. Each row is a department followed by numbers.
        width: number of numeric columns.
    """
    if not groups:
        return [0] * width
    return [sum(numbers) for numbers in zip(*(group[1:] for group in groups), strict=True)]


def count_by_department(groups: Sequence[Sequence[Any]]) -> dict[str, int]:
    """Return the number of people by department. People without a department are left out.

    Args:
        groups: rows of a query with GROUP BY. Each row begins with the department and the number of
            people.
    """
    return {name: count for name, count, *_ in sorted(groups, key=str) if name is not None}


def _subjects_with_bits(
    affected: AffectedRecords,
    pair: SubjectRecords,
    bits: CategoryBits,
    rows: Mapping[str, RecordCounts],
) -> Composable:
    """Return SQL that selects affected people, with the data categories of their records as bits.

    Args:
        affected: affected records of the database.
        pair: SQL that selects records together with the keys of their people.
        bits: assignment of data categories to bits.
        rows: counts of affected records by collection.
    """
    collection = pair.collected
    values = collection.values if collection else {}
    whole: set[str] = set()
    if collection:
        record_counts = rows[collection.name]
        whole = {
            name for name, count in record_counts.valued.items() if count == record_counts.count
        }
    return SQL("SELECT {} AS k, {} FROM {}").format(
        each_key(affected.live, pair.keys), bits.columns(values, whole), pair.source
    )


def age_conditions(affected: AffectedRecords) -> tuple[Composable, Composable]:
    """Return two SQL conditions: a person ``s`` is under 14, and the person's age is unknown."""
    text = affected.live.rule.subject.minor
    if text is None:
        return SQL("false"), SQL("true")
    parts = [pack_sql(part) for part in _MOMENT.split(text)]
    minor = SQL("({})").format(SQL("%(moment)s::timestamptz").join(parts))
    return minor, SQL("{} IS NULL").format(minor)


def sensitive_conditions(
    affected: AffectedRecords, marked: Sequence[Composable]
) -> list[Composable]:
    """Return SQL conditions on a person ``s``, who has sensitive data if any of them is true.

    All data of people under 14 is sensitive: PIPL (2021-11-01), article 28. If the database has no
    ages, the condition for people under 14 is left out.

    Args:
        affected: affected records of the database.
        marked: SQL conditions that a person has a value of a sensitive category.
    """
    if affected.live.rule.subject.minor is None:
        return list(marked)
    return [*marked, age_conditions(affected)[0]]


def department_expression(affected: AffectedRecords) -> tuple[Composable, Composable]:
    """Return SQL for the department of a person ``s``, and the JOIN clause that it needs.

    Args:
        affected: affected records of the database.
    """
    live, department = affected.live, affected.live.rule.subject.department
    if department is None:
        return SQL("NULL::text"), SQL("")
    if isinstance(department, Lookup):
        return SQL("{}::text").format(column("n", department.name)), lookup_join(
            live.database, "s", department, "n"
        )
    return name_expression(live.database, "s", department), SQL("")


def count_aggregates(conditions: Sequence[Composable]) -> Composable:
    """Return SQL aggregates for a SELECT list, one per condition.

    Each aggregate counts the rows that fulfil its condition.

    Args:
        conditions: SQL conditions on a row.
    """
    return SQL(", ").join(SQL("count(*) FILTER (WHERE {})").format(part) for part in conditions)


def nonzero_counts(valued: Mapping[str, int]) -> dict[str, int]:
    """Return the counts of data categories without those that are zero.

    Args:
        valued: data category -> count.
    """
    return {name: valued[name] for name in sorted(valued) if valued[name]}
