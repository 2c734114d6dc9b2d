"""Tests of findings about faults of the training records."""

from __future__ import annotations

import pytest

from include.evidence.model import Finding, Outcome
from include.evidence.step_findings import StepFindings
from include.reports.i18n import Translator
from include.training.checks import check_records
from tests.training.training_fixtures import TrainingCompany


def findings_of(company: TrainingCompany) -> list[Finding]:
    step_findings = StepFindings("plan", "6.2")
    with company.open() as sources:
        check_records(step_findings, sources, company.today)
    return step_findings.findings


def messages_of(company: TrainingCompany) -> list[tuple[str, str]]:
    return [
        (finding.code, Translator("en").text(finding.message)) for finding in findings_of(company)
    ]


def test_valid_records_give_no_finding(company: TrainingCompany):
    company.add_person("P1", "2015-01-05", left_on="2016-01-01")
    company.add_person("P1", "2020-01-06")
    company.add_course()
    company.add_course(version=2)
    company.add_completion("2026-03-02")
    assert findings_of(company) == []


def test_person_who_appears_twice_in_roster_is_reported(company: TrainingCompany):
    company.add_person("P1")
    company.add_person("P1")
    assert messages_of(company) == [
        ("training.twice", "1 people appear more than once in the roster: P1.")
    ]


def test_completion_without_course_is_reported_as_unknown_course(company: TrainingCompany):
    company.add_person("P1", "2015-01-05")
    company.add_course()
    company.add("completions", person="P1", course=None, version=1, completed_on="2026-03-02")
    assert messages_of(company) == [
        (
            "training.of_no_course",
            "The records of completed training name 1 courses that do not exist: ?.",
        ),
    ]


def test_roster_entries_without_staff_number_or_valid_dates_give_failed_finding(
    company: TrainingCompany,
):
    company.add_person("")
    company.add_person("P2", left_on="2019-01-01")
    company.add_person("P3", leave_until="2026-01-01")
    company.add_person("P4", leave_from="2026-02-01", leave_until="2026-01-01")
    company.add("people", person="P5", department="North", access=False)
    assert messages_of(company) == [
        (
            "training.nameless",
            "1 entries of the roster have no staff number; their departments are: North.",
        ),
        (
            "training.undated",
            "4 people have missing or impossible dates in the roster: P2, P3, P4, P5.",
        ),
    ]
    assert {finding.severity for finding in findings_of(company)} == {Outcome.FAIL}


def test_people_whose_department_or_access_is_not_stated_are_reported(company: TrainingCompany):
    company.add_person("P1", department=None)
    company.add_person("P2", access=None)
    assert messages_of(company) == [
        ("training.no_department", "1 people have no department in the roster: P1."),
        (
            "training.access_unclear",
            "The roster does not state whether 1 people have access to customer records: P2.",
        ),
    ]
    assert [finding.severity for finding in findings_of(company)] == [
        Outcome.ATTENTION,
        Outcome.FAIL,
    ]


def test_people_who_have_access_but_are_not_employed_are_reported(company: TrainingCompany):
    company.add_person("P1", left_on="2026-02-01", access=True)
    company.add_person("P2", "2026-04-01", access=True)
    company.add_person("P3", left_on="2021-01-01", access=True)
    company.add_person("P3", "2022-01-03", access=True)
    company.add_person("P4", left_on="2026-02-01")
    assert messages_of(company) == [
        (
            "training.access_not_employed",
            "2 people have access to customer records, but have left or have not joined yet: "
            "P1, P2.",
        )
    ]


def test_completions_with_future_date_or_unknown_course_are_reported(company: TrainingCompany):
    company.add_person()
    company.add_course()
    company.add_completion("2026-03-03")
    company.add_completion("2025-01-01", course="OLD")
    assert messages_of(company) == [
        ("training.ahead", "1 course completions are dated in the future: P1 LAW."),
        (
            "training.of_no_course",
            "The records of completed training name 1 courses that do not exist: OLD.",
        ),
    ]


def test_unknown_person_course_version_and_supervisor_are_reported(company: TrainingCompany):
    company.add_course()
    company.add_person("00001", supervisor="S9")
    company.add_completion("2026-02-20", "1")
    company.add_completion("2025-01-01", "2")  # long ago, so the person may have been archived
    company.add_completion("2026-02-20", "00001", version=99)
    assert messages_of(company) == [
        (
            "training.no_such_version",
            "The records of completed training name 1 course versions that do not exist: LAW 99.",
        ),
        (
            "training.of_nobody",
            "1 staff numbers with course completions in the last 90 days are not in the roster: 1.",
        ),
        ("training.no_such_supervisor", "1 supervisors are not in the roster: S9."),
    ]


@pytest.mark.parametrize(
    "fault",
    [
        {"within_days": 2**31 - 1},
        {"repeat_months": 2**31 - 1},
        {"topic": None},
        {"due_each_year": "02-30"},
        {"published_on": None},
    ],
)
def test_courses_with_invalid_data_are_reported(company: TrainingCompany, fault: dict[str, object]):
    company.add_course("BAD", **fault)
    company.add_course("LAW", due_each_year="02-28")
    assert messages_of(company) == [
        ("training.faulty", "1 courses have faulty data and cannot be used: BAD.")
    ]


def test_finding_contains_number_of_faults_and_the_first_twenty_faults(company: TrainingCompany):
    company.add_course()
    for number in range(30):
        company.add_person(f"P{number:02d}")
        company.add_completion("2026-03-03", f"P{number:02d}")
    [(_, text)] = messages_of(company)
    assert text.startswith("30 course completions are dated in the future: P00 LAW, P01 LAW")
    assert text.endswith("P19 LAW, ….")
