"""Counting affected people, by what is affected of them: their records put together by person."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from psycopg.sql import SQL, Composable

from include.incident.counting.affected import Affected, Pairs, each_key
from include.incident.counting.bits import Bits
from include.incident.counting.categories import is_below
from include.incident.counting.named import column, joined, value
from include.incident.counting.records import Rows, rows_of
from include.incident.scope_rules import Lookup
from include.policy.fragments import either, pack_sql

_MOMENT = re.compile(r"(?<!:):moment\b")
_BY_HASH = "SELECT set_config(name, %s, true) FROM unnest(%s::text[]) AS name"
_WAYS = ["enable_nestloop", "enable_sort"]


@dataclass(frozen=True)
class People:
    """Affected people, each once.

    Attributes:
        count: all of them.
        categories: those of whom an affected record has a value, by data category.
        sensitive: those of whom one has a value of a sensitive category, and those under 14.
        minors: those under 14; None where nobody can know.
        age_unknown: those whose age is not known.
        unlisted: those who do not stand in the collection of people.
        departments: those for whom a department answers.
    """

    count: int = 0
    categories: Mapping[str, int] = field(default_factory=dict)
    sensitive: int = 0
    minors: int | None = None
    age_unknown: int = 0
    unlisted: int = 0
    departments: Mapping[str, int] = field(default_factory=dict)


def some(found: Affected, sensitive: Sequence[str]) -> tuple[People, dict[str, Rows]]:
    """Count people by putting their records together, and the records by collection.

    Args:
        found: what is affected.
        sensitive: categories that count as such, with those below them.
    """
    live, subject = found.live, found.live.rule.subject
    rows = {name: rows_of(found, one, one.values) for name, one in found.collections.items()}
    names = sorted({name for one in found.collections.values() for name in one.values})
    bits = Bits(names)
    parts = [_with_bits(found, one, bits, rows) for one in found.pairs()]
    if not parts:
        return People(minors=None if subject.minor is None else 0), rows
    name, source = department(found)
    minor, unknown = age(found)
    nobody = SQL("{} IS NULL").format(live.person)
    conditions = [bits.has(name) for name in names]
    marked = [bits.has(name) for name in names if is_below(name, sensitive)]
    conditions += [either(with_minors(found, marked)), minor, either([nobody, unknown]), nobody]
    query = SQL(
        "SELECT {}, count(*), {} FROM (SELECT k, {} FROM ({}) AS pair WHERE k IS NOT NULL"
        " GROUP BY k) AS p LEFT JOIN {} AS s ON {} = p.k{} GROUP BY 1"
    ).format(
        name, counts(conditions), bits.merged, SQL(" UNION ALL ").join(parts), live.people,
        live.person, source,
    )  # fmt: skip
    with by_hash(found):
        groups = live.connection.execute(query, found.values).fetchall()
    count, *rest = totals(groups, len(conditions) + 1)
    unlisted, age_unknown, minors, is_sensitive = (rest.pop() for _ in range(4))
    people = People(
        count=count,
        categories=present(dict(zip(names, rest, strict=True))),
        sensitive=is_sensitive,
        minors=None if subject.minor is None else minors,
        age_unknown=age_unknown,
        unlisted=unlisted,
        departments=by_department(groups),
    )
    return people, rows


@contextmanager
def by_hash(found: Affected) -> Iterator[None]:
    """Let a query find many people by hash, for PostgreSQL takes them for 200.

    It would look a million of them up one by one, and sort them all.
    """
    if found.few:
        yield
        return
    found.live.connection.execute(_BY_HASH, ["off", _WAYS])
    yield
    found.live.connection.execute(_BY_HASH, ["on", _WAYS])


def totals(groups: Sequence[Sequence[Any]], width: int) -> list[int]:
    """Sums of the numbers behind the name of each group."""
    if not groups:
        return [0] * width
    return [sum(numbers) for numbers in zip(*(one[1:] for one in groups), strict=True)]


def by_department(groups: Sequence[Sequence[Any]]) -> dict[str, int]:
    """People by the name of their group; those without one are left out."""
    return {name: count for name, count, *_ in sorted(groups, key=str) if name is not None}


def _with_bits(found: Affected, pair: Pairs, bits: Bits, rows: Mapping[str, Rows]) -> Composable:
    """People with what a record has of them."""
    one = pair.collected
    values = one.values if one else {}
    whole: set[str] = set()
    if one:
        counted = rows[one.name]
        whole = {name for name, count in counted.valued.items() if count == counted.count}
    return SQL("SELECT {} AS k, {} FROM {}").format(
        each_key(found.live, pair.keys), bits.columns(values, whole), pair.source
    )


def age(found: Affected) -> tuple[Composable, Composable]:
    """Whether a person ``s`` is under 14, and whether nobody knows."""
    text = found.live.rule.subject.minor
    if text is None:
        return SQL("false"), SQL("true")
    parts = [pack_sql(one) for one in _MOMENT.split(text)]
    minor = SQL("({})").format(SQL("%(moment)s::timestamptz").join(parts))
    return minor, SQL("{} IS NULL").format(minor)


def with_minors(found: Affected, marked: Sequence[Composable]) -> list[Composable]:
    """Conditions of sensitive information, with that a person ``s`` is under 14.

    All information about these is sensitive: PIPL (2021-11-01) 28. Where nobody can know who is
    under 14, nobody counts by that.
    """
    if found.live.rule.subject.minor is None:
        return list(marked)
    return [*marked, age(found)[0]]


def department(found: Affected) -> tuple[Composable, Composable]:
    """The department of a person ``s``, and what has to be joined for it."""
    live, named = found.live, found.live.rule.subject.department
    if named is None:
        return SQL("NULL::text"), SQL("")
    if isinstance(named, Lookup):
        return SQL("{}::text").format(column("n", named.name)), joined(
            live.database, "s", named, "n"
        )
    return value(live.database, "s", named), SQL("")


def counts(conditions: Sequence[Composable]) -> Composable:
    """Aggregates: how many rows meet each condition."""
    return SQL(", ").join(SQL("count(*) FILTER (WHERE {})").format(one) for one in conditions)


def present(valued: Mapping[str, int]) -> dict[str, int]:
    """People by category, without those that nobody has."""
    return {name: valued[name] for name in sorted(valued) if valued[name]}
