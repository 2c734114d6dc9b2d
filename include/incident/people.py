"""Counting affected people, by what is affected of them.

Where everybody is affected, people are counted by one look at their table, and a data category that
some of them lack there is looked for in other records of just these; of a category that all rows of
a collection have, their values are not looked at again. Where fewer are affected, their records are
put together by person. Both count the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from include.incident.affected import Affected, Pairs
from include.incident.categories import any_of
from include.incident.live import Collected
from include.incident.named import column, joined, value
from include.incident.records import Rows
from include.policy.fragments import both, either, negated, pack_sql
from include.policy.incident_scope import Lookup

SENSITIVE = ""
"""Stands for any sensitive category, beside the categories."""
_MOMENT = re.compile(r"(?<!:):moment\b")
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


def offers(one: Collected, sensitive: Sequence[str]) -> dict[str, Composable]:
    """Whether a row ``r`` has a value, by category, and of any sensitive one."""
    return _with_sensitive(one.values, sensitive)


def everybody(found: Affected, rows: Mapping[str, Rows], sensitive: Sequence[str]) -> People:
    """Count people where all are affected.

    Args:
        found: what is affected; `Affected.everybody` holds.
        rows: of its collections, with their values counted.
        sensitive: categories that count as such, with those below them.
    """
    live = found.live
    own = _with_sensitive(live.own, sensitive)
    minor, unknown = _age(found)
    query = SQL("SELECT count(*), {} FROM {} AS s").format(
        _counts([*own.values(), minor, unknown]), live.people
    )
    count, *rest = _row(found, query)
    age_unknown, minors = rest.pop(), rest.pop()
    valued = dict(zip(own, rest, strict=True))
    for family in _families(found, rows, sensitive, valued, count):
        lacking = {name: negated(own[name]) for name in family.names if name in own}
        for name, more in _elsewhere(found, family, lacking).items():
            valued[name] = valued.get(name, 0) + more
    return People(
        count=count,
        categories=_present(valued),
        sensitive=valued.get(SENSITIVE, 0),
        minors=None if live.rule.subject.minor is None else minors,
        age_unknown=age_unknown,
    )


def some(found: Affected, sensitive: Sequence[str]) -> People:
    """Count people by putting their records together.

    Args:
        found: what is affected.
        sensitive: categories that count as such, with those below them.
    """
    live, subject = found.live, found.live.rule.subject
    names = sorted({name for one in found.collections.values() for name in one.values})
    places = {name: at for at, name in enumerate(names)}
    pairs = list(found.pairs())
    if not pairs:
        return People(minors=None if subject.minor is None else 0)
    masks = range(len(names) // _BITS + 1)
    parts = [_with_masks(found, one, places, masks) for one in pairs]
    each = SQL(", ").join(SQL("bit_or({0}) AS {0}").format(Identifier(f"m{one}")) for one in masks)
    department, source = _department(found)
    minor, unknown = _age(found)
    nobody = SQL("{} IS NULL").format(live.person)
    marked = [name for name in names if any_of({name: SQL("true")}, sensitive)]
    conditions = [_has(places[name]) for name in names]
    conditions += [
        either([_has(places[name]) for name in marked]), minor, either([nobody, unknown]), nobody,
    ]  # fmt: skip
    query = SQL(
        "SELECT {}, count(*), {} FROM (SELECT k, {} FROM ({}) AS pair GROUP BY k) AS p"
        " LEFT JOIN {} AS s ON {} = p.k{} GROUP BY 1"
    ).format(
        department, _counts(conditions), each, SQL(" UNION ALL ").join(parts), live.people,
        live.person, source,
    )  # fmt: skip
    groups = live.connection.execute(query, found.values).fetchall()
    totals = [sum(numbers) for numbers in zip(*(one[1:] for one in groups), strict=True)]
    count, *rest = totals or [0] * (len(conditions) + 1)
    unlisted, age_unknown, minors, is_sensitive = (rest.pop() for _ in range(4))
    return People(
        count=count,
        categories=_present(dict(zip(names, rest, strict=True))),
        sensitive=is_sensitive,
        minors=None if subject.minor is None else minors,
        age_unknown=age_unknown,
        unlisted=unlisted,
        departments={one[0]: one[1] for one in sorted(groups, key=str) if one[0] is not None},
    )


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
    found: Affected,
    rows: Mapping[str, Rows],
    sensitive: Sequence[str],
    valued: Mapping[str, int],
    count: int,
) -> list[_Family]:
    """What is looked for beside people's own rows: nothing that everybody has, or that no row has.

    Args:
        found: what is affected.
        rows: of its collections, with their values counted.
        sensitive: categories that count as such.
        valued: people by what their own row has.
        count: all of them.
    """
    offered = {
        name: offers(one, sensitive) for name, one in found.collections.items() if not one.own
    }
    families: dict[tuple[bool, tuple[tuple[str, str], ...]], list[str]] = {}
    for name in sorted({name for values in offered.values() for name in values}):
        if valued.get(name, 0) == count:
            continue
        others = []
        for collection, values in offered.items():
            there = rows[collection].valued.get(name)
            if name in values and there != 0:
                # Categories share a look at a collection where all of its rows have them.
                shared = there == rows[collection].count
                others.append((collection, _ALL_ROWS if shared else name))
        if others:
            families.setdefault((name in valued, tuple(others)), []).append(name)
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


_ALL_ROWS = "*"


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
        for selector in found.selectors(one):
            for key in (one.keys[place] for place in selector.people):
                conditions = [selector.where, condition, SQL("{} IS NOT NULL").format(key)]
                if lacking:
                    without = SQL("{} IN (SELECT {} FROM {} AS s WHERE {})").format(
                        key, live.person, live.people, either(list(lacking.values()))
                    )
                    conditions.append(without)
                parts.append(
                    SQL("SELECT {} AS k FROM {} AS r WHERE {}").format(
                        live.as_key(key), one.table, both(conditions)
                    )
                )
    each = SQL("SELECT k FROM ({}) AS pair GROUP BY k").format(SQL(" UNION ALL ").join(parts))
    if not lacking:
        (people,) = _row(found, SQL("SELECT count(*) FROM ({}) AS p").format(each))
        return dict.fromkeys(family.names, people)
    query = SQL("SELECT {} FROM ({}) AS p JOIN {} AS s ON {} = p.k").format(
        _counts(list(lacking.values())), each, live.people, live.person
    )
    return dict(zip(lacking, _row(found, query), strict=True))


def _with_masks(
    found: Affected, pair: Pairs, places: Mapping[str, int], masks: Sequence[int]
) -> Composable:
    """People with what a record has of them, a bit for each category."""
    values = pair.collected.values if pair.collected else {}
    columns = []
    for mask in masks:
        bits = [
            SQL("CASE WHEN {} THEN {}::bigint ELSE 0 END").format(
                condition, Literal(1 << places[name] % _BITS)
            )
            for name, condition in values.items()
            if places[name] // _BITS == mask
        ]
        columns.append(SQL(" | ").join(bits) if bits else SQL("0::bigint"))
    named = [
        SQL("{} AS {}").format(one, Identifier(f"m{mask}"))
        for mask, one in zip(masks, columns, strict=True)
    ]
    return SQL("SELECT {} AS k, {} FROM {}").format(
        found.live.as_key(pair.key), SQL(", ").join(named), pair.source
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


def _row(found: Affected, query: Composed) -> list[int]:
    row = found.live.connection.execute(query, found.values).fetchone()
    assert row is not None
    return list(row)


def _present(valued: Mapping[str, int]) -> dict[str, int]:
    return {name: valued[name] for name in sorted(valued) if name != SENSITIVE and valued[name]}
