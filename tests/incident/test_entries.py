"""Typed readers of timeline entries: what a step writes is read back, and so are older entries."""

from __future__ import annotations

from include.incident.entries import Decided, EntryData, Preserved, Reported, Scoped
from include.incident.names import Kind, Phase
from tests.incident.desk_rig import Company


def test_entries_of_an_incident_are_read_as_their_kind(company: Company) -> None:
    """The models name the keys that the steps write."""
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


def test_an_entry_of_an_older_version_has_defaults() -> None:
    """A key that was added later stops no reader."""
    older = Preserved.model_validate({"version": 1, "people": 2, "complete": False})
    assert older.is_pending
    assert Decided.model_validate({"tell": False}).bound is None
