"""The terms of obligations, and the rungs of reminders: rules over days alone.

An agreement holds on its last day and has lapsed on the day after it. A review holds for the period
of the partner's tier: a year from 2026-03-31 ends with 2027-03-31.
"""

from __future__ import annotations

import calendar
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

from include.policy.period import Period

_DAY = timedelta(days=1)
RUNS_EVERY = timedelta(days=7)  # the schedule of `review_partners`


class ObligationKind(StrEnum):
    """A kind of obligation, or the reason why a review is not in force."""

    NDA = "nda"
    AGREEMENT = "agreement"
    REVIEW = "review"
    FAILED = "failed"
    REOPENED = "reopened"


class State(StrEnum):
    """How it stands on a day."""

    VALID = "valid"
    NOT_YET = "not_yet"
    LAPSED = "lapsed"
    MISSING = "missing"


@dataclass(frozen=True)
class Term:
    """One thing that has to hold before anything is shared.

    Attributes:
        what: it is.
        last_day: on which it holds; None where nobody says.
        first_day: on which it holds; None where it has no beginning.
    """

    what: ObligationKind
    last_day: date | None
    first_day: date | None = None

    def state(self, today: date) -> State:
        """How it stands on a day."""
        if self.last_day is None:
            return State.MISSING
        if today > self.last_day:
            return State.LAPSED
        if self.first_day is not None and today < self.first_day:
            return State.NOT_YET
        return State.VALID


def after(day: date, period: Period) -> date:
    """The day that a period of days, months or years leads to; a shorter month ends earlier."""
    months = day.year * 12 + day.month - 1 + period.months
    year, month = divmod(months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    return date(year, month + 1, min(day.day, last)) + timedelta(days=period.days)


def review_term(
    last: date | None,
    every: Period | None,
    *,
    failed_on: date | None = None,
    reopened_on: date | None = None,
) -> Term:
    """How long a partner's review holds.

    A failed review, and one that was opened again, does not hold from that day on, whatever an
    earlier one came to.

    Args:
        last: day of the last review that counts as passed.
        every: period for which it holds; None where the partner's tier is not known.
        failed_on: day on which the last review was found to fail.
        reopened_on: day on which the review was opened again.
    """
    if reopened_on is not None:
        return Term(ObligationKind.REOPENED, reopened_on - _DAY)
    if failed_on is not None:
        return Term(ObligationKind.FAILED, failed_on - _DAY)
    if last is None or every is None:
        return Term(ObligationKind.REVIEW, None)
    return Term(ObligationKind.REVIEW, after(last, every))


def rung(
    last_day: date | None, today: date, next_telling: date, ladder: Sequence[int], every: int
) -> int | None:
    """The rung of the ladder that is reached: days before the last day negative, after it positive.

    A rung before the last day comes with the last run from which people can still be told in time,
    not with the first one after it. From the lapse on there is one every so many days, without end;
    so there is where no last day is known.

    Args:
        last_day: on which something holds; None where nobody says.
        today: the day.
        next_telling: the next day on which people could be told, if not now.
        ladder: days before the last day, falling.
        every: days between rungs from the lapse on.

    Returns:
        The rung; None before the first.
    """
    if last_day is None:
        return today.toordinal() // every * every
    if today > last_day:
        return 1 + ((today - last_day).days - 1) // every * every
    reached = [one for one in ladder if last_day - timedelta(days=one) < next_telling]
    return -min(reached) if reached else None
