"""What pruning keeps: an algebra that holds for any restore points and rules."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings
from hypothesis import strategies as st

from include.backup.prune import Age, plan_pruning
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
def points(draw: st.DrawFn) -> list[Age]:
    hours = draw(st.lists(st.integers(0, 24 * 120), max_size=40, unique=True))
    made = []
    for hour in hours:
        taken = START - timedelta(hours=hour)
        lock = draw(st.none() | st.integers(-10, 40))
        made.append(
            Age(
                f"p{hour:04d}",
                taken,
                taken + timedelta(days=draw(st.sampled_from([35, 90]))),
                None if lock is None else START + timedelta(days=lock),
            )
        )
    return draw(st.permutations(made))


def removed(found: list[Age], rules: Keep, held: set[str], now: datetime = START) -> set[str]:
    return {one.id for one in plan_pruning(found, rules, held, now, SHANGHAI) if one.remove}


@given(found=points(), rules=RULES, held=st.sets(st.integers(0, 60).map(lambda n: f"p{n:04d}")))
@settings(max_examples=150, deadline=None)
def test_what_must_stay_stays(found: list[Age], rules: Keep, held: set[str]):
    """Every point has one verdict, newest first; floor, held, locked, newest are never removed."""
    verdicts = plan_pruning(found, rules, held, START, SHANGHAI)
    newest_first = sorted(found, key=lambda one: one.taken_at, reverse=True)
    assert [one.id for one in verdicts] == [one.id for one in newest_first]
    gone = {one.id for one in verdicts if one.remove}
    assert not gone & {one.id for one in newest_first[: rules.floor]}
    assert not gone & held
    assert not gone & {one.id for one in found if one.locked_until and one.locked_until > START}
    assert len(found) - len(gone) >= min(rules.floor, len(found))
    expired = {one.id for one in found if one.expires_at <= START}
    kept_expired = expired - gone
    reasons = {one.id: one.reason for one in verdicts}
    assert all(reasons[one] in {"floor", "legal hold", "locked"} for one in kept_expired)
    assert all(reasons[one] == "expired" for one in expired & gone)


@given(found=points(), rules=RULES, held=st.sets(st.integers(0, 60).map(lambda n: f"p{n:04d}")))
@settings(max_examples=100, deadline=None)
def test_planning_again_removes_nothing_more(found: list[Age], rules: Keep, held: set[str]):
    """After what was planned is gone, the same moment asks for nothing else."""
    gone = removed(found, rules, held)
    assert removed([one for one in found if one.id not in gone], rules, held) == set()


@given(found=points(), rules=RULES, more=RULES, held=st.sets(st.sampled_from(["p0000", "p0030"])))
@settings(max_examples=100, deadline=None)
def test_keeping_more_never_removes_more(found: list[Age], rules: Keep, more: Keep, held: set[str]):
    """Each rule, each hold and each lock only ever adds to what is kept."""
    wider = keep(
        rules.daily + more.daily,
        rules.weekly + more.weekly,
        rules.monthly + more.monthly,
        rules.floor + more.floor,
    )
    narrow = removed(found, rules, set())
    assert removed(found, wider, set()) <= narrow
    assert removed(found, rules, held) <= narrow
    locked = [replace(one, locked_until=START + timedelta(days=1)) for one in found]
    assert removed(locked, rules, set()) == set()


@given(found=points(), rules=RULES)
@settings(max_examples=100, deadline=None)
def test_each_of_the_last_days_weeks_and_months_keeps_its_newest(found: list[Age], rules: Keep):
    """Of those that have one and did not expire; said again without the code under test."""
    gone = removed(found, rules, set())
    for count, form in (
        (rules.daily, "%Y-%m-%d"),
        (rules.weekly, "%G-%V"),
        (rules.monthly, "%Y-%m"),
    ):
        newest: dict[str, Age] = {}
        for one in sorted(found, key=lambda age: age.taken_at):
            newest[f"{one.taken_at.astimezone(SHANGHAI):{form}}"] = one
        for period in sorted(newest, reverse=True)[:count]:
            assert newest[period].id not in gone or newest[period].expires_at <= START


def daily(days: int) -> list[Age]:
    taken = [START - timedelta(days=day) for day in range(days)]
    return [Age(f"{at:%m%d}", at, at + timedelta(days=90)) for at in taken]


def test_an_ordinary_quarter_of_daily_backups():
    """Seven days, five weeks, three months: written out."""
    verdicts = plan_pruning(daily(120), keep(7, 5, 3, 3), set(), START, SHANGHAI)
    kept = {one.id: one.reason for one in verdicts if not one.remove}
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
    reasons = {one.id: one.reason for one in verdicts if one.remove}
    assert reasons["1117"] == "superseded"
    assert reasons["0826"] == "expired"


def test_days_begin_in_the_packs_timezone():
    """17:00 UTC is the next day in Shanghai: two days there, one in UTC."""
    found = [
        Age(name, at, at + timedelta(days=90))
        for name, at in (
            ("late", datetime(2026, 11, 10, 17, tzinfo=UTC)),
            ("early", datetime(2026, 11, 10, 10, tzinfo=UTC)),
        )
    ]
    rules = keep(2, 0, 0, 1)
    assert removed(found, rules, set()) == set()
    in_utc = plan_pruning(found, rules, set(), START, ZoneInfo("UTC"))
    assert [one.remove for one in in_utc] == [False, True]


def test_the_edges_of_expiry_and_lock():
    """A point goes at the second it expires, a lock holds until the second it ends."""
    first, old = daily(1)[0], Age("old", START - timedelta(days=90), START)
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
