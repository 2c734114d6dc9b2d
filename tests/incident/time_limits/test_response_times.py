"""Tests of response times and their yearly statistics. An unknown response time is never zero."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.incident.incident_ids import Kind, State
from include.incident.time_limits.milestones import milestones
from include.incident.time_limits.response_times import (
    IncidentTimes,
    Measure,
    TimeStatistics,
    charts,
    count_table,
    measure_incident,
    missed_time_limit_table,
    report_blocks,
    response_time_table,
    yearly_statistics,
)
from include.reports.i18n import Translator
from tests.incident.time_limits.time_limit_fixtures import SHANGHAI, look, timeline

AWARE = datetime(2026, 3, 2, 1, tzinfo=UTC)
DETECT, CONTAIN, NOTIFY, REPORT = Measure


def h(hours: float) -> timedelta:
    return timedelta(hours=hours)


def incident(
    number: str,
    *done: tuple[Kind, float, dict],
    aware: datetime = AWARE,
    began: float | None = None,
    state: State = State.CLOSED,
) -> IncidentTimes:
    """Return the response times of an incident.

    Args:
        number: number of the incident.
        done: kind, time in hours after awareness, and data of each timeline entry.
        aware: time of awareness.
        began: start of the leak in hours after awareness; None if unknown.
        state: state of the incident.
    """
    entries = timeline(*((kind, aware + h(after), data) for kind, after, data in done))
    time_limits = look(entries, aware + h(100), aware_at=aware).values()
    return measure_incident(
        number,
        state,
        began_at=None if began is None else aware - h(began),
        aware_at=aware,
        reached=milestones(entries),
        time_limits=time_limits,
    )


def contained(after: float) -> tuple[Kind, float, dict]:
    return Kind.CONTAINED, after, {}


def reported(authority: str, after: float) -> tuple[Kind, float, dict]:
    return Kind.REPORTED, after, {"authority": authority}


def test_times_to_contain_notify_and_report_are_measured_from_awareness_of_the_incident():
    times = incident(
        "INC-2026-0001",
        contained(3),
        reported("postal", 4),
        reported("cac", 2.5),
        (Kind.DECIDED, 5, {"tell": True}),
        (Kind.TOLD, 30, {}),
        began=48,
    )
    assert times.durations == {DETECT: h(48), CONTAIN: h(3), NOTIFY: h(30), REPORT: h(2.5)}


def test_incident_without_milestones_has_no_response_times():
    assert incident("INC-2026-0001").durations == dict.fromkeys(Measure)


def test_response_time_of_milestone_before_awareness_is_zero():
    assert incident("INC-2026-0001", contained(-2)).durations[CONTAIN] == h(0)


def test_mean_and_median_response_times_leave_out_incidents_whose_time_is_unknown():
    incidents = [incident(f"INC-2026-000{n}", contained(n)) for n in (1, 2, 9)]
    incidents += [incident("INC-2026-0004"), incident("INC-2026-0005", state=State.OPEN)]
    total, year = yearly_statistics(incidents, SHANGHAI)
    assert year.durations[CONTAIN] == TimeStatistics(3, 2, h(4), h(2), h(9))
    assert year.durations[NOTIFY] == TimeStatistics(0, 5)
    assert (total.year, total.incidents, total.durations) == (None, 5, year.durations)


def test_median_of_four_times_is_average_of_middle_two():
    incidents = [
        incident(f"INC-2026-000{n}", contained(after)) for n, after in enumerate((10, 1, 5, 2))
    ]
    assert yearly_statistics(incidents, SHANGHAI)[0].durations[CONTAIN] == TimeStatistics(
        4, 0, h(4.5), h(3.5), h(10)
    )


def test_yearly_statistics_assign_incidents_to_years_in_the_timezone_of_the_policy_pack():
    eve = datetime(2025, 12, 31, 16, tzinfo=UTC)
    incidents = [
        incident("INC-2025-0009", aware=eve - h(0.5)),
        incident("INC-2026-0001", aware=eve + h(0.5)),
        incident("INC-2027-0001", aware=datetime(2027, 6, 1, tzinfo=UTC)),
    ]
    assert [
        (figure.year, figure.incidents) for figure in yearly_statistics(incidents, SHANGHAI)
    ] == [
        (None, 3),
        (2027, 1),
        (2026, 1),
        (2025, 1),
    ]


def test_yearly_incident_count_and_response_times_omit_duplicate_and_cancelled_incidents():
    incidents = [
        incident("INC-2026-0001", contained(2)),
        incident("INC-2026-0002", contained(100), state=State.DUPLICATE),
        incident("INC-2026-0003", contained(50), (Kind.CANCELLED, 60, {}), state=State.CANCELLED),
    ]
    total = yearly_statistics(incidents, SHANGHAI)[0]
    assert (total.incidents, total.cancelled) == (1, 1)
    assert total.durations[CONTAIN] == TimeStatistics(1, 0, h(2), h(2), h(2))
    assert total.late == len(incidents[0].late) + len(incidents[2].late)
    assert "contained" in {time_limit.id for time_limit in incidents[2].late}


def test_yearly_statistics_without_incidents_are_zero():
    (total,) = yearly_statistics([], SHANGHAI)
    assert (total.incidents, total.cancelled, total.late) == (0, 0, 0)
    assert all(statistics == TimeStatistics(0, 0) for statistics in total.durations.values())


@given(st.lists(st.none() | st.floats(0, 5000), max_size=12))
def test_mean_and_median_are_between_shortest_and_longest_time(hours: list[float | None]):
    incidents = [
        incident(f"INC-2026-{n:04}", *([] if after is None else [contained(after)]))
        for n, after in enumerate(hours)
    ]
    figure = yearly_statistics(incidents, SHANGHAI)[0].durations[CONTAIN]
    known_times = [
        times.durations[CONTAIN] for times in incidents if times.durations[CONTAIN] is not None
    ]
    assert (figure.known, figure.known + figure.missing) == (len(known_times), len(hours))
    if not known_times:
        assert figure.mean is figure.median is figure.longest is None
        return
    assert figure.mean is not None
    assert figure.median is not None
    assert min(known_times) <= figure.mean <= max(known_times) == figure.longest
    assert min(known_times) <= figure.median <= max(known_times)
    assert figure.median in known_times or len(known_times) % 2 == 0


@pytest.fixture
def two_incidents() -> list[IncidentTimes]:
    return [
        incident("INC-2026-0001", contained(3), began=30),
        incident("INC-2027-0001", contained(5), aware=datetime(2027, 6, 1, tzinfo=UTC)),
    ]


def test_response_time_chart_has_a_bar_for_each_year_and_a_bar_for_all_years(
    two_incidents: list[IncidentTimes],
):
    detect, contain, _notify, _report = charts(yearly_statistics(two_incidents, SHANGHAI))
    assert [(bar.label, bar.value) for bar in contain.bars[1:]] == [
        ("2027", 5 * 3600),
        ("2026", 3 * 3600),
    ]
    assert contain.bars[0].value == 4 * 3600
    assert [bar.value for bar in detect.bars] == [30 * 3600, None, 30 * 3600]


def test_statistics_section_contains_response_times_and_missed_time_limits(
    two_incidents: list[IncidentTimes],
):
    years = yearly_statistics(two_incidents, SHANGHAI)
    words = Translator("en", "Asia/Shanghai")
    table = response_time_table(years)
    row = next(row for row in table.rows if words.value(row[0]) == "2026: time to contain")
    assert row[1:] == [1, 0, 3 * 3600, 3 * 3600, 3 * 3600]
    assert count_table(years).rows[1] == ["2027", 1, 0, len(two_incidents[1].late)]
    late = missed_time_limit_table(two_incidents)
    assert len(late.rows) == years[0].late > 0
    assert {str(row[0]) for row in late.rows} == {"INC-2026-0001", "INC-2027-0001"}
    assert len(report_blocks(years, two_incidents)) == 7
