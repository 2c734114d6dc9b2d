"""The figures of the overview over time: outcomes by week and clause, and passed shares by quarter.

The figures come from a `ControlHistory`, with one exception: the outcomes at the moment that the
page shows come from the verified bundles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from include.evidence.control_evidence import worst
from include.evidence.control_history import ControlHistory
from include.evidence.model import Outcome
from include.policy.period import utc
from include.policy.rules import Control

WEEKS, QUARTERS = 52, 8
_LAST_MOMENT = timedelta(microseconds=1)  # before midnight


def end_of_day(day: date, zone: ZoneInfo) -> datetime:
    """Return the last moment of a day.

    Args:
        day: the day.
        zone: timezone in which the day ends.
    """
    return datetime.combine(day + timedelta(days=1), time(), zone) - _LAST_MOMENT


def week_ends(moment: datetime, zone: ZoneInfo, count: int = WEEKS) -> list[datetime]:
    """Return the ends of the weeks before a moment, the oldest first. A week ends on Sunday.

    Args:
        moment: the moment; the week in which it lies is left out.
        zone: timezone in which weeks end.
        count: number of weeks.
    """
    today = moment.astimezone(zone).date()
    sunday = today - timedelta(days=today.isoweekday())
    return [
        end_of_day(sunday - timedelta(weeks=number), zone) for number in range(count - 1, -1, -1)
    ]


@dataclass(frozen=True)
class QuarterShare:
    """The share of passed controls in a quarter.

    Attributes:
        year: calendar year.
        quarter: number of the quarter, from 1.
        share: average share of passed controls at the ends of the weeks of the quarter, from 0 to
            1. Controls without evidence that are not due do not count. None if no control counts.
    """

    year: int
    quarter: int
    share: float | None


@dataclass(frozen=True)
class ComplianceHistory:
    """The outcomes of controls in the past, up to the moment that a page shows.

    Attributes:
        weeks: last day of each week; the last entry is the day that the page shows.
        clauses: the worst outcome of the controls of each clause, by clause and week. None means
            that no control of the clause had evidence or was due.
        quarters: shares of passed controls, the oldest quarter first.
    """

    weeks: Sequence[date]
    clauses: Mapping[str, Sequence[Outcome | None]]
    quarters: Sequence[QuarterShare]


def read_history(
    history: ControlHistory,
    controls: Sequence[Control],
    current: Sequence[Outcome | None],
    moment: datetime,
    known_since: Mapping[str, datetime],
    zone: ZoneInfo,
) -> ComplianceHistory:
    """Return the outcomes of controls by week and clause, and the passed shares by quarter.

    Args:
        history: the history of controls.
        controls: the controls, with their present clauses and cadences.
        current: outcomes of the controls at `moment`, from the verified bundles.
        moment: the moment that the page shows.
        known_since: control -> time of the first seal whose policy pack had the control.
        zone: timezone of the policy pack.
    """
    quarters = _quarters(moment.astimezone(zone).date(), QUARTERS)
    first = datetime.combine(date(quarters[0][0], quarters[0][1] * 3 - 2, 1), time(), zone)
    weeks = week_ends(moment, zone, 1 + (utc(moment) - utc(first)) // timedelta(weeks=1))
    weeks = [week for week in weeks if utc(week) >= utc(first)]
    outcomes = history.outcomes_at(controls, weeks, known_since, zone)
    shown = [*weeks[-WEEKS:], moment]
    by_week = [*outcomes[-WEEKS:], tuple(current)]
    clauses: dict[str, list[int]] = {}
    for position, control in enumerate(controls):
        clauses.setdefault(control.clause, []).append(position)
    return ComplianceHistory(
        [week.astimezone(zone).date() for week in shown],
        {
            clause: [worst(week[position] for position in positions) for week in by_week]
            for clause, positions in clauses.items()
        },
        _shares(quarters, [*weeks, moment], [*outcomes, tuple(current)], zone),
    )


def _quarters(day: date, count: int) -> list[tuple[int, int]]:
    """Return the quarters up to that of a day, as year and number, the oldest first."""
    last = day.year * 4 + (day.month - 1) // 3
    return [(number // 4, number % 4 + 1) for number in range(last - count + 1, last + 1)]


def _shares(
    quarters: Sequence[tuple[int, int]],
    moments: Sequence[datetime],
    outcomes: Sequence[Sequence[Outcome | None]],
    zone: ZoneInfo,
) -> list[QuarterShare]:
    shares: dict[tuple[int, int], list[float]] = {quarter: [] for quarter in quarters}
    for moment, at_moment in zip(moments, outcomes, strict=True):
        day = moment.astimezone(zone).date()
        counts = Counter(at_moment)
        total = len(at_moment) - counts[None]
        if total:
            share = counts[Outcome.PASS] / total
            shares[day.year, (day.month - 1) // 3 + 1].append(share)
    return [
        QuarterShare(year, number, sum(values) / len(values) if values else None)
        for (year, number), values in shares.items()
    ]
