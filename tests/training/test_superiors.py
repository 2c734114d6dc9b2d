"""Tests of the superiors who are notified of overdue courses."""

from __future__ import annotations

import pytest

from include.training.notifications import Roster
from tests.training.training_fixtures import TrainingCompany


def superior_of(company: TrainingCompany, person: str = "P1") -> str | None:
    """Return the staff number of a person's superior, or None if no superior can be notified."""
    with company.open() as sources:
        superior = Roster(sources, company.today).superiors([person])[person]
    return superior.person if superior else None


def test_superior_to_notify_is_the_supervisor_if_that_supervisor_is_present(
    company: TrainingCompany,
):
    company.add_person("P1", supervisor="S1")
    company.add_person("S1")
    assert superior_of(company) == "S1"


@pytest.mark.parametrize(
    "absence",
    [
        {"left_on": "2026-02-01"},
        {"leave_from": "2026-02-01", "leave_until": "2026-06-01"},
        {"joined_on": "2026-06-01"},
    ],
    ids=["left", "on leave", "not here yet"],
)
def test_superior_to_notify_is_the_first_present_supervisor_above_absent_supervisors(
    company: TrainingCompany, absence: dict[str, str]
):
    company.add_person("P1", supervisor="S1")
    company.add_person("S1", supervisor="S2", **absence)
    company.add_person("S2", supervisor="S3", **absence)
    company.add_person("S3")
    assert superior_of(company) == "S3"


def test_superior_to_notify_is_a_department_head_if_supervisor_is_unknown(company: TrainingCompany):
    company.add_person("P1", supervisor="S9")
    company.add_person("H1", head=True, left_on="2026-02-01")
    company.add_person("H2", head=True)
    company.add_person("H3", head=True, department="South")
    assert superior_of(company) == "H2"


def test_circular_chain_of_absent_supervisors_gives_no_superior_to_notify(company: TrainingCompany):
    for person, supervisor in (("P1", "S1"), ("S1", "S2"), ("S2", "S1")):
        company.add_person(
            person, supervisor=supervisor, left_on=None if person == "P1" else "2026-02-01"
        )
    company.add_person("P2", supervisor="P2")
    assert superior_of(company) is None
    assert superior_of(company, "P2") is None


def test_superior_to_notify_about_a_person_is_never_that_person(
    company: TrainingCompany,
):
    company.add_person("P1", supervisor="S1", head=True)
    company.add_person("S1", supervisor="P1", left_on="2026-02-01")
    assert superior_of(company) is None


def test_supervisor_who_left_and_returned_is_the_superior_to_notify(company: TrainingCompany):
    company.add_person("P1", supervisor="S1")
    company.add_person("S1", joined_on="2015-01-01", left_on="2016-01-01")
    company.add_person("S1", joined_on="2020-01-01")
    assert superior_of(company) == "S1"


def test_superior_to_notify_is_found_above_a_chain_of_148_absent_supervisors(
    company: TrainingCompany,
):
    for level in range(150):
        left = "2026-02-01" if 0 < level < 149 else None
        company.add_person(f"P{level}", supervisor=f"P{level + 1}", left_on=left)
    assert superior_of(company, "P0") == "P149"


def test_absent_supervisor_is_skipped_even_if_roster_has_already_loaded_that_supervisor(
    company: TrainingCompany,
):
    company.add_person("P1", supervisor="S1")
    company.add_person("S1", supervisor="S2", left_on="2026-02-01")
    company.add_person("S2")
    with company.open() as sources:
        roster = Roster(sources, company.today)
        roster.find(["S1"])
        assert roster.superiors(["P1"])["P1"] == roster.find(["S2"])["S2"]
