"""ISO 8601 durations in calendar units: two years are two years, not 730 days."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, PlainSerializer, PlainValidator

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
