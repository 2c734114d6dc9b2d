"""The moment for which a plan is made."""

from __future__ import annotations

from datetime import date, datetime, time
from zoneinfo import ZoneInfo

from include.services.errors import UsageError

YEARS = range(1900, 9000)  # far enough from the ends of what dates can be to add any period


def moment_of(as_of: str | None, now: datetime, timezone: str) -> datetime:
    """Return the moment for which a plan is made.

    Args:
        as_of: a date, which is 00:00 of that day in the pack's timezone, or a moment with an offset
            from UTC, both by ISO 8601; the present day if it is empty.
        now: the moment, timezone-aware.
        timezone: of the pack.

    Raises:
        UsageError: it is neither.
    """
    zone = ZoneInfo(timezone)
    if not as_of:
        return datetime.combine(now.astimezone(zone).date(), time(), zone)
    try:
        if len(as_of) <= len("2026-01-01"):
            moment = datetime.combine(date.fromisoformat(as_of), time(), zone)
        else:
            moment = datetime.fromisoformat(as_of)
    except ValueError:
        raise _unreadable(as_of) from None
    if moment.tzinfo is None:
        raise _unreadable(as_of)
    if moment.year not in YEARS:
        raise UsageError(f"{as_of!r} is too far away.", "Write a year from 1900 to 8999.")
    return moment


def _unreadable(as_of: str) -> UsageError:
    return UsageError(
        f"{as_of!r} is no day and no moment.",
        "Write 2026-11-25, or 2026-11-25T03:30:00+08:00 with the offset from UTC.",
    )
