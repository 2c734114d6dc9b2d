"""Tests that a drill is scored only by time limits that nobody ended before their deadline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.evidence.model import Outcome
from include.incident.incident_ids import Kind
from include.incident.time_limits.response_times import drill_score, score_sheet
from include.incident.time_limits.time_limit import TimeLimit, TimeLimitState
from include.incident.timeline import Entry
from include.reports.i18n import Translator
from tests.incident.time_limits.time_limit_fixtures import entry, look, rule

AWARE = datetime(2026, 3, 2, 1, tzinfo=UTC)
RULE = rule("x", "reported", authority="cac", within="PT4H", grades=["larger"])
ENGLISH = Translator("en", "Asia/Shanghai")


def h(hours: float) -> datetime:
    return AWARE + timedelta(hours=hours)


def graded(position: int, grade: str, hours: float) -> Entry:
    return entry(position, Kind.GRADED, h(hours), grade=grade)


def reported(hours: float, *, handed_in: bool = True) -> Entry:
    return entry(2, Kind.REPORTED, h(hours), authority="cac", complete=handed_in)


LARGER = graded(1, "larger", 1)


def at_end(*entries: Entry, now: float = 6, proposed: str = "larger") -> TimeLimit:
    time_limits = look(list(entries), h(now), rules=[RULE], aware_at=AWARE, proposed=proposed)
    return time_limits["x"]


@pytest.mark.parametrize(
    ("time_limit", "state", "points", "result"),
    [
        (at_end(LARGER, reported(3)), TimeLimitState.MET, (1, 1), Outcome.PASS),
        (at_end(LARGER, reported(5)), TimeLimitState.LATE, (0, 1), Outcome.FAIL),
        (at_end(LARGER), TimeLimitState.OVERDUE, (0, 1), Outcome.FAIL),
        (at_end(LARGER, now=2), TimeLimitState.RUNNING, (0, 1), Outcome.FAIL),
        (at_end(LARGER, graded(2, "general", 5)), TimeLimitState.MISSED, (0, 1), Outcome.FAIL),
        (at_end(LARGER, reported(5, handed_in=False)), TimeLimitState.MISSED, (0, 1), Outcome.FAIL),
        (
            at_end(LARGER, reported(3, handed_in=False)),
            TimeLimitState.STOPPED,
            (0, 0),
            "not required",
        ),
        (
            at_end(LARGER, graded(2, "general", 3)),
            TimeLimitState.LAPSED,
            (0, 0),
            "grade was changed",
        ),
        (
            at_end(now=2, proposed="general"),
            TimeLimitState.NOT_YET,
            (0, 0),
            "differs from the proposed grade",
        ),
    ],
)
def test_drill_score_leaves_out_time_limits_that_became_unnecessary_before_deadline(
    time_limit: TimeLimit, state: TimeLimitState, points: tuple[int, int], result: Outcome | str
) -> None:
    assert time_limit.state is state
    assert drill_score([time_limit]) == points
    [[_what, _time, _took, cell]] = score_sheet([time_limit]).rows
    if isinstance(result, Outcome):
        assert cell is result
    else:
        assert ENGLISH.value(cell).endswith(result)


def test_drill_score_ignores_time_limit_that_does_not_apply() -> None:
    general = at_end(graded(1, "general", 1))
    assert general.state is TimeLimitState.NOT_APPLICABLE
    assert (drill_score([general]), score_sheet([general]).rows) == ((0, 0), [])
