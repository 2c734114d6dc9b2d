"""Figures that are carried on decide a rule as a new count would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.policy.expectations import Expectation
from include.quality.counts import Counts
from include.quality.judge import holds
from tests.expectations.test_gx import made

KIND = "expect_column_values_to_be_mobile_numbers"


def tolerating(percent: int) -> Expectation:
    """A rule that tolerates this share."""
    rule = made(KIND)
    kwargs = rule.kwargs.model_copy(update={"mostly": 1 - percent / 100})
    return rule.model_copy(update={"kwargs": kwargs})


@given(
    known=st.integers(1, 300),
    off=st.integers(0, 60),
    broken=st.integers(0, 300),
    percent=st.integers(0, 100),
    moved=st.integers(-60, 60),
)
def test_what_is_decided_holds_for_every_number_that_is_possible(
    known: int, off: int, broken: int, percent: int, moved: int
) -> None:
    """However many records came or went, as long as they are no more than may be off."""
    rule = tolerating(percent)
    counts = Counts(known, carried=True, off=off)
    truth = known + max(-off, min(off, moved))
    if counts.decide(rule, broken) and truth >= max(broken, 1):
        assert holds(rule, truth, broken) == holds(rule, known, broken)


@given(known=st.integers(1, 300), broken=st.integers(0, 300), percent=st.integers(0, 100))
def test_a_count_of_now_decides_every_rule(known: int, broken: int, percent: int) -> None:
    """Nothing is off."""
    if broken <= known:
        assert Counts(known).decide(tolerating(percent), broken)


def test_a_rule_about_no_record_waits_for_a_count() -> None:
    """There may be one now: that is told from none."""
    rule = made(KIND)
    assert not Counts(9, {rule.id: 0}, carried=True, off=1).decide(rule, 0)
    assert Counts(9, {rule.id: 0}, carried=True, off=0).decide(rule, 0)
    assert Counts(9, {rule.id: 5}, carried=True, off=4).decide(rule, 0)
    assert not Counts(9, {rule.id: 5}, carried=True, off=5).decide(rule, 0)
    assert not Counts(9, {rule.id: 5}, carried=True, off=9).decide(rule, 6)


@pytest.mark.parametrize(
    "where",
    ["seen < (:now - INTERVAL '30 days')", "exists (SELECT FROM consent)", "id IN (table vip)"],
)
def test_time_and_other_tables_may_change_whom_a_rule_is_about(where: str) -> None:
    """Though nobody wrote to the records: only what holds for any number is decided."""
    strict, lenient = made(KIND), tolerating(10)
    kwargs = {"where": where}
    strict, lenient = (
        one.model_copy(update={"kwargs": one.kwargs.model_copy(update=kwargs)})
        for one in (strict, lenient)
    )
    counts = Counts(40, {strict.id: 30}, carried=True, off=0)
    assert counts.decide(strict, 2)  # one is too many, however many there are
    assert not counts.decide(lenient, 2)
    assert not counts.decide(strict, 0)  # there may be none left that it is about


def test_what_is_asked_of_related_records_leaves_the_number_of_these_alone() -> None:
    """Their condition does not select whom the rule is about."""
    rule = made("expect_related_records")
    asked = {"condition": "NOT EXISTS (SELECT FROM x)", "mostly": 0.9}
    rule = rule.model_copy(update={"kwargs": rule.kwargs.model_copy(update=asked)})
    assert Counts(400, {rule.id: 300}, carried=True, off=9).decide(rule, 2)
