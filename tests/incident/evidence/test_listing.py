"""The frozen list beside the count: what is less than the list is raised, and it is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.evidence.model import Outcome
from include.incident import assessing, incident_run, report
from include.incident.form import Action
from include.incident.names import Kind
from include.incident.scope import Scope
from include.incident.scope_words import scope_notes
from include.incident.selection import Selection
from include.incident.steps.closing import open_points
from tests.incident.desk_rig import Case, Company, assess, english, widen


@pytest.fixture
def newcomers(company: Company) -> Iterator[list[int]]:
    """Customers whom a test adds; they are gone after it."""
    keys = [21, 22]
    yield keys
    company.run("DELETE FROM customer WHERE customer_id > 20")


def chosen(*keys: int) -> Selection:
    return Selection(databases=("courier",), keys=tuple(f"courier/{one}" for one in keys))


def newest(case: Case) -> Scope:
    return incident_run.require_scope(case.context, case.record.incident.id)


def add(company: Company, *keys: int) -> None:
    for key in keys:
        company.run(f"INSERT INTO customer VALUES ({key}, 'Late {key}', NULL, '2026-11-02Z')")


def test_who_was_found_before_counts_though_the_last_entry_leaves_them_out(
    company: Company,
) -> None:
    """People of list, count, report and metric are the same number; records stay at least."""
    case = company.open(1, 2, 3).counted()
    widening = widen(case.context, case.number, chosen(4, 5, 6, 7), by="L1")
    record = case.preserve()
    found = newest(case)
    (counted,) = found.counted
    assert (found.version, found.subjects, counted.unseen) == (3, 7, 3)
    assert counted.records == {"customer": 4}
    assert counted.categories["user.name"] == 7
    assert (counted.sensitive, counted.minors, counted.age_unknown) == (3, None, 7)
    (told,) = [one for one in record.findings if one.code == "incident.list_longer"]
    assert told.severity is Outcome.ATTENTION
    assert "does not find 3 people who were found before" in english(told.message)
    assert any("Figures of people are upper bounds" in english(one) for one in scope_notes(found))
    entry = case.entries(Kind.PRESERVED)[-1]
    assert (entry.data["version"], entry.data["people"], entry.data["complete"]) == (3, 7, True)
    figures = {one.name: one.value for one in report._measured([widening, record]).metrics}
    assert figures == {"incident.people_affected": 7}
    case.preserve()
    assert newest(case) == found


def test_who_comes_between_the_count_and_the_list_counts_too(
    company: Company, newcomers: list[int]
) -> None:
    """Nobody counted them; they are on the list."""
    case = company.open(keys=[])
    assess(case.context)
    before = newest(case)
    add(company, *newcomers)
    record = case.preserve()
    assert [one.code for one in record.findings] == ["incident.list_longer"]
    assert newest(case).subjects == before.subjects + 2 == 14
    assert record.metrics[0].value == 14


def test_a_list_that_is_worse_than_the_grade_has_to_be_graded_anew(company: Company) -> None:
    """Though each count alone is not."""
    grades = [
        one.model_copy(update={"people": 5, "sensitive": None, "minors": None})
        if one.id == "larger"
        else one
        for one in company.rules.grades
    ]
    company.rules = company.rules.model_copy(update={"grades": tuple(grades)})
    case = company.open(1, 2, 3).until("grade")
    widening = widen(case.context, case.number, chosen(4, 5, 6), by="L1")
    assert [one.code for one in widening.findings] == []
    record = case.preserve()
    assert [one.code for one in record.findings] == [
        "incident.list_longer", "incident.grade_outgrown",
    ]  # fmt: skip
    assert assessing.outgrown(case.context, case.record) == "larger"


def test_who_was_counted_before_the_first_list_is_frozen_after_all(company: Company) -> None:
    """Somebody widened the incident, by words that leave them out, before anything was secured."""
    case = company.open(1, 2, 3, 4, 5)
    assess(case.context)
    widen(case.context, case.number, chosen(8), by="L1")
    case.preserve()
    assert case.entries(Kind.PRESERVED)[-1].data["people"] == newest(case).subjects == 6


def test_people_who_are_gone_when_the_list_is_made_are_told(
    company: Company, newcomers: list[int]
) -> None:
    """Both numbers; it can be closed once somebody said why, for nobody can list them."""
    add(company, *newcomers)
    case = company.open(1, *newcomers)
    assess(case.context)
    company.run(f"DELETE FROM customer WHERE customer_id = {newcomers[0]}")
    record = case.preserve()
    assert [(one.code, one.severity) for one in record.findings] == [
        ("incident.list_shorter", Outcome.FAIL)
    ]
    assert english(record.findings[0].message) == (
        "courier: 3 people were counted, 2 of them are on the list."
    )
    entry = case.entries(Kind.PRESERVED)[-1]
    assert (entry.data["complete"], entry.data["short"]) == (False, ["courier"])
    points = [english(one) for one in open_points(case.context, case.record)]
    assert any("say why in a note" in one for one in points)
    case.update(Action.NOTE, words="Erased on request meanwhile")
    points = [english(one) for one in open_points(case.context, case.record)]
    assert not any("say why in a note" in one or "not secured" in one for one in points)
