"""What is wrong with the records is said, by staff number or code, and counted."""

from __future__ import annotations

import pytest

from include.evidence.model import Finding, Outcome
from include.evidence.step_findings import StepFindings
from include.reports.i18n import Translator
from include.training.checks import check
from tests.training.rig import Rig


def found(rig: Rig) -> list[Finding]:
    seen = StepFindings("plan", "6.2")
    with rig.open() as sources:
        check(seen, sources, rig.today)
    return seen.findings


def said(rig: Rig) -> list[tuple[str, str]]:
    return [(one.code, Translator("en").text(one.message)) for one in found(rig)]


def test_sound_records_have_no_findings(rig: Rig):
    """Somebody who came back is not twice there, and old versions of courses are none too many."""
    rig.person("P1", "2015-01-05", left_on="2016-01-01")
    rig.person("P1", "2020-01-06")
    rig.course()
    rig.course(version=2)
    rig.took("2026-03-02")
    assert found(rig) == []


def test_somebody_twice_in_the_roster_is_named(rig: Rig):
    """Both entries are of today."""
    rig.person("P1")
    rig.person("P1")
    assert said(rig) == [("training.twice", "Twice in the roster: 1 people (P1).")]


def test_entries_that_nobody_can_use_are_red(rig: Rig):
    """Without a number or with impossible days nobody would be reminded."""
    rig.person("")
    rig.person("P2", left_on="2019-01-01")
    rig.person("P3", leave_until="2026-01-01")
    rig.person("P4", leave_from="2026-02-01", leave_until="2026-01-01")
    rig.add("people", person="P5", department="North", access=False)
    assert said(rig) == [
        ("training.nameless", "Entries of the roster without a staff number: 1 (North)."),
        ("training.undated", "Entries of the roster with impossible dates: 4 (P2, P3, P4, P5)."),
    ]
    assert {one.severity for one in found(rig)} == {Outcome.FAIL}


def test_what_the_roster_does_not_say_is_told(rig: Rig):
    """No department, no word on access: the one is a remark, the other red."""
    rig.person("P1", department=None)
    rig.person("P2", access=None)
    assert said(rig) == [
        ("training.no_department", "People without a department: 1 (P1)."),
        (
            "training.access_unclear",
            "The roster does not say whether 1 people may open customer records: P2.",
        ),
    ]
    assert [one.severity for one in found(rig)] == [Outcome.ATTENTION, Outcome.FAIL]


def test_access_of_people_who_are_not_there_is_red(rig: Rig):
    """Who has left or begins next month may not open records; who came back may."""
    rig.person("P1", left_on="2026-02-01", access=True)
    rig.person("P2", "2026-04-01", access=True)
    rig.person("P3", left_on="2021-01-01", access=True)
    rig.person("P3", "2022-01-03", access=True)
    rig.person("P4", left_on="2026-02-01")
    assert said(rig) == [
        (
            "training.access_not_employed",
            "2 people may open customer records and have left, or have not begun yet: P1, P2.",
        )
    ]


def test_completions_of_tomorrow_and_of_no_course_are_told(rig: Rig):
    """They do not count; nobody is guessed to have meant something else."""
    rig.person()
    rig.course()
    rig.took("2026-03-03")
    rig.took("2025-01-01", course="OLD")
    assert said(rig) == [
        ("training.ahead", "Completions in the future: 1 (P1 LAW)."),
        (
            "training.of_no_course",
            "Completions of courses that do not exist: 1 courses (OLD).",
        ),
    ]


def test_records_that_fit_nobody_are_told(rig: Rig):
    """A zero lost in Excel, a version that was never published, a supervisor of nowhere."""
    rig.course()
    rig.person("00001", supervisor="S9")
    rig.took("2026-02-20", "1")
    rig.took("2025-01-01", "2")  # long ago: of somebody who is in the archive
    rig.took("2026-02-20", "00001", version=99)
    assert said(rig) == [
        ("training.no_such_version", "Completions of versions that do not exist: 1 (LAW 99)."),
        (
            "training.of_nobody",
            "People with completions of the last 90 days who are in no roster: 1 (1).",
        ),
        ("training.no_such_supervisor", "Supervisors who are in no roster: 1 (S9)."),
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
def test_courses_that_cannot_be_used_are_red(rig: Rig, fault: dict[str, object]):
    """By their code."""
    rig.course("BAD", **fault)
    rig.course("LAW", due_each_year="02-28")
    assert said(rig) == [("training.faulty", "Courses that cannot be used: 1 (BAD).")]


def test_many_are_counted_and_the_first_are_named(rig: Rig):
    """A report is no list of thousands."""
    rig.course()
    for number in range(30):
        rig.person(f"P{number:02d}")
        rig.took("2026-03-03", f"P{number:02d}")
    [(_, text)] = said(rig)
    assert text.startswith("Completions in the future: 30 (P00 LAW, P01 LAW")
    assert text.endswith("P19 LAW …).")
