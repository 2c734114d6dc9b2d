"""The score sheet of a drill counts what had to be done, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from include.evidence.model import Outcome
from include.incident.clocks.clock import Clock, ClockState
from include.incident.clocks.response_times import score, score_sheet
from include.incident.names import Kind
from include.incident.timeline import Entry
from include.reports.i18n import Translator
from tests.incident.clocks.clock_rig import entry, look, rule

AWARE = datetime(2026, 3, 2, 1, tzinfo=UTC)
RULE = rule("x", "reported", authority="cac", within="PT4H", grades=["larger"])
ENGLISH = Translator("en", "Asia/Shanghai")


def h(hours: float) -> datetime:
    return AWARE + timedelta(hours=hours)


def graded(place: int, grade: str, hours: float) -> Entry:
    return entry(place, Kind.GRADED, h(hours), grade=grade)


def reported(hours: float, *, handed_in: bool = True) -> Entry:
    return entry(2, Kind.REPORTED, h(hours), authority="cac", complete=handed_in)


LARGER = graded(1, "larger", 1)


def at_end(*entries: Entry, now: float = 6, proposed: str = "larger") -> Clock:
    found = look(list(entries), h(now), rules=[RULE], aware_at=AWARE, proposed=proposed)
    return found["x"]


@pytest.mark.parametrize(
    ("clock", "state", "points", "result"),
    [
        (at_end(LARGER, reported(3)), ClockState.MET, (1, 1), Outcome.PASS),
        (at_end(LARGER, reported(5)), ClockState.LATE, (0, 1), Outcome.FAIL),
        (at_end(LARGER), ClockState.OVERDUE, (0, 1), Outcome.FAIL),
        (at_end(LARGER, now=2), ClockState.RUNNING, (0, 1), Outcome.FAIL),
        (at_end(LARGER, graded(2, "general", 5)), ClockState.MISSED, (0, 1), Outcome.FAIL),
        (at_end(LARGER, reported(5, handed_in=False)), ClockState.MISSED, (0, 1), Outcome.FAIL),
        (at_end(LARGER, reported(3, handed_in=False)), ClockState.STOPPED, (0, 0), "not needed"),
        (at_end(LARGER, graded(2, "general", 3)), ClockState.LAPSED, (0, 0), "regraded"),
        (at_end(now=2, proposed="general"), ClockState.NOT_YET, (0, 0), "otherwise than proposed"),
    ],
)
def test_what_a_person_decided_in_time_counts_neither_for_nor_against(
    clock: Clock, state: ClockState, points: tuple[int, int], result: Outcome | str
) -> None:
    """What ran out before anybody decided so was late all the same."""
    assert clock.state is state
    assert score([clock]) == points
    [[_what, _time, _took, shown]] = score_sheet([clock]).rows
    if isinstance(result, Outcome):
        assert shown is result
    else:
        assert ENGLISH.value(shown).endswith(result)


def test_a_clock_that_never_applied_is_not_in_it() -> None:
    """Nor one that begins with the end of the handling, before that."""
    general = at_end(graded(1, "general", 1))
    assert general.state is ClockState.NOT_APPLICABLE
    assert (score([general]), score_sheet([general]).rows) == ((0, 0), [])
