"""Counting affected people, by what is affected of them.

Where everybody is affected, people are counted by one look at their table, and a data category that
some of them lack there is looked for in other records of just these; of a category that all rows of
a collection have, their values are not looked at again. Where fewer are affected, their records are
put together by person. Both count the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from include.incident.affected import Affected, Pairs, each_key
from include.incident.categories import any_of, is_below
from include.incident.live import plain_column
from include.incident.named import column, joined, value
from include.incident.reading import first_and_last, span
from include.incident.records import Rows, rows_of
from include.policy.fragments import both, either, negated, pack_sql
from include.policy.incident_scope import Lookup

SENSITIVE = ""
"""Stands for any sensitive category, beside the categories."""
_ALL_ROWS = "*"
_MOMENT = re.compile(r"(?<!:):moment\b")
_BY_HASH = (
    "SELECT set_config('enable_nestloop', 'off', true), set_config('enable_sort', 'off', true)"
)
_BITS = 62  # of a bigint that stays positive


@dataclass(frozen=True)
class People:
    """Affected people, each once.

    Attributes:
        count: all of them.
        categories: those of whom an affected record has a value, by data category.
        sensitive: those of whom one has a value of a sensitive category.
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


def everybody(found: Affected, sensitive: Sequence[str]) -> tuple[People, dict[str, Rows]]:
    """Count people where all are affected, and the affected records by collection.

    Args:
        found: what is affected; `Affected.everybody` holds.
        sensitive: categories that count as such, with those below them.
    """
    live = found.live
    own = _with_sensitive(live.own, sensitive)
    people, valued, mine = _own(found, own)
    lacking = {
        name: {
            category: condition
            for category, condition in _with_sensitive(one.values, sensitive).items()
            if valued.get(category, 0) < people.count
        }
        for name, one in found.collections.items()
        if not one.own
    }
    rows = {
        name: rows_of(found, one, lacking[name]) if name in lacking else mine
        for name, one in found.collections.items()
    }
    for family in _families(lacking, rows, set(own)):
        without = {name: negated(own[name]) for name in family.names if name in own}
        for name, more in _elsewhere(found, family, without).items():
            valued[name] = valued.get(name, 0) + more
    sensitive_of = valued.get(SENSITIVE, 0)
    return replace(people, categories=_present(valued), sensitive=sensitive_of), rows


def some(found: Affected, sensitive: Sequence[str]) -> tuple[People, dict[str, Rows]]:
    """Count people by putting their records together, and the records by collection.

    Args:
        found: what is affected.
        sensitive: categories that count as such, with those below them.
    """
    live, subject = found.live, found.live.rule.subject
    rows = {name: rows_of(found, one, one.values) for name, one in found.collections.items()}
    names = sorted({name for one in found.collections.values() for name in one.values})
    places = {name: at for at, name in enumerate(names)}
    pairs = list(found.pairs())
    if not pairs:
        return People(minors=None if subject.minor is None else 0), rows
    masks = range(len(names) // _BITS + 1)
    parts = [_with_masks(found, one, places, masks, rows) for one in pairs]
    each = SQL(", ").join(SQL("bit_or({0}) AS {0}").format(Identifier(f"m{one}")) for one in masks)
    department, source = _department(found)
    minor, unknown = _age(found)
    nobody = SQL("{} IS NULL").format(live.person)
    conditions = [_has(places[name]) for name in names]
    marked = [_has(places[name]) for name in names if is_below(name, sensitive)]
    conditions += [either(marked), minor, either([nobody, unknown]), nobody]
    query = SQL(
        "SELECT {}, count(*), {} FROM (SELECT k, {} FROM ({}) AS pair WHERE k IS NOT NULL"
        " GROUP BY k) AS p LEFT JOIN {} AS s ON {} = p.k{} GROUP BY 1"
    ).format(
        department, _counts(conditions), each, SQL(" UNION ALL ").join(parts), live.people,
        live.person, source,
    )  # fmt: skip
    if not found.few:
        # People of several collections are 200 to PostgreSQL, so that it would look a million up
        # one by one, and sort them all.
        live.connection.execute(_BY_HASH)
    groups = live.connection.execute(query, found.values).fetchall()
    count, *rest = _totals(groups, len(conditions) + 1)
    unlisted, age_unknown, minors, is_sensitive = (rest.pop() for _ in range(4))
    people = People(
        count=count,
        categories=_present(dict(zip(names, rest, strict=True))),
        sensitive=is_sensitive,
        minors=None if subject.minor is None else minors,
        age_unknown=age_unknown,
        unlisted=unlisted,
        departments=_by_department(groups),
    )
    return people, rows


def _own(found: Affected, own: Mapping[str, Composable]) -> tuple[People, dict[str, int], Rows]:
    """All people by one look at their table, by what their own row has, and their rows."""
    live = found.live
    (one,) = (each for each in found.collections.values() if each.own)
    minor, unknown = _age(found)
    at = plain_column(one.rule.at) if one.rule.at else None
    dated = column("s", at) if at else SQL("NULL::timestamptz")
    department, joined_name = _department(found)
    source = SQL("{} AS s").format(live.people)
    query = SQL("SELECT {}, count(*), {}, count({}), {} FROM {}{} GROUP BY 1").format(
        department, _counts([*own.values(), minor, unknown]), dated,
        span(dated, one.at.type if one.at else None), source, joined_name,
    )  # fmt: skip
    groups = live.connection.execute(query, found.values).fetchall()
    count, *rest = _totals([one[:-2] for one in groups], len(own) + 4)
    known, age_unknown, minors = rest.pop(), rest.pop(), rest.pop()
    people = People(
        count=count,
        minors=None if live.rule.subject.minor is None else minors,
        age_unknown=age_unknown,
        departments=_by_department(groups),
    )
    valued = dict(zip(own, rest, strict=True))
    if one.at is not None and at is None:  # its moment is more than a column: by itself
        return people, valued, rows_of(found, one, {})
    first, last = first_and_last(
        live.connection, [each[-2:] for each in groups], dated, source, found.values
    )
    return people, valued, Rows(count, count - known if one.at else 0, first, last)


def _totals(groups: Sequence[Sequence[Any]], width: int) -> list[int]:
    """Sums of the numbers behind the name of each group."""
    if not groups:
        return [0] * width
    return [sum(numbers) for numbers in zip(*(one[1:] for one in groups), strict=True)]


def _by_department(groups: Sequence[Sequence[Any]]) -> dict[str, int]:
    return {name: count for name, count, *_ in sorted(groups, key=str) if name is not None}


@dataclass(frozen=True)
class _Family:
    """Categories that are looked for in the same records.

    Attributes:
        names: of them.
        where: by collection, which of its affected records have a value.
    """

    names: Sequence[str]
    where: Mapping[str, Composable]


def _families(
    offered: Mapping[str, Mapping[str, Composable]], rows: Mapping[str, Rows], own: set[str]
) -> list[_Family]:
    """What is looked for beside people's own rows.

    Categories share a look at collections where all of whose rows have a value of each.

    Args:
        offered: by collection and category, whether a row has a value; what everybody has in their
            own row is not there.
        rows: of the collections, with those values counted.
        own: categories that people's own rows may have.
    """
    families: dict[tuple[bool, tuple[tuple[str, str], ...]], list[str]] = {}
    for name in sorted({name for values in offered.values() for name in values}):
        others = []
        for collection, values in offered.items():
            there = rows[collection].valued.get(name)
            if name in values and there != 0:
                whole = there == rows[collection].count
                others.append((collection, _ALL_ROWS if whole else name))
        if others:
            families.setdefault((name in own, tuple(others)), []).append(name)
    return [
        _Family(
            names,
            {
                collection: SQL("true") if name == _ALL_ROWS else offered[collection][name]
                for collection, name in others
            },
        )
        for (_own, others), names in families.items()
    ]


def _elsewhere(
    found: Affected, family: _Family, lacking: Mapping[str, Composable]
) -> dict[str, int]:
    """People who have categories in other records than their own row, and not there.

    Args:
        found: what is affected.
        family: the categories.
        lacking: by category, whether a row ``s`` lacks it; empty where no own row has them.
    """
    live = found.live
    parts = []
    for name, condition in family.where.items():
        one = found.collections[name]
        for match in found.matches(one):
            for place, person in match.people.items():
                conditions = [match.where, condition, *([person] if person else [])]
                if lacking:
                    without = SQL("{} IN (SELECT {} FROM {} AS s WHERE {})").format(
                        one.keys[place], live.person, live.people, either(list(lacking.values()))
                    )
                    conditions.append(without)
                key = one.keys[place]
                conditions.append(SQL("{} IS NOT NULL").format(key))
                each = SQL("SELECT {} AS k FROM {} WHERE {}")
                parts.append(each.format(live.as_key(key), match.source, both(conditions)))
    people = SQL("SELECT k FROM ({}) AS pair GROUP BY k").format(SQL(" UNION ALL ").join(parts))
    if not lacking:
        (count,) = _row(found, SQL("SELECT count(*) FROM ({}) AS p").format(people))
        return dict.fromkeys(family.names, count)
    query = SQL("SELECT {} FROM ({}) AS p JOIN {} AS s ON {} = p.k").format(
        _counts(list(lacking.values())), people, live.people, live.person
    )
    return dict(zip(lacking, _row(found, query), strict=True))


def _with_masks(
    found: Affected,
    pair: Pairs,
    places: Mapping[str, int],
    masks: Sequence[int],
    rows: Mapping[str, Rows],
) -> Composable:
    """People with what a record has of them, a bit for each category."""
    columns: list[list[Composable]] = [[] for _ in masks]
    whole = [0 for _ in masks]
    one = pair.collected
    for name, condition in one.values.items() if one else ():
        mask, bit = divmod(places[name], _BITS)
        there = rows[one.name].valued.get(name) if one else None
        if one and there is not None and there == rows[one.name].count:
            whole[mask] |= 1 << bit
        elif there != 0:
            has = SQL("CASE WHEN {} THEN {}::bigint ELSE 0 END")
            columns[mask].append(has.format(condition, Literal(1 << bit)))
    named = [
        SQL("{} AS {}").format(
            SQL(" | ").join([SQL("{}::bigint").format(Literal(whole[mask])), *columns[mask]]),
            Identifier(f"m{mask}"),
        )
        for mask in masks
    ]
    return SQL("SELECT {} AS k, {} FROM {}").format(
        each_key(found.live, pair.keys), SQL(", ").join(named), pair.source
    )


def _has(place: int) -> Composable:
    mask, bit = divmod(place, _BITS)
    return SQL("{} & {}::bigint <> 0").format(Identifier(f"m{mask}"), Literal(1 << bit))


def _age(found: Affected) -> tuple[Composable, Composable]:
    """Whether a person ``s`` is under 14, and whether nobody knows."""
    text = found.live.rule.subject.minor
    if text is None:
        return SQL("false"), SQL("true")
    parts = [pack_sql(one) for one in _MOMENT.split(text)]
    minor = SQL("({})").format(SQL("%(moment)s::timestamptz").join(parts))
    return minor, SQL("{} IS NULL").format(minor)


def _department(found: Affected) -> tuple[Composable, Composable]:
    """The department of a person ``s``, and what has to be joined for it."""
    live, named = found.live, found.live.rule.subject.department
    if named is None:
        return SQL("NULL::text"), SQL("")
    if isinstance(named, Lookup):
        return SQL("{}::text").format(column("n", named.name)), joined(
            live.database, "s", named, "n"
        )
    return value(live.database, "s", named), SQL("")


def _with_sensitive(
    values: Mapping[str, Composable], sensitive: Sequence[str]
) -> dict[str, Composable]:
    any_sensitive = any_of(values, sensitive)
    return dict(values) | ({} if any_sensitive is None else {SENSITIVE: any_sensitive})


def _counts(conditions: Sequence[Composable]) -> Composable:
    return SQL(", ").join(SQL("count(*) FILTER (WHERE {})").format(one) for one in conditions)


def _row(found: Affected, query: Composed) -> list[Any]:
    row = found.live.connection.execute(query, found.values).fetchone()
    assert row is not None
    return list(row)


def _present(valued: Mapping[str, int]) -> dict[str, int]:
    return {name: valued[name] for name in sorted(valued) if name != SENSITIVE and valued[name]}
