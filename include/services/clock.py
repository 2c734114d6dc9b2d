"""Provide the current time to the other modules, which read the time only from a `Clock`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from include.messages import _


class Clock(Protocol):
    """A source of the current time. Evidence bundles record the description of the clock."""

    @property
    def source(self) -> str:
        """Return a short description of the clock, for evidence bundles."""
        ...

    def now(self) -> datetime:
        """Return the current time in UTC, with timezone."""
        ...


class SystemClock:
    """The system clock of this machine, as a `Clock`."""

    source = _("system clock of the Airflow worker").text

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - only this reads the machine's clock


@dataclass(frozen=True)
class FixedClock:
    """A clock that always returns the same time. It serves for tests and to repeat a past run.

    Attributes:
        moment: time that the clock returns.
        source: description of the clock, for evidence bundles.
    """

    moment: datetime
    source: str = "fixed clock"

    def __post_init__(self) -> None:
        if self.moment.tzinfo is None:
            raise ValueError("a clock needs a timezone-aware moment")

    def now(self) -> datetime:
        """Return the fixed time `moment` in UTC."""
        return self.moment.astimezone(UTC)
