"""Response times of incidents with their charts, and the score sheet of a drill.

Figures are exact to the microsecond. What is not known, or has not happened, is counted apart and
never taken for zero; what had happened before anybody was aware took no time at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from include.evidence.model import Outcome
from include.incident.clocks.clock import Clock, ClockState, late
from include.incident.clocks.clock_words import state
from include.incident.clocks.milestones import INDIVIDUALS_TOLD, Reached, reported
from include.incident.names import State
from include.messages import Message, _
from include.policy.period import utc
from include.reports.model import Bar, BarChart, Block, Cell, Table, table_of

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


_TITLES = {
    Measure.DETECT: _("to detect"),
    Measure.CONTAIN: _("to contain"),
    Measure.NOTIFY: _("to tell people"),
    Measure.REPORT: _("to the first report"),
}
_CHARTS = {
    Measure.DETECT: _("Mean time from the beginning of a leak to awareness"),
    Measure.CONTAIN: _("Mean time from awareness to containment"),
    Measure.NOTIFY: _("Mean time from awareness until people are told, or need not be"),
    Measure.REPORT: _("Mean time from awareness to the first report to an authority"),
}


def charts(found: Sequence[Figures]) -> list[BarChart]:
    """One chart for each thing that is measured, with a bar a year; no bar where none is known.

    Args:
        found: as `include.incident.clocks.response_times.figures` gives them.
    """
    return [
        BarChart(
            caption=_CHARTS[what],
            category=_("Year"),
            unit="seconds",
            bars=[Bar(label=_year(year), value=_seconds(year.took[what].mean)) for year in found],
        )
        for what in Measure
    ]


def figure_table(found: Sequence[Figures]) -> Table:
    """The figures in rows: year and what was measured, with how many it is not known of."""
    measured = [(year, measure, year.took[measure]) for year in found for measure in Measure]
    return table_of(
        _("How long incidents took"),
        measured,
        [
            (
                _("Year"),
                "text",
                lambda row: _("{year}, {what}", year=_year(row[0]), what=_TITLES[row[1]]),
            ),
            (_("Known of"), "number", lambda row: row[2].known),
            (_("Not known of"), "number", lambda row: row[2].missing),
            (_("Mean"), "duration", lambda row: _seconds(row[2].mean)),
            (_("Median"), "duration", lambda row: _seconds(row[2].median)),
            (_("Longest"), "duration", lambda row: _seconds(row[2].longest)),
        ],
    )


def count_table(found: Sequence[Figures]) -> Table:
    """Return a table of the number of incidents and of clocks that ran out, by year."""
    return table_of(
        _("Incidents"),
        found,
        [
            (_("Year"), "text", _year),
            (_("Incidents"), "number", lambda year: year.incidents),
            (_("Cancelled"), "number", lambda year: year.cancelled),
            (_("Clocks that ran out"), "number", lambda year: year.late),
        ],
    )


def late_table(found: Iterable[Handled]) -> Table:
    """Every clock that ran out, by incident."""
    return table_of(
        _("Clocks that ran out"),
        [(incident.number, clock) for incident in found for clock in incident.late],
        [
            (_("Incident"), "code", lambda row: row[0]),
            (_("What"), "text", lambda row: row[1].rule.message),
            (_("Due"), "datetime", lambda row: row[1].due_at),
            (_("Late by"), "duration", lambda row: row[1].lateness.total_seconds()),
            (_("State"), "text", lambda row: state(row[1])),
        ],
    )


def blocks(years: Sequence[Figures], incidents: Iterable[Handled]) -> list[Block]:
    """All of them for a section of a report."""
    return [count_table(years), figure_table(years), *charts(years), late_table(incidents)]


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


def _year(year: Figures) -> Message | str:
    return _("All years") if year.year is None else str(year.year)


_NOT_COUNTED = (ClockState.STOPPED, ClockState.LAPSED, ClockState.NOT_YET)
"""A person decided while there was time that it need not be done, or it was never a duty."""


def score(clocks: Sequence[Clock]) -> tuple[int, int]:
    """Points of a drill: one for each clock that was met, of all that had to be.

    What a person decided in time need not be done counts neither for nor against.

    Args:
        clocks: as they stand at its end.
    """
    played = [
        clock for clock in clocks if clock.due_at is not None and clock.state not in _NOT_COUNTED
    ]
    return sum(clock.state is ClockState.MET for clock in played), len(played)


def score_sheet(clocks: Sequence[Clock]) -> Table:
    """What there was time for, how long it took, and whether that was in time.

    Args:
        clocks: as they stand at the end of the drill.
    """
    due = [(clock, clock.begins_at, clock.due_at) for clock in clocks]
    return table_of(
        _("Times of the drill against its clocks"),
        [(clock, begin, end) for clock, begin, end in due if begin and end],
        [
            (_("What"), "text", lambda row: row[0].rule.message),
            (_("Time that there was"), "duration", lambda row: _seconds(row[2] - row[1])),
            (
                _("Time that it took"),
                "duration",
                lambda row: _seconds(row[0].done_at - row[1]) if row[0].done_at else None,
            ),
            (_("Result"), "outcome", lambda row: _result(row[0])),
        ],
    )


def _result(clock: Clock) -> Cell:
    if clock.state in _NOT_COUNTED:
        return state(clock)
    return Outcome.PASS if clock.state is ClockState.MET else Outcome.FAIL
