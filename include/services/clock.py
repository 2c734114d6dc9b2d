"""Time as an input: domain code takes a Clock and never asks the machine."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from include.messages import _


class Clock(Protocol):
    """A source of the present moment; bundles name the source."""

    @property
    def source(self) -> str:
        """Return a few words on the source of the time, for the evidence."""
        ...

    def now(self) -> datetime:
        """Return the present moment, timezone-aware, in UTC."""
        ...


class SystemClock:
    """The machine's own clock."""

    source = _("system clock of the worker").text

    def now(self) -> datetime:
        """Return the present moment in UTC."""
        return datetime.now(UTC)  # noqa: TID251 - only this reads the machine's clock


@dataclass(frozen=True)
class FixedClock:
    """A clock with a fixed moment, for tests and for replaying a past day."""

    moment: datetime
    source: str = "fixed clock"

    def __post_init__(self) -> None:
        if self.moment.tzinfo is None:
            raise ValueError("a clock needs a timezone-aware moment")

    def now(self) -> datetime:
        """Return the fixed moment in UTC."""
        return self.moment.astimezone(UTC)
