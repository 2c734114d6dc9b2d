"""Tests of the rules of `include.training.obligations`, with values computed by hand."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from include.training.obligations import (
    SOON_DAYS,
    Department,
    Topic,
    Untrained,
    Waiver,
    share_of,
)
from tests.training.training_fixtures import TrainingCompany, rules


def only_due_course(company: TrainingCompany) -> tuple[str, str, int]:
    """Return the only obligation that has reached a reminder stage: due date, cycle and stage.

    The cycle is a text that names the day or version from which the due date is counted.
    """
    [due] = company.due_courses()
    return due.due_on.isoformat(), due.cycle, due.rung


def at_day(company: TrainingCompany, text: str) -> TrainingCompany:
    company.today = date.fromisoformat(text)
    return company


def test_course_of_new_employee_is_due_a_number_of_days_after_joining(
    company: TrainingCompany,
):
    company.add_person(joined_on="2026-01-05")
    company.add_course(within_days=60)
    assert only_due_course(company) == ("2026-03-06", "from 2026-01-05", -7)


def test_future_employee_has_no_obligation_before_joining(company: TrainingCompany):
    company.add_person(joined_on="2026-03-03")
    company.add_course(within_days=0)
    assert company.rows() == [Topic("law", 1, 0, 0, 0)]
    assert only_due_course(at_day(company, "2026-03-03")) == ("2026-03-03", "from 2026-03-03", -1)


def test_new_course_is_due_a_number_of_days_after_its_first_publication(
    company: TrainingCompany,
):
    company.add_person()
    company.add_course(published_on="2026-01-01", version=1)
    company.add_course(published_on="2026-02-20", version=2)
    assert only_due_course(company) == ("2026-03-02", "from 2026-01-01", -1)


def test_course_is_not_due_before_publication(company: TrainingCompany):
    company.add_person()
    company.add_course(published_on="2026-03-03", within_days=1)
    assert company.due_courses() == []
    assert only_due_course(at_day(company, "2026-03-03"))[0] == "2026-03-04"


def test_passed_course_without_repetition_is_not_due_again(company: TrainingCompany):
    company.add_person()
    company.add_course()
    company.add_completion("2020-02-01")
    assert company.due_courses() == []


def test_course_repeated_every_12_months_is_due_12_calendar_months_after_last_pass(
    company: TrainingCompany,
):
    company.add_person()
    company.add_course(repeat_months=12)
    company.add_completion("2023-05-01")
    company.add_completion("2024-02-29")
    assert only_due_course(at_day(company, "2025-02-27"))[:2] == ("2025-02-28", "since 2024-02-29")


@pytest.mark.parametrize(
    ("passed", "due"),
    [
        ("2025-03-31", "2026-03-31"),  # passed on the due date of 2025
        ("2025-01-15", "2026-03-31"),  # passed in the year before the due date
        ("2024-04-01", "2026-03-31"),  # passed on the first day of that year
        ("2024-03-31", "2025-03-31"),  # passed on the due date of 2024
        (
            "2025-04-20",
            "2027-03-31",
        ),  # passed too late for 2025; the pass also meets the cycle of 2026
    ],
)
def test_course_with_fixed_cycle_is_due_on_same_day_of_each_year(
    company: TrainingCompany, passed: str, due: str
):
    company.add_person()
    company.add_course(due_each_year="03-31")
    company.add_completion(passed)
    company.today = date.fromisoformat(due) - timedelta(days=5)
    assert only_due_course(company)[:2] == (due, f"since {passed}")


def test_course_version_that_requires_retake_is_due_a_number_of_days_after_publication(
    company: TrainingCompany,
):
    company.add_person("P1")
    company.add_person("P2")
    company.add_course(repeat_months=12, version=1)
    company.add_course(
        repeat_months=12, version=2, published_on="2026-02-20", retake_within_days=30
    )
    company.add_completion("2025-06-01", "P1")
    company.add_completion("2025-03-10", "P2")
    assert [(due.person, due.due_on.isoformat(), due.cycle) for due in company.due_courses()] == [
        ("P1", "2026-03-22", "version 2"),
        ("P2", "2026-03-10", "since 2025-03-10"),
    ]
    company.add_completion("2026-02-25", "P1", version=2)
    assert [due.person for due in company.due_courses()] == ["P2"]


def test_newer_course_version_does_not_postpone_retake_of_older_version(company: TrainingCompany):
    """Version 3 neither postpones nor cancels the retake that version 2 requires.

    A person who passes version 3 meets both obligations.
    """
    company.add_person()
    company.add_course(repeat_months=12, version=1)
    company.add_course(
        repeat_months=12, version=2, published_on="2026-01-10", retake_within_days=30
    )
    company.add_completion("2025-06-01", version=1)
    overdue = only_due_course(company)
    assert overdue[:2] == ("2026-02-09", "version 2")
    company.add_course(
        repeat_months=12, version=3, published_on="2026-02-20", retake_within_days=60
    )
    assert only_due_course(company) == overdue
    company.add_course(repeat_months=12, version=4, published_on="2026-02-21")
    assert only_due_course(company) == overdue
    company.add_completion("2026-02-22", version=3)
    assert company.due_courses() == []


def test_earliest_due_date_applies_if_several_newer_course_versions_require_a_retake(
    company: TrainingCompany,
):
    """If several versions are newer than the passed one, the earliest due date applies."""
    company.add_person()
    company.add_course(repeat_months=12, version=1)
    company.add_course(
        repeat_months=12, version=2, published_on="2026-02-01", retake_within_days=90
    )
    company.add_course(
        repeat_months=12, version=3, published_on="2026-02-20", retake_within_days=14
    )
    company.add_completion("2025-06-01", version=1)
    assert only_due_course(company)[:2] == ("2026-03-06", "version 3")
    company.add_completion("2026-02-21", version=2)
    assert only_due_course(company)[:2] == ("2026-03-06", "version 3")


def test_newer_course_version_does_not_postpone_course_that_was_never_passed(
    company: TrainingCompany,
):
    """A later version that gives new staff more days does not postpone an overdue course."""
    company.add_person("P1", joined_on="2026-01-05")
    company.add_course(version=1, within_days=30)
    company.add_course(version=2, within_days=90, published_on="2026-02-20")
    company.add_person("P2", joined_on="2026-02-25")  # joined after the second version
    assert only_due_course(company)[:2] == ("2026-02-04", "from 2026-01-05")
    company.add_completion("2026-02-28", "P1", version=1)
    at_day(company, "2026-05-20")
    assert [due.due_on.isoformat() for due in company.due_courses()] == ["2026-05-26"]


def test_shorter_time_limit_of_new_course_version_counts_from_its_publication(
    company: TrainingCompany,
):
    """A new version must not make people overdue on its day of publication."""
    company.add_person(joined_on="2026-01-05")
    company.add_course(version=1, within_days=90)
    company.add_course(version=2, within_days=20, published_on="2026-02-20")
    assert only_due_course(company)[0] == "2026-03-12"


def test_new_course_version_that_requires_no_retake_is_not_due_for_people_who_passed_before(
    company: TrainingCompany,
):
    company.add_person()
    company.add_course(repeat_months=12, version=1)
    company.add_course(repeat_months=12, version=2, published_on="2026-02-20")
    company.add_completion("2025-06-01")
    assert company.due_courses() == []


def test_failed_or_future_completion_does_not_meet_obligation(company: TrainingCompany):
    company.add_person(joined_on="2026-01-05")
    company.add_course(within_days=60)
    company.add_completion("2026-02-01", passed=False)
    company.add_completion("2026-03-03")
    assert only_due_course(company)[0] == "2026-03-06"
    assert at_day(company, "2026-03-03").due_courses() == []


@pytest.mark.parametrize(
    ("leave", "due"),
    [
        (("2026-02-20", "2026-03-20"), None),  # on leave today, so no reminder
        (("2026-02-01", "2026-02-28"), "2026-03-14"),  # due within the grace period after the leave
        (
            ("2026-01-10", "2026-02-10"),
            "2026-03-06",
        ),  # leave and grace period ended before the due date
        (("2026-03-08", "2026-04-08"), "2026-03-06"),  # leave begins after the due date
    ],
)
def test_due_date_within_leave_or_its_grace_period_moves_to_end_of_grace_period(
    company: TrainingCompany, leave: tuple[str, str], due: str | None
):
    company.add_person(joined_on="2026-01-05", leave_from=leave[0], leave_until=leave[1])
    company.add_course(within_days=60)
    assert [obligation.due_on.isoformat() for obligation in company.due_courses()] == (
        [due] if due else []
    )


def test_person_whose_leave_has_no_end_date_counts_as_on_leave(company: TrainingCompany):
    company.add_person(joined_on="2025-01-06", leave_from="2026-02-01")
    company.add_course()
    assert company.due_courses() == []
    [north] = [row for row in company.rows() if isinstance(row, Department)]
    assert north == Department("North", people=0, covered=0, overdue=0, soon=0, on_leave=1)


def test_course_that_was_overdue_before_leave_is_overdue_after_leave(company: TrainingCompany):
    company.add_person(joined_on="2025-01-06", leave_from="2026-01-10", leave_until="2026-03-01")
    company.add_course()
    assert only_due_course(company)[0] == "2025-03-07"


def test_person_who_left_has_obligations_until_last_day_of_employment(company: TrainingCompany):
    company.add_person(joined_on="2025-01-06", left_on="2026-03-02")
    company.add_course()
    assert len(company.due_courses()) == 1
    assert at_day(company, "2026-03-03").due_courses() == []


def test_course_of_returning_employee_is_due_after_new_joining_date(company: TrainingCompany):
    company.add_person(joined_on="2020-01-06", left_on="2024-01-01")
    company.add_person(joined_on="2026-01-05")
    company.add_course(within_days=60)
    assert only_due_course(company)[:2] == ("2026-03-06", "from 2026-01-05")


def test_due_date_is_computed_from_latest_roster_entry_of_person(company: TrainingCompany):
    company.add_person(joined_on="2026-01-05", department="North")
    company.add_person(joined_on="2026-01-06", department="South")
    company.add_course(within_days=60)
    [due] = company.due_courses()
    assert (due.department, due.due_on.isoformat()) == ("South", "2026-03-07")


def test_transfer_to_another_department_does_not_change_obligation(company: TrainingCompany):
    company.add_person(joined_on="2026-01-05")
    company.add_course()
    before = only_due_course(company)
    company.execute("UPDATE people SET department = 'South', supervisor = 'P9'")
    assert only_due_course(company) == before


def test_waived_course_is_not_due(company: TrainingCompany):
    company.add_person(joined_on="2025-01-06", access=True)
    company.add_course("LAW")
    company.add_course("SKL")
    assert [due.course for due in company.due_courses([Waiver("P1", "LAW")])] == ["SKL"]


def test_course_that_was_deleted_is_not_due(company: TrainingCompany):
    company.add_person()
    company.add_completion("2024-01-01", course="OLD")
    company.add_course()
    company.add_completion("2024-01-01")
    assert company.due_courses() == []


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
def test_other_courses_are_still_due_if_a_course_has_invalid_data(
    company: TrainingCompany, fault: dict[str, object]
):
    company.add_person(joined_on="2025-01-06")
    company.add_course("BAD", **fault)
    company.add_course("LAW")
    company.add_completion("2025-02-01", course="BAD")
    assert [due.course for due in company.due_courses()] == ["LAW"]


def test_trained_people_and_overdue_courses_are_counted_by_department_and_topic(
    company: TrainingCompany,
):
    company.add_course("LAW", within_days=30, repeat_months=12)
    company.add_course("ONB", topic="onboarding", within_days=10)
    company.add_person("P1", "2026-02-23")
    company.add_person("P2", "2025-01-06")
    company.add_person("P3", "2025-01-06", leave_from="2026-01-01", leave_until="2026-06-30")
    company.add_person("P4", "2025-01-06", department="South")
    company.add_completion("2025-12-01", "P4")
    company.add_completion("2025-01-10", "P4", "ONB")
    rows = company.rows([Waiver("P2", "ONB")])
    assert {row.name: row for row in rows if isinstance(row, Department)} == {
        "North": Department("North", people=2, covered=1, overdue=1, soon=2, on_leave=1),
        "South": Department("South", people=1, covered=1, overdue=0, soon=0, on_leave=0),
    }
    assert {row.name: row for row in rows if isinstance(row, Topic)} == {
        "law": Topic("law", courses=1, repeated=1, obligations=3, overdue=1),
        "onboarding": Topic("onboarding", courses=1, repeated=0, obligations=2, overdue=0),
    }


def test_people_with_access_but_without_valid_training_are_returned_as_untrained(
    company: TrainingCompany,
):
    company.add_course("ONB", topic="onboarding", within_days=30)
    company.add_course("LAW", within_days=60, repeat_months=12)
    company.add_person("P1", "2026-02-27", access=True)  # new employee who already has access
    company.add_person("P2", "2026-02-27")
    company.add_person("P3", access=True)  # yearly course is overdue
    company.add_completion("2020-01-10", "P3", "ONB")
    company.add_completion("2024-12-01", "P3")
    company.add_person("P4", access=True)  # all courses are valid
    company.add_completion("2020-01-10", "P4", "ONB")
    company.add_completion("2025-12-01", "P4")
    company.add_person("P5", access=True, leave_from="2026-01-01", leave_until="2026-06-30")
    company.add_completion("2025-12-01", "P5")
    company.add_person("P6", access=True, left_on="2026-02-01")
    untrained = [row for row in company.rows() if isinstance(row, Untrained)]
    assert sorted(untrained, key=lambda due: due.person) == [
        Untrained("P1", "North", onboarding=True, overdue=0),
        Untrained("P3", "North", onboarding=False, overdue=1),
        Untrained("P5", "North", onboarding=True, overdue=1),
    ]


def test_courses_of_other_people_are_still_due_if_a_person_has_infinite_dates(
    company: TrainingCompany,
):
    company.add_course(title=None)
    company.add_person("P1", "2025-01-06")
    company.add_person("P2", "-infinity")
    company.add_completion("-infinity", "P1")
    [due] = company.due_courses()
    assert (due.person, due.title) == ("P1", "LAW")


def test_completion_without_version_counts_as_completion_of_an_older_version(
    company: TrainingCompany,
):
    company.add_person()
    company.add_course(repeat_months=12, version=1)
    company.add_course(
        repeat_months=12, version=2, published_on="2026-02-20", retake_within_days=30
    )
    company.add_completion("2025-12-01", version=None)
    assert [due.cycle for due in company.due_courses()] == ["version 2"]


def test_courses_due_today_or_in_next_thirty_days_are_counted_as_due_soon(company: TrainingCompany):
    company.add_course(within_days=30)
    for person, joined in (("P1", "2026-01-31"), ("P2", "2026-03-02"), ("P3", "2026-03-01")):
        company.add_person(person, joined)
    company.add_person("P4", "2026-03-02", department="South")
    company.add_course("SKL", within_days=31)
    rows = {row.name: row for row in company.rows() if isinstance(row, Department)}
    assert SOON_DAYS == 30
    assert rows["South"].soon == 1  # LAW is due on 1 April, and SKL on 2 April
    assert rows["North"].soon == 2 + 1 + 2


def test_person_whose_access_is_not_stated_counts_as_having_access(company: TrainingCompany):
    company.add_course("ONB", topic="onboarding")
    company.add_person("P1", access=None, department=None)
    assert Untrained("P1", "?", onboarding=True, overdue=1) in company.rows()
    assert [row.name for row in company.rows() if isinstance(row, Department)] == ["?"]


def test_reminder_stages_of_course_are_computed_from_policy_pack(company: TrainingCompany):
    company.rules = rules(ladder={"before": [5], "overdue": [2], "then_every": 3, "copy_from": 1})
    company.add_person(joined_on="2026-01-05")
    company.add_course(within_days=61)
    assert only_due_course(company)[2] == -5
    assert only_due_course(at_day(company, "2026-03-09"))[2] == 2
    assert only_due_course(at_day(company, "2026-03-12"))[2] == 5


@pytest.mark.parametrize(
    ("part", "whole", "share"),
    [
        (44, 48, 0.9166),  # 0.91666…
        (57, 100, 0.57),  # 57 / 100 * 10 000 is below 5,700 in floating point
        (99_999, 100_000, 0.9999),
        (48, 48, 1.0),
        (0, 48, 0.0),
        (0, 0, None),
    ],
)
def test_share_is_rounded_down_to_four_decimals_and_none_without_people(
    part: int, whole: int, share: float | None
) -> None:
    assert share_of(part, whole) == share
