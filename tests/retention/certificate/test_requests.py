"""Tests of the states of erasure requests after a run."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from include.evidence.model import Outcome, StepRecord
from include.services.clock import FixedClock
from tests.retention.runner import YOUNG, RetentionRunner
from tests.support.registers import tamper


def state_of_request(record: StepRecord) -> dict[str, Any]:
    """Return the result of the only erasure request in a step record."""
    (found,) = record.data["requests"]
    return dict(found)


def codes(record: StepRecord) -> dict[str, Outcome]:
    return {finding.code: finding.severity for finding in record.findings}


def a_person(runner: RetentionRunner) -> None:
    runner.insert("person", id=1, name="Wang Fang", phone="13800138000", at=YOUNG, who="p1")


def test_erasure_request_has_state_restricted_if_another_record_class_keeps_a_requested_record(
    runner: RetentionRunner,
) -> None:
    """Another record class keeps a parcel with an open claim for ten years."""
    runner.insert("parcel", region="n", no=1, at=YOUNG, who="p1", open=True)
    runner.request("p1")
    *_, counted = runner.run()
    assert (state_of_request(counted)["state"], state_of_request(counted)["left"]) == (
        "restricted",
        1,
    )
    assert codes(counted) == {"retention.request_restricted": Outcome.ATTENTION}
    assert runner.keys_in("parcel") == {("n", "1")}
    runner.sql("UPDATE parcel SET open = false")
    assert state_of_request(runner.run("r2")[-1])["state"] == "closed"
    assert runner.keys_in("parcel") == set()


def test_erasure_request_is_late_if_its_last_erasable_record_is_erased_after_due_date(
    runner: RetentionRunner,
) -> None:
    """The late erasure is reported once. The request stays late when it is closed."""
    runner.insert("parcel", region="n", no=1, at=YOUNG, who="p1", open=True)
    runner.insert("parcel", region="n", no=2, at=YOUNG, who="p1")
    runner.request("p1", received_on=runner.clock.now().date() - timedelta(days=60))
    *_, counted = runner.run()
    assert state_of_request(counted)["state"] == "restricted_late"
    assert codes(counted)["retention.request_late"] is Outcome.FAIL
    assert counted.data["requests_overdue"] == 1
    *_, again = runner.run("r2")
    assert (state_of_request(again)["state"], again.data["requests_overdue"]) == ("restricted", 0)
    runner.sql("UPDATE parcel SET open = false")
    assert state_of_request(runner.run("r3")[-1])["state"] == "closed_late"


def test_erasure_request_whose_key_matches_no_record_stays_open(runner: RetentionRunner) -> None:
    """The key may be mistyped, so a person has to check it."""
    a_person(runner)
    runner.request("p11")
    *_, counted = runner.run()
    assert state_of_request(counted)["state"] == "not_found"
    assert codes(counted) == {"retention.request_not_found": Outcome.ATTENTION}
    assert (counted.data["requests_open"], counted.data["requests_closed"]) == (1, 0)


def test_next_run_closes_erasure_request_whose_records_were_erased_by_killed_run(
    runner: RetentionRunner,
) -> None:
    """The first run was killed between its execution and its verification."""
    a_person(runner)
    runner.request("p1")
    planned = runner.plan()
    runner.execute(planned)
    *_, counted = runner.run("r2")
    assert state_of_request(counted)["state"] == "closed"


def test_erasure_request_whose_key_matches_no_record_is_overdue_after_its_due_date(
    runner: RetentionRunner,
) -> None:
    runner.request("p11", (runner.clock.now() - timedelta(days=40)).date())
    *_, counted = runner.run()
    assert state_of_request(counted)["state"] == "overdue"
    assert codes(counted) == {"retention.request_overdue": Outcome.FAIL}


def test_erasure_request_whose_records_are_erased_after_due_date_is_closed_late(
    runner: RetentionRunner,
) -> None:
    """A repeated verification gives the same state."""
    a_person(runner)
    runner.request("p1", (runner.clock.now() - timedelta(days=31)).date())
    planned, executed, counted = runner.run()
    assert state_of_request(counted)["state"] == "closed_late"
    figures = ("requests_open", "requests_closed", "requests_overdue")
    assert [counted.data[figure] for figure in figures] == [0, 1, 1]
    assert codes(counted) == {"retention.request_late": Outcome.FAIL}
    again = runner.verify(planned, executed)
    assert [again.data[figure] for figure in figures] == [0, 1, 1]
    assert codes(again) == codes(counted)


def test_erasure_request_is_not_late_if_law_keeps_its_records_past_due_date(
    runner: RetentionRunner,
) -> None:
    runner.insert("parcel", region="n", no=1, at=YOUNG, who="p1", open=True)
    runner.request("p1", (runner.clock.now() - timedelta(days=20)).date())
    *_, counted = runner.run()
    assert state_of_request(counted)["state"] == "restricted"
    tamper(
        runner.state_source,
        "UPDATE erasure_request SET due_on = due_on - 20, "
        "restricted_at = restricted_at - interval '20 days'",
    )
    assert state_of_request(runner.run("r1 again")[-1])["state"] == "restricted"
    runner.sql("UPDATE parcel SET open = false")
    *_, counted = runner.run("r2")
    assert (state_of_request(counted)["state"], counted.data["requests_overdue"]) == ("closed", 0)


@pytest.mark.parametrize(("zone", "became"), [("UTC", "closed"), ("Asia/Shanghai", "closed_late")])
def test_due_date_of_erasure_request_ends_at_midnight_in_timezone_of_policy_pack(
    runner: RetentionRunner, zone: str, became: str
) -> None:
    """At 16:30 UTC the next day has begun in Shanghai."""
    a_person(runner)
    runner.request("p1", date(2026, 1, 1))  # due on 31 January
    planned = runner.plan()
    executed = runner.execute(planned)
    then = runner.but(clock=FixedClock(datetime(2026, 1, 31, 16, 30, tzinfo=UTC)), timezone=zone)
    assert state_of_request(then.verify(planned, executed))["state"] == became
