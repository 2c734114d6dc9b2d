"""Tests that the data of a timeline entry is parsed with the model for its kind."""

from __future__ import annotations

from include.incident.entries import Decided, EntryData, Preserved, Reported, Scoped
from include.incident.incident_ids import Kind, Phase
from tests.incident.incident_fixtures import Company


def test_timeline_entry_data_is_parsed_into_model_class_of_entry_kind(company: Company) -> None:
    case = company.open(1, 2).until("report_rest")
    (decided,) = case.entries(Kind.DECIDED)
    assert decided.as_(Decided).model_dump(include={"tell", "people", "adds_to"}) == {
        "tell": True, "people": 2, "adds_to": None,
    }  # fmt: skip
    assert decided.as_(EntryData).step == "decide"
    assert case.entries(Kind.SCOPED)[-1].as_(Scoped).proposed == "general"
    reports = [each.as_(Reported) for each in case.entries(Kind.REPORTED)]
    assert {(report.authority, report.phase, report.complete) for report in reports} == {
        (authority, phase, True) for authority in ("cac", "postal") for phase in Phase
    }
    preserved = case.entries(Kind.PRESERVED)[-1]
    assert preserved.as_(Preserved).as_json() == dict(preserved.data)


def test_fields_missing_in_older_timeline_entry_get_default_values() -> None:
    older = Preserved.model_validate({"version": 1, "people": 2, "complete": False})
    assert older.is_pending
    assert Decided.model_validate({"tell": False}).bound is None
