"""Select the affected records of one database, and the people whom they are about.

A listed key that its column cannot hold, such as a word for a numeric key, matches no record and is
no error.

If logs or lists name few people, their records are looked up person by person. Otherwise each
collection is scanned once. Both ways return the same records.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from psycopg.sql import SQL, Composable, Identifier

from include.incident.counting.live import INTEGERS, Collected, Live
from include.incident.counting.logs import Logged, in_window, logged
from include.incident.counting.reading import among
from include.incident.selection import Selection, located
from include.policy.fragments import all_of, any_of

_UUID, _TIMESTAMPTZ = 2950, 1184  # type oids of PostgreSQL
_TEXTS = {25, 1043}


@dataclass(frozen=True)
class Listed:
    """The keys that were listed for a database.

    Attributes:
        keys: as they were typed.
        places: of each in the list, from 1.
        collection: of records that the keys name; None where they are people's.
    """

    keys: Sequence[str] = ()
    places: Sequence[int] = ()
    collection: str | None = None

    def values(self, live: Live, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """The parameters of `people` and `records`.

        Args:
            live: the database.
            keys: other ones than all.
        """
        given = list(dict.fromkeys(self.keys if keys is None else keys))
        return {
            "listed_people": _different(_as_key(key, live.key) for key in given),
            "listed_numbers": _different(_number(key, 2**63) for key in given),
            "listed_texts": given,
        }

    def people(self, live: Live) -> Composable:
        """A relation of the listed people's keys ``k``, each once; some may not be there."""
        if _is_typed(live.key):
            typed = "SELECT DISTINCT one::{} AS k FROM unnest(%(listed_people)s::text[]) AS one"
            return SQL(typed).format(live.key_name)
        return SQL("SELECT {} AS k FROM {} AS s WHERE {} = ANY(%(listed_people)s::text[])").format(
            live.person, live.people, printed(live, live.person)
        )

    def records(self, collected: Collected) -> list[Composable]:
        """Conditions over ``r``, of which one holds where a record was listed."""
        found: list[Composable] = []
        for name in collected.named:
            if name.type in INTEGERS:
                wanted = "{} IN (SELECT one::bigint FROM unnest(%(listed_numbers)s::text[]) AS one)"
            else:
                wanted = "({})::text IN (SELECT one FROM unnest(%(listed_texts)s::text[]) AS one)"
            found.append(SQL(wanted).format(name.sql))
        return found

    def missing(self, found: Iterable[str], kind: int | None) -> list[int]:
        """Places of keys that were not found.

        Args:
            found: keys that were, as PostgreSQL prints them.
            kind: oid of the type of the people's key; None where the keys are of records.
        """
        there = set(found)
        return [
            place
            for place, key in zip(self.places, self.keys, strict=True)
            if there.isdisjoint(_written(key, kind))
        ]


def of_database(selection: Selection, database: str) -> Listed:
    """The keys of a selection that are of a database."""
    mine = [(place, key) for place, where, key in located(selection) if where == database]
    collection = None
    if selection.keys_of is not None and mine:
        collection = selection.keys_of.removeprefix(f"{database}.")
    return Listed([key for _, key in mine], [place for place, _ in mine], collection)


def printed(live: Live, key: Composable) -> Composable:
    """The people's key as text, as sessions print it that name records: moments in UTC."""
    if live.key == _TIMESTAMPTZ:
        return SQL("(({}) AT TIME ZONE 'UTC')::text || '+00'").format(key)
    return SQL("({})::text").format(key)


def _different(keys: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(key for key in keys if key is not None))


def _is_typed(kind: int) -> bool:
    return kind in INTEGERS or kind in _TEXTS or kind == _UUID


def _as_key(key: str, kind: int) -> str | None:
    """A key as a column of that type prints it; None where it cannot hold it."""
    if kind in INTEGERS:
        return _number(key, INTEGERS[kind])
    if kind == _UUID:
        try:
            return str(uuid.UUID(key))
        except ValueError:
            return None
    return key


def _written(key: str, kind: int | None) -> set[str]:
    """How a key may be printed that was typed like this."""
    if kind is not None:
        found = _as_key(key, kind)
        return set() if found is None else {found}
    number = _number(key, 2**63)
    return {key} if number is None else {key, number}


def _number(key: str, below: int) -> str | None:
    digits = key.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 40):
        return None
    value = int(key)
    return str(value) if -below <= value < below else None


ALL = SQL("true")
_WANTED = SQL("%(departments)s::text[]")
_FEW = 400  # one in so many people: to look their records up is cheaper than to look through all


@dataclass(frozen=True)
class Match:
    """Affected records of a collection; another match may have some of them too.

    Attributes:
        source: the collection's rows ``r``, and what is joined to each; no row comes twice.
        where: which of them.
        people: of those whom such a row is about, by place in the collection's keys, who is
            affected by it; None means that whoever is about it is.
    """

    source: Composable
    where: Composable
    people: Mapping[int, Composable | None]


@dataclass(frozen=True)
class Pairs:
    """Some affected records, with a key for each of the people in them.

    Attributes:
        collected: the collection; None where people are named by a log or a list only.
        keys: of those people over the rows of ``source``; some may be NULL.
        source: rows and condition: ``waybill AS r WHERE ...``.
    """

    collected: Collected | None
    keys: Sequence[Composable]
    source: Composable


@dataclass(frozen=True)
class Affected:
    """A selection in a database.

    Attributes:
        live: the database.
        selection: what is affected, `selection.checked`.
        logged: whom logs name; None where it asks for none.
        listed: the keys that were listed for this database.
        moment: as of which the age of people counts, timezone-aware.
    """

    live: Live
    selection: Selection
    logged: Logged | None = None
    listed: Listed = field(default_factory=Listed)
    moment: datetime | None = None

    @cached_property
    def values(self) -> dict[str, Any]:
        """The parameters of every query."""
        chosen = self.selection
        return {
            "since": chosen.since,
            "until": chosen.until,
            "departments": list(chosen.departments),
            "moment": self.moment,
            **self.listed.values(self.live),
            **(self.logged.values if self.logged else {}),
        }

    @cached_property
    def collections(self) -> Mapping[str, Collected]:
        """The collections that have affected records, in the order of incident.yaml."""
        wanted = set(self._chosen)
        if self.listed.collection is not None:
            wanted.add(self.listed.collection)
        return {name: one for name, one in self.live.collections.items() if name in wanted}

    @cached_property
    def by_own_row(self) -> bool:
        """Return whether whoever is affected is so by a row in the collection of people, for sure.

        Then `those` says who: foreign keys promise that no record names anybody else.
        """
        chosen = self.selection
        whole = not chosen.departments and (chosen.by_log or not (chosen.since or chosen.until))
        return (
            any(one.own and name in self._chosen for name, one in self.collections.items())
            and all(collection.linked for collection in self.collections.values())
            and self.listed.collection is None
            and (not self._main or whole)
            and (self.logged is None or self.logged.linked)
        )

    @cached_property
    def those(self) -> Composable | None:
        """A relation of the keys ``k`` of those whom logs and lists name; None for everybody."""
        if self._main and self.logged is None:
            return None
        named = []
        if self.logged is not None:
            named.append(SQL("SELECT k FROM ({}) AS logged").format(self.logged.people))
        if self.listed.keys and self.listed.collection is None:
            people = self.listed.people(self.live)
            named.append(SQL("SELECT k FROM ({}) AS listed").format(people))
        nobody = SQL("SELECT NULL::{} AS k WHERE false").format(self.live.key_name)
        return SQL(" UNION ").join(named) if named else nobody

    @cached_property
    def everybody(self) -> bool:
        """Return whether all people are affected, for sure."""
        return self.by_own_row and self.those is None

    @cached_property
    def everything(self) -> bool:
        """Return whether nothing narrows it down."""
        chosen = self.selection
        return not chosen.narrowed and set(self._chosen) == set(self.live.collections)

    @cached_property
    def not_narrowed(self) -> tuple[str, ...]:
        """Collections of which all counts, since they have no moment or no department."""
        return tuple(
            name
            for name, one in self.collections.items()
            if name in self._chosen and self._main and self._blurred(one)
        )

    @cached_property
    def few(self) -> bool:
        """Return whether logs and lists alone say who is affected, and name few."""
        if self._main and self.logged is None:
            return False
        named = len(self.listed.keys)
        if self._main and self.logged is not None:
            if self.logged.people_count is None:
                return False
            named += self.logged.people_count
        return named * _FEW <= max(self.live.rows, 400_000)

    def matches(self, one: Collected) -> list[Match]:
        """The affected records of a collection; one match where it is looked through."""
        if self.few:
            return list(self._looked_up(one))
        return [self._looked_through(one)]

    def pairs(self) -> Iterator[Pairs]:
        """All affected people with the records about them, some of them many times."""
        for collection in self.collections.values():
            for match in self.matches(collection):
                keys = [
                    collection.keys[place]
                    if condition is None
                    else SQL("CASE WHEN {} THEN {} END").format(condition, collection.keys[place])
                    for place, condition in match.people.items()
                ]
                yield Pairs(collection, keys, SQL("{} WHERE {}").format(match.source, match.where))
        yield from self._of_nothing()

    def people(self) -> Composable:
        """A relation of the affected people's keys ``k``, each once."""
        if self.by_own_row:
            query = SQL("SELECT {} AS k FROM {} AS s").format(self.live.person, self.live.people)
            if self.those is not None:
                query += SQL(" WHERE {} IN ({})").format(self.live.person, self.those)
            return query
        parts = [
            SQL("SELECT {} AS k FROM {}").format(each_key(self.live, one.keys), one.source)
            for one in self.pairs()
        ]
        if not parts:
            return SQL("SELECT NULL::{} AS k WHERE false").format(self.live.key_name)
        return SQL("SELECT k FROM ({}) AS pair WHERE k IS NOT NULL GROUP BY k").format(
            SQL(" UNION ALL ").join(parts)
        )

    @cached_property
    def _chosen(self) -> Sequence[str]:
        """The collections in which it looks, beside that of listed records."""
        return self.selection.collections_of(self.live.rule)

    @property
    def _main(self) -> bool:
        """Return whether more is said than keys and where."""
        return not self.selection.only_keys

    def _looked_up(self, collected: Collected) -> Iterator[Match]:
        """The records of few people, or few records: a match for each way to find them."""
        rows, everybody = self._rows(collected), dict.fromkeys(range(len(collected.keys)))
        if self.logged is not None and collected.name in self._chosen and self._main:
            conditions, answering = self._conditions(collected)
            alternatives: list[list[Composable]] = [[]]
            if answering is not None:
                alternatives = [[_in(key, answering)] for key in collected.keys]
            for more in alternatives:
                for place, key in enumerate(collected.keys):
                    known = _in(key, self.logged.people)
                    yield Match(rows, all_of([*conditions, *more, known]), {place: None})
        for condition in self._listed_records(collected):
            yield Match(rows, condition, everybody)
        if self._lists_people(collected):
            for place, key in enumerate(collected.keys):
                yield Match(rows, _in(key, self.listed.people(self.live)), {place: None})

    def _looked_through(self, collected: Collected) -> Match:
        """All affected records of a collection by one look at each."""
        source, places = self._rows(collected), range(len(collected.keys))
        rows: list[Composable] = []  # of these conditions one holds for an affected record
        people: list[list[Composable]] = [[] for _ in places]  # and of a person's, for the person

        def hits(name: str, relation: Composable) -> list[Composable]:
            nonlocal source
            for place in places:
                alias = Identifier(f"{name}{place}")
                joined = " LEFT JOIN ({}) AS {} ON {}.k = {}"
                source += SQL(joined).format(relation, alias, alias, collected.keys[place])
            return [SQL("{}.k IS NOT NULL").format(Identifier(f"{name}{at}")) for at in places]

        if self._main and collected.name in self._chosen:
            conditions, answering = self._conditions(collected)
            if answering is not None:
                conditions = [*conditions, any_of(hits("answering", answering))]
            if self.logged is None:
                if not conditions:
                    return Match(source, ALL, dict.fromkeys(places))
                rows.append(all_of(conditions))
                for place in places:
                    people[place].append(rows[-1])
            else:
                known = hits("logged", self.logged.people)
                rows.append(all_of([*conditions, any_of(known)]))
                for place in places:
                    people[place].append(all_of([*conditions, known[place]]))
        for condition in self._listed_records(collected):
            rows.append(condition)
            for place in places:
                people[place].append(condition)
        if self._lists_people(collected):
            listed = hits("listed", self.listed.people(self.live))
            rows += listed
            for place in places:
                people[place].append(listed[place])
        whole = len(places) == 1 or all(person == rows for person in people)
        return Match(
            source,
            rows[0] if len(rows) == 1 else any_of(rows),
            {place: None if whole else any_of(people[place]) for place in places},
        )

    def _conditions(self, collected: Collected) -> tuple[list[Composable], Composable | None]:
        """Conditions of window and department over ``r``.

        Where only people have departments, the second is a relation of the keys ``k`` of those for
        whom one of the departments answers: a record counts that is about one of them.
        """
        chosen, conditions = self.selection, []
        if not chosen.by_log and (chosen.since or chosen.until) and collected.at:
            conditions.append(in_window(collected.at.sql, chosen, collected.at.type))
        subject = self.live.rule.subject
        if not chosen.departments:
            return conditions, None
        if collected.rule.department is not None:
            conditions.append(among(self.live.database, "r", collected.rule.department, _WANTED))
        elif subject.department is not None:
            return conditions, SQL("SELECT {} AS k FROM {} AS s WHERE {}").format(
                self.live.person,
                self.live.people,
                among(self.live.database, "s", subject.department, _WANTED),
            )
        return conditions, None

    def _listed_records(self, collected: Collected) -> list[Composable]:
        return self.listed.records(collected) if self.listed.collection == collected.name else []

    def _lists_people(self, collected: Collected) -> bool:
        people = bool(self.listed.keys) and self.listed.collection is None
        return people and collected.name in self._chosen

    @staticmethod
    def _rows(collected: Collected) -> Composable:
        return SQL("{} AS r").format(collected.table)

    def _of_nothing(self) -> Iterator[Pairs]:
        """People who are affected though there may be no record about them."""
        if self.listed.keys and self.listed.collection is None:
            there = _in(self.live.person, self.listed.people(self.live))
            source = SQL("{} AS s WHERE {}").format(self.live.people, there)
            yield Pairs(None, [self.live.person], source)
        if self.logged and not self.selection.departments and not self.selection.collections:
            source = SQL("({}) AS logged").format(self.logged.people)
            yield Pairs(None, [SQL("k")], source)

    def _blurred(self, collected: Collected) -> bool:
        chosen, rule = self.selection, collected.rule
        dated = chosen.by_log or not (chosen.since or chosen.until) or collected.at is not None
        known = rule.department is not None or self.live.rule.subject.department is not None
        return not dated or (bool(chosen.departments) and not known)


def affected(live: Live, selection: Selection, moment: datetime) -> Affected:
    """Find what a selection means in a database.

    Args:
        live: the database.
        selection: what is affected, `selection.checked`.
        moment: as of which the age of people counts, timezone-aware.

    Raises:
        CannotCount: the selection asks for a log that the database does not have.
        psycopg.Error: the database is not as incident.yaml says.
    """
    listed = of_database(selection, live.rule.database)
    return Affected(live, selection, logged(live, selection), listed, moment)


def each_key(live: Live, keys: Sequence[Composable]) -> Composable:
    """Keys in the type of the people's key, a row each."""
    if len(keys) == 1:
        return live.as_key(keys[0])
    return SQL("unnest(ARRAY[{}])").format(SQL(", ").join(live.as_key(part) for part in keys))


def _in(key: Composable, relation: Composable) -> Composable:
    return SQL("{} IN ({})").format(key, relation)
