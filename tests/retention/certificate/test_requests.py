"""Requests of data subjects: only what was found and is gone is certified as erased."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from include.evidence.model import Outcome, StepRecord
from include.services.clock import FixedClock
from tests.retention.rig import YOUNG, Rig
from tests.support.registers import tamper


def state(record: StepRecord) -> dict[str, Any]:
    """What became of the only request."""
    (found,) = record.data["requests"]
    return dict(found)


def codes(record: StepRecord) -> dict[str, Outcome]:
    return {one.code: one.severity for one in record.findings}


def a_person(rig: Rig) -> None:
    rig.insert("person", id=1, name="Wang Fang", phone="13800138000", at=YOUNG, who="p1")


def test_a_record_that_another_class_keeps_restricts_the_request(rig: Rig) -> None:
    """An open claim is kept for ten years: the parcel is there, and the person is told."""
    rig.insert("parcel", region="n", no=1, at=YOUNG, who="p1", open=True)
    rig.request("p1")
    *_, counted = rig.run()
    assert (state(counted)["state"], state(counted)["left"]) == ("restricted", 1)
    assert codes(counted) == {"retention.request_restricted": Outcome.ATTENTION}
    assert rig.keys_in("parcel") == {("n", "1")}
    rig.sql("UPDATE parcel SET open = false")
    assert state(rig.run("r2")[-1])["state"] == "closed"
    assert rig.keys_in("parcel") == set()


def test_what_is_restricted_only_after_its_day_was_late(rig: Rig) -> None:
    """What could go went too late; said once, and again when the rest is gone at last."""
    rig.insert("parcel", region="n", no=1, at=YOUNG, who="p1", open=True)
    rig.insert("parcel", region="n", no=2, at=YOUNG, who="p1")
    rig.request("p1", received_on=rig.clock.now().date() - timedelta(days=60))
    *_, counted = rig.run()
    assert state(counted)["state"] == "restricted_late"
    assert codes(counted)["retention.request_late"] is Outcome.FAIL
    assert counted.data["requests_overdue"] == 1
    *_, again = rig.run("r2")
    assert (state(again)["state"], again.data["requests_overdue"]) == ("restricted", 0)
    rig.sql("UPDATE parcel SET open = false")
    assert state(rig.run("r3")[-1])["state"] == "closed_late"


def test_a_key_that_finds_nothing_is_not_certified_as_erased(rig: Rig) -> None:
    """It may be mistyped: the request stays open until somebody looks."""
    a_person(rig)
    rig.request("p11")
    *_, counted = rig.run()
    assert state(counted)["state"] == "not_found"
    assert codes(counted) == {"retention.request_not_found": Outcome.ATTENTION}
    assert (counted.data["requests_open"], counted.data["requests_closed"]) == (1, 0)


def test_what_an_earlier_run_found_and_erased_closes_the_request_later(rig: Rig) -> None:
    """The first run was killed between its execution and its count."""
    a_person(rig)
    rig.request("p1")
    planned = rig.plan()
    rig.execute(planned)
    *_, counted = rig.run("r2")
    assert state(counted)["state"] == "closed"


def test_a_key_that_finds_nothing_becomes_overdue(rig: Rig) -> None:
    """Nobody corrected or withdrew it, and the person has had no answer."""
    rig.request("p11", (rig.clock.now() - timedelta(days=40)).date())
    *_, counted = rig.run()
    assert state(counted)["state"] == "overdue"
    assert codes(counted) == {"retention.request_overdue": Outcome.FAIL}


def test_what_is_erased_late_counts_as_late(rig: Rig) -> None:
    """The control asks for the day it is due; a count that is repeated says the same."""
    a_person(rig)
    rig.request("p1", (rig.clock.now() - timedelta(days=31)).date())
    planned, executed, counted = rig.run()
    assert state(counted)["state"] == "closed_late"
    figures = ("requests_open", "requests_closed", "requests_overdue")
    assert [counted.data[one] for one in figures] == [0, 1, 1]
    assert codes(counted) == {"retention.request_late": Outcome.FAIL}
    again = rig.verify(planned, executed)
    assert [again.data[one] for one in figures] == [0, 1, 1]
    assert codes(again) == codes(counted)


def test_what_the_law_kept_past_the_day_is_not_late(rig: Rig) -> None:
    """A run before it found the claim open; the first one after the claim was closed erases all."""
    rig.insert("parcel", region="n", no=1, at=YOUNG, who="p1", open=True)
    rig.request("p1", (rig.clock.now() - timedelta(days=20)).date())
    *_, counted = rig.run()
    assert state(counted)["state"] == "restricted"
    tamper(
        rig.state_source,
        "UPDATE erasure_request SET due_on = due_on - 20, "
        "restricted_at = restricted_at - interval '20 days'",
    )
    assert state(rig.run("r1 again")[-1])["state"] == "restricted"
    rig.sql("UPDATE parcel SET open = false")
    *_, counted = rig.run("r2")
    assert (state(counted)["state"], counted.data["requests_overdue"]) == ("closed", 0)


@pytest.mark.parametrize(("zone", "became"), [("UTC", "closed"), ("Asia/Shanghai", "closed_late")])
def test_the_day_is_the_packs(rig: Rig, zone: str, became: str) -> None:
    """At 16:30 UTC of the last day the next one has begun in Shanghai."""
    a_person(rig)
    rig.request("p1", date(2026, 1, 1))  # due on 31 January
    planned = rig.plan()
    executed = rig.execute(planned)
    then = rig.but(clock=FixedClock(datetime(2026, 1, 31, 16, 30, tzinfo=UTC)), timezone=zone)
    assert state(then.verify(planned, executed))["state"] == became
