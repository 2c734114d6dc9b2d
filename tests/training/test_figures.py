"""Figures of controls, and records that cannot be trusted: nothing looks better than it is."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from sqlalchemy import select

from include.notify.tables import notice
from include.reports.i18n import Translator
from include.training import waivers
from include.training.notices import still_due
from include.training.plan import PLAN
from include.training.standing import REMINDER
from tests.support.contexts import step_record
from tests.training.rig import Rig
from tests.training.test_plan import artifacts_of_run, codes, metrics, trained


def test_a_waiver_of_nothing_is_told(rig: Rig):
    """A mistyped number or code waives nothing, and the person goes on being reminded."""
    trained(rig)
    with rig.engine.begin() as conn:
        for person, course in (("P0", "LAW"), ("PO", "LAW"), ("P0", "law")):
            waivers.grant(
                conn, person, course, reason="long illness", until=date(2026, 6, 30), by="E1",
                at=rig.now(),
            )  # fmt: skip
    record = step_record(PLAN, rig.context())
    [finding] = record.findings
    assert Translator("en").text(finding.message) == (
        "Waivers of people or courses that do not exist: P0 law, PO LAW."
    )
    waives = {(one["person"], one["course"]): one["waives"] for one in record.data["waived"]}
    assert waives == {("P0", "LAW"): True, ("PO", "LAW"): False, ("P0", "law"): False}


@pytest.mark.parametrize(
    "fault",
    [
        "UPDATE people SET person = NULL WHERE person = 'P1'",
        "UPDATE people SET joined_on = NULL WHERE person = 'P1'",
        "UPDATE courses SET topic = 'dancing' WHERE course = 'LAW'",
        "DELETE FROM courses WHERE course = 'LAW'",
        "DELETE FROM people",
    ],
)
def test_with_people_or_courses_missing_no_control_is_shown(rig: Rig, fault: str):
    """What is left might look better than what is: nobody shows that it holds."""
    trained(rig)
    rig.person("P1", "2025-01-20", access=True)
    rig.execute(fault)
    found = metrics(step_record(PLAN, rig.context()))
    controls = ("training_coverage", "people_with_access_untrained", "people_overdue_beyond_ladder")
    assert [found[one] for one in controls] == [None, None, None]


def test_leavers_with_access_count_for_the_control(rig: Rig):
    """They are in no department and have no course to take, and may still open records."""
    trained(rig)
    rig.person("P1", left_on="2026-02-01", access=True)
    record = step_record(PLAN, rig.context())
    assert metrics(record)["people_with_access_untrained"] == 1
    assert codes(record) == {"training.access_not_employed"}


def test_a_roster_that_is_cut_is_red(rig: Rig):
    """From eleven people to five; whoever is missing would be forgotten without a word."""
    trained(rig)
    for number in range(10):
        rig.person(f"Q{number}", "2026-02-27")
    assert "training.shrunk" not in codes(step_record(PLAN, rig.context()))
    rig.execute("DELETE FROM people WHERE person > 'Q3'")
    rig.today += timedelta(days=1)
    assert "training.shrunk" in codes(step_record(PLAN, rig.context("r2")))
    rig.today += timedelta(days=1)
    assert "training.shrunk" not in codes(step_record(PLAN, rig.context("r3")))  # said once


def test_the_file_of_overdue_courses_runs_no_formulas(rig: Rig):
    """It is made for Excel, and departments and numbers come from elsewhere."""
    trained(rig)
    rig.person("@SUM(1)", "2025-01-20", department="=HYPERLINK(1)")
    step_record(PLAN, rig.context())
    text = artifacts_of_run(rig, "r1")["overdue.csv"].decode("utf-8-sig")
    assert text.splitlines()[1].startswith("'@SUM(1),'=HYPERLINK(1),EMG")


def test_a_number_with_an_unseen_sign_is_told_too(rig: Rig):
    """As text is pasted; the key says what is there."""
    trained(rig)
    rig.person("P1\u200e", "2026-02-02")
    step_record(PLAN, rig.context())
    with rig.engine.connect() as conn:
        keys = list(conn.scalars(select(notice.c.key).where(notice.c.kind == REMINDER)))
    assert len(keys) == 4
    assert still_due(rig.context(), keys, REMINDER) == set(keys)
