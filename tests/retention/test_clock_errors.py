"""Tests that no record is erased too early because of wrong clocks or absurd start dates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from include.services.clock import SystemClock
from include.services.errors import ControlFailed, UsageError
from tests.retention.runner import AS_OF, RetentionRunner, fill, rule


@dataclass(frozen=True)
class WrongClock:
    """A clock that differs from the system clock by a constant."""

    by: timedelta
    source: str = "a clock that is wrong"

    def now(self) -> datetime:
        return SystemClock().now() + self.by


@pytest.mark.parametrize("by", [timedelta(days=-400), timedelta(minutes=30), timedelta(days=9)])
def test_plan_and_execution_fail_if_system_clock_differs_from_database_clock(
    runner: RetentionRunner, by: timedelta
) -> None:
    fill(runner)
    wrong = runner.but(clock=WrongClock(by))
    with pytest.raises(ControlFailed, match="clock of the worker shows"):
        wrong.plan()
    planned = runner.plan()
    with pytest.raises(ControlFailed, match="clock of the worker shows"):
        wrong.execute(planned)
    assert len(runner.keys_in("node")) == 3


def test_plan_and_execution_fail_if_system_clock_is_before_last_plan(
    runner: RetentionRunner,
) -> None:
    """The clocks of both databases may be wrong too.

    But the state database has the earlier plan.
    """
    fill(runner)
    planned = runner.plan()
    runner.state_sql("UPDATE disposition SET planned_at = planned_at + interval '2 days'")
    with pytest.raises(ControlFailed, match="a plan was made at"):
        runner.plan("r2")
    with pytest.raises(ControlFailed, match="a plan was made at"):
        runner.execute(planned)
    assert len(runner.keys_in("node")) == 3


def test_plan_raises_usage_error_if_its_time_is_in_future(runner: RetentionRunner) -> None:
    with pytest.raises(UsageError, match="in the future"):
        runner.plan(as_of=SystemClock().now() + timedelta(hours=1))


def test_run_deletes_only_records_dated_before_time_of_plan_if_retention_period_is_zero_days(
    runner: RetentionRunner,
) -> None:
    runner = runner.but(rules=[rule("node", period="P0D")])
    runner.insert("node", id=1, at=AS_OF - timedelta(microseconds=1))
    runner.insert("node", id=2, at=AS_OF)
    runner.insert("node", id=3, at=AS_OF + timedelta(days=1))
    runner.insert("node", id=4, at=None)
    runner.run()
    assert runner.keys_in("node") == {("2",), ("3",), ("4",)}


@pytest.mark.parametrize("period", ["P100Y1M", "P40000D", "P9999Y", "-P1Y", "P-1Y", "P1.5Y", "1Y"])
def test_retention_rule_raises_validation_error_if_period_is_negative_fractional_or_too_long(
    period: str,
) -> None:
    with pytest.raises(ValidationError):
        rule("node", period=period)


def test_record_class_raises_validation_error_if_start_of_retention_period_is_missing() -> None:
    said = rule("node").model_dump(by_alias=True)
    with pytest.raises(ValidationError, match="clock"):
        type(rule("node")).model_validate({k: v for k, v in said.items() if k != "clock"})
    with pytest.raises(ValidationError):
        rule("node", clock=[])


def test_retention_period_of_a_century_expires_only_records_older_than_a_century(
    runner: RetentionRunner,
) -> None:
    """The longest period that a policy pack may have must not overflow."""
    runner = runner.but(rules=[rule("node", period="P100Y")])
    runner.insert("node", id=1, at=datetime(1925, 12, 31, tzinfo=UTC))
    runner.insert("node", id=2, at=datetime(1926, 1, 2, tzinfo=UTC))
    runner.run()
    assert runner.keys_in("node") == {("2",)}


def test_record_is_kept_if_start_of_retention_period_is_null_infinite_or_in_future(
    runner: RetentionRunner,
) -> None:
    """Only a record whose retention period starts at -infinity has expired."""
    for number, at in enumerate(["infinity", "-infinity", "2199-01-01", None]):
        runner.insert("node", id=number, at=at)
    planned, executed, counted = runner.run()
    node = next(each for each in planned.data["classes"] if each["name"] == "node")
    assert (node["expired"], node["not_started"], node["ahead"]) == (1, 1, 2)
    assert executed.data["done"] == {"node": 1}
    assert runner.keys_in("node") == {("0",), ("2",), ("3",)}
    assert counted.data["unexplained"] == 0


def test_retention_period_with_two_start_columns_counts_from_column_that_is_not_null(
    runner: RetentionRunner,
) -> None:
    rules = [
        rule("person", clock=["at", "masked_at"], action="delete", keys={}),
    ]
    runner = runner.but(rules=rules)
    runner.insert("person", id=1, at="2023-01-01", masked_at=None)
    runner.insert("person", id=2, at="2023-01-01", masked_at="2025-06-01")
    runner.insert("person", id=3, at=None, masked_at=None)
    runner.run()
    assert runner.keys_in("person") == {("2",), ("3",)}
