"""Build the SQL that selects the affected records of one database and their data subjects.

The criteria come from a `Selection`, which a person entered in a form. It can contain a list of
keys, such as customer numbers. If a listed key does not fit the type of its column, such as a word
for a numeric key, no record matches, and no error is raised.

If logs or listed keys name only few people, the records of each person are looked up. Otherwise
each collection is scanned once. Both methods return the same records.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from psycopg.sql import SQL, Composable, Identifier

from include.incident.counting.live_database import INTEGERS, LiveCollection, LiveDatabase
from include.incident.counting.logs import LoggedSubjects, read_logs, window_condition
from include.incident.counting.snapshot import name_condition
from include.incident.selection import Selection, locate_keys
from include.policy.fragments import all_of, any_of

_UUID, _TIMESTAMPTZ = 2950, 1184  # type oids of PostgreSQL
_TEXTS = {25, 1043}


@dataclass(frozen=True)
class ListedKeys:
    """The keys of people or records in one database that a person listed as affected.

    Attributes:
        keys: keys as the person entered them.
        positions: position of each key in the whole list that was entered, from 1. The whole list
            may contain keys of several databases.
        collection: collection whose records the keys identify; None if the keys identify people.
    """

    keys: Sequence[str] = ()
    positions: Sequence[int] = ()
    collection: str | None = None

    def values(self, live: LiveDatabase, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the values of the query parameters that the SQL of `people` and `records` uses.

        Args:
            live: database with the tables and columns that `inspect_database` found.
            keys: those listed keys (attribute ``keys``) for which the query searches; None for all
                of them.
        """
        distinct_keys = list(dict.fromkeys(self.keys if keys is None else keys))
        return {
            "listed_people": _distinct(_normalize_key(key, live.key) for key in distinct_keys),
            "listed_numbers": _distinct(_normalize_integer(key, 2**63) for key in distinct_keys),
            "listed_texts": distinct_keys,
        }

    def people(self, live: LiveDatabase) -> Composable:
        """Return SQL that selects the listed keys of people as a column ``k``.

        The result may include keys that do not exist in the database.

        Args:
            live: database with the tables and columns that `inspect_database` found.
        """
        if _is_typed(live.key):
            typed = "SELECT DISTINCT one::{} AS k FROM unnest(%(listed_people)s::text[]) AS one"
            return SQL(typed).format(live.key_name)
        return SQL("SELECT {} AS k FROM {} AS s WHERE {} = ANY(%(listed_people)s::text[])").format(
            live.person, live.people, key_as_text(live, live.person)
        )

    def records(self, collected: LiveCollection) -> list[Composable]:
        """Return SQL conditions that select the records whose keys a person listed as affected.

        A record ``r`` is selected if it fulfils at least one of the conditions. There is one
        condition for each expression in `LiveCollection.named`.

        Args:
            collected: collection whose records the listed keys identify.
        """
        conditions: list[Composable] = []
        for name in collected.named:
            if name.type in INTEGERS:
                condition = (
                    "{} IN (SELECT one::bigint FROM unnest(%(listed_numbers)s::text[]) AS one)"
                )
            else:
                condition = (
                    "({})::text IN (SELECT one FROM unnest(%(listed_texts)s::text[]) AS one)"
                )
            conditions.append(SQL(condition).format(name.sql))
        return conditions

    def missing(self, existing_keys: Iterable[str], kind: int | None) -> list[int]:
        """Return the positions of the listed keys that do not exist in the database.

        Args:
            existing_keys: keys that exist, as PostgreSQL prints them.
            kind: OID of the data type of the key column in the subject table; None if the keys
                identify records.
        """
        existing = set(existing_keys)
        return [
            position
            for position, key in zip(self.positions, self.keys, strict=True)
            if existing.isdisjoint(_possible_spellings(key, kind))
        ]


def listed_keys_of(selection: Selection, database: str) -> ListedKeys:
    """Return the entered keys that belong to one database.

    Args:
        selection: criteria that `check_selection` returned.
        database: name of the database in the data map.
    """
    located = [
        (position, key)
        for position, key_database, key in locate_keys(selection)
        if key_database == database
    ]
    collection = None
    if selection.keys_of is not None and located:
        collection = selection.keys_of.removeprefix(f"{database}.")
    return ListedKeys(
        [key for _, key in located], [position for position, _ in located], collection
    )


def key_as_text(live: LiveDatabase, key: Composable) -> Composable:
    """Return SQL that converts a key of a person to text, independent of the session's timezone.

    Args:
        live: database with the tables and columns that `inspect_database` found.
        key: SQL expression for the key.
    """
    if live.key == _TIMESTAMPTZ:
        return SQL("(({}) AT TIME ZONE 'UTC')::text || '+00'").format(key)
    return SQL("({})::text").format(key)


def _distinct(keys: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(key for key in keys if key is not None))


def _is_typed(kind: int) -> bool:
    return kind in INTEGERS or kind in _TEXTS or kind == _UUID


def _normalize_key(key: str, kind: int) -> str | None:
    """Return a key in the form in which PostgreSQL prints a value of a column type.

    Return None if the key is not a value of the type.

    Args:
        key: key that a person entered.
        kind: OID of the column's data type.
    """
    if kind in INTEGERS:
        return _normalize_integer(key, INTEGERS[kind])
    if kind == _UUID:
        try:
            return str(uuid.UUID(key))
        except ValueError:
            return None
    return key


def _possible_spellings(key: str, kind: int | None) -> set[str]:
    """Return all spellings in which PostgreSQL may print a key that a person entered.

    For example, PostgreSQL prints the key ``007`` of a numeric column as ``7``.

    Args:
        key: key that a person entered.
        kind: OID of the data type of the column that contains the key; None if the type is unknown.
            In this case the key may be a text or an integer.
    """
    if kind is not None:
        normalized = _normalize_key(key, kind)
        return set() if normalized is None else {normalized}
    number = _normalize_integer(key, 2**63)
    return {key} if number is None else {key, number}


def _normalize_integer(key: str, below: int) -> str | None:
    digits = key.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 40):
        return None
    value = int(key)
    return str(value) if -below <= value < below else None


ALL = SQL("true")
_DEPARTMENTS = SQL("%(departments)s::text[]")
_LOOKUP_RATIO = 400  # a lookup of at most 1 in 400 people is cheaper than a scan


@dataclass(frozen=True)
class RecordMatch:
    """SQL that selects some of the affected records of a collection.

    Several matches can be needed to select all affected records, and two of them may select the
    same record.

    Attributes:
        source: FROM clause that yields each row ``r`` of the collection at most once.
        where: condition that is true for the affected rows.
        people: index of a key expression in `LiveCollection.keys` -> SQL condition under which the
            person with this key is affected, or None if the person of every affected row is
            affected. A person whose index is missing is not affected.
    """

    source: Composable
    where: Composable
    people: Mapping[int, Composable | None]


@dataclass(frozen=True)
class SubjectRecords:
    """SQL that selects affected records together with the keys of their data subjects.

    Attributes:
        collected: collection of the records; None if the SQL selects only people and no records.
            Logs or listed keys name these people.
        keys: SQL expressions for the keys of the people in a row. An expression may yield NULL.
        source: FROM clause with its condition, such as ``waybill AS r WHERE ...``.
    """

    collected: LiveCollection | None
    keys: Sequence[Composable]
    source: Composable


@dataclass(frozen=True)
class AffectedRecords:
    """SQL that selects the affected records of one database and their data subjects.

    Attributes:
        live: database with the tables and columns that `inspect_database` found.
        selection: criteria of affected records that `check_selection` returned.
        logged: people named by log entries; None if the criteria use no log.
        listed: listed keys that belong to this database.
        moment: timezone-aware time at which the age of people is determined.
    """

    live: LiveDatabase
    selection: Selection
    logged: LoggedSubjects | None = None
    listed: ListedKeys = field(default_factory=ListedKeys)
    moment: datetime | None = None

    @cached_property
    def values(self) -> dict[str, Any]:
        """The values of the parameters that all queries of affected records use."""
        selection = self.selection
        return {
            "since": selection.since,
            "until": selection.until,
            "departments": list(selection.departments),
            "moment": self.moment,
            **self.listed.values(self.live),
            **(self.logged.values if self.logged else {}),
        }

    @cached_property
    def collections(self) -> Mapping[str, LiveCollection]:
        """The collections whose records can be affected, in the order of incident.yaml.

        These are the collections that the criteria cover, and the collection of the listed records.
        """
        names = set(self._collection_names)
        if self.listed.collection is not None:
            names.add(self.listed.collection)
        return {
            name: collection for name, collection in self.live.collections.items() if name in names
        }

    @cached_property
    def is_by_subject_table(self) -> bool:
        """Whether the affected people can be selected from the subject table alone.

        In this case the affected people are the rows of the subject table that `named_subjects`
        selects, or all rows if it is None. Foreign keys guarantee that every person named in an
        affected record is in the subject table.
        """
        selection = self.selection
        has_no_row_filters = not selection.departments and (
            selection.uses_log or not (selection.since or selection.until)
        )
        return (
            any(
                collection.is_subject_table and name in self._collection_names
                for name, collection in self.collections.items()
            )
            and all(collection.is_linked for collection in self.collections.values())
            and self.listed.collection is None
            and (not self._has_filters or has_no_row_filters)
            and (self.logged is None or self.logged.is_linked)
        )

    @cached_property
    def named_subjects(self) -> Composable | None:
        """SQL that selects, as a column ``k``, the keys of people whom logs and listed keys name.

        None if the criteria use no log and are not limited to listed keys. In this case other
        people can be affected too.
        """
        if self._has_filters and self.logged is None:
            return None
        relations = []
        if self.logged is not None:
            relations.append(SQL("SELECT k FROM ({}) AS logged").format(self.logged.people))
        if self.listed.keys and self.listed.collection is None:
            people = self.listed.people(self.live)
            relations.append(SQL("SELECT k FROM ({}) AS listed").format(people))
        no_keys = SQL("SELECT NULL::{} AS k WHERE false").format(self.live.key_name)
        return SQL(" UNION ").join(relations) if relations else no_keys

    @cached_property
    def everybody(self) -> bool:
        """Whether all people of the database are certain to be affected."""
        return self.is_by_subject_table and self.named_subjects is None

    @cached_property
    def everything(self) -> bool:
        """Whether the criteria cover all collections of the database and contain no filter."""
        selection = self.selection
        return not selection.is_narrowed and set(self._collection_names) == set(
            self.live.collections
        )

    @cached_property
    def not_narrowed(self) -> tuple[str, ...]:
        """The selected collections to which no filter applies, although filters were entered.

        All records of these collections are affected.
        """
        return tuple(
            name
            for name, collection in self.collections.items()
            if name in self._collection_names
            and self._has_filters
            and self._is_unfiltered(collection)
        )

    @cached_property
    def has_few_subjects(self) -> bool:
        """Whether only logs and listed keys determine the affected people, and name few people.

        Up to 1,000 people are few; in a database with more than 400,000 people, up to 1 in 400.
        """
        if self._has_filters and self.logged is None:
            return False
        named_count = len(self.listed.keys)
        if self._has_filters and self.logged is not None:
            if self.logged.people_count is None:
                return False
            named_count += self.logged.people_count
        return named_count * _LOOKUP_RATIO <= max(self.live.rows, 400_000)

    def record_matches(self, collection: LiveCollection) -> list[RecordMatch]:
        """Return SQL statements that together select all affected records of a collection.

        If few people are affected, several statements look up the records by their keys. Otherwise
        a single statement scans the collection. The list is empty if no record can be affected.

        Args:
            collection: collection whose records are selected.
        """
        if self.has_few_subjects:
            return list(self._lookup_matches(collection))
        return [self._scan_match(collection)]

    def subject_records(self) -> Iterator[SubjectRecords]:
        """Yield SQL statements that together select the affected people with their records.

        The same person may be selected several times.
        """
        for collection in self.collections.values():
            for match in self.record_matches(collection):
                keys = [
                    collection.keys[index]
                    if condition is None
                    else SQL("CASE WHEN {} THEN {} END").format(condition, collection.keys[index])
                    for index, condition in match.people.items()
                ]
                yield SubjectRecords(
                    collection, keys, SQL("{} WHERE {}").format(match.source, match.where)
                )
        yield from self._subjects_without_records()

    def people(self) -> Composable:
        """Return SQL that selects the keys of the affected people as a column ``k``, each once."""
        if self.is_by_subject_table:
            query = SQL("SELECT {} AS k FROM {} AS s").format(self.live.person, self.live.people)
            if self.named_subjects is not None:
                query += SQL(" WHERE {} IN ({})").format(self.live.person, self.named_subjects)
            return query
        parts = [
            SQL("SELECT {} AS k FROM {}").format(each_key(self.live, pair.keys), pair.source)
            for pair in self.subject_records()
        ]
        if not parts:
            return SQL("SELECT NULL::{} AS k WHERE false").format(self.live.key_name)
        return SQL("SELECT k FROM ({}) AS pair WHERE k IS NOT NULL GROUP BY k").format(
            SQL(" UNION ALL ").join(parts)
        )

    @cached_property
    def _collection_names(self) -> Sequence[str]:
        return self.selection.collections_of(self.live.rule)

    @property
    def _has_filters(self) -> bool:
        """Whether the criteria are not limited to listed keys.

        This is also true if the criteria are empty, because they then cover all records.
        """
        return not self.selection.is_only_keys

    def _lookup_matches(self, collected: LiveCollection) -> Iterator[RecordMatch]:
        """Yield SQL that finds affected records by their own keys or by the keys of their people.

        A person listed these keys as affected, or logs name them. With this SQL, PostgreSQL uses
        indexes and does not scan the collection.

        Args:
            collected: collection whose records are selected.
        """
        rows, everybody = self._rows(collected), dict.fromkeys(range(len(collected.keys)))
        if (
            self.logged is not None
            and collected.name in self._collection_names
            and self._has_filters
        ):
            conditions, responsible = self._conditions(collected)
            department_alternatives: list[list[Composable]] = [[]]
            if responsible is not None:
                department_alternatives = [[_is_in(key, responsible)] for key in collected.keys]
            for extra in department_alternatives:
                for index, key in enumerate(collected.keys):
                    is_logged = _is_in(key, self.logged.people)
                    yield RecordMatch(rows, all_of([*conditions, *extra, is_logged]), {index: None})
        for condition in self._listed_records(collected):
            yield RecordMatch(rows, condition, everybody)
        if self._lists_people(collected):
            for index, key in enumerate(collected.keys):
                yield RecordMatch(rows, _is_in(key, self.listed.people(self.live)), {index: None})

    def _scan_match(self, collected: LiveCollection) -> RecordMatch:
        """Return the SQL that selects all affected records of a collection in one scan."""
        source, key_indexes = self._rows(collected), range(len(collected.keys))
        rows: list[Composable] = []  # an affected record fulfils one of these conditions
        people: list[list[Composable]] = [
            [] for _ in key_indexes
        ]  # for each key: an affected person fulfils one of these

        def hits(name: str, relation: Composable) -> list[Composable]:
            nonlocal source
            for index in key_indexes:
                alias = Identifier(f"{name}{index}")
                joined = " LEFT JOIN ({}) AS {} ON {}.k = {}"
                source += SQL(joined).format(relation, alias, alias, collected.keys[index])
            return [
                SQL("{}.k IS NOT NULL").format(Identifier(f"{name}{index}"))
                for index in key_indexes
            ]

        if self._has_filters and collected.name in self._collection_names:
            conditions, responsible = self._conditions(collected)
            if responsible is not None:
                conditions = [*conditions, any_of(hits("answering", responsible))]
            if self.logged is None:
                if not conditions:
                    return RecordMatch(source, ALL, dict.fromkeys(key_indexes))
                rows.append(all_of(conditions))
                for index in key_indexes:
                    people[index].append(rows[-1])
            else:
                logged_hits = hits("logged", self.logged.people)
                rows.append(all_of([*conditions, any_of(logged_hits)]))
                for index in key_indexes:
                    people[index].append(all_of([*conditions, logged_hits[index]]))
        for condition in self._listed_records(collected):
            rows.append(condition)
            for index in key_indexes:
                people[index].append(condition)
        if self._lists_people(collected):
            listed = hits("listed", self.listed.people(self.live))
            rows += listed
            for index in key_indexes:
                people[index].append(listed[index])
        is_whole_row = len(key_indexes) == 1 or all(person == rows for person in people)
        return RecordMatch(
            source,
            rows[0] if len(rows) == 1 else any_of(rows),
            {index: None if is_whole_row else any_of(people[index]) for index in key_indexes},
        )

    def _conditions(self, collected: LiveCollection) -> tuple[list[Composable], Composable | None]:
        """Return the SQL conditions that the entered time window and departments set for a record.

        The first value is a list of conditions on the row ``r``. The second value is used if
        departments were entered, and the collection has no department of its own but its people
        have one. It is SQL that selects, as a column ``k``, the keys of the people of these
        departments. At least one data subject of the record must be among these people. In all
        other cases the second value is None.

        Args:
            collected: collection of the record.
        """
        selection, conditions = self.selection, []
        if not selection.uses_log and (selection.since or selection.until) and collected.at:
            conditions.append(window_condition(collected.at.sql, selection, collected.at.type))
        subject = self.live.rule.subject
        if not selection.departments:
            return conditions, None
        if collected.rule.department is not None:
            conditions.append(
                name_condition(self.live.database, "r", collected.rule.department, _DEPARTMENTS)
            )
        elif subject.department is not None:
            return conditions, SQL("SELECT {} AS k FROM {} AS s WHERE {}").format(
                self.live.person,
                self.live.people,
                name_condition(self.live.database, "s", subject.department, _DEPARTMENTS),
            )
        return conditions, None

    def _listed_records(self, collected: LiveCollection) -> list[Composable]:
        return self.listed.records(collected) if self.listed.collection == collected.name else []

    def _lists_people(self, collected: LiveCollection) -> bool:
        people = bool(self.listed.keys) and self.listed.collection is None
        return people and collected.name in self._collection_names

    @staticmethod
    def _rows(collected: LiveCollection) -> Composable:
        return SQL("{} AS r").format(collected.table)

    def _subjects_without_records(self) -> Iterator[SubjectRecords]:
        """Yield SQL that selects the people whom listed keys and logs name.

        These people are affected even if none of their records is affected.
        """
        if self.listed.keys and self.listed.collection is None:
            is_listed = _is_in(self.live.person, self.listed.people(self.live))
            source = SQL("{} AS s WHERE {}").format(self.live.people, is_listed)
            yield SubjectRecords(None, [self.live.person], source)
        if self.logged and not self.selection.departments and not self.selection.collections:
            source = SQL("({}) AS logged").format(self.logged.people)
            yield SubjectRecords(None, [SQL("k")], source)

    def _is_unfiltered(self, collected: LiveCollection) -> bool:
        selection, rule = self.selection, collected.rule
        has_time = (
            selection.uses_log
            or not (selection.since or selection.until)
            or collected.at is not None
        )
        has_department = (
            rule.department is not None or self.live.rule.subject.department is not None
        )
        return not has_time or (bool(selection.departments) and not has_department)


def resolve_selection(
    live: LiveDatabase, selection: Selection, moment: datetime
) -> AffectedRecords:
    """Determine which records of a database are affected according to the entered criteria.

    Args:
        live: database with the tables and columns that `inspect_database` found.
        selection: criteria that `check_selection` returned.
        moment: timezone-aware time at which the age of people is determined.

    Raises:
        CannotCount: the criteria use a log that the database does not have.
        psycopg.Error: the database does not match incident.yaml.
    """
    listed = listed_keys_of(selection, live.rule.database)
    return AffectedRecords(live, selection, read_logs(live, selection), listed, moment)


def each_key(live: LiveDatabase, keys: Sequence[Composable]) -> Composable:
    """Return an SQL expression for a SELECT list that yields each of several keys in its own row.

    Each key is cast to the data type of the key column in the subject table.

    Args:
        live: database with the tables and columns that `inspect_database` found.
        keys: SQL expressions for keys of people.
    """
    if len(keys) == 1:
        return live.as_key(keys[0])
    return SQL("unnest(ARRAY[{}])").format(SQL(", ").join(live.as_key(part) for part in keys))


def _is_in(key: Composable, relation: Composable) -> Composable:
    return SQL("{} IN ({})").format(key, relation)
