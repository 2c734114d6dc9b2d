"""Look up addresses of affected people when a letter is sent, and whether it is still due.

An address that many people share belongs to a branch or comes from a faulty list. These people, and
people without an address, are notified in another way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from psycopg.sql import SQL, Composable
from sqlalchemy import Connection

from include.incident.clocks import waking
from include.incident.clocks.clock import clocks_of
from include.incident.counting import subjects
from include.incident.counting.affected import Listed, printed
from include.incident.counting.live import Live, people_of
from include.incident.counting.reading import CannotCount, column, reading
from include.incident.incident_run import IncidentRecord, IncidentRun, record_in
from include.incident.rule_checks import INCIDENT
from include.incident.telling import notifying
from include.notify.notice import NO_ADDRESS, fault
from include.services.errors import ServiceError, UsageError
from include.workflow.run_context import context_of
from include.workplace import Workplace

BATCH = 5_000  # keys that are looked up at once


@dataclass(frozen=True)
class Reach:
    """Numbers of affected people with and without a usable address.

    Attributes:
        usable: people with an address of their own.
        without: people without any.
        malformed: people whose address is none.
        shared: people whose address too many have.
    """

    usable: int = 0
    without: int = 0
    malformed: int = 0
    shared: int = 0

    @property
    def unusable(self) -> int:
        """People who have to be told otherwise."""
        return self.without + self.malformed + self.shared


@dataclass
class AddressBook:
    """Looks up addresses; which of them many people share is looked up once.

    Args:
        run: the run or command.
    """

    run: IncidentRun
    _shared: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)

    def look_up(self, keys: Sequence[str]) -> Mapping[str, str]:
        """The address of each affected person that has a usable one.

        Args:
            keys: of notices, ``INC-2026-0001/courier/123``.

        Raises:
            ServiceError: a database cannot be read.
        """
        wanted: dict[str, dict[str, list[str]]] = {}
        for notice in keys:
            _number, _slash, rest = notice.partition("/")
            database, _slash, key = rest.partition("/")
            wanted.setdefault(database, {}).setdefault(key, []).append(notice)
        return {
            notice: address
            for database, named in wanted.items()
            for key, address in self._found(database, list(named)).items()
            if not self._fault(database, address)
            for notice in named[key]
        }

    def reach(self, conn: Connection, incident_id: int) -> Reach:
        """Return how many of the frozen list can be told by mail.

        Raises:
            ServiceError: a database cannot be read.
        """
        counts = {"usable": 0, "without": 0, "malformed": 0, "shared": 0}
        rows = subjects.rows(conn, incident_id)
        for database, keys in _batches(rows):
            found = self._found(database, keys)
            for key in keys:
                address = found.get(key, "")
                counts[self._fault(database, address) or "usable"] += 1
        return Reach(**counts)

    def _fault(self, database: str, address: str) -> str:
        """Why an address is not used; empty where it is."""
        cause = fault("mail", address)  # the policy's domains are of people at work
        if cause:
            return "without" if cause == NO_ADDRESS else "malformed"
        return "shared" if address.casefold() in self._shared_of(database) else ""

    def _found(self, database: str, keys: Sequence[str]) -> dict[str, str]:
        mail = self._mail(database)
        if mail is None:
            return {}
        with self._reading(database) as live:
            listed = Listed(keys, range(len(keys)))
            query = SQL(
                "SELECT {}, {mail}::text FROM {} AS s WHERE {} IN ({}) AND {mail} IS NOT NULL"
            ).format(
                printed(live, live.person), live.people, live.person, listed.people(live),
                mail=mail,
            )  # fmt: skip
            return dict(live.connection.execute(query, listed.values(live)).fetchall())

    def _shared_of(self, database: str) -> frozenset[str]:
        if database not in self._shared:
            with self._reading(database) as live:
                query = SQL(
                    "SELECT lower({mail}::text) FROM {people} AS s WHERE {mail} IS NOT NULL"
                    " GROUP BY 1 HAVING count(*) >= %(most)s"
                ).format(mail=self._mail(database), people=live.people)
                most = {"most": self.run.rules.letter.shared_by}
                rows = live.connection.execute(query, most).fetchall()
            self._shared[database] = frozenset(mail.casefold() for (mail,) in rows)
        return self._shared[database]

    def _mail(self, database: str) -> Composable | None:
        """The column with addresses; None where people are told by other means."""
        if database not in {scope.database for scope in self.run.rules.scope}:
            return None
        mail = self.run.rules.scope_of(database).subject.mail
        return None if mail is None else column("s", mail)

    @contextmanager
    def _reading(self, database: str) -> Iterator[Live]:
        mapped, address = self.run.database(database), self.run.reader(database)
        try:
            with reading(address, mapped, self.run.zone.key) as connection:
                yield people_of(connection, mapped, self.run.rules.scope_of(database))
        except CannotCount as error:
            raise ServiceError(
                f"Addresses cannot be looked up in {database}: {error}",
                "Make it reachable; what waits is sent then.",
            ) from None


def _batches(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Keys of one database at a time, so many as are looked up at once."""
    left = iter(rows)
    while batch := list(islice(left, BATCH)):
        by_database: dict[str, list[str]] = {}
        for database, key in batch:
            by_database.setdefault(database, []).append(key)
        yield from by_database.items()


def alerts_due(run: IncidentRun, keys: Sequence[str]) -> set[str]:
    """Return the keys of calls and wake-ups that are still due."""
    due: set[str] = set()
    for number, record in _records(run, keys).items():
        if record.incident.is_led:
            due |= waking.wanted(keys, number, clocks_of(run, record), run.zone)
    return due


def letters_due(run: IncidentRun, keys: Sequence[str]) -> set[str]:
    """Return the keys of letters to people that are still due."""
    return notifying.wanted(run, _records(run, keys), keys)


def addresses(run: IncidentRun, keys: Sequence[str]) -> Mapping[str, str]:
    """Return the addresses of letters to people, by key; nothing stores them."""
    return _book(run.services).look_up(keys)


@lru_cache(maxsize=4)  # which addresses many people share is looked up once for all letters
def _book(services: Workplace) -> AddressBook:
    return AddressBook(context_of(INCIDENT, services))


def _records(run: IncidentRun, keys: Iterable[str]) -> dict[str, IncidentRecord]:
    records: dict[str, IncidentRecord] = {}
    with run.state.connect() as conn:
        for number in {key.partition("/")[0] for key in keys}:
            try:
                records[number] = record_in(conn, number)
            except UsageError:  # there is no such incident, so nothing is due
                continue
    return records
