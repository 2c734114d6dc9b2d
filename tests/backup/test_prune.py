"""Test properties of pruning plans with random restore points and rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from include.backup.prune import RestorePointTimes, plan_pruning
from include.policy.rules import Keep

SHANGHAI, START = ZoneInfo("Asia/Shanghai"), datetime(2026, 11, 24, 2, tzinfo=UTC)


def keep(daily: int, weekly: int, monthly: int, floor: int) -> Keep:
    return Keep(daily=daily, weekly=weekly, monthly=monthly, floor=floor)


RULES = (
    st.tuples(st.integers(0, 10), st.integers(0, 6), st.integers(0, 4), st.integers(1, 5))
    .filter(lambda figures: sum(figures[:3]) >= figures[3])
    .map(lambda figures: keep(*figures))
)


@st.composite
def points(draw: st.DrawFn) -> list[RestorePointTimes]:
    hours = draw(st.lists(st.integers(0, 24 * 120), max_size=40, unique=True))
    points = []
    for hour in hours:
        taken = START - timedelta(hours=hour)
        lock = draw(st.none() | st.integers(-10, 40))
        points.append(
            RestorePointTimes(
                f"p{hour:04d}",
                taken,
                taken + timedelta(days=draw(st.sampled_from([35, 90]))),
                None if lock is None else START + timedelta(days=lock),
            )
        )
    return draw(st.permutations(points))


def removed(
    points: list[RestorePointTimes], rules: Keep, held: set[str], now: datetime = START
) -> set[str]:
    return {point.id for point in plan_pruning(points, rules, held, now, SHANGHAI) if point.remove}


@given(points=points(), rules=RULES, held=st.sets(st.integers(0, 60).map(lambda n: f"p{n:04d}")))
@settings(max_examples=150, deadline=None)
def test_pruning_plan_keeps_newest_restore_points_and_those_with_lock_or_legal_hold(
    points: list[RestorePointTimes], rules: Keep, held: set[str]
):
    """Every restore point has exactly one decision, and decisions are ordered newest first."""
    decisions = plan_pruning(points, rules, held, START, SHANGHAI)
    newest_first = sorted(points, key=lambda point: point.taken_at, reverse=True)
    assert [decision.id for decision in decisions] == [point.id for point in newest_first]
    gone = {decision.id for decision in decisions if decision.remove}
    assert not gone & {point.id for point in newest_first[: rules.floor]}
    assert not gone & held
    assert not gone & {
        point.id for point in points if point.locked_until and point.locked_until > START
    }
    assert len(points) - len(gone) >= min(rules.floor, len(points))
    expired = {point.id for point in points if point.expires_at <= START}
    kept_expired = expired - gone
    reasons = {decision.id: decision.reason for decision in decisions}
    assert all(reasons[point] in {"floor", "legal hold", "locked"} for point in kept_expired)
    assert all(reasons[point] == "expired" for point in expired & gone)


@given(points=points(), rules=RULES, held=st.sets(st.integers(0, 60).map(lambda n: f"p{n:04d}")))
@settings(max_examples=100, deadline=None)
def test_pruning_again_with_the_same_rules_removes_nothing(
    points: list[RestorePointTimes], rules: Keep, held: set[str]
):
    gone = removed(points, rules, held)
    assert removed([point for point in points if point.id not in gone], rules, held) == set()


@given(points=points(), rules=RULES, more=RULES, held=st.sets(st.sampled_from(["p0000", "p0030"])))
@settings(max_examples=100, deadline=None)
def test_pruning_plan_removes_no_additional_restore_point_if_retention_or_locks_are_extended(
    points: list[RestorePointTimes], rules: Keep, more: Keep, held: set[str]
):
    wider = keep(
        rules.daily + more.daily,
        rules.weekly + more.weekly,
        rules.monthly + more.monthly,
        rules.floor + more.floor,
    )
    narrow = removed(points, rules, set())
    assert removed(points, wider, set()) <= narrow
    assert removed(points, rules, held) <= narrow
    locked = [replace(point, locked_until=START + timedelta(days=1)) for point in points]
    assert removed(locked, rules, set()) == set()


@given(points=points(), rules=RULES)
@settings(max_examples=100, deadline=None)
def test_newest_restore_point_of_each_day_week_and_month_is_kept(
    points: list[RestorePointTimes], rules: Keep
):
    """The test computes the expected restore points itself."""
    gone = removed(points, rules, set())
    for count, form in (
        (rules.daily, "%Y-%m-%d"),
        (rules.weekly, "%G-%V"),
        (rules.monthly, "%Y-%m"),
    ):
        newest: dict[str, RestorePointTimes] = {}
        for point in sorted(points, key=lambda age: age.taken_at):
            newest[f"{point.taken_at.astimezone(SHANGHAI):{form}}"] = point
        for period in sorted(newest, reverse=True)[:count]:
            assert newest[period].id not in gone or newest[period].expires_at <= START


def daily(days: int) -> list[RestorePointTimes]:
    taken = [START - timedelta(days=day) for day in range(days)]
    return [RestorePointTimes(f"{at:%m%d}", at, at + timedelta(days=90)) for at in taken]


def test_pruning_plan_keeps_restore_points_of_seven_days_five_weeks_and_three_months():
    """The rules keep seven days, five weeks and three months."""
    decisions = plan_pruning(daily(120), keep(7, 5, 3, 3), set(), START, SHANGHAI)
    kept = {decision.id: decision.reason for decision in decisions if not decision.remove}
    assert kept == {
        "1124": "floor",
        "1123": "floor",
        "1122": "floor",
        "1121": "daily",
        "1120": "daily",
        "1119": "daily",
        "1118": "daily",
        "1115": "weekly",
        "1108": "weekly",
        "1101": "weekly",
        "1031": "monthly",
        "0930": "monthly",
    }
    reasons = {decision.id: decision.reason for decision in decisions if decision.remove}
    assert reasons["1117"] == "superseded"
    assert reasons["0826"] == "expired"


def test_pruning_plan_separates_days_by_the_timezone_of_the_policy_pack():
    """In Shanghai, 17:00 UTC is already the next day.

    So the two restore points are of different days.
    """
    points = [
        RestorePointTimes(name, at, at + timedelta(days=90))
        for name, at in (
            ("late", datetime(2026, 11, 10, 17, tzinfo=UTC)),
            ("early", datetime(2026, 11, 10, 10, tzinfo=UTC)),
        )
    ]
    rules = keep(2, 0, 0, 1)
    assert removed(points, rules, set()) == set()
    in_utc = plan_pruning(points, rules, set(), START, ZoneInfo("UTC"))
    assert [point.remove for point in in_utc] == [False, True]


def test_restore_point_is_removed_at_the_moment_when_it_expires_and_its_lock_ends():
    """At the exact time of expiry, a restore point has expired. A lock ends in the same way."""
    first, old = daily(1)[0], RestorePointTimes("old", START - timedelta(days=90), START)
    rules = keep(0, 0, 3, 1)
    assert removed([first, old], rules, set()) == {"old"}
    assert (
        removed([first, replace(old, expires_at=START + timedelta(seconds=1))], rules, set())
        == set()
    )
    at_end = replace(old, locked_until=START)
    assert removed([first, at_end], rules, set()) == {"old"}
    assert (
        removed([first, replace(at_end, locked_until=START + timedelta(seconds=1))], rules, set())
        == set()
    )
    assert removed([], rules, set()) == set()
