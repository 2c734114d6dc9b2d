"""Count affected records, and the people whom they are about with what is affected of each."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.sql import SQL, Composable, Identifier, Literal

from include.incident.counting.affected import Affected, Pairs, each_key
from include.incident.counting.live import Collected, is_below
from include.incident.counting.reading import column, first_and_last, joined, span, value
from include.incident.rules import Lookup
from include.policy.fragments import any_of, pack_sql

_BITS = 62  # of a bigint that stays positive


class Bits:
    """A bit for each name, in the columns ``m0``, ``m1`` and so on.

    Args:
        names: of data categories.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._places = {name: divmod(at, _BITS) for at, name in enumerate(names)}
        self._masks = range(max(len(names) - 1, 0) // _BITS + 1)

    def columns(self, values: Mapping[str, Composable], whole: Collection[str] = ()) -> Composable:
        """The columns of a row.

        Args:
            values: by name, whether the row has a value; names without a bit are left out.
            whole: names of which every row has one, so that nobody has to look.
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
        """The columns of all rows of a person."""
        return SQL(", ").join(
            SQL("bit_or({0}) AS {0}").format(self._column(mask)) for mask in self._masks
        )

    def has(self, name: str) -> Composable:
        """Return whether the bit of a name is set."""
        mask, bit = self._places[name]
        return SQL("{} & {}::bigint <> 0").format(self._column(mask), Literal(1 << bit))

    @staticmethod
    def _column(mask: int) -> Composable:
        return Identifier(f"m{mask}")


@dataclass(frozen=True)
class Rows:
    """Affected records of one collection.

    Attributes:
        count: each once.
        undated: those without a moment.
        first: moment of the oldest; None where none has one.
        last: of the newest.
        valued: how many have a value, by what was asked for; empty where that was not counted.
    """

    count: int = 0
    undated: int = 0
    first: datetime | None = None
    last: datetime | None = None
    valued: Mapping[str, int] = field(default_factory=dict)


def rows_of(found: Affected, one: Collected, values: Mapping[str, Composable]) -> Rows:
    """Count records, in one look at the collection.

    Args:
        found: what is affected.
        one: a collection of it.
        values: conditions over ``r``: rows that meet them are counted too, where the collection is
            looked through.
    """
    matches = found.matches(one)
    if not matches:
        return Rows()
    at = one.at.sql if one.at else SQL("NULL::timestamptz")
    if len(matches) == 1:
        source = SQL("{} WHERE {}").format(matches[0].source, matches[0].where)
    else:
        parts = [
            SQL("SELECT {}, {} AS made_at FROM {} WHERE {}").format(
                SQL(", ").join(one.identity), at, match.source, match.where
            )
            for match in matches
        ]
        source = SQL("({}) AS r").format(SQL(" UNION ").join(parts))
        at, values = SQL("made_at"), {}
    valued = [SQL(", count(*) FILTER (WHERE {})").format(each) for each in values.values()]
    query = SQL("SELECT count(*), count({}), {}{} FROM {}").format(
        at, span(at, one.at.type if one.at else None), SQL("").join(valued), source
    )
    row = found.live.connection.execute(query, found.values).fetchone()
    assert row is not None
    count, dated, first, last, *rest = row
    first, last = first_and_last(found.live.connection, [(first, last)], at, source, found.values)
    undated = count - dated if one.at else 0
    return Rows(count, undated, first, last, dict(zip(values, rest, strict=True)))


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
    names = sorted(
        {name for collection in found.collections.values() for name in collection.values}
    )
    bits = Bits(names)
    parts = [_with_bits(found, one, bits, rows) for one in found.pairs()]
    if not parts:
        return People(minors=None if subject.minor is None else 0), rows
    name, source = department(found)
    minor, unknown = age(found)
    nobody = SQL("{} IS NULL").format(live.person)
    conditions = [bits.has(name) for name in names]
    marked = [bits.has(name) for name in names if is_below(name, sensitive)]
    conditions += [any_of(with_minors(found, marked)), minor, any_of([nobody, unknown]), nobody]
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
    return [sum(numbers) for numbers in zip(*(group[1:] for group in groups), strict=True)]


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
    """Return whether a person ``s`` is under 14, and whether nobody knows."""
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
    return SQL(", ").join(SQL("count(*) FILTER (WHERE {})").format(part) for part in conditions)


def present(valued: Mapping[str, int]) -> dict[str, int]:
    """People by category, without those that nobody has."""
    return {name: valued[name] for name in sorted(valued) if valued[name]}
