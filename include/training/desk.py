"""What the steps of `remind_training` work with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from include.notify.outbox import Run
from include.policy.notices import NoticeRules
from include.policy.rules import Role
from include.policy.training import TrainingRules
from include.services.clock import Clock
from include.services.database import DatabaseAddress
from include.training import ladder, sources
from include.training.sources import Sources
from include.workdays.calendar import Workdays


@dataclass(frozen=True)
class Desk:
    """The rules and the services of a run.

    Attributes:
        rules: training.yaml.
        roles: of roles.yaml, by id.
        readers: where the databases of its sources are, by name.
        notices: notices.yaml.
        workdays: of calendar.yaml.
        state: the state database.
        clock: the time.
        zone: of the pack.
        run: dag id and run id.
    """

    rules: TrainingRules
    roles: Mapping[str, Role]
    readers: Mapping[str, DatabaseAddress]
    notices: NoticeRules
    workdays: Workdays
    state: Engine
    clock: Clock
    zone: ZoneInfo
    run: Run

    @property
    def now(self) -> datetime:
        """The moment in the pack's timezone."""
        return self.clock.now().astimezone(self.zone)

    @property
    def today(self) -> date:
        """The day it is there."""
        return self.now.date()

    @property
    def reached(self) -> ladder.Reached:
        """The ladder as it stands today."""
        return ladder.reached(self.rules.ladder, self.workdays, self.today)

    @contextmanager
    def sources(self, people: Sequence[str] | None = None) -> Iterator[Sources]:
        """People, courses and completions, as they are at one moment; of all, or of some people."""
        with sources.opened(self.rules, self.readers, self.state, people) as found:
            yield found
