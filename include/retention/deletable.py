"""What will be gone once everything that can go has gone, as conditions of one query.

A record can go when nothing stays that refers to it. What refers to it may itself go, so the
condition of a table holds that of its children inside. Where tables refer to each other in a
circle, or to themselves, what stays is found from what stays for certain, step by step, in a
recursive query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg.sql import SQL, Composable, Identifier

from include.policy.fragments import both, literal, negated, quoted
from include.retention.graph import Graph, Reference


class Deletable:
    """Conditions over ``t`` of the collections of a graph.

    Args:
        graph: the collections.
        staying: places of records that stay for another reason, by the oid of their table.

    Attributes:
        circles: the ``WITH RECURSIVE`` part that a query with such conditions begins with.
    """

    def __init__(self, graph: Graph, staying: Mapping[int, Sequence[str]] | None = None) -> None:
        self.graph = graph
        self._staying = {oid: list(places) for oid, places in (staying or {}).items() if places}
        self._made: dict[str, Composable] = {}
        tables = [self._stuck(group) for group in graph.groups if graph.is_circle(group)]
        self.circles: Composable = (
            SQL("WITH RECURSIVE {}").format(SQL(", ").join(tables)) if tables else SQL("")
        )

    def of(self, collection: str) -> Composable:
        """A record of a collection will be gone."""
        if collection not in self._made:
            group = self.graph.group_of(collection)
            condition = self._alone(collection, group)
            if self.graph.is_circle(group):
                free = SQL(
                    "(NOT EXISTS (SELECT FROM {} AS s WHERE s.tab = t.tableoid AND s.rec = t.ctid))"
                ).format(self._name(group))
                condition = both([condition, free])
            self._made[collection] = condition
        return self._made[collection]

    def keeps(self, reference: Reference) -> Composable | None:
        """The referring records that will stay and so keep their parent; None when none can."""
        keeping = self.graph.keeping(reference)
        if keeping is None or reference.sets_null or reference.child not in self.graph.emptied:
            return keeping
        return negated(self.of(reference.child))

    def _alone(self, collection: str, group: Sequence[str]) -> Composable:
        """A record may go, and nothing outside of its group keeps it."""
        conditions = [self.graph.may_go(collection), *self._not_staying(collection)]
        for reference in self.graph.references(collection):
            if reference.child in group and not reference.sets_null:
                continue
            keeps = self.keeps(reference)
            if keeps is not None:
                conditions.append(self.graph.no_record(reference, keeps))
        return both(conditions)

    def _name(self, group: Sequence[str]) -> Identifier:
        return Identifier(f"stuck {self.graph.groups.index(tuple(group))}")

    def _not_staying(self, collection: str) -> list[Composable]:
        leaves = self.graph.relations.by_collection[collection].leaves
        return [
            SQL("(NOT (t.tableoid = {}::oid AND t.ctid = ANY ({}::tid[])))").format(
                literal(one.oid), literal(self._staying[one.oid])
            )
            for one in leaves
            if one.oid in self._staying
        ]

    def _stuck(self, group: Sequence[str]) -> Composable:
        """The records of a circle that could go alone, and cannot for what refers to them."""
        seeds, steps = [], []
        for name in group:
            for reference in self.graph.references(name):
                inside = reference.child if reference.child in group else None
                if inside is None or reference.sets_null:
                    continue
                parent = SQL("(SELECT {}, t.tableoid, t.ctid FROM {} AS t WHERE {})").format(
                    _columns(reference.key.targets),
                    self.graph.relations.by_collection[name].identifier,
                    self._alone(name, group),
                )
                child = reference.key.identifier
                staying = SQL("(SELECT {} FROM {} AS t WHERE {})").format(
                    _columns(reference.key.columns), child, negated(self._alone(inside, group))
                )
                seeds.append(
                    SQL("SELECT p.tableoid, p.ctid FROM {} AS p JOIN {} AS c ON {}").format(
                        parent, staying, reference.joined("c", "p")
                    )
                )
                steps.append(
                    SQL(
                        "SELECT p.tableoid AS tab, p.ctid AS rec FROM {} AS c JOIN {} AS p ON {} "
                        "WHERE c.tableoid = s.tab AND c.ctid = s.rec"
                    ).format(child, parent, reference.joined("c", "p"))
                )
        return SQL(
            "{name} (tab, rec) AS (({seeds}) UNION "
            "SELECT e.tab, e.rec FROM {name} AS s CROSS JOIN LATERAL ({steps}) AS e)"
        ).format(
            name=self._name(group),
            seeds=SQL(" UNION ").join(seeds),
            steps=SQL(" UNION ALL ").join(steps),
        )


def _columns(names: Sequence[str]) -> Composable:
    return SQL(", ").join(quoted("t", one) for one in names)
