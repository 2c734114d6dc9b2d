"""What a selection means in one database: which records, and who of those they are about.

A record is affected where one of its selectors holds; each says who of the people in the record is
affected by it. Records of several selectors, people in several records count once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from psycopg.sql import SQL, Composable

from include.incident.listed import Listed, of_database
from include.incident.live import Collected, Live
from include.incident.logs import Logged, logged
from include.incident.named import among
from include.incident.selection import Selection
from include.incident.window import in_window
from include.policy.fragments import both

ALL = SQL("true")
_WANTED = SQL("%(departments)s::text[]")


@dataclass(frozen=True)
class Selector:
    """Some records of a collection.

    Attributes:
        where: condition over ``r``.
        people: places, in the collection's keys, of those whom it affects.
    """

    where: Composable
    people: tuple[int, ...]


@dataclass(frozen=True)
class Pairs:
    """Some records of a collection, with one of those whom each is about.

    Attributes:
        collected: the collection; None where people are named by a log or a list only.
        key: of the person, over the rows of ``source``.
        source: rows and condition: ``waybill AS r WHERE ...``.
    """

    collected: Collected | None
    key: Composable
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
    def everybody(self) -> bool:
        """Whether the affected people are all rows of the collection of people, for sure."""
        own = next((one for one in self.collections.values() if one.own), None)
        return (
            own is not None
            and self.logged is None
            and any(one.where is ALL for one in self.selectors(own))
            and all(one.linked for one in self.collections.values())
        )

    @cached_property
    def everything(self) -> bool:
        """Whether nothing narrows it down."""
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

    def selectors(self, collected: Collected) -> list[Selector]:
        """What selects records of a collection; one alone where it selects all of them."""
        main = list(self._of_main(collected)) if collected.name in self._chosen else []
        if any(one.where is ALL for one in main):
            return main[:1]
        return [*main, *self.of_list(collected)]

    def of_list(self, one: Collected) -> Iterator[Selector]:
        """The records that were listed, or are about people who were."""
        if not self.listed.keys:
            return
        if self.listed.collection == one.name:
            for condition in self.listed.records(one):
                yield Selector(condition, tuple(range(len(one.keys))))
        elif self.listed.collection is None and one.name in self._chosen:
            people = self.listed.people(self.live)
            for place, key in enumerate(one.keys):
                yield Selector(_in(key, people), (place,))

    def pairs(self) -> Iterator[Pairs]:
        """All affected people with the records about them, some of them many times."""
        for one in self.collections.values():
            for selector in self.selectors(one):
                for place in selector.people:
                    key = one.keys[place]
                    yield Pairs(one, key, SQL("{} AS r WHERE {} AND {} IS NOT NULL").format(
                        one.table, selector.where, key
                    ))  # fmt: skip
        yield from self._of_nothing()

    def people(self) -> Composable:
        """A relation of the affected people's keys ``k``, each once."""
        if self.everybody:
            query = SQL("SELECT {} AS k FROM {} AS s")
            return query.format(self.live.person, self.live.people)
        parts = [
            SQL("SELECT {} AS k FROM {}").format(self.live.as_key(one.key), one.source)
            for one in self.pairs()
        ]
        if not parts:
            return SQL("SELECT NULL::{} AS k WHERE false").format(self.live.key_name)
        return SQL("SELECT k FROM ({}) AS pair GROUP BY k").format(SQL(" UNION ALL ").join(parts))

    @cached_property
    def _chosen(self) -> Sequence[str]:
        """The collections in which it looks, beside that of listed records."""
        return self.selection.collections_of(self.live.rule)

    @property
    def _main(self) -> bool:
        """Whether more is said than keys and where."""
        return not self.selection.only_keys

    def _of_main(self, one: Collected) -> Iterator[Selector]:
        """The records that collections, window, departments and logs select together."""
        if not self._main:
            return
        chosen, everybody = self.selection, tuple(range(len(one.keys)))
        conditions = []
        if not chosen.by_log and (chosen.since or chosen.until) and one.at:
            conditions.append(in_window(one.at.sql, chosen, one.at.type))
        alternatives: list[list[Composable]] = [[]]
        if chosen.departments:
            subject = self.live.rule.subject
            if one.rule.department is not None:
                department = one.rule.department
                conditions.append(among(self.live.database, "r", department, _WANTED))
            elif subject.department is not None:
                answered = SQL("SELECT {} FROM {} AS s WHERE {}").format(
                    self.live.person,
                    self.live.people,
                    among(self.live.database, "s", subject.department, _WANTED),
                )
                alternatives = [[_in(key, answered)] for key in one.keys]
        for more in alternatives:
            if self.logged is None:
                parts = [*conditions, *more]
                yield Selector(both(parts) if parts else ALL, everybody)
            else:
                for place, key in enumerate(one.keys):
                    known = _in(key, self.logged.people)
                    yield Selector(both([*conditions, *more, known]), (place,))

    def _of_nothing(self) -> Iterator[Pairs]:
        """People who are affected though there may be no record about them."""
        if self.listed.keys and self.listed.collection is None:
            there = _in(self.live.person, self.listed.people(self.live))
            yield Pairs(
                None, self.live.person, SQL("{} AS s WHERE {}").format(self.live.people, there)
            )
        if self.logged and not self.selection.departments and not self.selection.collections:
            yield Pairs(None, SQL("k"), SQL("({}) AS logged").format(self.logged.people))

    def _blurred(self, one: Collected) -> bool:
        chosen, rule = self.selection, one.rule
        dated = chosen.by_log or not (chosen.since or chosen.until) or one.at is not None
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


def _in(key: Composable, relation: Composable) -> Composable:
    return SQL("{} IN ({})").format(key, relation)
