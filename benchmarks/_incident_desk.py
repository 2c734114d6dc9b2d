"""The desk at which the incident benchmark works: the shipped pack, and its own databases."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from benchmarks._incident_data import AS_OF
from include.incident.desk import Desk
from include.incident.opening import open_incident
from include.incident.rule_checks import INCIDENT
from include.notify.outbox import Run
from include.policy import SHIPPED
from include.policy.model import PolicyPack
from include.registry import load_pack
from include.services.database import DatabaseAddress
from include.state.connect import engine

_STORY = "A key of an administrator was in a public place; customer records were read with it."


class RunningClock:
    """Begins at the benchmark's moment, and goes on from there."""

    source = "the benchmark's day"

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def now(self) -> datetime:
        """Return the moment."""
        return AS_OF + timedelta(seconds=time.monotonic() - self._begun)


@cache
def pack() -> PolicyPack:
    """The shipped policy pack, read once in a process."""
    return load_pack(SHIPPED)


def desk_of(given: Mapping[str, Any]) -> Desk:
    """What the steps of an incident work with.

    Args:
        given: connection strings ``courier`` and ``state``, and the id of a ``run``.
    """
    policy = pack()
    courier = DatabaseAddress.from_conninfo(given["courier"])
    mapped = policy.database("courier")
    return Desk(
        rules=policy.require(INCIDENT),
        roles=policy.roles,
        notices=policy.notices,
        databases={"courier": mapped},
        readers={"courier": courier},
        staff=(mapped, courier),
        state=engine(given["state"]),
        clock=RunningClock(),
        zone=policy.calendar.zone,
        run=Run("respond_to_incident", given["run"]),
        started_by="E00004",
    )


def opened(desk: Desk, form: Mapping[str, Any]) -> str:
    """Press Trigger with some fields of the form; the number of the incident."""
    given = {"type": "leaked_credentials", "what": _STORY, "another": True, **form}
    return str(open_incident(desk, given, AS_OF).data["number"])
