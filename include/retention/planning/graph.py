"""The foreign keys that prevent deletions, and the order in which tables are processed.

A record is deleted only after all records that refer to it, or together with them. In two cases, a
referring record always prevents the deletion: it is on legal hold, or its table is not in the data
map and therefore has no record class. Otherwise, a referring record does not prevent the deletion
if its foreign key is set to null. Either the database does this, or the run because of the key
`detach` of retention.yaml.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from graphlib import TopologicalSorter

from psycopg.sql import SQL, Composable

from include.erasure.request_records import NO_RECORDS, RequestRecords
from include.holds.records import RecordHolds
from include.holds.registry import Hold, HoldKind
from include.policy.fragments import all_of, any_of, is_not_true, quoted
from include.retention.planning.classes import (
    RecordClass,
    add_acyclic_links,
    is_found_through,
    reachable,
    single_column,
)
from include.retention.postgres.relations import ForeignKey, Relation, Relations

FALSE = SQL("false")


@dataclass(frozen=True)
class Reference:
    """A foreign key that refers to a collection whose records are deleted.

    Attributes:
        key: the foreign key.
        child: collection that has the foreign key; None for an unmapped table.
        sets_null: whether the foreign key is set to null when the referenced record is deleted.
        detached: columns of the foreign key that the run sets to null because `detach` in
            retention.yaml lists them; empty if the database sets them to null.
    """

    key: ForeignKey
    child: str | None
    sets_null: bool = False
    detached: tuple[str, ...] = ()

    def joined(self, child: str, parent: str = "t") -> Composable:
        """Return the SQL condition that joins a referring record to the record to which it refers.

        Args:
            child: SQL alias of the table that has the foreign key. The columns of the foreign key
                have their own names there.
            parent: SQL alias of the referenced table, which must have a column ``tableoid``.
        """
        return self.key.joined(child, parent)


class Graph:
    """The record classes of a database, and the foreign keys that refer to their collections.

    Methods that return conditions return SQL over a record ``t``.

    Attributes:
        classes: collection -> its record classes.
        relations: the mapped tables.
        holds: the active legal holds.
        subjects: keys of the data subjects whose erasure requests the plan carries out.
        records: primary keys of records that runs found for open erasure requests and stored in the
            state database (see `include.erasure.request_records`). They include requests of data
            subjects who are not in `subjects`.
        deleting_collections: collections with a record class that deletes.
        groups: the collections of `deleting_collections`, in the order of deletion. The collections
            of a foreign-key cycle are in the same item. Any other collection is an item of its own.
    """

    def __init__(
        self,
        classes: Sequence[RecordClass],
        relations: Relations,
        holds: RecordHolds,
        subjects: frozenset[str] = frozenset(),
        records: RequestRecords = NO_RECORDS,
    ) -> None:
        self.classes: dict[str, list[RecordClass]] = {}
        for record_class in classes:
            self.classes.setdefault(record_class.rule.collection, []).append(record_class)
        self.relations = relations
        self.holds = holds
        self.subjects = subjects
        self.records = records
        self.deleting_collections = [
            name
            for name, of_collection in self.classes.items()
            if any(record_class.rule.deletes for record_class in of_collection)
        ]
        self._references = {name: self._leading_to(name) for name in self.deleting_collections}
        self.groups = self._groups()

    def with_holds(
        self, holds: RecordHolds, subjects: frozenset[str], records: RequestRecords
    ) -> Graph:
        """Return a copy of the graph with other legal holds and erasure requests.

        Args:
            holds: the active legal holds.
            subjects: keys of the data subjects whose erasure requests are carried out.
            records: records that runs found for open erasure requests and stored in the state
                database.
        """
        other = copy(self)
        other.holds, other.subjects, other.records = holds, subjects, records
        return other

    def without_tables(self, dropped: Collection[int]) -> Graph:
        """Return a copy of the graph without the foreign keys that belong to dropped tables.

        Args:
            dropped: oids of the dropped tables.
        """
        other = copy(self)
        other._references = {
            name: [reference for reference in references if reference.key.child not in dropped]
            for name, references in self._references.items()
        }
        return other

    def references(self, collection: str) -> list[Reference]:
        """Return the foreign keys that refer to a collection."""
        return self._references[collection]

    @property
    def masking(self) -> list[RecordClass]:
        """The record classes that mask, in the order of processing.

        If the records of record class A are found through records of record class B, A is processed
        before B, because the masking of B could make the records of A untraceable.
        """
        masks = [
            record_class
            for classes in self.classes.values()
            for record_class in classes
            if record_class.rule.action == "mask"
        ]
        before: dict[str, list[str]] = {record_class.name: [] for record_class in masks}
        add_acyclic_links(before, [(own.name, other.name) for own, other in self._links(masks)])
        by_name = {record_class.name: record_class for record_class in masks}
        return [by_name[name] for name in TopologicalSorter(before).static_order()]

    def is_traceable(self, record_class: RecordClass) -> bool:
        """Return whether records of a record class can always be traced to their data subject.

        This is the case if two conditions are met: each key expression is a column of the record
        itself, and this column is neither masked nor set to null when a referenced record is
        deleted.

        Args:
            record_class: the record class.
        """
        collection = record_class.rule.collection
        changed = {column for other in self.classes[collection] for column in other.rule.mask}
        for name in self.deleting_collections:
            for reference in self._references[name]:
                if reference.child == collection and reference.sets_null:
                    changed.update(reference.key.columns)
        columns = [single_column(text) for text in record_class.rule.keys.subject]
        return all(column is not None and column not in changed for column in columns)

    def may_make_untraceable(self, collection: str) -> bool:
        """Return whether erasing records of a collection may make records untraceable.

        A record is untraceable if its data subject can no longer be determined. Only records in
        record classes that are erased on request are considered. They may be in any collection.
        """
        masks = any(record_class.rule.mask for record_class in self.classes[collection])
        return any(
            record_class.rule.on_request
            and not self.is_traceable(record_class)
            and (
                (masks and record_class.rule.collection == collection)
                or is_found_through(record_class.rule, self.relations.by_collection[collection])
                or any(
                    reference.child == record_class.rule.collection and reference.sets_null
                    for reference in self._references.get(collection, ())
                )
            )
            for classes in self.classes.values()
            for record_class in classes
        )

    def _links(self, classes: Sequence[RecordClass]) -> list[tuple[RecordClass, RecordClass]]:
        """Return pairs of record classes whose order of processing matters.

        The first record class of a pair has to be processed before the second, because the records
        of the first are found through the table of the second.

        Args:
            classes: the record classes to compare.
        """
        return [
            (record_class, other)
            for record_class in classes
            for other in classes
            if other.rule.collection != record_class.rule.collection
            and is_found_through(record_class.rule, other.relation)
        ]

    def group_of(self, collection: str) -> tuple[str, ...]:
        """Return the collections of the foreign-key cycle to which a collection belongs.

        If the collection is in no cycle, only the collection itself is returned. The result is an
        item of `groups`.
        """
        return next(group for group in self.groups if collection in group)

    def is_cycle(self, group: Sequence[str]) -> bool:
        """Return whether the collections of an item of `groups` form a foreign-key cycle.

        A single collection is a cycle if it has a foreign key to itself. Foreign keys that are set
        to null when a record is deleted are ignored.
        """
        return any(
            reference.child in group and not reference.sets_null
            for name in group
            for reference in self._references[name]
        )

    def held(self, collection: str) -> Composable:
        """Return the SQL condition that a legal hold applies to a record.

        All record classes to which the record belongs are considered.

        Args:
            collection: collection of the record.
        """
        if self.holds.everything:
            return SQL("true")
        subjects = self.holds.values[HoldKind.SUBJECT]
        conditions: list[Composable] = []
        for record_class in self.classes.get(collection, ()):
            conditions.append(all_of([record_class.belongs, record_class.held(self.holds)]))
            conditions.append(record_class.on_hold_as_stored(self.records, subjects))
        return any_of(conditions)

    def held_by(self, record_class: RecordClass, hold: Hold, value: str) -> Composable:
        """Return the SQL condition that a legal hold with a certain value applies to a record.

        A legal hold on a data subject also applies to the records in `records` that were found for
        the erasure request of this data subject.

        Args:
            record_class: record class of the record.
            hold: the legal hold.
            value: a value of the hold, without the prefix that names a database.
        """
        conditions = [all_of([record_class.belongs, record_class.held_by(hold, value)])]
        if hold.kind is HoldKind.SUBJECT:
            conditions.append(record_class.on_hold_as_stored(self.records, {value}))
        return any_of(conditions)

    def belongs(self, record_class: RecordClass) -> Composable:
        """Return the SQL condition that a record belongs to a record class.

        A record in `records` also belongs to the record class for which a run found it.

        Args:
            record_class: the record class.
        """
        return any_of([record_class.belongs, record_class.stored_for_request(self.records)])

    def of_subjects(self, record_class: RecordClass, subjects: frozenset[str]) -> Composable:
        """Return the SQL condition that a record belongs to one of several data subjects.

        A record belongs to a data subject if a key expression of its record class returns the key
        of the data subject. It also belongs to the data subject if it is in `records` and was found
        for the erasure request of this data subject.

        Args:
            record_class: record class of the record.
            subjects: keys of the data subjects.
        """
        linked = all_of([record_class.belongs, record_class.linked(subjects)])
        return any_of([linked, record_class.stored_for_request(self.records, subjects)])

    def due(self, record_class: RecordClass) -> Composable:
        """Return the SQL condition that a record is expired or that its erasure was requested.

        Args:
            record_class: record class of the record.
        """
        expired = all_of([record_class.belongs, record_class.expired])
        requested = record_class.requested(self.subjects, self.records)
        return SQL("({} IS TRUE)").format(any_of([expired, requested]))

    def kept(self, record_class: RecordClass) -> Composable:
        """Return the SQL condition that a record is kept although it is due for disposition.

        There are three reasons: a legal hold applies to the record, its disposition is suspended,
        or another record class keeps it longer.

        Args:
            record_class: record class in which the record expired or whose records are erased on
                request.
        """
        others = []
        for other in self.classes[record_class.rule.collection]:
            is_same = other is record_class
            if is_same or other.rule.action == "mask" or not record_class.rule.deletes:
                continue
            due = FALSE if other.rule.action == "keep" else self.due(other)
            stays = any_of([is_not_true(due), other.suspended])
            others.append(all_of([other.belongs, stays]))
        held = self.held(record_class.rule.collection)
        return any_of([held, record_class.suspended, *others])

    def ready(self, record_class: RecordClass) -> Composable:
        """Return the SQL condition that a record class can delete or mask a record.

        The condition does not check whether other records refer to the record.

        Args:
            record_class: the record class.
        """
        return all_of([self.due(record_class), is_not_true(self.kept(record_class))])

    def deletable(self, collection: str) -> Composable:
        """Return the SQL condition that a record class of a collection can delete a record.

        The condition does not check whether other records refer to the record.

        Args:
            collection: collection of the record. All of its record classes are considered.
        """
        classes = self.classes.get(collection, ())
        return any_of(
            [self.ready(record_class) for record_class in classes if record_class.rule.deletes]
        )

    def rows_that_keep(self, reference: Reference) -> Composable | None:
        """Return the SQL condition that a referring record prevents another record's deletion.

        The condition applies to a record ``t`` that refers to the other record. Return None if
        records with this foreign key never prevent a deletion.

        Args:
            reference: foreign key with which the record refers to the other record.
        """
        if reference.sets_null:
            assert reference.child is not None
            held = self.held(reference.child)
            return None if held == FALSE else held
        return SQL("true")

    def unreferenced(self, collection: str) -> Composable:
        """Return the SQL condition that no other record prevents the deletion of a record ``t``.

        A referring record prevents the deletion even if it will be deleted itself, since the
        execution deletes referring records first. A record that refers to itself does not prevent
        its own deletion.

        Args:
            collection: collection of the record.
        """
        relation = self.relations.by_collection[collection]
        conditions = []
        for reference in self._references[collection]:
            keeping = self.rows_that_keep(reference)
            if keeping is not None:
                others = self._itself(reference, relation)
                conditions.append(self.no_record(reference, keeping, others))
        return all_of(conditions)

    def no_record(
        self, reference: Reference, which: Composable, others: Composable | None = None
    ) -> Composable:
        """Return the SQL condition that no record that meets `which` refers to a record ``t``.

        Args:
            reference: foreign key of the referring records.
            which: SQL condition over the referring record. It is used in a subquery, which allows
                PostgreSQL to use a join. In this subquery, the referring record is named ``t`` as
                well.
            others: further SQL condition over the referring record ``r`` and the referenced record
                ``t``; None for no further condition.
        """
        columns = dict.fromkeys((*reference.key.columns, *self._key_of(reference)))
        child = SQL("(SELECT {columns} FROM {table} AS t WHERE {which})").format(
            columns=SQL(", ").join(quoted("t", column) for column in columns),
            table=reference.key.identifier,
            which=which,
        )
        where = [reference.joined("r")] + ([others] if others is not None else [])
        return SQL("(NOT EXISTS (SELECT FROM {} AS r WHERE {}))").format(child, all_of(where))

    def _itself(self, reference: Reference, relation: Relation) -> Composable | None:
        if reference.key.child_root != relation.oid:
            return None
        return SQL("({} IS DISTINCT FROM {})").format(
            _row("r", relation.key), _row("t", relation.key)
        )

    def _key_of(self, reference: Reference) -> tuple[str, ...]:
        child = self.relations.by_collection.get(reference.child or "")
        return child.key if child and child.oid == reference.key.child_root else ()

    def _leading_to(self, collection: str) -> list[Reference]:
        relation = self.relations.by_collection[collection]
        detach = {
            column
            for record_class in self.classes[collection]
            for column in record_class.rule.detach
        }
        references = []
        for key in self.relations.keys_to(relation):
            child = self.relations.collection_of(key.child_root)
            if child is None:
                references.append(Reference(key, None))
                continue
            detached = tuple(name for name in key.columns if f"{child}.{name}" in detach)
            by_database = key.on_delete in ("set_null", "set_default")
            references.append(Reference(key, child, bool(detached) or by_database, detached))
        return references

    def _groups(self) -> tuple[tuple[str, ...], ...]:
        before: dict[str, set[str]] = {
            name: {
                reference.child
                for reference in self._references[name]
                if reference.child in self.deleting_collections
                and not reference.sets_null
                and reference.child is not None
            }
            for name in self.deleting_collections
        }
        reached = {name: reachable(name, before) for name in self.deleting_collections}
        group = {
            name: tuple(
                sorted({name} | {other for other in reached[name] if name in reached[other]})
            )
            for name in self.deleting_collections
        }
        merged = _order_of_groups(group, before)
        deleting = [
            record_class
            for classes in self.classes.values()
            for record_class in classes
            if record_class.rule.deletes
        ]
        add_acyclic_links(
            merged,
            [
                (group[own.rule.collection], group[other.rule.collection])
                for own, other in self._links(deleting)
            ],
        )
        return tuple(TopologicalSorter(merged).static_order())


def _order_of_groups(
    group: Mapping[str, tuple[str, ...]], before: Mapping[str, set[str]]
) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    merged: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for name, own in sorted(group.items()):
        merged.setdefault(own, set()).update(group[other] for other in before[name])
    return {own: sorted(others - {own}) for own, others in merged.items()}


def _row(alias: str, columns: Sequence[str]) -> Composable:
    return SQL("ROW({})").format(SQL(", ").join(quoted(alias, column) for column in columns))
