"""ISO 8601 periods, and calendar arithmetic with periods.

Hours, minutes and seconds are exact durations. Months and days follow the calendar of a timezone:
the result has the same time of day on another date, even across a daylight saving change.

Two laws say that a period of months or days runs to the end of its last day: PRC Civil Code
(2021-01-01), article 203, and Regulation (EEC, Euratom) 1182/71 (1971-07-01), article 3. In
ParcelSeal, a period ends on this day at the time of day at which it began, so it never ends later
than the law allows.
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
    """A length of time in calendar units and seconds.

    Attributes:
        text: the period as written in the pack, such as ``P2Y``.
        months: calendar months, including 12 for each year.
        days: calendar days, including 7 for each week.
        seconds: seconds, including those of hours and minutes.
    """

    text: str
    months: int = 0
    days: int = 0
    seconds: int = 0

    @property
    def span(self) -> timedelta:
        """Return the length of the period as a fixed duration, for timeouts.

        A month counts as 30 days.
        """
        return timedelta(days=self.months * 30 + self.days, seconds=self.seconds)

    @classmethod
    def parse(cls, text: object) -> Period:
        """Parse an ISO 8601 duration ``PnYnMnWnDTnHnMnS``.

        At least one component is required, and all numbers are integers.

        Raises:
            ValueError: the text is not such a duration.
        """
        match = _ISO.fullmatch(text) if isinstance(text, str) else None
        if not match or not isinstance(text, str):
            raise ValueError("should be an ISO 8601 duration such as P2Y, P90D, P7D or PT4H")
        years, months, weeks, days, hours, minutes, seconds = (int(n or 0) for n in match.groups())
        return cls(
            text, years * 12 + months, weeks * 7 + days, hours * 3600 + minutes * 60 + seconds
        )

    def __str__(self) -> str:
        return self.text


def _require_positive(period: Period) -> Period:
    if not (period.months or period.days or period.seconds):
        raise ValueError("should be longer than zero")
    return period


IsoPeriod = Annotated[
    Period, PlainValidator(Period.parse), PlainSerializer(lambda period: period.text)
]
"""A Period as a field of a model, serialised as its text."""

PositivePeriod = Annotated[IsoPeriod, AfterValidator(_require_positive)]
"""A Period of at least a second."""


def utc(moment: datetime) -> datetime:
    """Convert a time to UTC, so that it can be compared with other times in UTC.

    Python compares and subtracts two times of the same timezone by local time, which is wrong
    across a daylight saving change.

    Raises:
        ValueError: the time has no timezone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no timezone")
    return moment.astimezone(UTC)


def add_period(moment: datetime, period: Period, zone: ZoneInfo) -> datetime:
    """Return a time plus a period, in UTC.

    If the day does not exist in the resulting month, such as 31 April, the last day of the month is
    used. If the local time is skipped because clocks are put forward, the result is the moment of
    this change. If the local time occurs twice because clocks are put back, the result is the first
    occurrence.

    Args:
        moment: time with a timezone.
        period: period to add; its months are added first, then its days, then its seconds.
        zone: timezone of the calendar.

    Raises:
        UsageError: the result is outside of the supported years.
    """
    return _shift(moment, period, zone, 1)


def subtract_period(moment: datetime, period: Period, zone: ZoneInfo) -> datetime:
    """Return a time minus a period, in UTC. The rules are those of `add_period`."""
    return _shift(moment, period, zone, -1)


def _shift(moment: datetime, period: Period, zone: ZoneInfo, sign: int) -> datetime:
    start = utc(moment)
    try:
        if period.months or period.days:
            start = _from_local(_shift_date(_to_local(start, zone), period, sign), zone)
        return start + sign * timedelta(seconds=period.seconds)
    except (OverflowError, ValueError) as error:
        raise UsageError(
            f"The date {period} from {moment.isoformat()} is out of range.",
            "Give a shorter period in the policy pack.",
        ) from error


def _shift_date(local: datetime, period: Period, sign: int) -> datetime:
    year, month = divmod(local.year * 12 + local.month - 1 + sign * period.months, 12)
    day = min(local.day, monthrange(year, month + 1)[1])
    return local.replace(year=year, month=month + 1, day=day) + sign * timedelta(days=period.days)


def _to_local(moment: datetime, zone: ZoneInfo) -> datetime:
    """Return the local date and time of a moment, without a timezone.

    If clocks are put back, an hour of local time occurs twice. All moments in the first of the two
    hours are converted to the start of this hour. Otherwise a moment in the second hour could get
    an earlier local time than a moment in the first hour, and of two periods, the one that begins
    later could end earlier.
    """
    local = moment.astimezone(zone)
    second_occurrence = local.replace(fold=1)
    if not local.fold and second_occurrence.utcoffset() != local.utcoffset():
        change = _find_offset_change(moment, second_occurrence.astimezone(UTC), zone)
        local = change.astimezone(zone)
    return local.replace(tzinfo=None, fold=0)


def _from_local(local: datetime, zone: ZoneInfo) -> datetime:
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return first if first <= second else _find_offset_change(second, first, zone)


def _find_offset_change(low: datetime, high: datetime, zone: ZoneInfo) -> datetime:
    """Return the moment between two moments at which a timezone's UTC offset changes.

    The result is exact to the second.

    Args:
        low: moment before the change.
        high: moment after the change.
        zone: the timezone.
    """

    def offset(second: int) -> timedelta | None:
        return datetime.fromtimestamp(second, zone).utcoffset()

    begin, end = math.floor(low.timestamp()), math.ceil(high.timestamp())
    offset_before = offset(begin)
    while end - begin > 1:
        middle = (begin + end) // 2
        if offset(middle) == offset_before:
            begin = middle
        else:
            end = middle
    return datetime.fromtimestamp(end, UTC)
