"""Look up mail addresses of affected people, and select the waiting messages that may be sent.

Addresses are looked up when a notice is sent, and are not stored. An address that many people share
is not used: it probably belongs to a branch, or the data is wrong. People with such an address, or
without an address, are notified in another way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

from psycopg.sql import SQL, Composable
from sqlalchemy import Connection

from include.incident.communication import notices
from include.incident.counting import subject_list
from include.incident.counting.affected_records import ListedKeys, key_as_text
from include.incident.counting.live_database import LiveDatabase, inspect_subjects
from include.incident.counting.snapshot import CannotCount, column, open_snapshot
from include.incident.incident_run import IncidentRecord, IncidentRun, record_in
from include.incident.rule_checks import INCIDENT
from include.incident.time_limits import escalation
from include.incident.time_limits.time_limit import time_limits_of
from include.notify.notification import NO_ADDRESS, address_fault
from include.service_container import Services
from include.services.errors import ServiceError, UsageError
from include.workflow.run_context import context_of

BATCH = 5_000  # keys per lookup


@dataclass(frozen=True)
class Reach:
    """Numbers of affected people with and without a usable mail address.

    Attributes:
        usable: number of people with a usable address.
        without: number of people without an address.
        malformed: number of people with an invalid address.
        shared: number of people who share their address with more people than the policy allows.
    """

    usable: int = 0
    without: int = 0
    malformed: int = 0
    shared: int = 0

    @property
    def unusable(self) -> int:
        """The number of people without a usable address, who have to be notified in another way."""
        return self.without + self.malformed + self.shared


@dataclass
class AddressBook:
    """The mail addresses of affected people, read from the mapped databases on demand.

    An address that too many people share is not used. The shared addresses are determined once per
    database and kept in memory.

    Args:
        run: services and rules of the current run or command.
    """

    run: IncidentRun
    _shared: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)

    def look_up(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Return the usable mail addresses of affected people, by notice key.

        People without a usable address are left out.

        Args:
            keys: keys of notices, such as ``INC-2026-0001/courier/123``.

        Raises:
            ServiceError: a database cannot be read.
        """
        notices_by_key: dict[str, dict[str, list[str]]] = {}
        for notice in keys:
            _number, _slash, rest = notice.partition("/")
            database, _slash, key = rest.partition("/")
            notices_by_key.setdefault(database, {}).setdefault(key, []).append(notice)
        return {
            notice: address
            for database, notices_of_key in notices_by_key.items()
            for key, address in self._read_addresses(database, list(notices_of_key)).items()
            if not self._address_fault(database, address)
            for notice in notices_of_key[key]
        }

    def reach(self, conn: Connection, incident_id: int) -> Reach:
        """Count the affected people of an incident with and without a usable mail address.

        Affected people are the people on the incident's stored list.

        Args:
            conn: connection to the state database.
            incident_id: id of the incident.

        Raises:
            ServiceError: a database cannot be read.
        """
        counts = {"usable": 0, "without": 0, "malformed": 0, "shared": 0}
        rows = subject_list.list_rows(conn, incident_id)
        for database, keys in _key_batches(rows):
            addresses = self._read_addresses(database, keys)
            for key in keys:
                address = addresses.get(key, "")
                counts[self._address_fault(database, address) or "usable"] += 1
        return Reach(**counts)

    def _address_fault(self, database: str, address: str) -> str:
        """Return why an address cannot be used, as the name of a field of `Reach`.

        For example, ``shared`` means that too many people have this address. Return an empty text
        if the address can be used.

        Args:
            database: name of the database that contains the address.
            address: mail address; may be empty.
        """
        cause = address_fault(
            "mail", address
        )  # the policy's allowed domains apply to staff, not to customers
        if cause:
            return "without" if cause == NO_ADDRESS else "malformed"
        return "shared" if address.casefold() in self._shared_of(database) else ""

    def _read_addresses(self, database: str, keys: Sequence[str]) -> dict[str, str]:
        mail = self._mail_column(database)
        if mail is None:
            return {}
        with self._open_database(database) as live:
            listed = ListedKeys(keys, range(len(keys)))
            query = SQL(
                "SELECT {}, {mail}::text FROM {} AS s WHERE {} IN ({}) AND {mail} IS NOT NULL"
            ).format(
                key_as_text(live, live.person), live.people, live.person, listed.people(live),
                mail=mail,
            )  # fmt: skip
            return dict(live.connection.execute(query, listed.values(live)).fetchall())

    def _shared_of(self, database: str) -> frozenset[str]:
        if database not in self._shared:
            with self._open_database(database) as live:
                query = SQL(
                    "SELECT lower({mail}::text) FROM {people} AS s WHERE {mail} IS NOT NULL"
                    " GROUP BY 1 HAVING count(*) >= %(most)s"
                ).format(mail=self._mail_column(database), people=live.people)
                most = {"most": self.run.rules.letter.shared_by}
                rows = live.connection.execute(query, most).fetchall()
            self._shared[database] = frozenset(mail.casefold() for (mail,) in rows)
        return self._shared[database]

    def _mail_column(self, database: str) -> Composable | None:
        """Return the SQL name of the column with mail addresses; None if the database has none."""
        if database not in {scope.database for scope in self.run.rules.scope}:
            return None
        mail = self.run.rules.scope_of(database).subject.mail
        return None if mail is None else column("s", mail)

    @contextmanager
    def _open_database(self, database: str) -> Iterator[LiveDatabase]:
        mapped, address = self.run.database(database), self.run.reader(database)
        try:
            with open_snapshot(address, mapped, self.run.zone.key) as connection:
                yield inspect_subjects(connection, mapped, self.run.rules.scope_of(database))
        except CannotCount as error:
            raise ServiceError(
                f"Addresses cannot be looked up in {database}: {error}",
                "Restore the connection; waiting notices are sent then.",
            ) from None


def _key_batches(rows: Iterable[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Yield batches of keys of data subjects, each with the name of the database of these keys.

    Args:
        rows: database and key of each data subject.
    """
    remaining = iter(rows)
    while batch := list(islice(remaining, BATCH)):
        by_database: dict[str, list[str]] = {}
        for database, key in batch:
            by_database.setdefault(database, []).append(key)
        yield from by_database.items()


def alerts_due(run: IncidentRun, keys: Sequence[str]) -> set[str]:
    """Return the keys of those waiting notifications to the incident team that are not out of date.

    A notification is out of date if its incident is a duplicate or was cancelled, or if
    `escalation.still_due` leaves it out, for example because its time limit was met.

    Args:
        run: services and rules of the current run or command.
        keys: keys of waiting notifications.
    """
    due: set[str] = set()
    for number, record in _records(run, keys).items():
        if record.incident.requires_steps:
            due |= escalation.still_due(keys, number, time_limits_of(run, record), run.zone)
    return due


def notices_due(run: IncidentRun, keys: Sequence[str]) -> set[str]:
    """Return the keys of those waiting notices to affected people whose text is still approved.

    Notices about a cancelled incident are left out; see `notices_still_due`.

    Args:
        run: services and rules of the current run or command.
        keys: keys of waiting notices.
    """
    return notices.notices_still_due(run, _records(run, keys), keys)


def notice_addresses(run: IncidentRun, keys: Sequence[str]) -> Mapping[str, str]:
    """Return the mail addresses for notices to affected people, by notice key.

    The addresses are not stored.

    Args:
        run: services and rules of the current run or command.
        keys: keys of notices, such as ``INC-2026-0001/courier/123``.
    """
    return _address_book(run.services).look_up(keys)


@lru_cache(maxsize=4)  # determines shared addresses once for all notices
def _address_book(services: Services) -> AddressBook:
    return AddressBook(context_of(INCIDENT, services))


def _records(run: IncidentRun, keys: Iterable[str]) -> dict[str, IncidentRecord]:
    records: dict[str, IncidentRecord] = {}
    with run.state.connect() as conn:
        for number in {key.partition("/")[0] for key in keys}:
            try:
                records[number] = record_in(conn, number)
            except UsageError:  # the incident does not exist, so nothing is due
                continue
    return records
