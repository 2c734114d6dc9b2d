"""An addition never makes an incident smaller: figure by figure, whatever was entered at night."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.incident import assessing, incident_run
from include.incident.form import Action
from include.incident.names import Kind
from include.incident.scope import Counted, Scope, Unknown, refuse_less, widened
from include.incident.selection import Selection
from include.messages import verbatim
from include.services.errors import UsageError
from tests.incident.desk_rig import COMP, Company, assess, widen

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
    """Every database counted, unknown, or left out."""
    counted, unknown = [], []
    for name in NAMES:
        match draw(st.sampled_from(["counted", "unknown", "out"])):
            case "counted":
                figures = {key: draw(one) for key, one in FIGURES.items()}
                counted.append(Counted(database=name, **figures))
            case "unknown":
                unknown.append(Unknown(database=name, reason=verbatim("away")))
    return Scope(version=1, selection=Selection(), counted=tuple(counted), unknown=tuple(unknown))


def at_least(more: Any, less: Any, name: str) -> bool:
    """Whether a figure is no less than another: numbers, tables of them, moments further out."""
    if less is None:
        return True
    if isinstance(less, dict):
        return all(at_least(more.get(key, 0), count, name) for key, count in less.items())
    if more is None:
        return False
    return bool(more <= less if name in EARLIEST else more >= less)


@given(scope(), scope())
def test_no_figure_is_less_than_either_count(before: Scope, now: Scope) -> None:
    """Nothing that is unknown now becomes known by what was counted before."""
    found, fewer = widened(before, now)
    assert found.unknown == now.unknown
    by_name = {one.database: one for one in found.counted}
    unknown = {one.database for one in now.unknown}
    for one in (*before.counted, *now.counted):
        if one.database not in by_name:
            assert one.database not in {*unknown, *(other.database for other in now.counted)}
            continue
        for name in FIGURES:
            assert at_least(getattr(by_name[one.database], name), getattr(one, name), name), name
    assert set(fewer) == {
        one.database
        for one in now.counted
        for other in before.counted
        if one.database == other.database and one.subjects < other.subjects
    }


@given(scope())
def test_the_same_count_again_changes_nothing(found: Scope) -> None:
    """A repeated task comes to the same."""
    again, fewer = widened(found, found)
    assert (again, fewer) == (found, [])
    assert widened(None, found) == (found, [])


def test_every_figure_of_a_count_is_merged_or_said_not_to_be() -> None:
    """So that a new figure is not forgotten here."""
    assert set(Counted.model_fields) == {"database", *FIGURES, *OF_THE_FORM}


@given(scope(), st.sets(st.sampled_from(NAMES)))
def test_a_database_that_is_affected_cannot_be_left_out(before: Scope, named: set[str]) -> None:
    """Least of all one in which nobody could count."""
    chosen = Selection(databases=tuple(named))
    left = set(before.affected()) - named
    if not left:
        refuse_less(before, chosen)
        return
    with pytest.raises(UsageError, match="is affected already") as refused:
        refuse_less(before, chosen)
    assert all(name in refused.value.message for name in left)


def chosen(*keys: int, databases: tuple[str, ...] = ("courier",)) -> Selection:
    return Selection(databases=databases, keys=tuple(f"courier/{one}" for one in keys))


def test_who_enters_only_what_came_to_it_is_told_and_nothing_shrinks(company: Company) -> None:
    """Ten people were affected; two more are entered alone."""
    case = company.open(*range(1, 11)).counted()
    record = widen(case.context, case.number, chosen(11, 12), by="L1")
    assert [one.code for one in record.findings] == ["incident.fewer_affected"]
    found = incident_run.require_scope(case.context, case.record.incident.id)
    assert (found.version, found.subjects) == (2, 10)
    case.preserve()
    assert case.entries(Kind.PRESERVED)[-1].data["people"] == 12


def test_what_could_not_be_counted_is_counted_again_with_what_was_added_since(
    company: Company,
) -> None:
    """The task of the incident's own run is cleared once the database is back."""
    case = company.open(1).counted()
    company.broken = {"archive"}
    both = Selection(databases=("courier", "archive"))
    record = widen(case.context, case.number, both, by="L1")
    assert [one.code for one in record.findings] == ["incident.not_counted"]
    assert incident_run.require_scope(case.context, case.record.incident.id).subjects == 12
    company.broken = set()
    record = assess(case.context)
    assert record.findings == []
    found = incident_run.require_scope(case.context, case.record.incident.id)
    assert (found.version, found.subjects, found.complete) == (3, 24, True)
    assert assess(case.context).data["scope"] == found.as_json()


def test_two_counts_at_a_time_are_two_versions(company: Company) -> None:
    """Neither is lost, whichever is kept first."""
    case = company.open(1).counted()
    run, record = case.context, case.record
    first = assessing._count(run, record, chosen(1, 2))
    second = assessing._count(run, record, chosen(1, 2, 3))
    kept = [assessing._kept(run, record, one, by="L1").version for one in (second, first)]
    assert kept == [2, 3]
    with company.state.connect() as conn:
        assert [one.subjects for one in incident_run.scopes(conn, record.incident.id)] == [1, 3, 2]


def test_more_than_the_grade_was_confirmed_for_has_to_be_graded_anew(company: Company) -> None:
    """Until then the addition says so, and the incident is not closed."""
    grades = [
        one.model_copy(update={"people": 2, "sensitive": None, "minors": None})
        if one.id == "larger"
        else one
        for one in company.rules.grades
    ]
    company.rules = company.rules.model_copy(update={"grades": tuple(grades)})
    case = company.open(1).until("grade")
    record = widen(case.context, case.number, chosen(1, 2), by="L1")
    assert [one.code for one in record.findings] == ["incident.grade_outgrown"]
    assert assessing.outgrown(case.context, case.record) == "larger"
    case.update(Action.REGRADE, by=COMP, grade="general", words="both are employees")
    assert assessing.outgrown(case.context, case.record) is None
