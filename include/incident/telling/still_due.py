"""Which queued notices of incidents are still due, and where letters to people go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from include.incident.clocks import waking
from include.incident.clocks.standing import clocks_of
from include.incident.desk import Desk, File, desk_of, file_of
from include.incident.rule_checks import INCIDENT
from include.incident.rules import IncidentRules
from include.incident.telling import notifying
from include.incident.telling.addresses import AddressBook
from include.services.errors import UsageError
from include.workflow.run_context import RunContext
from include.workplace import Workplace


def alerts_due(run: RunContext[IncidentRules], keys: Sequence[str]) -> set[str]:
    """Return the keys of calls and wake-ups that are still due."""
    desk = _desk(run.services)
    due: set[str] = set()
    for number, file in _files(desk, keys).items():
        if file.incident.is_led:
            due |= waking.wanted(keys, number, clocks_of(desk, file), desk.zone)
    return due


def letters_due(run: RunContext[IncidentRules], keys: Sequence[str]) -> set[str]:
    """Return the keys of letters to people that are still due."""
    desk = _desk(run.services)
    return notifying.wanted(desk, _files(desk, keys), keys)


def addresses(run: RunContext[IncidentRules], keys: Sequence[str]) -> Mapping[str, str]:
    """Return the addresses of letters to people, by key; nothing stores them."""
    return _book(run.services).look_up(keys)


@lru_cache(maxsize=4)  # which addresses many people share is looked up once for all letters
def _book(services: Workplace) -> AddressBook:
    return AddressBook(_desk(services))


def _desk(services: Workplace) -> Desk:
    if not services.is_drill:
        return desk_of(services)
    scenario = services.pack.require(INCIDENT).scenarios[0].id  # a drill notifies only itself
    return desk_of(services, scenario=scenario)


def _files(desk: Desk, keys: Iterable[str]) -> dict[str, File]:
    files: dict[str, File] = {}
    with desk.state.connect() as conn:
        for number in {key.partition("/")[0] for key in keys}:
            try:
                files[number] = file_of(conn, number)
            except UsageError:  # there is no such incident, so nothing is due
                continue
    return files
