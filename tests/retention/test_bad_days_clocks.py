"""Clocks that are wrong, missing or absurd never make a record go before its time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from include.services.clock import SystemClock
from include.services.errors import ControlFailed, UsageError
from tests.retention.rig import AS_OF, Rig, fill, rule


@dataclass(frozen=True)
class WrongClock:
    """The machine's clock, set wrong by so much."""

    by: timedelta
    source: str = "a clock that is wrong"

    def now(self) -> datetime:
        return SystemClock().now() + self.by


@pytest.mark.parametrize("by", [timedelta(days=-400), timedelta(minutes=30), timedelta(days=9)])
def test_a_clock_apart_from_the_databases_plans_nothing(rig: Rig, by: timedelta) -> None:
    """Set back or ahead, before the plan or after it: nothing goes."""
    fill(rig)
    wrong = rig.but(clock=WrongClock(by))
    with pytest.raises(ControlFailed, match="clock here says"):
        wrong.plan()
    planned = rig.plan()
    with pytest.raises(ControlFailed, match="clock here says"):
        wrong.execute(planned)
    assert len(rig.keys_in("node")) == 3


def test_a_clock_set_back_behind_the_last_plan_plans_nothing(rig: Rig) -> None:
    """Both databases may have been set back with us; the state database remembers a plan."""
    fill(rig)
    planned = rig.plan()
    rig.state_sql("UPDATE disposition SET planned_at = planned_at + interval '2 days'")
    with pytest.raises(ControlFailed, match="a plan was made at"):
        rig.plan("r2")
    with pytest.raises(ControlFailed, match="a plan was made at"):
        rig.execute(planned)
    assert len(rig.keys_in("node")) == 3


def test_a_moment_that_has_not_come_is_refused(rig: Rig) -> None:
    """Nothing is planned ahead of time."""
    with pytest.raises(UsageError, match="in the future"):
        rig.plan(as_of=SystemClock().now() + timedelta(hours=1))


def test_no_period_at_all_means_once_the_clock_has_started(rig: Rig) -> None:
    """P0D: what began before the moment goes, what begins at it or later stays."""
    rig = rig.but(rules=[rule("node", period="P0D")])
    rig.insert("node", id=1, at=AS_OF - timedelta(microseconds=1))
    rig.insert("node", id=2, at=AS_OF)
    rig.insert("node", id=3, at=AS_OF + timedelta(days=1))
    rig.insert("node", id=4, at=None)
    rig.run()
    assert rig.keys_in("node") == {("2",), ("3",), ("4",)}


@pytest.mark.parametrize("period", ["P100Y1M", "P40000D", "P9999Y", "-P1Y", "P-1Y", "P1.5Y", "1Y"])
def test_a_period_beyond_a_century_or_below_nothing_is_no_schedule(period: str) -> None:
    """The pack does not load; no date could hold it."""
    with pytest.raises(ValidationError):
        rule("node", period=period)


def test_a_class_without_a_clock_is_no_schedule() -> None:
    """There is no default for what starts a period."""
    said = rule("node").model_dump(by_alias=True)
    with pytest.raises(ValidationError, match="clock"):
        type(rule("node")).model_validate({k: v for k, v in said.items() if k != "clock"})
    with pytest.raises(ValidationError):
        rule("node", clock=[])


def test_a_century_reaches_back_behind_every_record(rig: Rig) -> None:
    """The longest period that a pack may say is worked out without an overflow."""
    rig = rig.but(rules=[rule("node", period="P100Y")])
    rig.insert("node", id=1, at=datetime(1925, 12, 31, tzinfo=UTC))
    rig.insert("node", id=2, at=datetime(1926, 1, 2, tzinfo=UTC))
    rig.run()
    assert rig.keys_in("node") == {("2",)}


def test_clocks_that_say_nothing_or_nonsense(rig: Rig) -> None:
    """NULL, the future and infinity stay, and the plan counts them; -infinity is over."""
    for number, at in enumerate(["infinity", "-infinity", "2199-01-01", None]):
        rig.insert("node", id=number, at=at)
    planned, executed, counted = rig.run()
    node = next(one for one in planned.data["classes"] if one["name"] == "node")
    assert (node["expired"], node["not_started"], node["ahead"]) == (1, 1, 2)
    assert executed.data["done"] == {"node": 1}
    assert rig.keys_in("node") == {("0",), ("2",), ("3",)}
    assert counted.data["unexplained"] == 0


def test_a_record_of_which_one_clock_is_missing(rig: Rig) -> None:
    """Of several columns the latest counts, and one that is null is passed over."""
    rules = [
        rule("person", clock=["at", "masked_at"], action="delete", keys={}),
    ]
    rig = rig.but(rules=rules)
    rig.insert("person", id=1, at="2023-01-01", masked_at=None)
    rig.insert("person", id=2, at="2023-01-01", masked_at="2025-06-01")
    rig.insert("person", id=3, at=None, masked_at=None)
    rig.run()
    assert rig.keys_in("person") == {("2",), ("3",)}
