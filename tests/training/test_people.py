"""Who is told of somebody's overdue courses."""

from __future__ import annotations

import pytest

from include.training.notices import Roster
from tests.training.rig import Rig


def told(rig: Rig, person: str = "P1") -> str | None:
    """Who hears of it."""
    with rig.open() as sources:
        found = Roster(sources, rig.today).above([person])[person]
    return found.person if found else None


def test_the_supervisor_is_told(rig: Rig):
    """The usual case."""
    rig.person("P1", supervisor="S1")
    rig.person("S1")
    assert told(rig) == "S1"


@pytest.mark.parametrize(
    "gone",
    [
        {"left_on": "2026-02-01"},
        {"leave_from": "2026-02-01", "leave_until": "2026-06-01"},
        {"joined_on": "2026-06-01"},
    ],
    ids=["left", "on leave", "not here yet"],
)
def test_who_is_not_there_is_passed_over(rig: Rig, gone: dict[str, str]):
    """For the next one above, and the next."""
    rig.person("P1", supervisor="S1")
    rig.person("S1", supervisor="S2", **gone)
    rig.person("S2", supervisor="S3", **gone)
    rig.person("S3")
    assert told(rig) == "S3"


def test_a_line_of_unknown_people_leads_to_a_head_of_the_department(rig: Rig):
    """A supervisor who is in no roster is nobody."""
    rig.person("P1", supervisor="S9")
    rig.person("H1", head=True, left_on="2026-02-01")
    rig.person("H2", head=True)
    rig.person("H3", head=True, department="South")
    assert told(rig) == "H2"


def test_a_circle_ends(rig: Rig):
    """Three who are above each other and have all left; somebody who is their own supervisor."""
    for one, above in (("P1", "S1"), ("S1", "S2"), ("S2", "S1")):
        rig.person(one, supervisor=above, left_on=None if one == "P1" else "2026-02-01")
    rig.person("P2", supervisor="P2")
    assert told(rig) is None
    assert told(rig, "P2") is None


def test_a_circle_through_the_person_does_not_tell_the_person(rig: Rig):
    """The head of the company may stand below somebody by mistake."""
    rig.person("P1", supervisor="S1", head=True)
    rig.person("S1", supervisor="P1", left_on="2026-02-01")
    assert told(rig) is None


def test_a_supervisor_twice_in_the_roster_counts_as_who_is_there(rig: Rig):
    """An old entry that ended does not hide the one that goes on."""
    rig.person("P1", supervisor="S1")
    rig.person("S1", joined_on="2015-01-01", left_on="2016-01-01")
    rig.person("S1", joined_on="2020-01-01")
    assert told(rig) == "S1"


def test_a_long_line_takes_one_look_a_level(rig: Rig):
    """A hundred and fifty people above each other, all gone but the last."""
    for place in range(150):
        left = "2026-02-01" if 0 < place < 149 else None
        rig.person(f"P{place}", supervisor=f"P{place + 1}", left_on=left)
    assert told(rig, "P0") == "P149"


def test_who_is_in_the_line_may_be_asked_about_too(rig: Rig):
    """Looking somebody up first does not cut the line above them."""
    rig.person("P1", supervisor="S1")
    rig.person("S1", supervisor="S2", left_on="2026-02-01")
    rig.person("S2")
    with rig.open() as sources:
        roster = Roster(sources, rig.today)
        roster.find(["S1"])
        assert roster.above(["P1"])["P1"] == roster.find(["S2"])["S2"]
