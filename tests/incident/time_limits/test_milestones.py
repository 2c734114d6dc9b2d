"""Tests that a milestone has the time of its earliest event.

Entries that a correction declares to be mistakes reach no milestone.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.incident.incident_ids import Kind
from include.incident.time_limits.milestones import (
    ConfirmedGrade,
    confirmed_grades,
    milestones,
    valid_entries,
)
from tests.incident.time_limits.time_limit_fixtures import entry, timeline

BEGIN = datetime(2026, 3, 2, 1, tzinfo=UTC)


def h(hours: float) -> datetime:
    return BEGIN + timedelta(hours=hours)


def event(kind: Kind, hours: float, **data: Any) -> tuple[Kind, datetime, dict[str, Any]]:
    return kind, h(hours), data


def reached(*entries: tuple[Kind, datetime, dict[str, Any]]) -> dict[str, datetime]:
    return {name: milestone.at for name, milestone in milestones(timeline(*entries)).items()}


def test_milestones_returns_all_milestones_of_complete_incident():
    assert reached(
        event(Kind.OPENED, 0),
        event(Kind.TEAM_CALLED, 1),
        event(Kind.PRESERVED, 2),
        event(Kind.GRADED, 3, grade="larger"),
        event(Kind.CONTAINED, 4),
        event(Kind.REPORTED, 5, authority="cac", phase="first"),
        event(Kind.REPORTED, 6, authority="postal", phase="first"),
        event(Kind.TOLD, 7),
        event(Kind.CLOSED, 8),
        event(Kind.SUMMARISED, 9),
    ) == {
        "opened": h(0),
        "team_called": h(1),
        "preserved": h(2),
        "graded": h(3),
        "contained": h(4),
        "reported:cac": h(5),
        "reported:postal": h(6),
        "individuals_told": h(7),
        "closed": h(8),
        "summarised": h(9),
    }


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (
    Kind.OPENED, Kind.TEAM_CALLED, Kind.PRESERVED, Kind.GRADED, Kind.CONTAINED, Kind.REPORTED,
    Kind.DECIDED, Kind.TOLD, Kind.CLOSED, Kind.SUMMARISED,
)])  # fmt: skip
def test_timeline_entry_of_a_kind_without_milestone_reaches_no_milestone(kind: Kind):
    assert reached(event(kind, 1, step="report", authority="cac")) == {}


def test_milestone_has_time_of_earliest_event():
    milestone = milestones(
        [
            entry(1, Kind.CONTAINED, h(5), recorded=h(5)),
            entry(2, Kind.CONTAINED, h(3), recorded=h(9)),
        ]
    )["contained"]
    assert (milestone.at, milestone.recorded_at, milestone.place) == (h(3), h(9), 2)


def test_milestone_time_is_unchanged_after_a_repeated_event():
    assert reached(
        event(Kind.GRADED, 1, grade="general"),
        event(Kind.REPORTED, 2, authority="cac", phase="first"),
        event(Kind.TOLD, 3),
        event(Kind.GRADED, 4, grade="larger"),
        event(Kind.REPORTED, 5, authority="cac", phase="rest"),
        event(Kind.DECIDED, 6, tell=True),
        event(Kind.TOLD, 7),
    ) == {"graded": h(1), "reported:cac": h(2), "individuals_told": h(3)}


def test_timeline_entry_marked_as_incomplete_reaches_no_milestone():
    assert reached(event(Kind.TOLD, 1, complete=False)) == {}
    assert reached(event(Kind.TOLD, 1, complete=False), event(Kind.TOLD, 2, complete=True)) == {
        "individuals_told": h(2)
    }


@pytest.mark.parametrize(
    ("decisions", "expected_hours"),
    [
        ([(1, True)], None),
        ([(1, False)], 1),
        ([(1, False), (2, False)], 1),
        ([(1, False), (2, True)], None),
        ([(1, False), (2, True), (3, False)], 3),
        ([(1, True), (2, False)], 2),
    ],
)
def test_decision_not_to_notify_people_reaches_notification_milestone_until_it_is_reversed(
    decisions: list[tuple[int, bool]], expected_hours: int | None
):
    times = reached(*(event(Kind.DECIDED, at, tell=tell) for at, tell in decisions))
    assert times.get("individuals_told") == (h(expected_hours) if expected_hours else None)


def test_later_decision_not_to_notify_does_not_change_time_of_notification_milestone():
    times = reached(
        event(Kind.DECIDED, 1, tell=True), event(Kind.TOLD, 2), event(Kind.DECIDED, 3, tell=False)
    )
    assert times == {"individuals_told": h(2)}


def test_timeline_entry_that_was_declared_a_mistake_reaches_no_milestone():
    wrong = event(Kind.REPORTED, 1, authority="cac")
    assert reached(wrong, event(Kind.NOTE, 2, voids=[1])) == {}
    assert reached(
        wrong, event(Kind.NOTE, 2, voids=[1]), event(Kind.REPORTED, 3, authority="cac")
    ) == {"reported:cac": h(3)}
    undone = timeline(wrong, event(Kind.NOTE, 2, voids=[1]), event(Kind.NOTE, 3, voids=[2]))
    assert [entry_.place for entry_ in valid_entries(undone)] == [1, 3]
    assert [
        entry_.place for entry_ in valid_entries(timeline(event(Kind.NOTE, 1, voids=[1, 2]), wrong))
    ] == [1, 2]


def test_confirmed_grades_omits_grade_whose_timeline_entry_was_declared_a_mistake():
    entries = timeline(
        event(Kind.GRADED, 1, grade="larger"),
        event(Kind.GRADED, 2, grade="major"),
        event(Kind.GRADED, 3, grade="general"),
        event(Kind.NOTE, 4, voids=[2]),
    )
    assert confirmed_grades(entries) == (
        ConfirmedGrade("larger", h(1)),
        ConfirmedGrade("general", h(3)),
    )


@pytest.mark.parametrize("action", [None, "regrade"])
def test_incident_grade_confirmed_by_an_update_applies_from_the_time_it_was_recorded(
    action: str | None,
):
    more = {"action": action} if action else {}
    first = entry(1, Kind.GRADED, h(1), recorded=h(3), grade="larger", **more)
    second = entry(2, Kind.GRADED, h(2), recorded=h(9), grade="general", **more)
    at = h(3) if action else h(1)
    assert confirmed_grades([first, second]) == (
        ConfirmedGrade("larger", at),
        ConfirmedGrade("general", h(9)),
    )
    assert milestones([first, second])["graded"].at == at


def test_partial_notification_reaches_milestone_once_the_others_were_informed_in_another_way() -> (
    None
):
    incomplete = event(Kind.TOLD, 1, complete=False)
    otherwise = event(Kind.TOLD_OTHERWISE, 2)
    assert "individuals_told" not in reached(incomplete)
    assert "individuals_told" not in reached(otherwise)
    assert reached(incomplete, otherwise)["individuals_told"] == h(2)
