"""ISO 8601 periods in calendar units, and the moments that lie a period apart.

Hours, minutes and seconds are exact. Months and days are those of the calendar in a timezone: the
same time of day on another date, whatever was done to the clocks on the wall in between. PRC Civil
Code (2021-01-01) 203 and Regulation (EEC, Euratom) 1182/71 (1971-07-01) 3 let such a period run to
the end of its last day; ours ends at the time of day at which it began, so never after theirs.
"""

from __future__ import annotations

import math
import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, PlainSerializer, PlainValidator

from include.services.errors import UsageError

_ISO = re.compile(
    r"P(?=[\dT])(?:(\d{1,4})Y)?(?:(\d{1,5})M)?(?:(\d{1,5})W)?(?:(\d{1,6})D)?"
    r"(?:T(?=\d)(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,8})S)?)?",
    re.ASCII,
)


@dataclass(frozen=True)
class Period:
    """A length of time as policies state it.

    Attributes:
        text: as written, ``P2Y``.
        months: calendar months, years included (12 each).
        days: calendar days, weeks included (7 each).
        seconds: the part after ``T``.
    """

    text: str
    months: int = 0
    days: int = 0
    seconds: int = 0

    @property
    def span(self) -> timedelta:
        """A fixed length of time, for timeouts; a month counts 30 days."""
        return timedelta(days=self.months * 30 + self.days, seconds=self.seconds)

    @classmethod
    def parse(cls, text: object) -> Period:
        """Read ``PnYnMnWnDTnHnMnS``; whole numbers only, at least one of them.

        Raises:
            ValueError: it is not such a duration.
        """
        found = _ISO.fullmatch(text) if isinstance(text, str) else None
        if not found or not isinstance(text, str):
            raise ValueError("should be an ISO 8601 duration such as P2Y, P90D, P7D or PT4H")
        years, months, weeks, days, hours, minutes, seconds = (int(n or 0) for n in found.groups())
        return cls(
            text, years * 12 + months, weeks * 7 + days, hours * 3600 + minutes * 60 + seconds
        )

    def __str__(self) -> str:
        return self.text


def _lasting(period: Period) -> Period:
    if not (period.months or period.days or period.seconds):
        raise ValueError("should be longer than nothing")
    return period


IsoPeriod = Annotated[
    Period, PlainValidator(Period.parse), PlainSerializer(lambda period: period.text)
]
"""A Period in a model, written as its text."""

PositivePeriod = Annotated[IsoPeriod, AfterValidator(_lasting)]
"""A Period of at least a second."""


def utc(moment: datetime) -> datetime:
    """The moment in UTC: Python compares and subtracts two of one timezone by their wall clocks.

    Raises:
        ValueError: it has no timezone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no timezone")
    return moment.astimezone(UTC)


def later(moment: datetime, period: Period, zone: ZoneInfo) -> datetime:
    """The moment a period after another one, in UTC.

    A date that its month does not have is the last one of that month. A time of day that is left
    out, since clocks are put forward, is the moment of that change; one that comes twice, since
    they are put back, is the first one.

    Args:
        moment: timezone-aware.
        period: months are moved first, then days, then the exact part.
        zone: whose calendar counts.

    Raises:
        UsageError: no calendar reaches that far.
    """
    return _moved(moment, period, zone, 1)


def earlier(moment: datetime, period: Period, zone: ZoneInfo) -> datetime:
    """The moment a period before another one, in UTC; otherwise as `later`."""
    return _moved(moment, period, zone, -1)


def _moved(moment: datetime, period: Period, zone: ZoneInfo, way: int) -> datetime:
    start = utc(moment)
    try:
        if period.months or period.days:
            start = _instant(_dated(_wall(start, zone), period, way), zone)
        return start + way * timedelta(seconds=period.seconds)
    except (OverflowError, ValueError) as error:
        raise UsageError(
            f"No calendar reaches {period} from {moment.isoformat()}.",
            "Give a shorter period in the policy pack.",
        ) from error


def _dated(wall: datetime, period: Period, way: int) -> datetime:
    year, month = divmod(wall.year * 12 + wall.month - 1 + way * period.months, 12)
    day = min(wall.day, monthrange(year, month + 1)[1])
    return wall.replace(year=year, month=month + 1, day=day) + way * timedelta(days=period.days)


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    """The time of day and date on the wall, naive.

    All of the first pass through an hour that comes twice reads as its beginning. So a later
    moment never reads earlier, and nobody who knew later has to be done sooner.
    """
    local = moment.astimezone(zone)
    again = local.replace(fold=1)
    if not local.fold and again.utcoffset() != local.utcoffset():
        local = _change(moment, again.astimezone(UTC), zone).astimezone(zone)
    return local.replace(tzinfo=None, fold=0)


def _instant(wall: datetime, zone: ZoneInfo) -> datetime:
    before, after = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return before if before <= after else _change(after, before, zone)


def _change(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """The first second of another offset from UTC; there is one between the two moments."""

    def offset(second: int) -> timedelta | None:
        return datetime.fromtimestamp(second, zone).utcoffset()

    begin, end = math.floor(low.timestamp()), math.ceil(high.timestamp())
    known = offset(begin)
    while end - begin > 1:
        middle = (begin + end) // 2
        if offset(middle) == known:
            begin = middle
        else:
            end = middle
    return datetime.fromtimestamp(end, UTC)
