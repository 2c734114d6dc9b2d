"""The rules and services of a workflow, in a run or for a command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from typing import Any, Generic, TypeVar
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from include.notify.outbox import Run
from include.policy import PolicyPack
from include.policy.datamap import MappedDatabase
from include.policy.notices import NoticeRules
from include.policy.rules import Control, Role
from include.policy.section import Rules, RuleSection, SectionRules
from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.workdays.calendar import Workdays
from include.workplace import Workplace

OUTSIDE_OF_RUNS = Run("", "")
RunRules = TypeVar("RunRules", bound=SectionRules | None)


@dataclass(frozen=True)
class RunContext(Generic[RunRules]):
    """The rules and services that the steps of a run use.

    Commands and checks outside of a run use it too; then `run` is empty.

    Attributes:
        services: connections, stores, state database and clock.
        rules: the workflow's own section of the policy pack; None if it has none.
        run: dag id and run id.
        triggered_by: user id of the person who started the run; None for a scheduled run.
        parameters: of the run.
    """

    services: Workplace
    rules: RunRules
    run: Run = OUTSIDE_OF_RUNS
    triggered_by: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pack(self) -> PolicyPack:
        """The policy pack."""
        return self.services.pack

    @property
    def state(self) -> Engine:
        """The state database."""
        return self.services.state

    @property
    def clock(self) -> Clock:
        """The time."""
        return self.services.clock

    @property
    def zone(self) -> ZoneInfo:
        """The policy pack's timezone."""
        return self.pack.calendar.zone

    @property
    def now(self) -> datetime:
        """The present moment in the policy pack's timezone."""
        return self.clock.now().astimezone(self.zone)

    @property
    def today(self) -> date:
        """Today's date in the policy pack's timezone."""
        return self.now.date()

    @property
    def roles(self) -> Mapping[str, Role]:
        """The roles of roles.yaml, by id."""
        return self.pack.roles

    @property
    def notices(self) -> NoticeRules:
        """The rules of notices.yaml."""
        return self.pack.notices

    @cached_property
    def workdays(self) -> Workdays:
        """The workdays of calendar.yaml."""
        return Workdays(self.pack.calendar)

    @property
    def controls(self) -> tuple[Control, ...]:
        """The controls whose evidence are the bundles of this run's workflow."""
        return self.pack.controls_of(self.run.dag_id)

    def database(self, name: str) -> MappedDatabase:
        """The mapped database of that name; raises UsageError if the pack maps none."""
        return self.pack.database(name)

    def reader(self, name: str) -> DatabaseAddress:
        """The address of a mapped database with the login of this workflow."""
        mapped = self.database(name).connection
        if self.rules is None:
            return self.services.database(mapped)
        return self.services.role_database(self.rules.connection, mapped)


def context_of(
    section: RuleSection[Rules], services: Workplace, run: Run = OUTSIDE_OF_RUNS
) -> RunContext[Rules]:
    """Return the context of a workflow.

    Args:
        section: the workflow's own section of the policy pack.
        services: of the command or task.
        run: dag id and run id; by default outside of a run.

    Raises:
        UsageError: the pack leaves the section out.
    """
    return RunContext(services, services.pack.require(section), run)
