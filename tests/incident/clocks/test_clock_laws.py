"""What holds of clocks whatever the moments: hypothesis looks for one of which it does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from include.incident.clocks.clock import (
    Bearing,
    Clock,
    ClockState,
    Facts,
    bearing,
    clocks,
    for_people,
    late,
)
from include.incident.clocks.milestones import Graded, Reached
from include.policy.period import Period, earlier, later, utc
from include.services.errors import UsageError
from tests.incident.clocks.clock_rig import SHANGHAI, look, rule, shipped

NEW_YORK, LORD_HOWE = ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe")
ZONES = st.sampled_from(
    [SHANGHAI, NEW_YORK, LORD_HOWE, ZoneInfo("Europe/Berlin"), ZoneInfo("Africa/Casablanca")]
)
MOMENTS = st.timedeltas(timedelta(0), timedelta(days=850)).map(
    lambda after: datetime(2025, 12, 1, tzinfo=UTC) + after
)
# Around the changes of clocks nearly every step is a special case.
CHANGES = st.builds(
    lambda at, minutes: at + timedelta(minutes=minutes),
    st.sampled_from(
        [
            datetime(2026, 3, 8, 7, tzinfo=UTC),
            datetime(2026, 11, 1, 6, tzinfo=UTC),
            datetime(2026, 4, 4, 15, tzinfo=UTC),
            datetime(2026, 10, 25, 1, tzinfo=UTC),
        ]
    ),
    st.integers(-4 * 1440, 4 * 1440),
)
MOMENT = MOMENTS | CHANGES
PERIODS = st.sampled_from(["PT30M", "PT1H", "PT4H", "PT72H", "P1D", "P3D", "P30D", "P1DT12H"]).map(
    Period.parse
)
LENGTHS = st.timedeltas(timedelta(0), timedelta(days=400))


@given(MOMENT, LENGTHS | st.timedeltas(timedelta(0), timedelta(hours=3)), PERIODS, ZONES)
@example(  # 02:59 of the day before is put forward to 03:00, and no further
    datetime(2026, 3, 7, 7, 59, tzinfo=UTC), timedelta(minutes=1), Period.parse("P1D"), NEW_YORK
)
@example(  # 01:30 of the first pass, 01:10 of the second one
    datetime(2026, 11, 1, 5, 30, tzinfo=UTC), timedelta(minutes=40), Period.parse("P1D"), NEW_YORK
)
def test_who_knew_later_never_has_to_be_done_sooner(
    aware: datetime, after: timedelta, within: Period, zone: ZoneInfo
):
    """Due times are monotone in awareness, also over the changes of clocks."""
    assert later(aware, within, zone) <= later(aware + after, within, zone)
    assert earlier(aware, within, zone) <= earlier(aware + after, within, zone)


@given(MOMENT, LENGTHS, st.integers(1, 30), ZONES)
def test_who_knew_on_a_later_date_has_a_later_date(
    aware: datetime, after: timedelta, months: int, zone: ZoneInfo
):
    """Months have no more than that: the 28th at noon and the 31st at ten are due on one day."""
    within = Period.parse(f"P{months}M")
    dates = [later(at, within, zone).astimezone(zone).date() for at in (aware, aware + after)]
    assert dates == sorted(dates)


@given(MOMENT, st.integers(1, 400_000), ZONES)
def test_hours_are_exact(aware: datetime, seconds: int, zone: ZoneInfo):
    """In every zone, whatever is done to its clocks."""
    due = later(aware.astimezone(zone), Period.parse(f"PT{seconds}S"), zone)
    assert due - aware == timedelta(seconds=seconds)


@given(MOMENT, st.integers(1, 60), ZONES)
def test_days_are_those_of_the_calendar(aware: datetime, days: int, zone: ZoneInfo):
    """The same time of day so many dates later, but where that is left out or comes twice."""
    begin, due = aware.astimezone(zone), later(aware, Period.parse(f"P{days}D"), zone)
    local = due.astimezone(zone)
    assume(begin.replace(fold=1).utcoffset() == begin.replace(fold=0).utcoffset())
    wall = begin.replace(tzinfo=None, fold=0) + timedelta(days=days)
    exists = wall.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) == wall
    if exists:
        assert local.replace(tzinfo=None, fold=0) == wall
        assert not local.fold
    else:
        before = (due - timedelta(seconds=1)).astimezone(zone)
        assert before.replace(tzinfo=None) < wall < local.replace(tzinfo=None)


@given(MOMENT, MOMENT, MOMENT, MOMENT, ZONES, PERIODS)
def test_once_done_lateness_does_not_depend_on_who_looks_when(
    aware: datetime, done: datetime, one: datetime, other: datetime, zone: ZoneInfo, within: Period
):
    """It is what lies between due and done, whatever was down in between and in whichever zone
    the moments are written.
    """
    rules, facts = [rule("x", within=str(within))], Facts(aware, "misdelivery")
    reached = {"contained": Reached(done.astimezone(NEW_YORK), done, 1)}
    looks = [clocks(rules, facts, reached, now.astimezone(zone), zone)[0] for now in (one, other)]
    assert looks[0] == looks[1]
    due = later(aware, within, zone)
    assert looks[0].lateness == max(done - due, timedelta(0))
    assert looks[0].state is (ClockState.LATE if done > due else ClockState.MET)


@given(MOMENT, MOMENT, LENGTHS)
def test_what_runs_is_late_exactly_from_its_due_time_on(
    aware: datetime, now: datetime, after: timedelta
):
    """Until something happens a clock gets only later, and what is left only less."""
    rules, facts = [rule("x", within="P3D")], Facts(aware, "misdelivery")
    first, second = (clocks(rules, facts, {}, at, SHANGHAI)[0] for at in (now, now + after))
    assert first.due_at is not None
    assert first.is_late == (now > first.due_at) == (first.state is ClockState.OVERDUE)
    assert (first.remaining is None) == first.is_late
    assert second.lateness >= first.lateness


@given(MOMENT, MOMENT, LENGTHS, st.booleans())
def test_what_was_late_before_it_ended_stays_told(
    aware: datetime, ended: datetime, after: timedelta, cancelled: bool
):
    """Cancelling or regrading hides nothing that was late, and makes nothing late."""
    if cancelled:
        facts = Facts(aware, "misdelivery", cancelled_at=ended, graded=(Graded("larger", aware),))
    else:
        facts = Facts(
            aware, "misdelivery", graded=(Graded("larger", aware), Graded("general", ended))
        )
    rules = [rule("x", within="PT4H", grades=["larger"])]
    before = Facts(aware, "misdelivery", graded=(Graded("larger", aware),))
    was = clocks(rules, before, {}, ended, SHANGHAI)[0].lateness
    found = clocks(rules, facts, {}, ended + after, SHANGHAI)[0]
    assert found.lateness == was
    assert not found.is_open


def test_moments_of_one_zone_are_not_compared_by_their_wall_clocks():
    """Python does, where two moments have one and the same timezone."""
    aware = datetime(2026, 11, 1, 1, 30, tzinfo=NEW_YORK)
    done = datetime(2026, 11, 1, 2, 45, tzinfo=NEW_YORK)  # two hours and a quarter later
    reached = {"contained": Reached(done, done, 1)}
    rules = [rule("x", within="PT2H")]
    found = clocks(rules, Facts(aware, "misdelivery"), reached, done, NEW_YORK)[0]
    assert found.lateness == timedelta(minutes=15)


def test_a_moment_without_timezone_is_refused():
    """It would be taken for one of the machine's."""
    with pytest.raises(ValueError, match="no timezone"):
        utc(datetime(2026, 3, 2, 9))  # noqa: DTZ001 - that is the test


def test_a_period_beyond_the_calendar_is_told_by_name():
    """Ten thousand years have no due time."""
    with pytest.raises(UsageError, match=r"P9999Y.*policy pack"):
        later(datetime(2026, 3, 2, tzinfo=UTC), Period.parse("P9999Y"), SHANGHAI)


def test_people_see_first_what_has_to_be_done_first():
    """Overdue, soon, later, perhaps, over; by due time in each."""
    aware = datetime(2026, 3, 2, 1, tzinfo=UTC)
    found = look([], aware + timedelta(hours=3, minutes=30), aware_at=aware)
    shown = [(one.id, str(one.state)) for one in for_people(found.values())]
    assert (
        shown
        == [
            ("plan_started", "overdue"),
            ("team_called", "overdue"),
            ("graded", "overdue"),
            ("contained", "due_soon"),
            ("postal_first", "due_soon"),
            ("cac_general", "running"),
            ("individuals", "running"),
            ("cac_first", "not_yet"),
            ("summary_general", "not_begun"),
            ("summary", "not_yet"),
            ("cac_first_critical", "not_applicable"),
        ]
        or shown
    )
    assert [one.id for one in late(found.values())] == ["plan_started", "team_called", "graded"]


@pytest.mark.parametrize(
    ("said", "facts", "found"),
    [
        ({}, {}, Bearing.YES),
        ({"types": ["lost_device"]}, {}, Bearing.NO),
        ({"types": ["misdelivery"]}, {}, Bearing.YES),
        ({"critical": True}, {}, Bearing.NO),
        ({"critical": True}, {"critical": True}, Bearing.YES),
        ({"critical": False}, {"critical": True}, Bearing.NO),
        ({"grades": ["major"]}, {}, Bearing.PROVISIONAL),
        ({"grades": ["major"]}, {"proposed": "major"}, Bearing.PROVISIONAL),
        ({"grades": ["major"]}, {"proposed": "general"}, Bearing.NOT_YET),
        ({"grades": ["major"]}, {"graded": ["major"]}, Bearing.YES),
        ({"grades": ["major"]}, {"graded": ["general"], "proposed": "major"}, Bearing.NO),
        ({"grades": ["major"]}, {"graded": ["major", "general"]}, Bearing.LAPSED),
        ({"grades": ["major"]}, {"graded": ["major", "general", "major"]}, Bearing.YES),
    ],
)
def test_a_rule_applies_by_type_systems_and_grade(said: dict, facts: dict, found: Bearing):
    """Before a grade is confirmed by the proposed one; and where nobody could count, by any."""
    at = datetime(2026, 3, 2, 1, tzinfo=UTC)
    graded = tuple(Graded(one, at) for one in facts.pop("graded", ()))
    given_facts = Facts(at, "misdelivery", graded=graded, **facts)
    assert bearing(rule("x", within="PT4H", **said), given_facts) is found


def test_clocks_come_in_the_order_of_their_rules():
    """One each, whatever applies."""
    facts = Facts(datetime(2026, 3, 2, 1, tzinfo=UTC), "misdelivery")
    found: list[Clock] = clocks(shipped().clocks, facts, {}, facts.aware_at, SHANGHAI)
    assert [one.rule for one in found] == list(shipped().clocks)
