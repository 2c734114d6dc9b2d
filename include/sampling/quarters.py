"""Calendar quarters in the pack's timezone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from include.services.errors import UsageError

_ID = re.compile(r"(?P<year>20\d\d)Q(?P<number>[1-4])", re.ASCII)


@dataclass(frozen=True)
class Quarter:
    """Three months.

    Attributes:
        year: of the calendar.
        number: 1 to 4.
        zone: in which its days begin.
    """

    year: int
    number: int
    zone: ZoneInfo

    @property
    def id(self) -> str:
        """``2026Q3``."""
        return f"{self.year}Q{self.number}"

    @property
    def starts(self) -> datetime:
        """Its first moment."""
        return datetime(self.year, 3 * self.number - 2, 1, tzinfo=self.zone)

    @property
    def ends(self) -> datetime:
        """The first moment of the next one."""
        return self.next.starts

    @property
    def next(self) -> Quarter:
        """The quarter after it."""
        following = self.year * 4 + self.number
        return Quarter(following // 4, following % 4 + 1, self.zone)


def quarter_of(text: str | None, now: datetime, timezone: str) -> Quarter:
    """Return the quarter that is to be audited.

    Args:
        text: ``2026Q3``; the last one that is over where nothing is said.
        now: the moment, timezone-aware.
        timezone: of the pack.

    Raises:
        UsageError: it is no quarter, or not over yet: its populations still grow.
    """
    zone = ZoneInfo(timezone)
    local = now.astimezone(zone)
    if not text:
        before = local.year * 4 + (local.month - 1) // 3 - 1
        return Quarter(before // 4, before % 4 + 1, zone)
    found = _ID.fullmatch(text)
    if not found:
        raise UsageError(f"{text!r} is no quarter.", "Write 2026Q3.")
    quarter = Quarter(int(found["year"]), int(found["number"]), zone)
    if quarter.ends > now:
        raise UsageError(
            f"The quarter {text} is not over: its populations still grow.",
            f"Audit it from {quarter.ends:%Y-%m-%d} on.",
        )
    return quarter
