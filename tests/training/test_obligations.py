"""Who has to take what by when: each rule of `include.training.obligations`, by hand."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from include.training.obligations import SOON, Department, Topic, Untrained, Waiver
from tests.training.rig import Rig, rules


def only(rig: Rig) -> tuple[str, str, int]:
    """Due day, cycle and rung of the one obligation on a rung."""
    [one] = rig.due()
    return one.due_on.isoformat(), one.cycle, one.rung


def day(rig: Rig, text: str) -> Rig:
    rig.today = date.fromisoformat(text)
    return rig


def test_somebody_new_has_the_days_after_joining(rig: Rig):
    """The days count from the day of joining."""
    rig.person(joined_on="2026-01-05")
    rig.course(within_days=60)
    assert only(rig) == ("2026-03-06", "from 2026-01-05", -7)


def test_who_joins_later_has_no_obligation_yet(rig: Rig):
    """A roster may have people who come next month."""
    rig.person(joined_on="2026-03-03")
    rig.course(within_days=0)
    assert rig.rows() == [Topic("law", 1, 0, 0, 0)]
    assert only(day(rig, "2026-03-03")) == ("2026-03-03", "from 2026-03-03", -1)


def test_a_new_course_counts_from_its_introduction_for_those_who_were_there(rig: Rig):
    """An earlier version tells since when the duty stands; a later one does not begin it anew."""
    rig.person()
    rig.course(published_on="2026-01-01", version=1)
    rig.course(published_on="2026-02-20", version=2)
    assert only(rig) == ("2026-03-02", "from 2026-01-01", -1)


def test_a_course_that_is_not_published_yet_is_not_due(rig: Rig):
    """It is in force from the day of its publication on."""
    rig.person()
    rig.course(published_on="2026-03-03", within_days=1)
    assert rig.due() == []
    assert only(day(rig, "2026-03-03"))[0] == "2026-03-04"


def test_a_course_without_repetition_is_taken_once(rig: Rig):
    """Years later it is still taken."""
    rig.person()
    rig.course()
    rig.took("2020-02-01")
    assert rig.due() == []


def test_a_rolling_cycle_counts_calendar_months_from_the_last_time(rig: Rig):
    """Twelve months from 29 February end on the 28th; the cycle names the day it counts from."""
    rig.person()
    rig.course(repeat_months=12)
    rig.took("2023-05-01")
    rig.took("2024-02-29")
    assert only(day(rig, "2025-02-27"))[:2] == ("2025-02-28", "since 2024-02-29")


@pytest.mark.parametrize(
    ("passed", "due"),
    [
        ("2025-03-31", "2026-03-31"),  # on the day: in time
        ("2025-01-15", "2026-03-31"),  # in the year up to it
        ("2024-04-01", "2026-03-31"),  # the first day of that year
        ("2024-03-31", "2025-03-31"),  # missed: overdue since
        ("2025-04-20", "2027-03-31"),  # late for 2025, and it meets the cycle of 2026
    ],
)
def test_a_fixed_cycle_is_due_on_the_same_day_each_year(rig: Rig, passed: str, due: str):
    """Passed in the year up to a day, it is due a year after that day."""
    rig.person()
    rig.course(due_each_year="03-31")
    rig.took(passed)
    rig.today = date.fromisoformat(due) - timedelta(days=5)
    assert only(rig)[:2] == (due, f"since {passed}")


def test_a_new_version_has_to_be_taken_where_the_course_says_so(rig: Rig):
    """By whoever only passed older ones, and not later than the cycle asks anyhow."""
    rig.person("P1")
    rig.person("P2")
    rig.course(repeat_months=12, version=1)
    rig.course(repeat_months=12, version=2, published_on="2026-02-20", retake_within_days=30)
    rig.took("2025-06-01", "P1")
    rig.took("2025-03-10", "P2")
    assert [(one.person, one.due_on.isoformat(), one.cycle) for one in rig.due()] == [
        ("P1", "2026-03-22", "version 2"),
        ("P2", "2026-03-10", "since 2025-03-10"),
    ]
    rig.took("2026-02-25", "P1", version=2)
    assert [one.person for one in rig.due()] == ["P2"]


def test_newer_version_keeps_the_retake_of_an_older_version_overdue(rig: Rig):
    """Version 3 neither postpones nor cancels what version 2 made due; passing it meets both."""
    rig.person()
    rig.course(repeat_months=12, version=1)
    rig.course(repeat_months=12, version=2, published_on="2026-01-10", retake_within_days=30)
    rig.took("2025-06-01", version=1)
    overdue = only(rig)
    assert overdue[:2] == ("2026-02-09", "version 2")
    rig.course(repeat_months=12, version=3, published_on="2026-02-20", retake_within_days=60)
    assert only(rig) == overdue
    rig.course(repeat_months=12, version=4, published_on="2026-02-21")
    assert only(rig) == overdue
    rig.took("2026-02-22", version=3)
    assert rig.due() == []


def test_newer_version_with_shorter_retake_is_due_earlier(rig: Rig):
    """Of several versions above the passed one, the earliest day holds."""
    rig.person()
    rig.course(repeat_months=12, version=1)
    rig.course(repeat_months=12, version=2, published_on="2026-02-01", retake_within_days=90)
    rig.course(repeat_months=12, version=3, published_on="2026-02-20", retake_within_days=14)
    rig.took("2025-06-01", version=1)
    assert only(rig)[:2] == ("2026-03-06", "version 3")
    rig.took("2026-02-21", version=2)
    assert only(rig)[:2] == ("2026-03-06", "version 3")


def test_newer_version_keeps_the_first_obligation_overdue(rig: Rig):
    """A later version that gives new staff more days does not postpone what is overdue."""
    rig.person("P1", joined_on="2026-01-05")
    rig.course(version=1, within_days=30)
    rig.course(version=2, within_days=90, published_on="2026-02-20")
    rig.person("P2", joined_on="2026-02-25")  # knows only the second version
    assert only(rig)[:2] == ("2026-02-04", "from 2026-01-05")
    rig.took("2026-02-28", "P1", version=1)
    day(rig, "2026-05-20")
    assert [one.due_on.isoformat() for one in rig.due()] == ["2026-05-26"]


def test_version_with_fewer_days_counts_them_from_its_publication(rig: Rig):
    """Nobody is overdue by a rule on the day on which it is published."""
    rig.person(joined_on="2026-01-05")
    rig.course(version=1, within_days=90)
    rig.course(version=2, within_days=20, published_on="2026-02-20")
    assert only(rig)[0] == "2026-03-12"


def test_without_retake_an_older_version_stays_good(rig: Rig):
    """Nothing happens before the cycle ends."""
    rig.person()
    rig.course(repeat_months=12, version=1)
    rig.course(repeat_months=12, version=2, published_on="2026-02-20")
    rig.took("2025-06-01")
    assert rig.due() == []


def test_what_was_not_passed_or_lies_in_the_future_does_not_count(rig: Rig):
    """Neither ends an obligation; a future day counts once it has come."""
    rig.person(joined_on="2026-01-05")
    rig.course(within_days=60)
    rig.took("2026-02-01", passed=False)
    rig.took("2026-03-03")
    assert only(rig)[0] == "2026-03-06"
    assert day(rig, "2026-03-03").due() == []


@pytest.mark.parametrize(
    ("leave", "due"),
    [
        (("2026-02-20", "2026-03-20"), None),  # on leave today: not told
        (("2026-02-01", "2026-02-28"), "2026-03-14"),  # due within the grace after it
        (("2026-01-10", "2026-02-10"), "2026-03-06"),  # over long before
        (("2026-03-08", "2026-04-08"), "2026-03-06"),  # begins after the due day
    ],
)
def test_a_leave_moves_what_falls_due_meanwhile(rig: Rig, leave: tuple[str, str], due: str | None):
    """To the end of the grace after it; who is on leave is not reminded."""
    rig.person(joined_on="2026-01-05", leave_from=leave[0], leave_until=leave[1])
    rig.course(within_days=60)
    assert [one.due_on.isoformat() for one in rig.due()] == ([due] if due else [])


def test_a_leave_without_end_is_a_leave(rig: Rig):
    """Until somebody enters its last day."""
    rig.person(joined_on="2025-01-06", leave_from="2026-02-01")
    rig.course()
    assert rig.due() == []
    [north] = [one for one in rig.rows() if isinstance(one, Department)]
    assert north == Department("North", people=0, covered=0, overdue=0, soon=0, on_leave=1)


def test_who_was_overdue_before_a_leave_is_overdue_after_it(rig: Rig):
    """A leave does not make up for what was missed."""
    rig.person(joined_on="2025-01-06", leave_from="2026-01-10", leave_until="2026-03-01")
    rig.course()
    assert only(rig)[0] == "2025-03-07"


def test_leavers_have_no_obligations_from_the_day_after_their_last(rig: Rig):
    """The last day itself is a day of work."""
    rig.person(joined_on="2025-01-06", left_on="2026-03-02")
    rig.course()
    assert len(rig.due()) == 1
    assert day(rig, "2026-03-03").due() == []


def test_who_comes_back_begins_anew(rig: Rig):
    """With the day of the new beginning; one person is one person."""
    rig.person(joined_on="2020-01-06", left_on="2024-01-01")
    rig.person(joined_on="2026-01-05")
    rig.course(within_days=60)
    assert only(rig)[:2] == ("2026-03-06", "from 2026-01-05")


def test_a_person_twice_in_the_roster_is_reminded_once(rig: Rig):
    """By the entry that joined last."""
    rig.person(joined_on="2026-01-05", department="North")
    rig.person(joined_on="2026-01-06", department="South")
    rig.course(within_days=60)
    [one] = rig.due()
    assert (one.department, one.due_on.isoformat()) == ("South", "2026-03-07")


def test_a_transfer_changes_nothing_of_the_obligation(rig: Rig):
    """Department and supervisor are no part of it."""
    rig.person(joined_on="2026-01-05")
    rig.course()
    before = only(rig)
    rig.execute("UPDATE people SET department = 'South', supervisor = 'P9'")
    assert only(rig) == before


def test_a_waived_course_is_nobodys_obligation(rig: Rig):
    """For that person and that course only."""
    rig.person(joined_on="2025-01-06", access=True)
    rig.course("LAW")
    rig.course("SKL")
    assert [one.course for one in rig.due([Waiver("P1", "LAW")])] == ["SKL"]


def test_a_deleted_course_is_due_no_more(rig: Rig):
    """Its completions stay, and nobody stumbles over them."""
    rig.person()
    rig.took("2024-01-01", course="OLD")
    rig.course()
    rig.took("2024-01-01")
    assert rig.due() == []


@pytest.mark.parametrize(
    "fault",
    [
        {"topic": "dancing"},
        {"due_each_year": "02-29"},
        {"due_each_year": "13-01"},
        {"due_each_year": "6-1"},
        {"due_each_year": "06-01", "repeat_months": 12},
        {"repeat_months": 0},
        {"within_days": None},
        {"version": None},
    ],
)
def test_a_faulty_course_ends_nobody_elses_reminders(rig: Rig, fault: dict[str, object]):
    """It is left out (and reported); others are due as before."""
    rig.person(joined_on="2025-01-06")
    rig.course("BAD", **fault)
    rig.course("LAW")
    rig.took("2025-02-01", course="BAD")
    assert [one.course for one in rig.due()] == ["LAW"]


def test_departments_and_topics_are_counted(rig: Rig):
    """People on leave are counted aside; a waived course neither way."""
    rig.course("LAW", within_days=30, repeat_months=12)
    rig.course("ONB", topic="onboarding", within_days=10)
    rig.person("P1", "2026-02-23")
    rig.person("P2", "2025-01-06")
    rig.person("P3", "2025-01-06", leave_from="2026-01-01", leave_until="2026-06-30")
    rig.person("P4", "2025-01-06", department="South")
    rig.took("2025-12-01", "P4")
    rig.took("2025-01-10", "P4", "ONB")
    rows = rig.rows([Waiver("P2", "ONB")])
    assert {one.name: one for one in rows if isinstance(one, Department)} == {
        "North": Department("North", people=2, covered=1, overdue=1, soon=2, on_leave=1),
        "South": Department("South", people=1, covered=1, overdue=0, soon=0, on_leave=0),
    }
    assert {one.name: one for one in rows if isinstance(one, Topic)} == {
        "law": Topic("law", courses=1, repeated=1, obligations=3, overdue=1),
        "onboarding": Topic("onboarding", courses=1, repeated=0, obligations=2, overdue=0),
    }


def test_access_without_valid_training_is_found(rig: Rig):
    """Onboarding comes before access, however many days are left for it; also during a leave."""
    rig.course("ONB", topic="onboarding", within_days=30)
    rig.course("LAW", within_days=60, repeat_months=12)
    rig.person("P1", "2026-02-27", access=True)  # new, and may open records already
    rig.person("P2", "2026-02-27")
    rig.person("P3", access=True)  # yearly course overdue
    rig.took("2020-01-10", "P3", "ONB")
    rig.took("2024-12-01", "P3")
    rig.person("P4", access=True)  # as it should be
    rig.took("2020-01-10", "P4", "ONB")
    rig.took("2025-12-01", "P4")
    rig.person("P5", access=True, leave_from="2026-01-01", leave_until="2026-06-30")
    rig.took("2025-12-01", "P5")
    rig.person("P6", access=True, left_on="2026-02-01")
    found = [one for one in rig.rows() if isinstance(one, Untrained)]
    assert sorted(found, key=lambda one: one.person) == [
        Untrained("P1", "North", onboarding=True, overdue=0),
        Untrained("P3", "North", onboarding=False, overdue=1),
        Untrained("P5", "North", onboarding=True, overdue=1),
    ]


def test_impossible_days_stop_nobody_elses_reminders(rig: Rig):
    """PostgreSQL knows days before all others; a course may have no title."""
    rig.course(title=None)
    rig.person("P1", "2025-01-06")
    rig.person("P2", "-infinity")
    rig.took("-infinity", "P1")
    [one] = rig.due()
    assert (one.person, one.title) == ("P1", "LAW")


def test_a_completion_without_a_version_is_of_an_older_one(rig: Rig):
    """So a new version has to be taken."""
    rig.person()
    rig.course(repeat_months=12, version=1)
    rig.course(repeat_months=12, version=2, published_on="2026-02-20", retake_within_days=30)
    rig.took("2025-12-01", version=None)
    assert [one.cycle for one in rig.due()] == ["version 2"]


def test_due_soon_ends_after_thirty_days(rig: Rig):
    """The day itself and the thirty after it."""
    rig.course(within_days=30)
    for person, joined in (("P1", "2026-01-31"), ("P2", "2026-03-02"), ("P3", "2026-03-01")):
        rig.person(person, joined)
    rig.person("P4", "2026-03-02", department="South")
    rig.course("SKL", within_days=31)
    rows = {one.name: one for one in rig.rows() if isinstance(one, Department)}
    assert SOON == 30
    assert rows["South"].soon == 1  # on 1 April; the other on 2 April
    assert rows["North"].soon == 2 + 1 + 2


def test_without_a_word_on_access_somebody_counts_as_having_it(rig: Rig):
    """And without a department in one of its own; nobody is lost."""
    rig.course("ONB", topic="onboarding")
    rig.person("P1", access=None, department=None)
    assert Untrained("P1", "?", onboarding=True, overdue=1) in rig.rows()
    assert [one.name for one in rig.rows() if isinstance(one, Department)] == ["?"]


def test_a_ladder_of_the_pack_is_followed(rig: Rig):
    """Other rungs than the shipped ones."""
    rig.rules = rules(ladder={"before": [5], "overdue": [2], "then_every": 3, "copy_from": 1})
    rig.person(joined_on="2026-01-05")
    rig.course(within_days=61)
    assert only(rig)[2] == -5
    assert only(day(rig, "2026-03-09"))[2] == 2
    assert only(day(rig, "2026-03-12"))[2] == 5
