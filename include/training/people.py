"""People of the roster: whom to write to, and who is told when somebody does not listen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date

from psycopg.rows import class_row
from psycopg.sql import SQL

from include.training.sources import Sources, telling

_FOUND = SQL("""
SELECT DISTINCT ON (person) person, coalesce(name, '') AS name, coalesce(mail, '') AS mail,
    coalesce(department, '') AS department, coalesce(supervisor, '') AS supervisor,
    coalesce(head, false) AS head,
    coalesce(joined_on <= %(day)s AND coalesce(left_on, 'infinity') >= %(day)s, false) AS employed,
    coalesce(leave_from <= %(day)s AND coalesce(leave_until, 'infinity') >= %(day)s, false)
        AS on_leave
FROM {people} AS everybody
WHERE {which}
ORDER BY person, employed DESC, joined_on DESC, department""")


@dataclass(frozen=True)
class Person:
    """Somebody of the roster, on one day.

    Attributes:
        person: staff number.
        name: of the person.
        mail: address; empty where there is none.
        department: by name.
        supervisor: staff number; empty where nobody is named.
        head: whether the person is head of the department.
        employed: has joined and not left.
        on_leave: is on leave.
    """

    person: str
    name: str
    mail: str
    department: str
    supervisor: str
    head: bool
    employed: bool
    on_leave: bool

    @property
    def is_there(self) -> bool:
        """Whether the person can be told things."""
        return self.employed and not self.on_leave


@dataclass
class Roster:
    """The roster on one day; people are looked up once, in bulk.

    Attributes:
        sources: where the roster is.
        day: the day.
    """

    sources: Sources
    day: date
    _known: dict[str, Person | None] = field(default_factory=dict)
    _heads: dict[str, list[Person]] | None = None

    def find(self, people: Iterable[str]) -> dict[str, Person]:
        """Look people up; those whom the roster does not have are left out."""
        wanted = [one for one in dict.fromkeys(people) if one]
        unknown = [one for one in wanted if one not in self._known]
        if unknown:
            found = {one.person: one for one in self._select("person = ANY(%(people)s)", unknown)}
            self._known |= {one: found.get(one) for one in unknown}
        return {one: person for one in wanted if (person := self._known[one]) is not None}

    def heads(self) -> dict[str, list[Person]]:
        """The heads who are there, by department."""
        if self._heads is None:
            heads: dict[str, list[Person]] = {}
            for one in self._select("head", []):
                if one.head and one.is_there:
                    heads.setdefault(one.department, []).append(one)
            self._heads = heads
        return self._heads

    def above(self, people: Iterable[str]) -> dict[str, Person | None]:
        """Who is told of somebody's overdue courses; None where nobody above can be told.

        The supervisor; where that one has left, is on leave, or is not in the roster, the next one
        above, and at the end of the line a head of the department. A line that turns in a circle
        ends where it meets somebody again.
        """
        wanted = list(dict.fromkeys(people))
        seen: set[str] = set()
        level = set(wanted)
        while level:  # a level at a time, so that each takes one query
            self.find(level)
            seen |= level
            level = {one.supervisor for one in map(self._known.get, level) if one} - seen - {""}
        return {one: self._told_of(one) for one in wanted}

    def _told_of(self, person: str) -> Person | None:
        seen = {person}
        below = self._known.get(person)
        while below is not None and below.supervisor and below.supervisor not in seen:
            seen.add(below.supervisor)
            below = self._known.get(below.supervisor)
            if below is not None and below.is_there:
                return below
        of = self._known.get(person)
        heads = self.heads().get(of.department, []) if of else []
        return next((one for one in heads if one.person != person), None)

    def _select(self, which: str, people: list[str]) -> Iterator[Person]:
        assert which in ("head", "person = ANY(%(people)s)")
        connection = self.sources.connection
        with telling("people"), connection.cursor(row_factory=class_row(Person)) as rows:
            query = _FOUND.format(people=self.sources["people"], which=SQL(which))
            rows.execute(query, {"day": self.day, "people": people})
            yield from rows
