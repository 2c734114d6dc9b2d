"""How long incidents took: exact, by year, and what is not known is never zero."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.incident.clocks.milestones import milestones
from include.incident.clocks.response_times import (
    Figure,
    Handled,
    Measure,
    blocks,
    charts,
    count_table,
    figure_table,
    figures,
    handled,
    late_table,
)
from include.incident.names import Kind, State
from include.reports.i18n import Translator
from tests.incident.clocks.clock_rig import SHANGHAI, look, timeline

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
) -> Handled:
    """An incident whose milestones lie so many hours after awareness."""
    entries = timeline(*((kind, aware + h(after), data) for kind, after, data in done))
    clocks = look(entries, aware + h(100), aware_at=aware).values()
    return handled(
        number,
        state,
        began_at=None if began is None else aware - h(began),
        aware_at=aware,
        reached=milestones(entries),
        clocks=clocks,
    )


def contained(after: float) -> tuple[Kind, float, dict]:
    return Kind.CONTAINED, after, {}


def reported(authority: str, after: float) -> tuple[Kind, float, dict]:
    return Kind.REPORTED, after, {"authority": authority}


def test_an_incident_is_measured_from_awareness_on():
    """And its detection up to it; the first of its reports counts."""
    one = incident(
        "INC-2026-0001",
        contained(3),
        reported("postal", 4),
        reported("cac", 2.5),
        (Kind.DECIDED, 5, {"tell": True}),
        (Kind.TOLD, 30, {}),
        began=48,
    )
    assert one.took == {DETECT: h(48), CONTAIN: h(3), NOTIFY: h(30), REPORT: h(2.5)}


def test_what_is_not_known_or_has_not_happened_is_none():
    """An incident of which only awareness is known."""
    assert incident("INC-2026-0001").took == dict.fromkeys(Measure)


def test_what_had_happened_before_anybody_was_aware_took_no_time():
    """A machine blocked it; a negative time would make the others look better."""
    assert incident("INC-2026-0001", contained(-2)).took[CONTAIN] == h(0)


def test_means_and_medians_leave_out_what_is_missing():
    """Worked out by hand: of 1, 2 and 9 hours the mean is 4 and the median 2; two are missing."""
    found = [incident(f"INC-2026-000{n}", contained(n)) for n in (1, 2, 9)]
    found += [incident("INC-2026-0004"), incident("INC-2026-0005", state=State.OPEN)]
    total, year = figures(found, SHANGHAI)
    assert year.took[CONTAIN] == Figure(3, 2, h(4), h(2), h(9))
    assert year.took[NOTIFY] == Figure(0, 5)
    assert (total.year, total.incidents, total.took) == (None, 5, year.took)


def test_of_an_even_number_the_median_lies_between():
    """Of 1, 2, 5 and 10 hours: 3.5, and the mean is 4.5."""
    found = [
        incident(f"INC-2026-000{n}", contained(after)) for n, after in enumerate((10, 1, 5, 2))
    ]
    assert figures(found, SHANGHAI)[0].took[CONTAIN] == Figure(4, 0, h(4.5), h(3.5), h(10))


def test_years_are_those_of_the_pack():
    """16:30 UTC on New Year's Eve is the new year in Shanghai; the newest year comes first."""
    eve = datetime(2025, 12, 31, 16, tzinfo=UTC)
    found = [
        incident("INC-2025-0009", aware=eve - h(0.5)),
        incident("INC-2026-0001", aware=eve + h(0.5)),
        incident("INC-2027-0001", aware=datetime(2027, 6, 1, tzinfo=UTC)),
    ]
    assert [(one.year, one.incidents) for one in figures(found, SHANGHAI)] == [
        (None, 3),
        (2027, 1),
        (2026, 1),
        (2025, 1),
    ]


def test_duplicates_and_cancelled_ones_do_not_count_among_the_incidents():
    """The duplicate is there as the incident that it is; what was cancelled is counted apart, and
    its clocks that had run out are told.
    """
    found = [
        incident("INC-2026-0001", contained(2)),
        incident("INC-2026-0002", contained(100), state=State.DUPLICATE),
        incident("INC-2026-0003", contained(50), (Kind.CANCELLED, 60, {}), state=State.CANCELLED),
    ]
    total = figures(found, SHANGHAI)[0]
    assert (total.incidents, total.cancelled) == (1, 1)
    assert total.took[CONTAIN] == Figure(1, 0, h(2), h(2), h(2))
    assert total.late == len(found[0].late) + len(found[2].late)
    assert "contained" in {one.id for one in found[2].late}


def test_without_incidents_there_are_no_figures():
    """Not even a year, and nothing is divided by nothing."""
    (total,) = figures([], SHANGHAI)
    assert (total.incidents, total.cancelled, total.late) == (0, 0, 0)
    assert all(one == Figure(0, 0) for one in total.took.values())


@given(st.lists(st.none() | st.floats(0, 5000), max_size=12))
def test_figures_lie_between_the_shortest_and_the_longest(hours: list[float | None]):
    """And known and missing ones are all of them."""
    found = [
        incident(f"INC-2026-{n:04}", *([] if after is None else [contained(after)]))
        for n, after in enumerate(hours)
    ]
    figure = figures(found, SHANGHAI)[0].took[CONTAIN]
    known = [one.took[CONTAIN] for one in found if one.took[CONTAIN] is not None]
    assert (figure.known, figure.known + figure.missing) == (len(known), len(hours))
    if not known:
        assert figure.mean is figure.median is figure.longest is None
        return
    assert figure.mean is not None
    assert figure.median is not None
    assert min(known) <= figure.mean <= max(known) == figure.longest
    assert min(known) <= figure.median <= max(known)
    assert figure.median in known or len(known) % 2 == 0


@pytest.fixture
def two() -> list[Handled]:
    return [
        incident("INC-2026-0001", contained(3), began=30),
        incident("INC-2027-0001", contained(5), aware=datetime(2027, 6, 1, tzinfo=UTC)),
    ]


def test_a_report_has_a_chart_for_each_measure(two: list[Handled]):
    """A bar a year in seconds, and no bar where nothing is known."""
    detect, contain, _notify, _report = charts(figures(two, SHANGHAI))
    assert [(bar.label, bar.value) for bar in contain.bars[1:]] == [
        ("2027", 5 * 3600),
        ("2026", 3 * 3600),
    ]
    assert contain.bars[0].value == 4 * 3600
    assert [bar.value for bar in detect.bars] == [30 * 3600, None, 30 * 3600]


def test_a_report_has_the_figures_and_every_clock_that_ran_out(two: list[Handled]):
    """By year and measure with what is missing; late clocks with their incident."""
    years = figures(two, SHANGHAI)
    words = Translator("en", "Asia/Shanghai")
    table = figure_table(years)
    row = next(one for one in table.rows if words.value(one[0]) == "2026, to contain")
    assert row[1:] == [1, 0, 3 * 3600, 3 * 3600, 3 * 3600]
    assert count_table(years).rows[1] == ["2027", 1, 0, len(two[1].late)]
    late = late_table(two)
    assert len(late.rows) == years[0].late > 0
    assert {str(one[0]) for one in late.rows} == {"INC-2026-0001", "INC-2027-0001"}
    assert len(blocks(years, two)) == 7
