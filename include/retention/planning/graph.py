"""The references that keep records, and the order in which tables can be emptied.

A record is deleted only after, or together with, every record that refers to it. Foreign keys that
are set to null, by the database or by `detach`, keep nothing, unless the record to change is on
hold. A foreign key of a table that the data map lacks always keeps, since no rule covers its
records.
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
from include.policy.fragments import all_of, any_of, negated, quoted
from include.retention.planning.classes import (
    RecordClass,
    add_links,
    finds_through,
    own_column,
    reachable,
)
from include.retention.postgres.relations import ForeignKey, Relation, Relations

FALSE = SQL("false")


@dataclass(frozen=True)
class Reference:
    """A foreign key that leads to a collection whose records go.

    Attributes:
        key: the foreign key.
        child: collection that has it; None for a table that the data map lacks.
        sets_null: whether it is set to null when the referenced record is deleted.
        detached: columns that `detach` of the referenced collection names, which the run sets to
            null; without them, the database sets the key to null.
    """

    key: ForeignKey
    child: str | None
    sets_null: bool = False
    detached: tuple[str, ...] = ()

    def joined(self, child: str, parent: str = "t") -> Composable:
        """The condition that a child's record refers to a parent's.

        Args:
            child: alias of the child, whose columns are called as in the table.
            parent: alias of the parent, with its ``tableoid``.
        """
        return self.key.joined(child, parent)


class Graph:
    """The collections of a database whose records go, and what refers to them.

    Attributes:
        classes: of every collection, by its name.
        relations: the live tables.
        holds: the holds that count.
        subjects: data subjects who asked to be erased.
        records: that are remembered for requests, those of other data subjects too.
        groups: collections in the order in which they can be emptied; those of a group refer to
            each other in a circle, or to themselves.
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
        self.emptied = [
            name
            for name, found in self.classes.items()
            if any(record_class.rule.deletes for record_class in found)
        ]
        self._references = {name: self._leading_to(name) for name in self.emptied}
        self.groups = self._groups()

    def under(self, holds: RecordHolds, subjects: frozenset[str], records: RequestRecords) -> Graph:
        """Return the same graph under other holds and requests."""
        other = copy(self)
        other.holds, other.subjects, other.records = holds, subjects, records
        return other

    def without(self, dropped: Collection[int]) -> Graph:
        """Return the same graph after tables were dropped: their own foreign keys are gone too.

        Args:
            dropped: oids of the tables.
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
        """Record classes that mask, those first whose records are found through others."""
        masks = [
            record_class
            for classes in self.classes.values()
            for record_class in classes
            if record_class.rule.action == "mask"
        ]
        before: dict[str, list[str]] = {record_class.name: [] for record_class in masks}
        add_links(before, [(mine.name, other.name) for mine, other in self._links(masks)])
        by_name = {record_class.name: record_class for record_class in masks}
        return [by_name[name] for name in TopologicalSorter(before).static_order()]

    def keeps_subject(self, record_class: RecordClass) -> bool:
        """Return whether nothing that a run erases can change who a record's subject is.

        So it is where each expression is a column of the record itself that is neither masked nor
        set to null when a record goes to which it refers.
        """
        collection = record_class.rule.collection
        changed = {column for other in self.classes[collection] for column in other.rule.mask}
        for name in self.emptied:
            for reference in self._references[name]:
                if reference.child == collection and reference.sets_null:
                    changed.update(reference.key.columns)
        columns = [own_column(text) for text in record_class.rule.keys.subject]
        return all(column is not None and column not in changed for column in columns)

    def loses_subjects(self, collection: str) -> bool:
        """Return whether erasing records of a collection may lose the subjects of some records."""
        masks = any(record_class.rule.mask for record_class in self.classes[collection])
        return any(
            record_class.rule.on_request
            and not self.keeps_subject(record_class)
            and (
                (masks and record_class.rule.collection == collection)
                or finds_through(record_class.rule, self.relations.by_collection[collection])
                or any(
                    reference.child == record_class.rule.collection and reference.sets_null
                    for reference in self._references.get(collection, ())
                )
            )
            for classes in self.classes.values()
            for record_class in classes
        )

    def _links(self, classes: Sequence[RecordClass]) -> list[tuple[RecordClass, RecordClass]]:
        """Return each class with each other class through whose records its own are found."""
        return [
            (record_class, other)
            for record_class in classes
            for other in classes
            if other.rule.collection != record_class.rule.collection
            and finds_through(record_class.rule, other.relation)
        ]

    def group_of(self, collection: str) -> tuple[str, ...]:
        """Return the group of a collection."""
        return next(group for group in self.groups if collection in group)

    def is_cycle(self, group: Sequence[str]) -> bool:
        """Return whether collections of a group refer to each other, or to themselves."""
        return any(
            reference.child in group and not reference.sets_null
            for name in group
            for reference in self._references[name]
        )

    def held(self, collection: str) -> Composable:
        """Return the condition that a record is on hold, by any class."""
        if self.holds.everything:
            return SQL("true")
        subjects = self.holds.values[HoldKind.SUBJECT]
        conditions: list[Composable] = []
        for record_class in self.classes.get(collection, ()):
            conditions.append(all_of([record_class.belongs, record_class.held(self.holds)]))
            conditions.append(record_class.on_hold_as_remembered(self.records, subjects))
        return any_of(conditions)

    def held_by(self, record_class: RecordClass, hold: Hold, value: str) -> Composable:
        """Return the condition that one hold is on a record of the class.

        A hold on a data subject is also on what is remembered for that subject's request.

        Args:
            record_class: the class.
            hold: of the registry.
            value: what it is on, without the database.
        """
        conditions = [all_of([record_class.belongs, record_class.held_by(hold, value)])]
        if hold.kind is HoldKind.SUBJECT:
            conditions.append(record_class.on_hold_as_remembered(self.records, {value}))
        return any_of(conditions)

    def belongs(self, record_class: RecordClass) -> Composable:
        """Return the condition that a record is of the class, or was when it was remembered."""
        return any_of([record_class.belongs, record_class.remembered(self.records)])

    def of_subjects(self, record_class: RecordClass, subjects: frozenset[str]) -> Composable:
        """Return the condition that a record is of some data subjects, linked or remembered."""
        linked = all_of([record_class.belongs, record_class.linked(subjects)])
        return any_of([linked, record_class.remembered(self.records, subjects)])

    def due(self, record_class: RecordClass) -> Composable:
        """Return the condition that a record has expired, or its data subject asked for it."""
        expired = all_of([record_class.belongs, record_class.expired])
        requested = record_class.requested(self.subjects, self.records)
        return SQL("({} IS TRUE)").format(any_of([expired, requested]))

    def kept(self, record_class: RecordClass) -> Composable:
        """Return the condition that a hold, a suspension or another class keeps a record."""
        others = []
        for other in self.classes[record_class.rule.collection]:
            is_same = other is record_class
            if is_same or other.rule.action == "mask" or not record_class.rule.deletes:
                continue
            due = FALSE if other.rule.action == "keep" else self.due(other)
            stays = any_of([negated(due), other.suspended])
            others.append(all_of([other.belongs, stays]))
        held = self.held(record_class.rule.collection)
        return any_of([held, record_class.suspended, *others])

    def ready(self, record_class: RecordClass) -> Composable:
        """Return the condition that a record can be deleted or masked, apart from references."""
        return all_of([self.due(record_class), negated(self.kept(record_class))])

    def may_go(self, collection: str) -> Composable:
        """Return the condition that one of its classes can delete it, apart from references."""
        classes = self.classes.get(collection, ())
        return any_of([self.ready(it) for it in classes if it.rule.deletes])

    def keeping(self, reference: Reference) -> Composable | None:
        """Return the condition over ``t`` for referring records that keep the parent, or None."""
        if reference.sets_null:
            assert reference.child is not None
            held = self.held(reference.child)
            return None if held == FALSE else held
        return SQL("true")

    def unreferred(self, collection: str) -> Composable:
        """Return the condition that no record keeps a record ``t`` by a reference to it.

        Any record that still refers counts, since the execution deletes referring records first. A
        record that refers to itself does not keep itself.
        """
        relation = self.relations.by_collection[collection]
        conditions = []
        for reference in self._references[collection]:
            keeping = self.keeping(reference)
            if keeping is not None:
                others = self._itself(reference, relation)
                conditions.append(self.no_record(reference, keeping, others))
        return all_of(conditions)

    def no_record(
        self, reference: Reference, which: Composable, others: Composable | None = None
    ) -> Composable:
        """Return the condition that no record that meets a condition refers to the record ``t``.

        The condition is over a record ``t`` in a subquery, so that its ``t`` is the referring
        record, and PostgreSQL can still join instead of searching for each record.
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
        detach = {column for found in self.classes[collection] for column in found.rule.detach}
        references = []
        for key in self.relations.keys_to(relation):
            child = self.relations.collection_of(key.child_root)
            if child is None:
                references.append(Reference(key, None))
                continue
            detached = tuple(it for it in key.columns if f"{child}.{it}" in detach)
            by_database = key.on_delete in ("set_null", "set_default")
            references.append(Reference(key, child, bool(detached) or by_database, detached))
        return references

    def _groups(self) -> tuple[tuple[str, ...], ...]:
        before: dict[str, set[str]] = {
            name: {
                reference.child
                for reference in self._references[name]
                if reference.child in self.emptied
                and not reference.sets_null
                and reference.child is not None
            }
            for name in self.emptied
        }
        reached = {name: reachable(name, before) for name in self.emptied}
        group = {
            name: tuple(sorted({name} | {it for it in reached[name] if name in reached[it]}))
            for name in self.emptied
        }
        merged = _merged(group, before)
        deleting = [it for classes in self.classes.values() for it in classes if it.rule.deletes]
        add_links(
            merged,
            [
                (group[own.rule.collection], group[other.rule.collection])
                for own, other in self._links(deleting)
            ],
        )
        return tuple(TopologicalSorter(merged).static_order())


def _merged(
    group: Mapping[str, tuple[str, ...]], before: Mapping[str, set[str]]
) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    merged: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for name, own in sorted(group.items()):
        merged.setdefault(own, set()).update(group[it] for it in before[name])
    return {own: sorted(others - {own}) for own, others in merged.items()}


def _row(alias: str, columns: Sequence[str]) -> Composable:
    return SQL("ROW({})").format(SQL(", ").join(quoted(alias, column) for column in columns))
