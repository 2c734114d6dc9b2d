"""Find the deletable records that other records keep, in one statement.

A deletable record is kept if a remaining record refers to it. Each collection has one common table
expression with its kept records, which reads the kept records of the collections that refer to it.
So the statement grows with the number of foreign keys, not with the number of paths between tables.
Collections that refer to each other share a recursive expression: it starts with the records that
are kept from outside, and follows the foreign keys of each kept record once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from psycopg.sql import SQL, Composable, Identifier

from include.policy.fragments import all_of, literal, negated, quoted
from include.retention.planning.graph import Graph, Reference


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
        refused: ctids of records that remain for another reason, by the oid of their table.
        details: figures to count, by collection.
        joins: number of joins in the expressions.
    """

    graph: Graph
    collections: Collection[str]
    refused: Mapping[int, Sequence[str]] = field(default_factory=dict)
    details: Mapping[str, Detail] = field(default_factory=dict)
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
            if members:
                made += self._group(group, members)
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
            condition = all_of([self.graph.may_go(collection), *refused])
            self._may_go[collection] = _composed(condition)
        return self._may_go[collection]

    def free(self, collection: str) -> Composable:
        """Return the condition that the record ``t`` is not among the kept ones."""
        return SQL(
            "(NOT EXISTS (SELECT FROM {} AS k WHERE k.tab = t.tableoid AND k.rec = t.ctid))"
        ).format(self._kept(self.graph.group_of(collection)))

    def _place(self, collection: str) -> int:
        return self.graph.emptied.index(collection)

    def _seed(self, group: Sequence[str]) -> Composable:
        return quoted(f"seed {self.graph.groups.index(tuple(group))}")

    def _kept(self, group: Sequence[str]) -> Composable:
        return quoted(f"kept {self.graph.groups.index(tuple(group))}")

    def _keys_of(self, collection: str) -> Composable:
        return quoted(f"keys {self._place(collection)}")

    def _table(self, collection: str) -> Composable:
        return self.graph.relations.by_collection[collection].identifier

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

    def _group(self, group: Sequence[str], members: Sequence[str]) -> list[Composable]:
        """Return the expressions of a group of collections, recursive if they form a cycle."""
        seed, kept = self._seed(group), self._kept(group)
        found = SQL(" UNION ").join(self._seeds(members))
        steps = self._steps(members)
        if steps:
            # Counted by key, a kept record is followed once for each key that keeps it. To follow
            # it once, PostgreSQL would have to plan all steps a second time for the keys.
            columns = ["member", "ref", "tab", "rec", "digest", "classes"]
            if not self.details:
                columns.remove("ref")
            made: list[Composable] = [
                SQL("{} AS MATERIALIZED ({})").format(seed, found),
                SQL(
                    "{kept} AS (SELECT {columns} FROM {seed} UNION "
                    "SELECT {columns_of_step} FROM {kept} AS s CROSS JOIN LATERAL ({steps}) AS e)"
                ).format(
                    kept=kept,
                    seed=seed,
                    steps=SQL(" UNION ALL ").join(steps),
                    columns=SQL(", ").join(quoted(column) for column in columns),
                    columns_of_step=SQL(", ").join(quoted("e", column) for column in columns),
                ),
            ]
        else:
            made = [SQL("{} AS MATERIALIZED ({})").format(kept, found)]
        if self.details:
            self._count(kept, members)
        return made + self._referring(kept, members)

    def _seeds(self, members: Sequence[str]) -> list[Composable]:
        """Return queries for the records of a group that records outside of it keep."""
        query = SQL("SELECT {} AS member, {} AS ref, {} FROM {} AS t WHERE {}")
        return [
            query.format(
                literal(self._place(name)), literal(at), self._columns(name), self._table(name), it
            )
            for name in members
            for at, it in self._kept_by(name) or [(-1, SQL("false"))]
        ]

    def _referring(self, kept: Composable, members: Sequence[str]) -> list[Composable]:
        """Return the foreign keys of kept records, for collections to which other groups refer."""
        made: list[Composable] = []
        for name in members:
            if columns := self._leading_on(name):
                self.joins += 1
                made.append(
                    SQL(
                        "{} AS MATERIALIZED (SELECT s.tab, {} FROM {} AS s JOIN {} AS t "
                        "ON t.tableoid = s.tab AND t.ctid = s.rec WHERE s.member = {})"
                    ).format(
                        self._keys_of(name),
                        SQL(", ").join(
                            SQL("{} AS {}").format(quoted("t", column), Identifier(f"refers {at}"))
                            for at, column in enumerate(columns)
                        ),
                        kept,
                        self._table(name),
                        literal(self._place(name)),
                    )
                )
        return made

    def _count(self, kept: Composable, members: Sequence[str]) -> None:
        most = max(len(self.details.get(name, Detail()).classes) for name in members)
        each = [
            SQL("count(*) FILTER (WHERE classes[{}])").format(literal(at + 1)) for at in range(most)
        ]
        counted = SQL("count(*), bit_xor(digest), ARRAY[{}]::bigint[]").format(SQL(", ").join(each))
        for query in (
            "SELECT member, -1, tab::bigint, {all} FROM (SELECT DISTINCT member, tab, rec, digest, "
            "classes FROM {kept}) AS k GROUP BY member, tab",
            "SELECT member, ref, 0, {all} FROM {kept} GROUP BY member, ref",
        ):
            self._counts.append(SQL(query).format(all=counted, kept=kept))

    def _steps(self, members: Sequence[str]) -> list[Composable]:
        """Return queries for the records of a group to which the kept record ``s`` refers.

        PostgreSQL tries each alternative of a union for each record. So the steps of a collection
        form one alternative, and ``OFFSET 0`` keeps PostgreSQL from flattening it.
        """
        by_child: dict[str, list[Composable]] = {}
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
                    all_of([reference.joined("c", "t"), self.may_go(name)]),
                )
                by_child.setdefault(reference.child, []).append(step)
        branch = SQL("(SELECT * FROM ({} OFFSET 0) AS u WHERE s.member = {} OFFSET 0)")
        return [
            branch.format(SQL(" UNION ALL ").join(steps), literal(self._place(child)))
            for child, steps in by_child.items()
        ]

    def _columns(self, collection: str) -> Composable:
        """Return the columns of a kept record ``t`` that each collection has."""
        if collection not in self._made_columns:
            detail = self.details.get(collection, Detail())
            columns = SQL(
                "t.tableoid AS tab, t.ctid AS rec, {} AS digest, ARRAY[{}]::bool[] AS classes"
            ).format(detail.digest, SQL(", ").join(detail.classes))
            self._made_columns[collection] = _composed(columns)
        return self._made_columns[collection]

    def _leading_on(self, collection: str) -> list[str]:
        """Return the columns of foreign keys to collections outside of its own group."""
        group = self.graph.group_of(collection)
        return list(
            dict.fromkeys(
                column
                for parent in self.graph.emptied
                if parent in self.collections and parent not in group
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
            keeping = self.graph.keeping(reference)
            if keeping is None:
                continue
            child = self._followed(reference)
            each = [_remaining(reference, negated(self.may_go(child)) if child else keeping)]
            if child and at not in inside:
                each.append(self._kept_of(child, reference))
            for records in each:
                self.joins += 1
                referred = SQL("(EXISTS (SELECT FROM {} AS r WHERE {}))").format(
                    records, reference.joined("r")
                )
                found.append((at, all_of([self.may_go(collection), referred])))
        return found

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
        return SQL("(SELECT {} FROM {} AS k WHERE {})").format(columns, self._keys_of(child), which)


def _remaining(reference: Reference, which: Composable) -> Composable:
    """Return the referring records that meet a condition over ``t``, as a subquery."""
    return SQL("(SELECT {} FROM {} AS t WHERE {})").format(
        SQL(", ").join(quoted("t", column) for column in reference.key.columns),
        reference.key.identifier,
        which,
    )


def _composed(part: Composable) -> Composable:
    """Return a part as rendered text, so that it is not rendered again at each use."""
    return SQL(part.as_string(None))
