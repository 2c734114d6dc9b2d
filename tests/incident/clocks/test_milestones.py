"""Milestones: the first time counts, by when it happened; what was voided counts for nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.incident.clocks.milestones import Graded, grades, milestones, valid
from include.incident.names import Kind
from tests.incident.clocks.clock_rig import entry, timeline

BEGIN = datetime(2026, 3, 2, 1, tzinfo=UTC)


def h(hours: float) -> datetime:
    return BEGIN + timedelta(hours=hours)


def said(kind: Kind, hours: float, **data: Any) -> tuple[Kind, datetime, dict[str, Any]]:
    return kind, h(hours), data


def reached(*entries: tuple[Kind, datetime, dict[str, Any]]) -> dict[str, datetime]:
    return {name: one.at for name, one in milestones(timeline(*entries)).items()}


def test_every_milestone_of_the_pack_has_its_entry():
    """A whole incident reaches all of them, each at the time of its entry."""
    assert reached(
        said(Kind.OPENED, 0),
        said(Kind.TEAM_CALLED, 1),
        said(Kind.PRESERVED, 2),
        said(Kind.GRADED, 3, grade="larger"),
        said(Kind.CONTAINED, 4),
        said(Kind.REPORTED, 5, authority="cac", phase="first"),
        said(Kind.REPORTED, 6, authority="postal", phase="first"),
        said(Kind.TOLD, 7),
        said(Kind.CLOSED, 8),
        said(Kind.SUMMARISED, 9),
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


@pytest.mark.parametrize("kind", [one for one in Kind if one not in (
    Kind.OPENED, Kind.TEAM_CALLED, Kind.PRESERVED, Kind.GRADED, Kind.CONTAINED, Kind.REPORTED,
    Kind.DECIDED, Kind.TOLD, Kind.CLOSED, Kind.SUMMARISED,
)])  # fmt: skip
def test_no_other_entry_reaches_anything(kind: Kind):
    """Notes, refused answers, queued notices and a cancelled incident are no milestones."""
    assert reached(said(kind, 1, step="report", authority="cac")) == {}


def test_when_it_happened_counts_and_when_it_was_entered_is_kept():
    """Six hours of downtime lie between; the entry that came first in place does not count first
    where another one says that it happened before.
    """
    found = milestones(
        [
            entry(1, Kind.CONTAINED, h(5), recorded=h(5)),
            entry(2, Kind.CONTAINED, h(3), recorded=h(9)),
        ]
    )["contained"]
    assert (found.at, found.recorded_at, found.place) == (h(3), h(9), 2)


def test_the_first_time_counts_whatever_comes_after_it():
    """A follow-up report, another grade, notices to people who were found later."""
    assert reached(
        said(Kind.GRADED, 1, grade="general"),
        said(Kind.REPORTED, 2, authority="cac", phase="first"),
        said(Kind.TOLD, 3),
        said(Kind.GRADED, 4, grade="larger"),
        said(Kind.REPORTED, 5, authority="cac", phase="rest"),
        said(Kind.DECIDED, 6, tell=True),
        said(Kind.TOLD, 7),
    ) == {"graded": h(1), "reported:cac": h(2), "individuals_told": h(3)}


def test_what_is_not_complete_reaches_nothing():
    """Notices of which some could not be sent are no reason to say that people were told."""
    assert reached(said(Kind.TOLD, 1, complete=False)) == {}
    assert reached(said(Kind.TOLD, 1, complete=False), said(Kind.TOLD, 2, complete=True)) == {
        "individuals_told": h(2)
    }


@pytest.mark.parametrize(
    ("decisions", "told"),
    [
        ([(1, True)], None),
        ([(1, False)], 1),
        ([(1, False), (2, False)], 1),
        ([(1, False), (2, True)], None),
        ([(1, False), (2, True), (3, False)], 3),
        ([(1, True), (2, False)], 2),
    ],
)
def test_the_standing_decision_not_to_tell_counts_as_told(
    decisions: list[tuple[int, bool]], told: int | None
):
    """One that was taken back does not, nor does its time come back with the next one."""
    found = reached(*(said(Kind.DECIDED, at, tell=tell) for at, tell in decisions))
    assert found.get("individuals_told") == (h(told) if told else None)


def test_people_who_were_told_stay_told_when_nobody_else_need_be():
    """The earlier of both counts."""
    found = reached(
        said(Kind.DECIDED, 1, tell=True), said(Kind.TOLD, 2), said(Kind.DECIDED, 3, tell=False)
    )
    assert found == {"individuals_told": h(2)}


def test_an_entry_made_by_mistake_is_voided_by_a_later_one():
    """Of the wrong authority, say; whoever voids is voided in turn, and nobody voids what is to
    come or themselves.
    """
    wrong = said(Kind.REPORTED, 1, authority="cac")
    assert reached(wrong, said(Kind.NOTE, 2, voids=[1])) == {}
    assert reached(
        wrong, said(Kind.NOTE, 2, voids=[1]), said(Kind.REPORTED, 3, authority="cac")
    ) == {"reported:cac": h(3)}
    undone = timeline(wrong, said(Kind.NOTE, 2, voids=[1]), said(Kind.NOTE, 3, voids=[2]))
    assert [one.place for one in valid(undone)] == [1, 3]
    assert [one.place for one in valid(timeline(said(Kind.NOTE, 1, voids=[1, 2]), wrong))] == [1, 2]


def test_grades_are_told_one_after_the_other():
    """In the order in which they were confirmed, with when; a voided one is none."""
    said_so = timeline(
        said(Kind.GRADED, 1, grade="larger"),
        said(Kind.GRADED, 2, grade="major"),
        said(Kind.GRADED, 3, grade="general"),
        said(Kind.NOTE, 4, voids=[2]),
    )
    assert grades(said_so) == (Graded("larger", h(1)), Graded("general", h(3)))


@pytest.mark.parametrize("action", [None, "regrade"])
def test_a_grade_that_an_addition_enters_counts_from_when_it_was_entered(action: str | None):
    """Nobody grades in the past: an addition as little as whoever grades for a second time."""
    more = {"action": action} if action else {}
    first = entry(1, Kind.GRADED, h(1), recorded=h(3), grade="larger", **more)
    second = entry(2, Kind.GRADED, h(2), recorded=h(9), grade="general", **more)
    at = h(3) if action else h(1)
    assert grades([first, second]) == (Graded("larger", at), Graded("general", h(9)))
    assert milestones([first, second])["graded"].at == at


def test_people_are_told_once_those_without_an_address_are_too() -> None:
    """Notices that did not reach everybody stop no clock; telling the others otherwise does."""
    told = said(Kind.TOLD, 1, complete=False)
    otherwise = said(Kind.TOLD_OTHERWISE, 2)
    assert "individuals_told" not in reached(told)
    assert "individuals_told" not in reached(otherwise)
    assert reached(told, otherwise)["individuals_told"] == h(2)
