"""Find the records that could be deleted, but are kept because other records refer to them.

A record is kept if a record that remains refers to it. All kept records are found in one statement.
Each collection has one common table expression with its kept records. The expression reads the kept
records of the referring collections. So the length of the statement grows with the number of
foreign keys, not with the number of paths between tables.

Collections of a foreign-key cycle share a recursive expression. It starts with those records of the
cycle that are referenced by remaining records outside of the cycle. Then it follows the foreign
keys of each kept record once.

In this module, a *group* is a foreign-key cycle or a single collection (an item of `Graph.groups`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from psycopg.sql import SQL, Composable, Identifier

from include.policy.fragments import all_of, is_not_true, literal, quoted
from include.retention.planning.graph import Graph, Reference


@dataclass(frozen=True)
class KeptFigures:
    """SQL that computes the digest and the counts of a collection's kept records.

    Attributes:
        digest: SQL expression that returns a bigint for a record ``t``. The statement returns the
            XOR of these numbers.
        classes: SQL conditions over ``t``. For each condition, the statement returns the number of
            kept records that meet it.
    """

    digest: Composable = field(default_factory=lambda: SQL("0::bigint"))
    classes: Sequence[Composable] = ()


@dataclass
class KeptRecords:
    """Builds the common table expressions that find kept records.

    A record is kept if it could be deleted, but a record that remains refers to it.

    Attributes:
        graph: the collections and their foreign keys.
        collections: collections with deletable records. All records of other collections remain.
        refused: oid of a table -> ctids of its records that remain because the database refused to
            delete them.
        details: collection -> SQL that computes the digest and the counts of its kept records;
            empty if they are not counted.
        joins: number of joins in the expressions.
    """

    graph: Graph
    collections: Collection[str]
    refused: Mapping[int, Sequence[str]] = field(default_factory=dict)
    details: Mapping[str, KeptFigures] = field(default_factory=dict)
    joins: int = field(default=0, init=False)
    _deletable: dict[str, Composable] = field(default_factory=dict, init=False)
    _cached_columns: dict[str, Composable] = field(default_factory=dict, init=False)
    _counts: list[Composable] = field(default_factory=list, init=False)

    def expressions(self) -> Composable:
        """Return the ``WITH RECURSIVE`` clause that finds the kept records."""
        expressions: list[Composable] = []
        self.joins, self._counts = 0, []
        for group in self.graph.groups:
            members = [name for name in group if name in self.collections]
            if members:
                expressions += self._group(group, members)
        return SQL("WITH RECURSIVE {}").format(SQL(", ").join(expressions))

    def counts(self) -> Composable:
        """Return a query that counts the kept records, in total and for each foreign key.

        The query reads the table expressions that `expressions` returns. In the statement, the
        query has to come after these expressions. The columns of the result are:

        - index of the collection in `Graph.deleting_collections`;
        - index of the foreign key in `Graph.references`, or -1 for the total;
        - oid of the table or partition, or 0 for a foreign key;
        - number of records;
        - XOR of the digests of the records;
        - number of records for each condition in `KeptFigures.classes`.
        """
        return SQL(" UNION ALL ").join(self._counts)

    def deletable(self, collection: str) -> Composable:
        """Return the SQL condition that a record can be deleted, and was not refused before.

        The condition does not check whether other records refer to the record.

        Args:
            collection: collection of the record.
        """
        if collection not in self._deletable:
            leaves = self.graph.relations.by_collection[collection].leaves
            refused = [
                SQL("(NOT (t.tableoid = {}::oid AND t.ctid = ANY ({}::tid[])))").format(
                    literal(leaf.oid), literal(list(self.refused[leaf.oid]))
                )
                for leaf in leaves
                if self.refused.get(leaf.oid)
            ]
            condition = all_of([self.graph.deletable(collection), *refused])
            self._deletable[collection] = _rendered(condition)
        return self._deletable[collection]

    def unreferenced(self, collection: str) -> Composable:
        """Return the SQL condition that no remaining record refers to a record ``t``.

        Args:
            collection: collection of the record.
        """
        return SQL(
            "(NOT EXISTS (SELECT FROM {} AS k WHERE k.tab = t.tableoid AND k.rec = t.ctid))"
        ).format(self._kept(self.graph.group_of(collection)))

    def _index(self, collection: str) -> int:
        return self.graph.deleting_collections.index(collection)

    def _seed(self, group: Sequence[str]) -> Composable:
        return quoted(f"seed {self.graph.groups.index(tuple(group))}")

    def _kept(self, group: Sequence[str]) -> Composable:
        return quoted(f"kept {self.graph.groups.index(tuple(group))}")

    def _keys_of(self, collection: str) -> Composable:
        return quoted(f"keys {self._index(collection)}")

    def _table(self, collection: str) -> Composable:
        return self.graph.relations.by_collection[collection].identifier

    def _followed(self, reference: Reference) -> str | None:
        """Return the collection of a foreign key, if only its kept records prevent a deletion.

        This is the case if the collection has records that can be deleted. A record that is deleted
        itself does not prevent the deletion of the record to which it refers. Return None if the
        collection has no records that can be deleted. Also return None if the foreign key is set to
        null, because kept records of the collection then do not prevent a deletion.

        Args:
            reference: the foreign key.
        """
        child = reference.child
        return child if child in self.collections and not reference.sets_null else None

    def _inside(self, collection: str) -> list[tuple[int, Reference]]:
        """Return the foreign keys within a foreign-key cycle that refer to a collection.

        The list is empty if the collection is in no foreign-key cycle.

        Args:
            collection: the referenced collection.

        Returns:
            The index of each foreign key in `Graph.references`, and the foreign key.
        """
        group = self.graph.group_of(collection)
        return [
            (at, reference)
            for at, reference in enumerate(self.graph.references(collection))
            if self._followed(reference) in group
        ]

    def _group(self, group: Sequence[str], members: Sequence[str]) -> list[Composable]:
        """Return the common table expressions that find the kept records of a group.

        A group is a foreign-key cycle or a single collection. For a foreign-key cycle, the
        expressions are recursive.

        Args:
            group: all collections of the group.
            members: collections of the group that have deletable records.
        """
        seed, kept = self._seed(group), self._kept(group)
        seeds = SQL(" UNION ").join(self._seeds(members))
        steps = self._steps(members)
        if steps:
            # To count by foreign key, a kept record is followed once for each key that keeps it.
            # Otherwise PostgreSQL would have to plan all steps a second time.
            columns = ["member", "ref", "tab", "rec", "digest", "classes"]
            if not self.details:
                columns.remove("ref")
            expressions: list[Composable] = [
                SQL("{} AS MATERIALIZED ({})").format(seed, seeds),
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
            expressions = [SQL("{} AS MATERIALIZED ({})").format(kept, seeds)]
        if self.details:
            self._count(kept, members)
        return expressions + self._referring(kept, members)

    def _seeds(self, members: Sequence[str]) -> list[Composable]:
        """Return queries for the kept records with which the search in a group starts.

        A group is a foreign-key cycle or a single collection. The search starts with the records
        that are kept by records outside of the group, or by records of the group that cannot be
        deleted.

        Args:
            members: collections of the group that have deletable records.
        """
        query = SQL("SELECT {} AS member, {} AS ref, {} FROM {} AS t WHERE {}")
        return [
            query.format(
                literal(self._index(name)),
                literal(at),
                self._columns(name),
                self._table(name),
                condition,
            )
            for name in members
            for at, condition in self._kept_by(name) or [(-1, SQL("false"))]
        ]

    def _referring(self, kept: Composable, members: Sequence[str]) -> list[Composable]:
        """Return common table expressions with the foreign-key values of a group's kept records.

        A group is a foreign-key cycle or a single collection. The expressions contain only foreign
        keys that refer to collections of other groups.

        Args:
            kept: name of the expression that finds the kept records of the group.
            members: collections of the group that have deletable records.
        """
        conditions: list[Composable] = []
        for name in members:
            if columns := self._leading_on(name):
                self.joins += 1
                conditions.append(
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
                        literal(self._index(name)),
                    )
                )
        return conditions

    def _count(self, kept: Composable, members: Sequence[str]) -> None:
        most = max(len(self.details.get(name, KeptFigures()).classes) for name in members)
        counts = [
            SQL("count(*) FILTER (WHERE classes[{}])").format(literal(at + 1)) for at in range(most)
        ]
        counted = SQL("count(*), bit_xor(digest), ARRAY[{}]::bigint[]").format(
            SQL(", ").join(counts)
        )
        for query in (
            "SELECT member, -1, tab::bigint, {all} FROM (SELECT DISTINCT member, tab, rec, digest, "
            "classes FROM {kept}) AS k GROUP BY member, tab",
            "SELECT member, ref, 0, {all} FROM {kept} GROUP BY member, ref",
        ):
            self._counts.append(SQL(query).format(all=counted, kept=kept))

    def _steps(self, members: Sequence[str]) -> list[Composable]:
        """Return queries that follow the foreign keys of a kept record ``s`` within a group.

        A group is a foreign-key cycle or a single collection. PostgreSQL evaluates each branch of a
        union for each kept record. To save time, there is only one branch for each referring
        collection. ``OFFSET 0`` prevents PostgreSQL from splitting the branch.

        Args:
            members: collections of the group that have deletable records.
        """
        by_child: dict[str, list[Composable]] = {}
        for name in members:
            for at, reference in self._inside(name):
                assert reference.child is not None
                # A separate subquery, since the pack's conditions may have unqualified columns.
                step = SQL(
                    "SELECT {} AS member, {} AS ref, p.* FROM {} AS c CROSS JOIN LATERAL "
                    "(SELECT {} FROM {} AS t WHERE {}) AS p "
                    "WHERE c.tableoid = s.tab AND c.ctid = s.rec"
                ).format(
                    literal(self._index(name)),
                    literal(at),
                    reference.key.identifier,
                    self._columns(name),
                    self._table(name),
                    all_of([reference.joined("c", "t"), self.deletable(name)]),
                )
                by_child.setdefault(reference.child, []).append(step)
        branch = SQL("(SELECT * FROM ({} OFFSET 0) AS u WHERE s.member = {} OFFSET 0)")
        return [
            branch.format(SQL(" UNION ALL ").join(steps), literal(self._index(child)))
            for child, steps in by_child.items()
        ]

    def _columns(self, collection: str) -> Composable:
        """Return the SQL columns that describe a kept record ``t`` in the table expressions.

        They are the oid of its table, its ctid, and the values to compute for it.

        Args:
            collection: collection of the record.
        """
        if collection not in self._cached_columns:
            detail = self.details.get(collection, KeptFigures())
            columns = SQL(
                "t.tableoid AS tab, t.ctid AS rec, {} AS digest, ARRAY[{}]::bool[] AS classes"
            ).format(detail.digest, SQL(", ").join(detail.classes))
            self._cached_columns[collection] = _rendered(columns)
        return self._cached_columns[collection]

    def _leading_on(self, collection: str) -> list[str]:
        """Return the foreign-key columns of a collection that refer to other groups.

        A group is a foreign-key cycle or a single collection.

        Args:
            collection: collection that has the foreign keys.
        """
        group = self.graph.group_of(collection)
        return list(
            dict.fromkeys(
                column
                for parent in self.graph.deleting_collections
                if parent in self.collections and parent not in group
                for reference in self.graph.references(parent)
                if reference.child == collection and not reference.sets_null
                for column in reference.key.columns
            )
        )

    def _kept_by(self, collection: str) -> list[tuple[int, Composable]]:
        """Return the conditions under which a record of a collection is kept.

        References from kept records of the same foreign-key cycle have no condition here, because
        the recursive table expression follows these references.

        Args:
            collection: collection of the record.

        Returns:
            For each condition: index of the foreign key in `Graph.references`, and the SQL
            condition.
        """
        inside = dict(self._inside(collection))
        conditions: list[tuple[int, Composable]] = []
        for at, reference in enumerate(self.graph.references(collection)):
            keeping = self.graph.rows_that_keep(reference)
            if keeping is None:
                continue
            child = self._followed(reference)
            referring_records = [
                _referring_records(
                    reference, is_not_true(self.deletable(child)) if child else keeping
                )
            ]
            if child and at not in inside:
                referring_records.append(self._kept_of(child, reference))
            for records in referring_records:
                self.joins += 1
                referred = SQL("(EXISTS (SELECT FROM {} AS r WHERE {}))").format(
                    records, reference.joined("r")
                )
                conditions.append((at, all_of([self.deletable(collection), referred])))
        return conditions

    def _kept_of(self, child: str, reference: Reference) -> Composable:
        """Return a subquery with the foreign-key values of the kept records of a collection.

        Args:
            child: collection that has the foreign key.
            reference: the foreign key.
        """
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


def _referring_records(reference: Reference, which: Composable) -> Composable:
    """Return a subquery with the foreign-key values of referring records that meet a condition.

    Args:
        reference: the foreign key.
        which: SQL condition over a record ``t`` that has the foreign key.
    """
    return SQL("(SELECT {} FROM {} AS t WHERE {})").format(
        SQL(", ").join(quoted("t", column) for column in reference.key.columns),
        reference.key.identifier,
        which,
    )


def _rendered(part: Composable) -> Composable:
    """Return SQL as finished text.

    Otherwise, psycopg would convert the SQL to text again each time it is used in a statement.

    Args:
        part: SQL that is used several times in a statement.
    """
    return SQL(part.as_string(None))
