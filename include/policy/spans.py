"""Moments that lie a period after or before another one.

Hours, minutes and seconds are exact. Months and days are those of the calendar in a timezone: the
same time of day on another date, whatever was done to the clocks on the wall in between. PRC Civil
Code (2021-01-01) 203 and Regulation (EEC, Euratom) 1182/71 (1971-07-01) 3 let such a period run to
the end of its last day; ours ends at the time of day at which it began, so never after theirs.
"""

from __future__ import annotations

import math
from calendar import monthrange
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from include.policy.period import Period
from include.services.errors import UsageError


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
