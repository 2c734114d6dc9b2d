"""How long incidents took: to be detected, contained, told to people and to an authority.

Figures are exact to the microsecond. What is not known, or has not happened, is counted apart and
never taken for zero; what had happened before anybody was aware took no time at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from include.incident.clocks.clock import Clock, late
from include.incident.clocks.milestones import INDIVIDUALS_TOLD, Reached, reported
from include.incident.names import State
from include.policy.spans import utc

_REPORTED = reported("")
_NO_TIME = timedelta(0)


class Measure(StrEnum):
    """What is measured."""

    DETECT = "detect"  # from the beginning of the leak to awareness
    CONTAIN = "contain"  # from awareness on, as the others
    NOTIFY = "notify"  # affected people, or the decision that they need not be told
    REPORT = "report"  # the first authority


@dataclass(frozen=True)
class Handled:
    """An incident as its figures need it.

    Attributes:
        number: for people.
        state: where it stands.
        aware_at: when the company became aware.
        took: how long, by what is measured; None where that is not known or has not happened.
        late: its clocks that ran out, the one due first before others.
    """

    number: str
    state: State
    aware_at: datetime
    took: Mapping[Measure, timedelta | None]
    late: Sequence[Clock] = ()


@dataclass(frozen=True)
class Figure:
    """How long something took in several incidents.

    Attributes:
        known: incidents of which that is known.
        missing: those of which it is not, or where it has not happened.
        mean: of the known ones; None where there are none, as the others.
        median: of the known ones.
        longest: of the known ones.
    """

    known: int
    missing: int
    mean: timedelta | None = None
    median: timedelta | None = None
    longest: timedelta | None = None


@dataclass(frozen=True)
class Figures:
    """The incidents of a year, or of all years.

    Attributes:
        year: of awareness, in the pack's timezone; None for all.
        incidents: that were such; the figures are theirs.
        cancelled: that turned out to be none.
        late: clocks that ran out, of both.
        took: how long things took.
    """

    year: int | None
    incidents: int
    cancelled: int
    late: int
    took: Mapping[Measure, Figure]


def handled(
    number: str,
    state: State,
    *,
    began_at: datetime | None,
    aware_at: datetime,
    reached: Mapping[str, Reached],
    clocks: Iterable[Clock],
) -> Handled:
    """Measure one incident.

    Args:
        number: for people.
        state: where it stands.
        began_at: when the leak began, None where nobody knows.
        aware_at: when the company became aware.
        reached: its milestones.
        clocks: as they stand.
    """
    reports = [one.at for name, one in reached.items() if name.startswith(_REPORTED)]
    contained, told = reached.get("contained"), reached.get(INDIVIDUALS_TOLD)
    return Handled(
        number=number,
        state=state,
        aware_at=aware_at,
        took={
            Measure.DETECT: _between(began_at, aware_at),
            Measure.CONTAIN: _between(aware_at, contained.at if contained else None),
            Measure.NOTIFY: _between(aware_at, told.at if told else None),
            Measure.REPORT: _between(aware_at, min(reports, default=None)),
        },
        late=late(clocks),
    )


def figures(found: Iterable[Handled], zone: ZoneInfo) -> list[Figures]:
    """The figures of all years together, then of each year, the newest first.

    Duplicates are left out: the incident that they are is there.

    Args:
        found: all incidents.
        zone: of the pack; years are those there.
    """
    known = [one for one in found if one.state is not State.DUPLICATE]
    by_year: dict[int, list[Handled]] = {}
    for one in known:
        by_year.setdefault(one.aware_at.astimezone(zone).year, []).append(one)
    years = [_figures(year, by_year[year]) for year in sorted(by_year, reverse=True)]
    return [_figures(None, known), *years]


def _figures(year: int | None, found: Sequence[Handled]) -> Figures:
    real = [one for one in found if one.state is not State.CANCELLED]
    return Figures(
        year=year,
        incidents=len(real),
        cancelled=len(found) - len(real),
        late=sum(len(one.late) for one in found),
        took={what: _figure([one.took.get(what) for one in real]) for what in Measure},
    )


def _figure(found: Sequence[timedelta | None]) -> Figure:
    known = sorted(one for one in found if one is not None)
    missing = len(found) - len(known)
    if not known:
        return Figure(0, missing)
    mean = sum(known, _NO_TIME) / len(known)
    middle = (known[(len(known) - 1) // 2] + known[len(known) // 2]) / 2
    return Figure(len(known), missing, mean, middle, known[-1])


def _between(begin: datetime | None, end: datetime | None) -> timedelta | None:
    if begin is None or end is None:
        return None
    return max(utc(end) - utc(begin), _NO_TIME)
