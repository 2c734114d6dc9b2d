"""Waking people: once for each rung, whenever somebody looks, and never a flood after a night."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.incident.clocks.clock import Clock
from include.incident.clocks.milestones import Graded
from include.incident.clocks.waking import (
    STEPS,
    WakeUp,
    line,
    next_look,
    notices,
    told_words,
    wake_ups,
    wanted,
)
from include.incident.names import ALERT, Kind
from include.incident.rules import Wake
from include.notify.notice import Notice
from include.reports.i18n import Translator
from tests.incident.clocks.clock_rig import SHANGHAI, entry, look, roles, rule, shipped

NUMBER = "INC-2026-0001"
AWARE = datetime(2026, 3, 2, 1, tzinfo=UTC)  # 09:00 in Shanghai
WAKE = shipped().wake
FOUR_HOURS = rule("x", "reported", authority="cac", within="PT4H")  # due at 05:00 UTC
AT = st.integers(0, 16 * 3600).map(lambda seconds: AWARE + timedelta(seconds=seconds))


def h(hours: float) -> datetime:
    return AWARE + timedelta(hours=hours)


def standing(now: datetime, done: datetime | None = None) -> list[Clock]:
    entries = [entry(1, Kind.REPORTED, done, authority="cac")] if done and done <= now else []
    return list(look(entries, now, rules=[FOUR_HOURS], aware_at=AWARE).values())


def woken(now: datetime, before: set[str] | None = None) -> list[str]:
    found = wake_ups(NUMBER, standing(now), WAKE, now, SHANGHAI, before or set())
    return [one.key.removeprefix(f"{NUMBER}/") for one in found]


@pytest.mark.parametrize(
    ("hours", "found"),
    [
        (0, []),
        (2.99, []),
        (3, ["x/before/PT1H"]),
        (3.74, ["x/before/PT1H"]),
        (3.75, ["x/before/PT15M"]),
        (4, ["x/before/PT15M"]),
        (4 + 1 / 3600, ["x/after/PT1S"]),
        (4.99, ["x/after/PT1S"]),
        (5, ["x/after/PT1H"]),
        (10, ["x/after/PT6H"]),
        (1000, ["x/after/P7D"]),
    ],
)
def test_the_newest_rung_that_passed_is_told(hours: float, found: list[str]):
    """A clock of four hours, looked at once: after a night without Airflow just one rung is."""
    assert woken(h(hours)) == found


@given(st.lists(AT, min_size=1, max_size=40), st.none() | AT)
def test_every_rung_is_told_at_most_once_whenever_somebody_looks(
    looks: list[datetime], done: datetime | None
):
    """Whatever lies between two looks: seconds, or the hours in which nothing ran."""
    keys: list[str] = []
    at: list[datetime] = []
    for now in sorted(looks):
        found = wake_ups(NUMBER, standing(now, done), WAKE, now, SHANGHAI, keys)
        assert len(found) <= 1
        assert not found or not done or now < done
        keys += [one.key for one in found]
        at += [one.at for one in found]
    assert len(keys) == len(set(keys))
    assert at == sorted(at)


@given(st.lists(AT, min_size=1, max_size=20))
def test_after_any_downtime_people_are_told_how_it_stands_now(looks: list[datetime]):
    """Whatever was told before: once somebody has looked, they know the newest rung."""
    keys: list[str] = []
    for now in sorted(looks):
        keys += [one.key for one in wake_ups(NUMBER, standing(now), WAKE, now, SHANGHAI, keys)]
        newest = [f"{NUMBER}/{one}" for one in woken(now)]
        assert keys[-1:] == newest or not newest


def test_whoever_looks_whenever_it_says_tells_every_rung():
    """From one moment of `next_look` to the other, nothing is missed and nothing is early."""
    now: datetime | None = AWARE
    keys: list[str] = []
    while now is not None:
        found = wake_ups(NUMBER, standing(now), WAKE, now, SHANGHAI, keys)
        assert [one.at for one in found] in ([], [now])
        keys += [one.key for one in found]
        now = next_look(standing(now), WAKE, now, SHANGHAI)
    assert [key.partition("/x/")[2] for key in keys] == [
        "before/PT1H",
        "before/PT15M",
        "after/PT1S",
        "after/PT1H",
        "after/PT6H",
        "after/P1D",
        "after/P3D",
        "after/P7D",
    ]


def test_nobody_looks_again_where_nothing_is_to_be_told():
    """Done, ended, or not begun: no rung is left."""
    assert next_look(standing(h(2), done=h(1)), WAKE, h(2), SHANGHAI) is None
    later = look([], h(2), rules=[rule("y", begins="closing", within="P30D")], aware_at=AWARE)
    assert next_look(later.values(), WAKE, h(2), SHANGHAI) is None
    assert wake_ups(NUMBER, later.values(), WAKE, h(2), SHANGHAI) == []


def test_nobody_is_told_before_the_clock_begins():
    """An hour before the end of half an hour is no rung: people were called just then."""
    short = look([], h(0.1), rules=[rule("y", within="PT30M")], aware_at=AWARE)
    assert wake_ups(NUMBER, short.values(), WAKE, h(0.1), SHANGHAI) == []
    assert next_look(short.values(), WAKE, h(0.1), SHANGHAI) == h(0.25)


def test_a_clock_of_a_month_is_told_of_a_week_and_a_day_before():
    """By a ladder for hours alone, whoever writes the summary would hear of it an hour before."""
    rules, due = [rule("y", within="P30D")], AWARE + timedelta(days=30)
    month = list(look([], AWARE, rules=rules, aware_at=AWARE).values())
    first = next_look(month, WAKE, AWARE, SHANGHAI)
    assert first == due - timedelta(days=7)
    assert next_look(month, WAKE, first, SHANGHAI) == due - timedelta(days=1)


def test_nobody_is_told_that_something_will_be_due_once_it_was():
    """Where the pack tells nothing in the first hour after, nothing is told in it."""
    calm = Wake.model_validate({"before": ["PT1H"], "after": ["PT1H"]})
    assert wake_ups(NUMBER, standing(h(4.5)), calm, h(4.5), SHANGHAI) == []
    assert next_look(standing(h(4.5)), calm, h(4.5), SHANGHAI) == h(5)


def shipped_at(now: datetime, *grades: Graded, proposed: str = "general") -> list[Clock]:
    entries = [
        entry(place, Kind.GRADED, one.at, grade=one.grade) for place, one in enumerate(grades, 1)
    ]
    return list(look(entries, now, aware_at=AWARE, proposed=proposed).values())


def told_at(now: datetime, clock: str, **said: str) -> list[Notice]:
    found = wake_ups(NUMBER, shipped_at(now, **said), WAKE, now, SHANGHAI)
    mine = [one for one in found if one.clock.id == clock]
    return list(notices(mine, shipped(), roles(), SHANGHAI))


@pytest.mark.parametrize(
    ("clock", "hours", "recipients"),
    [
        ("graded", 1.5, ["role:compliance"]),
        ("contained", 3.5, ["role:data_engineering"]),
        ("postal_first", 3.5, ["role:compliance"]),
        ("individuals", 71.5, ["role:compliance", "role:management"]),
        ("team_called", 0.8, ["role:information_management"]),
        ("graded", 2.5, ["role:compliance", "role:management"]),
        ("contained", 5, ["role:data_engineering", "role:management"]),
        ("team_called", 2, ["role:information_management", "role:management"]),
        ("individuals", 80, ["role:compliance", "role:management"]),
    ],
)
def test_those_are_told_whose_step_it_is_and_management_once_it_is_late(
    clock: str, hours: float, recipients: list[str]
):
    """By role of the duty that reaches the milestone; who leads where a task does."""
    found = told_at(h(hours), clock)
    assert [one.recipient for one in found] == recipients
    assert len({one.key for one in found}) == len(found)
    assert all(one.kind == ALERT and one.urgent and "@" in one.address for one in found)


def test_every_human_step_that_ends_a_clock_is_one_of_the_pack():
    """A milestone that no step reaches is one of tasks."""
    assert {step for steps in STEPS.values() for step in steps} <= set(shipped().steps)
    assert {one.ends for one in shipped().clocks} - set(STEPS) == {"opened", "team_called"}


def texts(one: Notice, locale: str) -> tuple[str, str]:
    words = Translator(locale, "Asia/Shanghai")
    return words.text(one.heading), words.text(one.line)


def test_a_notice_says_what_is_due_when_and_where_it_is_done():
    """In both languages, in the pack's time, with the incident's number and the step."""
    found = told_at(h(3), "postal_first")[0]
    assert found.key == f"{NUMBER}/postal_first/before/PT1H/compliance"
    assert found.due_on is not None
    assert found.due_on.isoformat() == "2026-03-02"
    assert texts(found, "en") == (
        "Incident INC-2026-0001: due soon",
        "“First report to the postal administration” is due by 2026-03-02 13:00 UTC+08:00. "
        "In Airflow: respond_to_incident, step report.",
    )
    heading, said = texts(found, "zh_CN")
    assert NUMBER in heading
    assert "向邮政管理部门首次报告" in said
    assert "2026-03-02 13:00" in said


def test_what_is_overdue_is_told_loudly():
    """The first words say it, and what to do at once."""
    found = told_at(h(8), "postal_first")
    assert [one.key for one in found] == [
        f"{NUMBER}/postal_first/after/PT1H/compliance",
        f"{NUMBER}/postal_first/after/PT1H/management",
    ]
    heading, said = texts(found[1], "en")
    assert heading == "Incident INC-2026-0001: OVERDUE"
    assert said.startswith("OVERDUE: “First report to the postal administration” was due by ")
    assert said.endswith("Do it now, and enter when it was done.")


def test_what_runs_for_a_grade_that_nobody_confirmed_says_so():
    """People are woken in time all the same, and first of all confirm it."""
    found = told_at(h(3), "cac_first", proposed="larger")
    assert texts(found[0], "en")[1].endswith("The grade is not confirmed yet: confirm it first.")
    assert told_at(h(3), "cac_first", proposed="general") == []


def test_the_timeline_says_who_was_told_of_what():
    """For the readers of a bundle."""
    words = Translator("en", "Asia/Shanghai")
    before, after = (wake_ups(NUMBER, standing(h(at)), WAKE, h(at), SHANGHAI)[0] for at in (3, 5))
    assert words.text(told_words(before)).startswith("People were told that “x” is due by 2026")
    assert "management" in words.text(told_words(after))
    assert "is due by" in words.text(line(before))


def keys_of(found: list[WakeUp]) -> list[str]:
    return [one.key for one in notices(found, shipped(), roles(), SHANGHAI)]


def test_what_could_not_leave_in_time_is_taken_back():
    """The mail server was down from the first rung on: of each clock only the newest is sent, and
    nothing of what was done, or is worse by now.
    """
    keys = []
    for at in (3, 3.75, 4.1, 5):
        found = wake_ups(NUMBER, shipped_at(h(at)), WAKE, h(at), SHANGHAI)
        keys += keys_of([one for one in found if one.clock.id == "postal_first"])
    assert len(keys) == 6
    before, after = keys[:2], keys[2:]
    assert wanted(before, NUMBER, shipped_at(h(3.8)), SHANGHAI) == {before[1]}
    assert wanted(keys, NUMBER, shipped_at(h(5.5)), SHANGHAI) == set(after[2:])
    assert wanted(before, NUMBER, shipped_at(h(5.5)), SHANGHAI) == set()
    done = entry(1, Kind.REPORTED, h(5.2), authority="postal")
    stands = look([done], h(5.5), aware_at=AWARE).values()
    assert wanted(keys, NUMBER, stands, SHANGHAI) == set()


def test_what_is_no_wake_up_of_this_incident_is_none_of_ours():
    """The call to the team is always wanted; what another incident wants only it knows."""
    call, other = f"{NUMBER}/called/technical", "INC-2026-0002/called/technical"
    second = f"{NUMBER}/called/technical#1"
    assert wanted([call, second, other], NUMBER, standing(h(3)), SHANGHAI) == {call, second}


def test_every_address_of_a_role_keeps_its_newest_rung():
    """Keys of the second address and of the robot end otherwise."""
    keys = [
        f"{NUMBER}/x/after/{rung}/compliance{address}"
        for address in ("", "#1", "#robot")
        for rung in ("PT1S", "PT6H", "PT1H")
    ]
    newest = {one for one in keys if "/PT6H/" in one}
    assert wanted(keys, NUMBER, standing(h(11)), SHANGHAI) == newest


@pytest.mark.parametrize(("month", "newest"), [(2, "P30D"), (3, "P1M")])
def test_a_month_is_that_of_the_calendar(month: int, newest: str):
    """From 10 February it is 28 days, from 10 March 31."""
    due = datetime(2026, month, 10, 1, tzinfo=UTC)
    keys = [f"{NUMBER}/x/after/{rung}/compliance" for rung in ("P30D", "P1M")]
    late = look(
        [], due + timedelta(days=32), rules=[FOUR_HOURS], aware_at=due - timedelta(hours=4)
    ).values()
    assert wanted(keys, NUMBER, late, SHANGHAI) == {f"{NUMBER}/x/after/{newest}/compliance"}
