"""Counting people who are all affected by their own row: few looks at tables that may be large.

People are counted by one look at their rows. A data category that all rows of another collection
have needs no look at their values there; one that some people lack in their own row is looked for
in other records of just these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg.sql import SQL, Composable

from include.incident.counting.affected import ALL, Affected
from include.incident.counting.bits import Bits
from include.incident.counting.categories import ALWAYS
from include.incident.counting.live import plain_column
from include.incident.counting.logs import MOST_KEYS
from include.incident.counting.named import column
from include.incident.counting.people import (
    SENSITIVE,
    People,
    age,
    by_department,
    by_hash,
    counts,
    department,
    present,
    row,
    totals,
    with_minors,
    with_sensitive,
)
from include.incident.counting.reading import first_and_last, span
from include.incident.counting.records import Rows, rows_of
from include.policy.fragments import both, either, negated

Values = Mapping[str, Composable]
"""By data category, whether a row has a value of it."""
_ALL_ROWS = "*"


def by_own_row(found: Affected, sensitive: Sequence[str]) -> tuple[People, dict[str, Rows]]:
    """Count people who are affected by their own row, and the affected records by collection.

    Args:
        found: what is affected; `Affected.by_own_row` holds.
        sensitive: categories that count as such, with those below them.
    """
    own = with_sensitive(found.live.own, sensitive)
    if marked := with_minors(found, [own[SENSITIVE]] if SENSITIVE in own else []):
        own[SENSITIVE] = either(marked)
    people, valued, mine = _own(found, own)
    offered = {
        name: with_sensitive(one.values, sensitive)
        for name, one in found.collections.items()
        if not one.own
    }
    elsewhere = {
        name: {category: each for category, each in values.items() if category not in own}
        for name, values in offered.items()
    }
    rows = {
        name: mine
        if one.own
        else rows_of(found, one, elsewhere[name], people=bool(elsewhere[name]))
        for name, one in found.collections.items()
    }
    for family in _families(elsewhere, rows):
        valued |= dict.fromkeys(family.names, _having(found, family, rows))
    for name, more in _completing(found, own, offered, valued, people.count).items():
        valued[name] += more
    sensitive_of = valued.get(SENSITIVE, 0)
    return replace(people, categories=present(valued), sensitive=sensitive_of), rows


def _own(found: Affected, own: Values) -> tuple[People, dict[str, int], Rows]:
    """People by one look at their rows, by what these have, and the rows."""
    live = found.live
    (one,) = (each for each in found.collections.values() if each.own)
    at = plain_column(one.rule.at) if one.rule.at else None
    dated = column("s", at) if at else SQL("NULL::timestamptz")
    asked = {name: condition for name, condition in own.items() if condition is not ALWAYS}
    # Of everybody it says nothing to which department they belong, and takes a fifth longer.
    name, more = (SQL("NULL"), SQL("")) if found.those is None else department(found)
    rows = SQL("{} AS s{}").format(live.people, more)
    if found.those is not None:
        rows += SQL(" WHERE {} IN ({})").format(live.person, found.those)
    query = SQL("SELECT {}, count(*), {}, count({}), {} FROM {} GROUP BY 1").format(
        name, counts([*asked.values(), *age(found)]), dated,
        span(dated, one.at.type if one.at else None), rows,
    )  # fmt: skip
    with by_hash(found):
        groups = live.connection.execute(query, found.values).fetchall()
    count, *rest = totals([each[:-2] for each in groups], len(asked) + 4)
    known, age_unknown, minors = rest.pop(), rest.pop(), rest.pop()
    people = People(
        count=count,
        minors=None if live.rule.subject.minor is None else minors,
        age_unknown=age_unknown,
        departments=by_department(groups),
    )
    valued = dict.fromkeys(own, count) | dict(zip(asked, rest, strict=True))
    if one.at is not None and at is None:  # its moment is more than a column: by itself
        return people, valued, rows_of(found, one, {})
    first, last = first_and_last(
        live.connection, [each[-2:] for each in groups], dated, rows, found.values
    )
    return people, valued, Rows(count, count - known if one.at else 0, first, last)


@dataclass(frozen=True)
class _Family:
    """Categories that are looked for in the same records.

    Attributes:
        names: of them.
        where: by collection, which of its affected records have a value.
    """

    names: Sequence[str]
    where: Values


def _families(elsewhere: Mapping[str, Values], rows: Mapping[str, Rows]) -> list[_Family]:
    """Categories that no own row has; they share a look where all rows have a value of each.

    Args:
        elsewhere: by collection and category, whether a row has a value.
        rows: of the collections, with those values counted.
    """
    families: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for name in sorted({name for values in elsewhere.values() for name in values}):
        others = []
        for collection, values in elsewhere.items():
            there = rows[collection].valued.get(name)
            if name in values and there != 0:
                whole = there == rows[collection].count
                others.append((collection, _ALL_ROWS if whole else name))
        if others:
            families.setdefault(tuple(others), []).append(name)
    return [
        _Family(
            names,
            {
                collection: ALL if name == _ALL_ROWS else elsewhere[collection][name]
                for collection, name in others
            },
        )
        for others, names in families.items()
    ]


def _having(found: Affected, family: _Family, rows: Mapping[str, Rows]) -> int:
    """People who have the categories of a family."""
    if len(family.where) == 1:
        ((name, condition),) = family.where.items()
        known = rows[name].people
        if condition is ALL and known is not None:
            return known
    parts = []
    for name, condition in family.where.items():
        one = found.collections[name]
        for match in found.matches(one):
            for place, person in match.people.items():
                key = one.keys[place]
                conditions = [match.where, condition, SQL("{} IS NOT NULL").format(key)]
                where = both([*conditions, *([person] if person else [])])
                each = SQL("SELECT {} AS k FROM {} WHERE {}")
                parts.append(each.format(found.live.as_key(key), match.source, where))
    # By an index of the key, where there is one; a sort is quicker than a table of hashes too.
    query = SQL("SELECT count(DISTINCT k) FROM ({}) AS pair")
    (count,) = row(found, query.format(SQL(" UNION ALL ").join(parts)))
    return int(count)


def _completing(
    found: Affected,
    own: Values,
    offered: Mapping[str, Values],
    valued: Mapping[str, int],
    count: int,
) -> dict[str, int]:
    """People who have categories in other records, and lack them in their own row.

    Args:
        found: what is affected.
        own: of a row ``s``.
        offered: of rows ``r``, by collection.
        valued: people by what their own row has.
        count: all of them.
    """
    live = found.live
    lacking = {
        name: negated(own[name])
        for name in own
        if valued[name] < count and any(name in values for values in offered.values())
    }
    if not lacking:
        return {}
    those, values = _those(
        found, list(lacking.values()), sum(count - valued[one] for one in lacking)
    )
    bits = Bits(list(lacking))
    parts = [  # all that names one of them is affected
        SQL("SELECT {} AS k, {} FROM {} AS r WHERE {} IN ({})").format(
            live.as_key(key), bits.columns(offers), found.collections[name].table, key, those
        )
        for name, offers in offered.items()
        if not offers.keys().isdisjoint(lacking)
        for key in found.collections[name].keys
    ]
    query = SQL(
        "SELECT {} FROM (SELECT k, {} FROM ({}) AS pair GROUP BY k) AS p JOIN {} AS s ON {} = p.k"
    ).format(
        counts([both([without, bits.has(name)]) for name, without in lacking.items()]),
        bits.merged, SQL(" UNION ALL ").join(parts), live.people, live.person,
    )  # fmt: skip
    return dict(zip(lacking, row(found, query, values), strict=True))


def _those(
    found: Affected, lacking: Sequence[Composable], at_most: int
) -> tuple[Composable, dict[str, Any]]:
    """People who lack any of some categories: a relation of their keys, and its parameters."""
    live, conditions = found.live, [either(lacking)]
    if found.those is not None:
        conditions.append(SQL("{} IN ({})").format(live.person, found.those))
    query = SQL("SELECT {} FROM {} AS s WHERE {}")
    if at_most > MOST_KEYS:
        return query.format(live.person, live.people, both(conditions)), {}
    keys = SQL("array_agg({})::text").format(live.person)
    (text,) = row(found, query.format(keys, live.people, both(conditions)))
    given = SQL("SELECT one FROM unnest(%(lacking)s::{}[]) AS one")
    return given.format(live.key_name), {"lacking": text or "{}"}
