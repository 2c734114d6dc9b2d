"""What explains a record of a circle that is left: somebody outside of it, not the circle itself.

For the count afterwards alone; the execution finds what goes otherwise (`include.retention.graph`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composable

from include.retention.relations import ForeignKey, Relation


@dataclass(frozen=True)
class Member:
    """A collection of a circle.

    Attributes:
        relation: its table.
        over: condition over ``t``: it is over, and no hold is on it.
        explained: condition over ``t``: a record that is not over refers to it (`not_over`), or one
            of another table.
        keys: foreign keys that lead to it from the circle, each with its child's table.
    """

    relation: Relation
    over: Composable
    explained: Composable
    keys: Sequence[ForeignKey]


def ring_of(collection: str, referring: Mapping[str, Collection[str]]) -> frozenset[str]:
    """The collections that refer to each other in a circle with one, or to itself; else none.

    Args:
        collection: of which.
        referring: collections that refer to each.
    """
    behind = _behind(collection, referring)
    if collection not in behind:
        return frozenset()
    return frozenset(one for one in behind if collection in _behind(one, referring))


def _behind(start: str, referring: Mapping[str, Collection[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(referring.get(start, ()))
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += referring.get(one, ())
    return found


def not_over(child: str) -> Composable:
    """Inside of `prefix`: the record of an alias is not one of the circle that is over."""
    return SQL("NOT {}").format(_among("ring_over", child))


def stays() -> Composable:
    """After `prefix`: the record ``t`` is over, and somebody outside of the circle explains it."""
    return _among("ring_stays", "t")


def prefix(members: Iterable[Member]) -> Composable:
    """Common table expressions for `stays`: what is over, and what is explained, link by link."""
    over, explained, links = [], [], []
    for one in members:
        table = one.relation.identifier
        over.append(SQL("SELECT t.tableoid, t.ctid FROM {} AS t WHERE {}").format(table, one.over))
        explained.append(
            SQL("SELECT t.tableoid, t.ctid FROM {} AS t WHERE {} AND {}").format(
                table, _among("ring_over", "t"), one.explained
            )
        )
        links += [
            SQL(
                "SELECT c.tableoid, c.ctid, t.tableoid, t.ctid FROM {} AS t JOIN {} AS c "
                "ON {} WHERE {} AND {}"
            ).format(
                table,
                key.identifier,
                key.joined("c", "t"),
                _among("ring_over", "t"),
                _among("ring_over", "c"),
            )
            for key in one.keys
        ]
    return SQL(
        "WITH RECURSIVE ring_over (tab, rec) AS MATERIALIZED ({}), "
        "ring_link (tab, rec, to_tab, to_rec) AS MATERIALIZED ({}), "
        "ring_known (tab, rec) AS MATERIALIZED ({}), "
        "ring_stays (tab, rec) AS (SELECT tab, rec FROM ring_known UNION "
        "SELECT l.to_tab, l.to_rec FROM ring_stays s JOIN ring_link l USING (tab, rec)) "
    ).format(*(SQL(" UNION ALL ").join(parts) for parts in (over, links, explained)))


def _among(name: str, alias: str) -> Composable:
    return SQL(
        "EXISTS (SELECT FROM {name} AS r WHERE (r.tab, r.rec) = ({t}.tableoid, {t}.ctid))"
    ).format(name=SQL(name), t=SQL(alias))
