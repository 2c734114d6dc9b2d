"""The context of the incident benchmark: the shipped policy pack with the benchmark's databases."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks._incident_data import AS_OF
from include.evidence.step_findings import StepFindings
from include.incident.incident_opening import open_incident
from include.incident.incident_run import IncidentRun
from include.incident.rule_checks import INCIDENT
from include.notify.outbox import Run
from include.policy import SHIPPED
from include.policy.model import PolicyPack
from include.registry import load_pack
from include.service_container import Services
from include.services.database import DatabaseAddress
from include.state.connect import engine
from include.workflow.run_context import RunContext, TaskState

_STORY = "A key of an administrator was in a public place; customer records were read with it."


class RunningClock:
    """A clock that starts at the time `AS_OF` of the benchmark's data."""

    source = "the benchmark's day"

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def now(self) -> datetime:
        """Return the current time of this clock."""
        return AS_OF + timedelta(seconds=time.monotonic() - self._begun)


@dataclass(frozen=True, kw_only=True)
class CourierServices(Services):
    """Services whose mapped database is always the benchmark's courier database."""

    courier: DatabaseAddress

    def role_database(self, conn_id: str, mapped: str) -> DatabaseAddress:
        """Return the address of the benchmark's database."""
        del conn_id, mapped
        return self.courier


@cache
def pack() -> PolicyPack:
    """Return the shipped policy pack, read once per process."""
    return load_pack(SHIPPED)


def context_of_run(parameters: Mapping[str, Any]) -> IncidentRun:
    """Return the run context for the steps of an incident.

    Args:
        parameters: connection strings ``courier`` and ``state``, and the run id ``run``.
    """
    policy = pack()
    courier = DatabaseAddress.from_conninfo(parameters["courier"])
    services = CourierServices(
        home=Path("/nonexistent"),
        policy=SHIPPED,
        lookup=lambda _conn_id: None,
        clock=RunningClock(),
        load=lambda _folder: policy,
        open_state=engine(parameters["state"]),
        courier=courier,
    )
    run = Run("respond_to_incident", parameters["run"])
    task = TaskState(triggered_at=AS_OF)
    return RunContext(services, policy.require(INCIDENT), run, triggered_by="E00004", task=task)


def opened(run: IncidentRun, form: Mapping[str, Any]) -> str:
    """Open an incident with fields of the trigger form, and return its number."""
    parameters = {"type": "leaked_credentials", "what": _STORY, "another": True, **form}
    findings = StepFindings("open_incident", "6.3")
    return open_incident(replace(run, parameters=parameters), findings).number
