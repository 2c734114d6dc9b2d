"""Which queued notices of incidents are still due, and where letters to people go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from include.incident.clocks import waking
from include.incident.clocks.standing import clocks_of
from include.incident.incident_run import IncidentRecord, IncidentRun, record_in
from include.incident.rule_checks import INCIDENT
from include.incident.telling import notifying
from include.incident.telling.addresses import AddressBook
from include.services.errors import UsageError
from include.workflow.run_context import context_of
from include.workplace import Workplace


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
