"""Tests that the figures of a later count are never lower than earlier figures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.incident import incident_run, scope_assessment
from include.incident.form import Action
from include.incident.incident_ids import Kind
from include.incident.scope import (
    DatabaseCount,
    Scope,
    UncountedDatabase,
    merge_counts,
    refuse_narrower,
)
from include.incident.selection import Selection
from include.messages import verbatim
from include.services.errors import UsageError
from tests.incident.incident_fixtures import COMP, Company, assess, widen

NAMES = ("courier", "archive", "shop")
COUNT = st.integers(0, 5)
TABLE = st.dictionaries(st.sampled_from("abc"), COUNT)
MOMENT = st.none() | st.sampled_from([datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)])
FIGURES: dict[str, st.SearchStrategy[Any]] = {
    "everything": st.booleans(), "subjects": COUNT, "records": TABLE, "categories": TABLE,
    "sensitive": COUNT, "minors": st.none() | COUNT, "age_unknown": COUNT, "unlisted": COUNT,
    "unseen": COUNT, "undated": COUNT, "first": MOMENT, "last": MOMENT,
    "departments": TABLE, "accounts": TABLE, "log_rows": COUNT,
    "log_first": MOMENT, "log_last": MOMENT,
}  # fmt: skip
OF_THE_FORM = {"not_narrowed", "listed", "not_found", "not_found_at"}
EARLIEST = {"first", "log_first"}


@st.composite
def scope(draw: st.DrawFn) -> Scope:
    """Draw a scope with random counts. Each database may be counted, unknown or left out."""
    counted, unknown = [], []
    for name in NAMES:
        match draw(st.sampled_from(["counted", "unknown", "out"])):
            case "counted":
                figures = {key: draw(strategy) for key, strategy in FIGURES.items()}
                counted.append(DatabaseCount(database=name, **figures))
            case "unknown":
                unknown.append(UncountedDatabase(database=name, reason=verbatim("away")))
    return Scope(version=1, selection=Selection(), counted=tuple(counted), unknown=tuple(unknown))


def at_least(more: Any, less: Any, name: str) -> bool:
    """Return whether a figure is not less than another figure.

    Args:
        more: a number, a mapping of names to numbers, a time, or None.
        less: the other figure.
        name: name of the field that contains the figure.
    """
    if less is None:
        return True
    if isinstance(less, dict):
        return all(at_least(more.get(key, 0), count, name) for key, count in less.items())
    if more is None:
        return False
    return bool(more <= less if name in EARLIEST else more >= less)


@given(scope(), scope())
def test_merge_counts_returns_figures_that_are_at_least_those_of_both_counts(
    before: Scope, now: Scope
) -> None:
    merged, fewer = merge_counts(before, now)
    assert merged.unknown == now.unknown
    by_name = {count.database: count for count in merged.counted}
    unknown = {count.database for count in now.unknown}
    for count in (*before.counted, *now.counted):
        if count.database not in by_name:
            assert count.database not in {*unknown, *(other.database for other in now.counted)}
            continue
        for name in FIGURES:
            assert at_least(getattr(by_name[count.database], name), getattr(count, name), name), (
                name
            )
    assert set(fewer) == {
        count.database
        for count in now.counted
        for other in before.counted
        if count.database == other.database and count.subjects < other.subjects
    }


@given(scope())
def test_merge_counts_of_two_equal_counts_returns_the_same_count(counts: Scope) -> None:
    merged, fewer = merge_counts(counts, counts)
    assert (merged, fewer) == (counts, [])
    assert merge_counts(None, counts) == (counts, [])


def test_list_of_tested_count_fields_contains_all_fields_of_database_count() -> None:
    assert set(DatabaseCount.model_fields) == {"database", *FIGURES, *OF_THE_FORM}


@given(scope(), st.sets(st.sampled_from(NAMES)))
def test_error_about_narrower_scope_contains_names_of_omitted_databases(
    before: Scope, named: set[str]
) -> None:
    selection = Selection(databases=tuple(named))
    omitted = set(before.people_by_database()) - named
    if not omitted:
        refuse_narrower(before, selection)
        return
    with pytest.raises(UsageError, match="is affected already") as refused:
        refuse_narrower(before, selection)
    assert all(name in refused.value.message for name in omitted)


def selection_of(*keys: int, databases: tuple[str, ...] = ("courier",)) -> Selection:
    return Selection(databases=databases, keys=tuple(f"courier/{key}" for key in keys))


def test_count_with_fewer_people_keeps_earlier_figures_and_gives_finding(company: Company) -> None:
    case = company.open(*range(1, 11)).counted()
    record = widen(case.context, case.number, selection_of(11, 12), by="L1")
    assert [finding.code for finding in record.findings] == ["incident.fewer_affected"]
    scope_ = incident_run.require_scope(case.context, case.record.incident.id)
    assert (scope_.version, scope_.subjects) == (2, 10)
    case.preserve()
    assert case.entries(Kind.PRESERVED)[-1].data["people"] == 12


def test_count_is_repeated_with_widened_scope_after_unreadable_database_is_available_again(
    company: Company,
) -> None:
    case = company.open(1).counted()
    company.broken = {"archive"}
    two_databases = Selection(databases=("courier", "archive"))
    record = widen(case.context, case.number, two_databases, by="L1")
    assert [finding.code for finding in record.findings] == ["incident.not_counted"]
    assert incident_run.require_scope(case.context, case.record.incident.id).subjects == 12
    company.broken = set()
    record = assess(case.context)
    assert record.findings == []
    scope_ = incident_run.require_scope(case.context, case.record.incident.id)
    assert (scope_.version, scope_.subjects, scope_.is_complete) == (3, 24, True)
    assert assess(case.context).data["scope"] == scope_.as_json()


def test_concurrent_counts_are_stored_as_separate_versions(company: Company) -> None:
    case = company.open(1).counted()
    run, record = case.context, case.record
    first = scope_assessment._count_selection(run, record, selection_of(1, 2))
    second = scope_assessment._count_selection(run, record, selection_of(1, 2, 3))
    versions = [
        scope_assessment._store_new_count(run, record, count, by="L1").version
        for count in (second, first)
    ]
    assert versions == [2, 3]
    with company.state.connect() as conn:
        assert [count.subjects for count in incident_run.scopes(conn, record.incident.id)] == [
            1,
            3,
            2,
        ]


def test_finding_is_reported_if_wider_scope_exceeds_confirmed_grade(company: Company) -> None:
    grades = [
        grade.model_copy(update={"people": 2, "sensitive": None, "minors": None})
        if grade.id == "larger"
        else grade
        for grade in company.rules.grades
    ]
    company.rules = company.rules.model_copy(update={"grades": tuple(grades)})
    case = company.open(1).until("grade")
    record = widen(case.context, case.number, selection_of(1, 2), by="L1")
    assert [finding.code for finding in record.findings] == ["incident.grade_outgrown"]
    assert scope_assessment.more_severe_grade(case.context, case.record) == "larger"
    case.update(Action.REGRADE, by=COMP, grade="general", words="both are employees")
    assert scope_assessment.more_severe_grade(case.context, case.record) is None
