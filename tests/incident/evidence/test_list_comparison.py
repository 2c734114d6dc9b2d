"""Tests that counts are raised and reported if the stored list has more people."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.evidence.model import Outcome
from include.incident import incident_run, report, scope_assessment
from include.incident.form import Action
from include.incident.incident_ids import Kind
from include.incident.scope import Scope
from include.incident.scope_texts import scope_notes
from include.incident.selection import Selection
from include.incident.steps.closing import open_points
from tests.incident.incident_fixtures import Case, Company, assess, english, widen


@pytest.fixture
def newcomers(company: Company) -> Iterator[list[int]]:
    """Provide keys for customers whom a test adds. Delete these customers after the test."""
    keys = [21, 22]
    yield keys
    company.run("DELETE FROM customer WHERE customer_id > 20")


def selection_of(*keys: int) -> Selection:
    return Selection(databases=("courier",), keys=tuple(f"courier/{key}" for key in keys))


def newest(case: Case) -> Scope:
    return incident_run.require_scope(case.context, case.record.incident.id)


def add(company: Company, *keys: int) -> None:
    for key in keys:
        company.run(f"INSERT INTO customer VALUES ({key}, 'Late {key}', NULL, '2026-11-02Z')")


def test_number_of_affected_people_includes_earlier_count_after_scope_is_replaced(
    company: Company,
) -> None:
    case = company.open(1, 2, 3).counted()
    widening = widen(case.context, case.number, selection_of(4, 5, 6, 7), by="L1")
    record = case.preserve()
    scope = newest(case)
    (counted,) = scope.counted
    assert (scope.version, scope.subjects, counted.unseen) == (3, 7, 3)
    assert counted.records == {"customer": 4}
    assert counted.categories["user.name"] == 7
    assert (counted.sensitive, counted.minors, counted.age_unknown) == (3, None, 7)
    (finding_,) = [finding for finding in record.findings if finding.code == "incident.list_longer"]
    assert finding_.severity is Outcome.ATTENTION
    assert "3 people on the list are outside the newest entered scope or count" in english(
        finding_.message
    )
    assert any(
        "the stated number of people may be too high" in english(note)
        for note in scope_notes(scope, {})
    )
    entry = case.entries(Kind.PRESERVED)[-1]
    assert (entry.data["version"], entry.data["people"], entry.data["complete"]) == (3, 7, True)
    figures = {
        metric.name: metric.value
        for metric in report._with_list_metrics([widening, record]).metrics
    }
    assert figures == {"incident.people_affected": 7}
    case.preserve()
    assert newest(case) == scope


def test_number_of_affected_people_includes_people_added_before_list_was_stored(
    company: Company, newcomers: list[int]
) -> None:
    case = company.open(keys=[])
    assess(case.context)
    before = newest(case)
    add(company, *newcomers)
    record = case.preserve()
    assert [finding.code for finding in record.findings] == ["incident.list_longer"]
    assert newest(case).subjects == before.subjects + 2 == 14
    assert record.metrics[0].value == 14


def test_finding_is_reported_if_listed_people_exceed_confirmed_grade(company: Company) -> None:
    grades = [
        grade.model_copy(update={"people": 5, "sensitive": None, "minors": None})
        if grade.id == "larger"
        else grade
        for grade in company.rules.grades
    ]
    company.rules = company.rules.model_copy(update={"grades": tuple(grades)})
    case = company.open(1, 2, 3).until("grade")
    widening = widen(case.context, case.number, selection_of(4, 5, 6), by="L1")
    assert [finding.code for finding in widening.findings] == []
    record = case.preserve()
    assert [finding.code for finding in record.findings] == [
        "incident.list_longer", "incident.grade_outgrown",
    ]  # fmt: skip
    assert scope_assessment.more_severe_grade(case.context, case.record) == "larger"


def test_first_stored_list_includes_people_of_all_earlier_counts(company: Company) -> None:
    case = company.open(1, 2, 3, 4, 5)
    assess(case.context)
    widen(case.context, case.number, selection_of(8), by="L1")
    case.preserve()
    assert case.entries(Kind.PRESERVED)[-1].data["people"] == newest(case).subjects == 6


def test_people_deleted_between_count_and_storage_of_list_are_reported(
    company: Company, newcomers: list[int]
) -> None:
    add(company, *newcomers)
    case = company.open(1, *newcomers)
    assess(case.context)
    company.run(f"DELETE FROM customer WHERE customer_id = {newcomers[0]}")
    record = case.preserve()
    assert [(finding.code, finding.severity) for finding in record.findings] == [
        ("incident.list_shorter", Outcome.FAIL)
    ]
    assert english(record.findings[0].message) == (
        "courier: 3 people were counted, but only 2 of them are on the list."
    )
    entry = case.entries(Kind.PRESERVED)[-1]
    assert (entry.data["complete"], entry.data["short"]) == (False, ["courier"])
    points = [english(point) for point in open_points(case.context, case.record)]
    assert any("enter the reason as a note" in point for point in points)
    case.update(Action.NOTE, words="Erased on request meanwhile")
    points = [english(point) for point in open_points(case.context, case.record)]
    assert not any(
        "enter the reason as a note" in point or "has not been preserved yet" in point
        for point in points
    )
