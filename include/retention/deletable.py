"""Find the deletable records that other records keep, in one statement.

A deletable record is kept if a remaining record refers to it. Each collection has one common table
expression with its kept records, which reads the kept records of the collections that refer to it.
So the statement grows with the number of foreign keys, not with the number of paths between tables.
A group of collections that refer to each other has a recursive expression: it starts with the
records that are kept from outside, and follows the foreign keys of each kept record once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from psycopg.sql import SQL, Composable, Identifier

from include.policy.fragments import both, literal, negated, quoted
from include.retention.graph import Graph, Reference

Bounds = Mapping[str, tuple[int, int] | None]
FAN_OUT = 8  # alternatives that PostgreSQL tries in turn for a kept record of a cycle


@dataclass(frozen=True)
class Detail:
    """The figures of the kept records ``t`` of a collection.

    Attributes:
        digest: SQL of a bigint for each record; the statement combines them by XOR.
        classes: conditions; the statement counts the records that meet each.
    """

    digest: Composable = field(default_factory=lambda: SQL("0::bigint"))
    classes: Sequence[Composable] = ()


@dataclass
class KeptRecords:
    """Common table expressions of the kept records of some collections.

    Attributes:
        graph: the collections.
        collections: the collections with deletable records; all records of the others remain.
        bounds: lowest and highest number among the deletable records, by collection and column. A
            record that refers to a number outside of them keeps none of these records.
        refused: ctids of records that remain for another reason, by the oid of their table.
        details: figures to count, by collection.
        few: numbers of `remaining` records, by collection and index of the key, where they are few.
            The statement has them as limits, by which PostgreSQL estimates its costs.
        joins: number of joins in the expressions.
    """

    graph: Graph
    collections: Collection[str]
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    refused: Mapping[int, Sequence[str]] = field(default_factory=dict)
    details: Mapping[str, Detail] = field(default_factory=dict)
    few: Mapping[tuple[str, int], int] = field(default_factory=dict)
    joins: int = field(default=0, init=False)
    _may_go: dict[str, Composable] = field(default_factory=dict, init=False)
    _made_columns: dict[str, Composable] = field(default_factory=dict, init=False)
    _counts: list[Composable] = field(default_factory=list, init=False)

    def expressions(self) -> Composable:
        """Return the ``WITH RECURSIVE`` part of a statement."""
        made: list[Composable] = []
        self.joins, self._counts = 0, []
        for group in self.graph.groups:
            members = [name for name in group if name in self.collections]
            if self._is_circle(members):
                made += self._circle(group, members)
            else:
                made += [self._alone(name) for name in members]
        return SQL("WITH RECURSIVE {}").format(SQL(", ").join(made))

    def counts(self) -> Composable:
        """Return a query after `expressions`: kept records in all, and by the key that keeps them.

        Its columns: number of the collection in `Graph.emptied`; number of the key in
        `Graph.references`, -1 of all; oid of the table or partition, 0 of a key; records; XOR of
        their digests; and how many records each condition of the collection holds of.
        """
        return SQL(" UNION ALL ").join(self._counts)

    def may_go(self, collection: str) -> Composable:
        """Return the condition that a record may go, as far as it itself is concerned."""
        if collection not in self._may_go:
            leaves = self.graph.relations.by_collection[collection].leaves
            refused = [
                SQL("(NOT (t.tableoid = {}::oid AND t.ctid = ANY ({}::tid[])))").format(
                    literal(leaf.oid), literal(list(self.refused[leaf.oid]))
                )
                for leaf in leaves
                if self.refused.get(leaf.oid)
            ]
            condition = both([self.graph.may_go(collection), *refused])
            self._may_go[collection] = _composed(condition)
        return self._may_go[collection]

    def remaining(self, collection: str, at: int) -> Composable | None:
        """Return the records that keep others by a key and are not deletable, as a subquery.

        Args:
            collection: the collection of the kept records.
            at: index of the key in `Graph.references`.

        Returns:
            None if the key keeps no record.
        """
        reference = self.graph.references(collection)[at]
        which = self.graph.keeping(reference)
        if which is None:
            return None
        if child := self._followed(reference):
            which = negated(self.may_go(child))
        return self._staying(collection, reference, which)

    def free(self, collection: str) -> Composable:
        """Return the condition that the record ``t`` is not among the kept ones."""
        group = self.graph.group_of(collection)
        kept, which = self._kept(collection), SQL("true").format()
        if self._is_circle(group):
            which = SQL("k.member = {}").format(literal(self._place(collection)))
            kept = self._name("knot", group)
        return SQL(
            "(NOT EXISTS (SELECT FROM {} AS k WHERE {} AND k.tab = t.tableoid AND k.rec = t.ctid))"
        ).format(kept, which)

    def _place(self, collection: str) -> int:
        return self.graph.emptied.index(collection)

    def _name(self, kind: str, group: Sequence[str]) -> Composable:
        return quoted(f"{kind} {self.graph.groups.index(tuple(group))}")

    def _kept(self, collection: str) -> Composable:
        return quoted(f"kept {self._place(collection)}")

    def _table(self, collection: str) -> Composable:
        return self.graph.relations.by_collection[collection].identifier

    def _is_circle(self, group: Sequence[str]) -> bool:
        """Return whether records of a group may keep each other."""
        return any(self._inside(name) for name in group if name in self.collections)

    def _followed(self, reference: Reference) -> str | None:
        """Return the collection that refers by a key, if its deletable records keep no others."""
        child = reference.child
        return child if child in self.collections and not reference.sets_null else None

    def _inside(self, collection: str) -> list[tuple[int, Reference]]:
        """Return the keys within the group of a collection that keep its records, with indexes."""
        group = self.graph.group_of(collection)
        return [
            (at, reference)
            for at, reference in enumerate(self.graph.references(collection))
            if self._followed(reference) in group
        ]

    def _alone(self, collection: str) -> Composable:
        """Return the expression of a collection that is in no circle."""
        columns = SQL(", ").join(
            [self._columns(collection), *self._leading(self._leading_on(collection))]
        )
        parts = [
            SQL("SELECT {} AS ref, {} FROM {} AS t WHERE {}").format(
                literal(at), columns, self._table(collection), which
            )
            for at, which in self._kept_by(collection)
        ] or [
            SQL("SELECT -1 AS ref, {} FROM {} AS t WHERE false").format(
                columns, self._table(collection)
            )
        ]
        values = {"place": literal(self._place(collection)), "name": self._kept(collection)}
        distinct = SQL("(SELECT DISTINCT ON ({first} tab, rec) * FROM {name}) AS k")
        self._count(
            SQL("SELECT {place}, -1, tab::bigint, {all} FROM {rows} GROUP BY tab"),
            rows=distinct.format(first=SQL(""), **values),
            members=[collection],
            **values,
        )
        self._count(
            SQL("SELECT {place}, ref, 0, {all} FROM {rows} GROUP BY ref"),
            rows=distinct.format(first=SQL("ref,"), **values),
            members=[collection],
            **values,
        )
        return SQL("{} AS MATERIALIZED ({})").format(
            self._kept(collection), SQL(" UNION ALL ").join(parts)
        )

    def _circle(self, group: Sequence[str], members: Sequence[str]) -> list[Composable]:
        """Return the expressions of a group of collections that refer to each other."""
        seed, knot = (self._name(kind, group) for kind in ("seed", "knot"))
        seeds = [
            SQL("SELECT {} AS member, {} AS ref, {} FROM {} AS t WHERE {}").format(
                literal(self._place(name)), literal(at), self._columns(name), self._table(name), it
            )
            for name in members
            for at, it in self._kept_by(name)
        ]
        # Counted by key, a kept record is followed once for each key that keeps it. To follow it
        # once, PostgreSQL would have to plan all steps a second time for the keys.
        columns = ["member", "ref", "tab", "rec", "digest", "classes"]
        if not self.details:
            columns.remove("ref")
        made: list[Composable] = [
            SQL("{} AS MATERIALIZED ({})").format(seed, SQL(" UNION ALL ").join(seeds)),
            SQL(
                "{knot} AS (SELECT {columns} FROM {seed} UNION "
                "SELECT {columns_of_step} FROM {knot} AS s CROSS JOIN LATERAL ({steps}) AS e)"
            ).format(
                knot=knot,
                seed=seed,
                steps=self._steps(members),
                columns=SQL(", ").join(quoted(column) for column in columns),
                columns_of_step=SQL(", ").join(quoted("e", column) for column in columns),
            ),
        ]
        if self.details:
            self._count(
                SQL(
                    "SELECT member, -1, tab::bigint, {all} FROM (SELECT DISTINCT member, tab, rec, "
                    "digest, classes FROM {knot}) AS k GROUP BY member, tab"
                ),
                members=members,
                knot=knot,
            )
            self._count(
                SQL("SELECT member, ref, 0, {all} FROM {knot} GROUP BY member, ref"),
                members=members,
                knot=knot,
            )
        for name in members:
            if columns := self._leading_on(name):
                self.joins += 1
                made.append(
                    SQL(
                        "{} AS MATERIALIZED (SELECT s.tab, {} FROM {} AS s JOIN {} AS t "
                        "ON t.tableoid = s.tab AND t.ctid = s.rec WHERE s.member = {})"
                    ).format(
                        self._kept(name),
                        SQL(", ").join(self._leading(columns)),
                        knot,
                        self._table(name),
                        literal(self._place(name)),
                    )
                )
        return made

    def _count(self, query: SQL, *, members: Sequence[str], **values: Composable) -> None:
        most = max(len(self.details.get(name, Detail()).classes) for name in members)
        each = [
            SQL("count(*) FILTER (WHERE classes[{}])").format(literal(at + 1)) for at in range(most)
        ]
        counted = SQL("count(*), bit_xor(digest), ARRAY[{}]::bigint[]").format(SQL(", ").join(each))
        self._counts.append(query.format(all=counted, **values))

    def _steps(self, members: Sequence[str]) -> Composable:
        """Return the records of a group to which the kept record ``s`` refers.

        PostgreSQL tries each alternative of a union for each record. So the unions are nested, and
        a whole branch is passed over if the record is of none of its collections.
        """
        by_child: dict[int, list[Composable]] = {}
        for name in members:
            for at, reference in self._inside(name):
                assert reference.child is not None
                # A subquery of its own: the pack's conditions may name columns without a table.
                step = SQL(
                    "SELECT {} AS member, {} AS ref, p.* FROM {} AS c CROSS JOIN LATERAL "
                    "(SELECT {} FROM {} AS t WHERE {}) AS p "
                    "WHERE c.tableoid = s.tab AND c.ctid = s.rec"
                ).format(
                    literal(self._place(name)),
                    literal(at),
                    reference.key.identifier,
                    self._columns(name),
                    self._table(name),
                    both([reference.joined("c", "t"), self.may_go(name)]),
                )
                by_child.setdefault(self._place(reference.child), []).append(step)
        branches = [([child], _gate([child], steps)) for child, steps in by_child.items()]
        while len(branches) > FAN_OUT:
            parts = [branches[at : at + FAN_OUT] for at in range(0, len(branches), FAN_OUT)]
            branches = []
            for part in parts:
                children = [child for some, _ in part for child in some]
                branches.append((children, _gate(children, [branch for _, branch in part])))
        return _union([branch for _, branch in branches])

    def _columns(self, collection: str) -> Composable:
        """Return the columns of a kept record ``t`` that each collection has."""
        if collection not in self._made_columns:
            detail = self.details.get(collection, Detail())
            columns = SQL(
                "t.tableoid AS tab, t.ctid AS rec, {} AS digest, ARRAY[{}]::bool[] AS classes"
            ).format(detail.digest, SQL(", ").join(detail.classes))
            self._made_columns[collection] = _composed(columns)
        return self._made_columns[collection]

    def _leading(self, columns: Sequence[str]) -> list[Composable]:
        """Return columns of a kept record ``t`` under names of their own."""
        return [
            SQL("{} AS {}").format(quoted("t", column), Identifier(f"refers {at}"))
            for at, column in enumerate(columns)
        ]

    def _leading_on(self, collection: str) -> list[str]:
        """Return the columns of foreign keys to collections outside of its own group."""
        group = self.graph.group_of(collection)
        beyond = group if self._is_circle(group) else ()
        return list(
            dict.fromkeys(
                column
                for parent in self.graph.emptied
                if parent in self.collections and parent not in beyond
                for reference in self.graph.references(parent)
                if reference.child == collection and not reference.sets_null
                for column in reference.key.columns
            )
        )

    def _kept_by(self, collection: str) -> list[tuple[int, Composable]]:
        """Return conditions for deletable records that are kept, by index of the keeping key.

        Records that are kept by kept records of their own group are omitted: the recursion finds
        them.
        """
        inside = dict(self._inside(collection))
        found: list[tuple[int, Composable]] = []
        for at, reference in enumerate(self.graph.references(collection)):
            remaining = self.remaining(collection, at)
            if remaining is None:
                continue
            if (number := self.few.get((collection, at))) is not None:
                limited = "(SELECT * FROM {} AS remaining LIMIT {})"
                remaining = SQL(limited).format(remaining, literal(number))
            each = [remaining]
            if (child := self._followed(reference)) and at not in inside:
                each.append(self._kept_of(child, reference))
            for records in each:
                self.joins += 1
                referred = SQL("(EXISTS (SELECT FROM {} AS r WHERE {}))").format(
                    records, reference.joined("r")
                )
                found.append((at, both([self.may_go(collection), referred])))
        return found

    def _staying(self, collection: str, reference: Reference, which: Composable) -> Composable:
        """Return the referring records that meet a condition over ``t``, as a subquery."""
        conditions = [which]
        if reference.key.numbered is not None:
            mine, theirs = reference.key.numbered
            if bounds := self.bounds.get(collection, {}).get(theirs):
                least, most = (literal(one) for one in bounds)
                within = SQL("({} BETWEEN {} AND {})").format(quoted("t", mine), least, most)
                conditions.insert(0, within)
        return SQL("(SELECT {} FROM {} AS t WHERE {})").format(
            SQL(", ").join(quoted("t", column) for column in reference.key.columns),
            reference.key.identifier,
            both(conditions),
        )

    def _kept_of(self, child: str, reference: Reference) -> Composable:
        """Return the kept records of a collection that have a foreign key, as a subquery."""
        key = reference.key
        numbers = {column: at for at, column in enumerate(self._leading_on(child))}
        columns = SQL(", ").join(
            SQL("k.{} AS {}").format(Identifier(f"refers {numbers[column]}"), quoted(column))
            for column in key.columns
        )
        which: Composable = SQL("true")
        if key.child != key.child_root:  # a key of one partition only
            which = SQL("k.tab IN (SELECT relid::oid FROM pg_partition_tree({}::oid))").format(
                literal(key.child)
            )
        return SQL("(SELECT {} FROM {} AS k WHERE {})").format(columns, self._kept(child), which)


def _gate(children: Sequence[int], steps: Sequence[Composable]) -> Composable:
    """Return steps that PostgreSQL executes only for a record ``s`` of some collections.

    Without the inner ``OFFSET 0`` PostgreSQL would test the condition for each of the steps, and
    without the outer one it would flatten all unions into one.
    """
    return SQL(
        "SELECT * FROM (SELECT * FROM ({}) AS u OFFSET 0) AS v WHERE s.member = ANY ({}::int[]) "
        "OFFSET 0"
    ).format(_union(steps), literal(list(children)))


def _union(parts: Sequence[Composable]) -> Composable:
    return SQL(" UNION ALL ").join(SQL("({})").format(part) for part in parts)


def _composed(part: Composable) -> Composable:
    """Return a part as rendered text, so that it is not rendered again at each use."""
    return SQL(part.as_string(None))
