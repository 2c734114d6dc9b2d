"""Response times of incidents, with charts and tables, and the score sheet of an incident drill.

Times are exact to the microsecond. Incidents without a response time are counted separately, not as
zero. If an event happened before the company became aware of the incident, its response time is
zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from include.evidence.model import Outcome
from include.incident.incident_ids import State
from include.incident.time_limits.milestones import (
    INDIVIDUALS_TOLD,
    ReachedMilestone,
    report_milestone,
)
from include.incident.time_limits.time_limit import TimeLimit, TimeLimitState, missed_time_limits
from include.incident.time_limits.time_limit_texts import state_text
from include.messages import Message, _
from include.policy.period import utc
from include.reports.model import Bar, BarChart, Block, Cell, Table, table_of

_REPORTED = report_milestone("")
_NO_TIME = timedelta(0)


class Measure(StrEnum):
    """A response time that is measured for each incident, such as the time until containment."""

    DETECT = "detect"  # from the start of the leak until awareness
    CONTAIN = "contain"  # from awareness until containment
    NOTIFY = "notify"  # from awareness until people are notified, or need not be
    REPORT = "report"  # from awareness until the first report to an authority


@dataclass(frozen=True)
class IncidentTimes:
    """The response times of one incident.

    Attributes:
        number: number of the incident.
        state: state of the incident.
        aware_at: time at which the company became aware of the incident.
        durations: response time by measure; None if the time is unknown or the event has not
            happened yet.
        late: time limits that were missed, earliest deadline first.
    """

    number: str
    state: State
    aware_at: datetime
    durations: Mapping[Measure, timedelta | None]
    late: Sequence[TimeLimit] = ()


@dataclass(frozen=True)
class TimeStatistics:
    """Statistics of one response time over several incidents.

    Attributes:
        known: number of incidents whose response time is known.
        missing: number of incidents whose response time is unknown, or whose event has not happened
            yet.
        mean: mean of the known response times; None if no response time is known.
        median: median of the known response times; None if no response time is known.
        longest: longest known response time; None if no response time is known.
    """

    known: int
    missing: int
    mean: timedelta | None = None
    median: timedelta | None = None
    longest: timedelta | None = None


@dataclass(frozen=True)
class YearStatistics:
    """Statistics of the incidents of one year, or of all years.

    Attributes:
        year: year in which the company became aware of the incidents, in the policy pack's
            timezone; None for all years.
        incidents: number of incidents that were not cancelled.
        cancelled: number of cancelled incidents.
        late: number of missed time limits, including those of cancelled incidents.
        durations: response time -> its statistics. Cancelled incidents are left out.
    """

    year: int | None
    incidents: int
    cancelled: int
    late: int
    durations: Mapping[Measure, TimeStatistics]


def measure_incident(
    number: str,
    state: State,
    *,
    began_at: datetime | None,
    aware_at: datetime,
    reached: Mapping[str, ReachedMilestone],
    time_limits: Iterable[TimeLimit],
) -> IncidentTimes:
    """Measure the response times of one incident.

    Args:
        number: number of the incident.
        state: state of the incident.
        began_at: time at which the leak started; None if unknown.
        aware_at: time at which the company became aware of the incident.
        reached: milestones that were reached, by name.
        time_limits: time limits of the incident.
    """
    reports = [milestone.at for name, milestone in reached.items() if name.startswith(_REPORTED)]
    contained, notified = reached.get("contained"), reached.get(INDIVIDUALS_TOLD)
    return IncidentTimes(
        number=number,
        state=state,
        aware_at=aware_at,
        durations={
            Measure.DETECT: _between(began_at, aware_at),
            Measure.CONTAIN: _between(aware_at, contained.at if contained else None),
            Measure.NOTIFY: _between(aware_at, notified.at if notified else None),
            Measure.REPORT: _between(aware_at, min(reports, default=None)),
        },
        late=missed_time_limits(time_limits),
    )


def yearly_statistics(incidents: Iterable[IncidentTimes], zone: ZoneInfo) -> list[YearStatistics]:
    """Return the statistics of all years together, followed by those of each year, newest first.

    Incidents that are duplicates of other incidents are left out.

    Args:
        incidents: response times of all incidents.
        zone: timezone of the policy pack, which decides the year of an incident.
    """
    originals = [incident for incident in incidents if incident.state is not State.DUPLICATE]
    by_year: dict[int, list[IncidentTimes]] = {}
    for incident in originals:
        by_year.setdefault(incident.aware_at.astimezone(zone).year, []).append(incident)
    years = [_year_statistics(year, by_year[year]) for year in sorted(by_year, reverse=True)]
    return [_year_statistics(None, originals), *years]


def _year_statistics(year: int | None, incidents: Sequence[IncidentTimes]) -> YearStatistics:
    confirmed = [incident for incident in incidents if incident.state is not State.CANCELLED]
    return YearStatistics(
        year=year,
        incidents=len(confirmed),
        cancelled=len(incidents) - len(confirmed),
        late=sum(len(incident.late) for incident in incidents),
        durations={
            measure: _time_statistics([incident.durations.get(measure) for incident in confirmed])
            for measure in Measure
        },
    )


def _time_statistics(times: Sequence[timedelta | None]) -> TimeStatistics:
    known_times = sorted(time for time in times if time is not None)
    missing = len(times) - len(known_times)
    if not known_times:
        return TimeStatistics(0, missing)
    mean = sum(known_times, _NO_TIME) / len(known_times)
    middle = (known_times[(len(known_times) - 1) // 2] + known_times[len(known_times) // 2]) / 2
    return TimeStatistics(len(known_times), missing, mean, middle, known_times[-1])


def _between(begin: datetime | None, end: datetime | None) -> timedelta | None:
    if begin is None or end is None:
        return None
    return max(utc(end) - utc(begin), _NO_TIME)


_TITLES = {
    Measure.DETECT: _("time to detect"),
    Measure.CONTAIN: _("time to contain"),
    Measure.NOTIFY: _("time to notify affected people"),
    Measure.REPORT: _("time to the first report to an authority"),
}
_CHARTS = {
    Measure.DETECT: _("Mean time from the start of a leak to awareness"),
    Measure.CONTAIN: _("Mean time from awareness to containment"),
    Measure.NOTIFY: _(
        "Mean time from awareness to the notification of affected people, or to the decision "
        "not to notify them"
    ),
    Measure.REPORT: _("Mean time from awareness to the first report to an authority"),
}


def charts(years: Sequence[YearStatistics]) -> list[BarChart]:
    """Return one bar chart per measure. Each bar is the mean response time of a year.

    A year without a known response time has no bar.

    Args:
        years: result of `yearly_statistics`.
    """
    return [
        BarChart(
            caption=_CHARTS[measure],
            category=_("Year"),
            unit="seconds",
            bars=[
                Bar(label=_year_label(year), value=_seconds(year.durations[measure].mean))
                for year in years
            ],
        )
        for measure in Measure
    ]


def response_time_table(years: Sequence[YearStatistics]) -> Table:
    """Return a table of response times by year and measure.

    The table also states for how many incidents each response time is unknown.

    Args:
        years: result of `yearly_statistics`.
    """
    measured = [(year, measure, year.durations[measure]) for year in years for measure in Measure]
    return table_of(
        _("Response times"),
        measured,
        [
            (
                _("Year"),
                "text",
                lambda row: _(
                    "{year}: {measure}", year=_year_label(row[0]), measure=_TITLES[row[1]]
                ),
            ),
            (_("Incidents for which this time is known"), "number", lambda row: row[2].known),
            (_("Incidents for which this time is unknown"), "number", lambda row: row[2].missing),
            (_("Mean"), "duration", lambda row: _seconds(row[2].mean)),
            (_("Median"), "duration", lambda row: _seconds(row[2].median)),
            (_("Longest"), "duration", lambda row: _seconds(row[2].longest)),
        ],
    )


def count_table(years: Sequence[YearStatistics]) -> Table:
    """Return a table with the numbers of incidents and of missed time limits in each year.

    Args:
        years: result of `yearly_statistics`.
    """
    return table_of(
        _("Incidents"),
        years,
        [
            (_("Year"), "text", _year_label),
            (_("Incidents"), "number", lambda year: year.incidents),
            (_("Cancelled"), "number", lambda year: year.cancelled),
            (_("Missed time limits"), "number", lambda year: year.late),
        ],
    )


def missed_time_limit_table(incidents: Iterable[IncidentTimes]) -> Table:
    """Return a table with one row per missed time limit of all incidents."""
    return table_of(
        _("Missed time limits"),
        [(incident.number, time_limit) for incident in incidents for time_limit in incident.late],
        [
            (_("Incident"), "code", lambda row: row[0]),
            (_("Time limit"), "text", lambda row: row[1].rule.message),
            (_("Deadline"), "datetime", lambda row: row[1].due_at),
            (_("Late by"), "duration", lambda row: row[1].lateness.total_seconds()),
            (_("State"), "text", lambda row: state_text(row[1])),
        ],
    )


def report_blocks(
    years: Sequence[YearStatistics], incidents: Iterable[IncidentTimes]
) -> list[Block]:
    """Return all charts and tables with statistics of incidents, for a section of a report.

    Args:
        years: result of `yearly_statistics`.
        incidents: response times of all incidents.
    """
    return [
        count_table(years),
        response_time_table(years),
        *charts(years),
        missed_time_limit_table(incidents),
    ]


def _seconds(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


def _year_label(year: YearStatistics) -> Message | str:
    return _("All years") if year.year is None else str(year.year)


_UNSCORED_STATES = (TimeLimitState.STOPPED, TimeLimitState.LAPSED, TimeLimitState.NOT_YET)
"""States without points: the time limit never applied, or ended early without its step."""


def drill_score(time_limits: Sequence[TimeLimit]) -> tuple[int, int]:
    """Return how many time limits were met in a drill, and how many time limits were scored.

    A time limit is not scored if it does not apply to the incident or has not started. It is not
    scored either if a person ended it before its deadline without performing its step: by a
    cancellation, by a new grade, or by a declaration that the step is not needed.

    Args:
        time_limits: time limits at the end of the drill.
    """
    scored = [
        time_limit
        for time_limit in time_limits
        if time_limit.due_at is not None and time_limit.state not in _UNSCORED_STATES
    ]
    return sum(time_limit.state is TimeLimitState.MET for time_limit in scored), len(scored)


def score_sheet(time_limits: Sequence[TimeLimit]) -> Table:
    """Return a table with the allowed time, the time taken and the result of each time limit.

    Args:
        time_limits: time limits at the end of the drill.
    """
    due = [(time_limit, time_limit.begins_at, time_limit.due_at) for time_limit in time_limits]
    return table_of(
        _("Response times of the drill, compared with the time limits"),
        [(time_limit, begin, end) for time_limit, begin, end in due if begin and end],
        [
            (_("Time limit"), "text", lambda row: row[0].rule.message),
            (_("Time allowed"), "duration", lambda row: _seconds(row[2] - row[1])),
            (
                _("Time taken"),
                "duration",
                lambda row: _seconds(row[0].done_at - row[1]) if row[0].done_at else None,
            ),
            (_("Result"), "outcome", lambda row: _score_result(row[0])),
        ],
    )


def _score_result(time_limit: TimeLimit) -> Cell:
    if time_limit.state in _UNSCORED_STATES:
        return state_text(time_limit)
    return Outcome.PASS if time_limit.state is TimeLimitState.MET else Outcome.FAIL
