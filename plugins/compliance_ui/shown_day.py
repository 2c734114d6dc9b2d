"""The day that a page shows: today, or a past day that the visitor chose."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from include.evidence.compliance_history import end_of_day
from include.messages import _
from plugins.compliance_ui.errors import InvalidAddress
from plugins.compliance_ui.page_services import PageServices

PARAMETER = "asof"
EARLIEST = date(1970, 1, 1)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


@dataclass(frozen=True)
class ShownDay:
    """The day that a page shows.

    Attributes:
        day: the day, in the timezone of the policy pack.
        moment: the present, or the last moment of a past day.
        is_past: whether the page shows a past day.
    """

    day: date
    moment: datetime
    is_past: bool

    @property
    def as_of(self) -> datetime | None:
        """The last moment of the past day; None if the page shows the present."""
        return self.moment if self.is_past else None

    @property
    def query(self) -> str:
        """Value of the query parameter that selects the day; empty for the present."""
        return self.day.isoformat() if self.is_past else ""


def last_quarter(today: date) -> tuple[date, date]:
    """Return the first and the last day of the calendar quarter before that of a day."""
    begins = date(today.year, (today.month - 1) // 3 * 3 + 1, 1)
    last = begins - timedelta(days=1)
    return date(last.year, last.month - 2, 1), last


def shown_day(services: PageServices, text: str) -> ShownDay:
    """Return the day that a visitor chose.

    Args:
        services: services for the request.
        text: value of the query parameter, such as ``2026-09-30``; empty or today's date for the
            present.

    Raises:
        InvalidAddress: the text is not a date, or the date is in the future or before 1970.
    """
    now = services.now()
    today = now.date()
    if not text:
        return ShownDay(today, now, is_past=False)
    try:
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        raise InvalidAddress(_("{text} is not a date. Write dates as 2026-09-30.", text=text[:40]))
    if day > today:
        raise InvalidAddress(
            _("{day} is in the future. Choose {today} or an earlier day.", day=day, today=today)
        )
    if day < EARLIEST:
        raise InvalidAddress(
            _("{day} is too early. Choose {earliest} or a later day.", day=day, earliest=EARLIEST)
        )
    if day == today:
        return ShownDay(today, now, is_past=False)
    return ShownDay(day, end_of_day(day, services.pack.calendar.zone), is_past=True)
