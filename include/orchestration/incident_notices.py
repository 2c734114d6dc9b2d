"""Which notices of incidents are still wanted when they are sent, and where letters go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from include.incident.clocks import waking
from include.incident.clocks.standing import clocks_of
from include.incident.desk import Desk, File, file_of
from include.incident.telling import notifying
from include.incident.telling.addresses import AddressBook
from include.notify.asking import Confirm, LookUp
from include.orchestration.incident_desk import desk_of
from include.orchestration.sandbox import SandboxedWorkplace
from include.services.errors import UsageError
from include.workplace import Workplace


def confirming_alerts(place: Workplace) -> Confirm:
    """Return what says which calls and wake-ups are still wanted."""

    def confirm(keys: Sequence[str]) -> set[str]:
        desk = _desk(place)
        if desk is None:  # no longer: nobody leads incidents by this pack
            return set()
        found: set[str] = set()
        for number, file in _files(desk, keys).items():
            if file.incident.is_led:
                found |= waking.wanted(keys, number, clocks_of(desk, file), desk.zone)
        return found

    return confirm


def confirming_letters(place: Workplace) -> Confirm:
    """Return what says which letters to people are still wanted."""

    def confirm(keys: Sequence[str]) -> set[str]:
        desk = _desk(place)
        return set() if desk is None else notifying.wanted(desk, _files(desk, keys), keys)

    return confirm


def addressing(place: Workplace) -> LookUp:
    """Return what looks up where letters to people go; nothing of it is kept."""

    def look_up(keys: Sequence[str]) -> Mapping[str, str]:
        book = _book(place)
        return {} if book is None else book.look_up(keys)

    return look_up


@lru_cache(maxsize=4)  # which addresses many people share is looked up once for all letters
def _book(place: Workplace) -> AddressBook | None:
    desk = _desk(place)
    return None if desk is None else AddressBook(desk)


def _desk(place: Workplace) -> Desk | None:
    if place.pack.incident is None:
        return None
    scenario = ""
    if isinstance(place, SandboxedWorkplace):
        scenario = place.pack.incident.scenarios[0].id  # of a drill nothing is told but in it
    return desk_of(place, scenario=scenario)


def _files(desk: Desk, keys: Iterable[str]) -> dict[str, File]:
    found: dict[str, File] = {}
    with desk.state.connect() as conn:
        for number in {key.partition("/")[0] for key in keys}:
            try:
                found[number] = file_of(conn, number)
            except UsageError:  # nobody knows it: nobody is told
                continue
    return found
