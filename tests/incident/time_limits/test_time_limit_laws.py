"""Tests, with random times, of properties that every time limit has."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from include.incident.time_limits.milestones import ConfirmedGrade, ReachedMilestone
from include.incident.time_limits.time_limit import (
    Applicability,
    IncidentFacts,
    TimeLimit,
    TimeLimitState,
    applicability,
    compute_time_limits,
    missed_time_limits,
    sort_by_urgency,
)
from include.policy.period import Period, add_period, subtract_period, utc
from include.services.errors import UsageError
from tests.incident.time_limits.time_limit_fixtures import SHANGHAI, look, rule, shipped

NEW_YORK, LORD_HOWE = ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe")
ZONES = st.sampled_from(
    [SHANGHAI, NEW_YORK, LORD_HOWE, ZoneInfo("Europe/Berlin"), ZoneInfo("Africa/Casablanca")]
)
MOMENTS = st.timedeltas(timedelta(0), timedelta(days=850)).map(
    lambda after: datetime(2025, 12, 1, tzinfo=UTC) + after
)
# Around daylight saving changes nearly every hour is a special case.
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
def test_later_awareness_never_gives_an_earlier_deadline(
    aware: datetime, after: timedelta, within: Period, zone: ZoneInfo
):
    assert add_period(aware, within, zone) <= add_period(aware + after, within, zone)
    assert subtract_period(aware, within, zone) <= subtract_period(aware + after, within, zone)


@given(MOMENT, LENGTHS, st.integers(1, 30), ZONES)
def test_later_awareness_never_gives_an_earlier_deadline_date_if_period_is_in_months(
    aware: datetime, after: timedelta, months: int, zone: ZoneInfo
):
    within = Period.parse(f"P{months}M")
    dates = [add_period(at, within, zone).astimezone(zone).date() for at in (aware, aware + after)]
    assert dates == sorted(dates)


@given(MOMENT, st.integers(1, 400_000), ZONES)
def test_deadline_is_exactly_the_given_number_of_seconds_after_start_in_every_timezone(
    aware: datetime, seconds: int, zone: ZoneInfo
):
    due = add_period(aware.astimezone(zone), Period.parse(f"PT{seconds}S"), zone)
    assert due - aware == timedelta(seconds=seconds)


@given(MOMENT, st.integers(1, 60), ZONES)
def test_time_limit_in_days_ends_at_the_time_of_day_at_which_it_started(
    aware: datetime, days: int, zone: ZoneInfo
):
    begin, due = aware.astimezone(zone), add_period(aware, Period.parse(f"P{days}D"), zone)
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
def test_lateness_stays_the_same_after_milestone_was_reached(
    aware: datetime,
    done: datetime,
    first_look: datetime,
    second_look: datetime,
    zone: ZoneInfo,
    within: Period,
):
    rules, facts = [rule("x", within=str(within))], IncidentFacts(aware, "misdelivery")
    reached = {"contained": ReachedMilestone(done.astimezone(NEW_YORK), done, 1)}
    time_limits = [
        compute_time_limits(rules, facts, reached, now.astimezone(zone), zone)[0]
        for now in (first_look, second_look)
    ]
    assert time_limits[0] == time_limits[1]
    due = add_period(aware, within, zone)
    assert time_limits[0].lateness == max(done - due, timedelta(0))
    assert time_limits[0].state is (TimeLimitState.LATE if done > due else TimeLimitState.MET)


@given(MOMENT, MOMENT, LENGTHS)
def test_open_time_limit_is_late_from_the_moment_after_its_deadline(
    aware: datetime, now: datetime, after: timedelta
):
    rules, facts = [rule("x", within="P3D")], IncidentFacts(aware, "misdelivery")
    first, second = (
        compute_time_limits(rules, facts, {}, at, SHANGHAI)[0] for at in (now, now + after)
    )
    assert first.due_at is not None
    assert first.is_late == (now > first.due_at) == (first.state is TimeLimitState.OVERDUE)
    assert (first.remaining is None) == first.is_late
    assert second.lateness >= first.lateness


@given(MOMENT, MOMENT, LENGTHS, st.booleans())
def test_lateness_is_unchanged_after_cancellation_or_a_new_grade_has_ended_the_time_limit(
    aware: datetime, ended: datetime, after: timedelta, cancelled: bool
):
    if cancelled:
        facts = IncidentFacts(
            aware, "misdelivery", cancelled_at=ended, graded=(ConfirmedGrade("larger", aware),)
        )
    else:
        facts = IncidentFacts(
            aware,
            "misdelivery",
            graded=(ConfirmedGrade("larger", aware), ConfirmedGrade("general", ended)),
        )
    rules = [rule("x", within="PT4H", grades=["larger"])]
    before = IncidentFacts(aware, "misdelivery", graded=(ConfirmedGrade("larger", aware),))
    lateness_at_end = compute_time_limits(rules, before, {}, ended, SHANGHAI)[0].lateness
    time_limit = compute_time_limits(rules, facts, {}, ended + after, SHANGHAI)[0]
    assert time_limit.lateness == lateness_at_end
    assert not time_limit.is_open


def test_lateness_equals_elapsed_time_across_daylight_saving_change():
    aware = datetime(2026, 11, 1, 1, 30, tzinfo=NEW_YORK)
    done = datetime(2026, 11, 1, 2, 45, tzinfo=NEW_YORK)  # two hours and a quarter later
    reached = {"contained": ReachedMilestone(done, done, 1)}
    rules = [rule("x", within="PT2H")]
    time_limit = compute_time_limits(
        rules, IncidentFacts(aware, "misdelivery"), reached, done, NEW_YORK
    )[0]
    assert time_limit.lateness == timedelta(minutes=15)


def test_utc_raises_value_error_for_naive_datetime():
    with pytest.raises(ValueError, match="no timezone"):
        utc(datetime(2026, 3, 2, 9))  # noqa: DTZ001 - that is the test


def test_error_about_deadline_after_year_9999_contains_the_period():
    with pytest.raises(UsageError, match=r"P9999Y.*policy pack"):
        add_period(datetime(2026, 3, 2, tzinfo=UTC), Period.parse("P9999Y"), SHANGHAI)


def test_sort_by_urgency_orders_by_state_and_deadline():
    aware = datetime(2026, 3, 2, 1, tzinfo=UTC)
    time_limits = look([], aware + timedelta(hours=3, minutes=30), aware_at=aware)
    states = [
        (time_limit.id, str(time_limit.state))
        for time_limit in sort_by_urgency(time_limits.values())
    ]
    assert (
        states
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
        or states
    )
    assert [
        missed_time_limit.id for missed_time_limit in missed_time_limits(time_limits.values())
    ] == [
        "plan_started",
        "team_called",
        "graded",
    ]


@pytest.mark.parametrize(
    ("fields", "facts", "expected"),
    [
        ({}, {}, Applicability.YES),
        ({"types": ["lost_device"]}, {}, Applicability.NO),
        ({"types": ["misdelivery"]}, {}, Applicability.YES),
        ({"critical": True}, {}, Applicability.NO),
        ({"critical": True}, {"critical": True}, Applicability.YES),
        ({"critical": False}, {"critical": True}, Applicability.NO),
        ({"grades": ["major"]}, {}, Applicability.PROVISIONAL),
        ({"grades": ["major"]}, {"proposed": "major"}, Applicability.PROVISIONAL),
        ({"grades": ["major"]}, {"proposed": "general"}, Applicability.NOT_YET),
        ({"grades": ["major"]}, {"graded": ["major"]}, Applicability.YES),
        ({"grades": ["major"]}, {"graded": ["general"], "proposed": "major"}, Applicability.NO),
        ({"grades": ["major"]}, {"graded": ["major", "general"]}, Applicability.LAPSED),
        ({"grades": ["major"]}, {"graded": ["major", "general", "major"]}, Applicability.YES),
    ],
)
def test_time_limit_applies_only_to_its_incident_types_critical_systems_and_grades(
    fields: dict, facts: dict, expected: Applicability
):
    at = datetime(2026, 3, 2, 1, tzinfo=UTC)
    graded = tuple(ConfirmedGrade(grade, at) for grade in facts.pop("graded", ()))
    incident_facts = IncidentFacts(at, "misdelivery", graded=graded, **facts)
    assert applicability(rule("x", within="PT4H", **fields), incident_facts) is expected


def test_compute_time_limits_returns_time_limits_in_the_order_of_the_policy_pack():
    facts = IncidentFacts(datetime(2026, 3, 2, 1, tzinfo=UTC), "misdelivery")
    time_limits: list[TimeLimit] = compute_time_limits(
        shipped().clocks, facts, {}, facts.aware_at, SHANGHAI
    )
    assert [time_limit.rule for time_limit in time_limits] == list(shipped().clocks)
