"""The score sheet of a drill: how long every step took, held against the time that there was."""

from __future__ import annotations

from collections.abc import Sequence

from include.evidence.model import Outcome
from include.incident.clocks.clock import Clock, ClockState
from include.incident.clocks.clock_words import state
from include.messages import _
from include.reports.model import Cell, Column, Table

_NOT_COUNTED = (ClockState.STOPPED, ClockState.LAPSED, ClockState.NOT_YET)
"""A person decided while there was time that it need not be done, or it was never a duty."""


def score(clocks: Sequence[Clock]) -> tuple[int, int]:
    """Points of a drill: one for each clock that was met, of all that had to be.

    What a person decided in time need not be done counts neither for nor against.

    Args:
        clocks: as they stand at its end.
    """
    played = [one for one in clocks if one.due_at is not None and one.state not in _NOT_COUNTED]
    return sum(one.state is ClockState.MET for one in played), len(played)


def score_sheet(clocks: Sequence[Clock]) -> Table:
    """What there was time for, how long it took, and whether that was in time.

    Args:
        clocks: as they stand at the end of the drill.
    """
    rows: list[list[Cell]] = []
    for one in clocks:
        if one.due_at is None or one.begins_at is None:
            continue
        allowed = (one.due_at - one.begins_at).total_seconds()
        took = (one.done_at - one.begins_at).total_seconds() if one.done_at else None
        rows.append([one.rule.message, allowed, took, _result(one)])
    return Table(
        caption=_("Times of the drill against its clocks"),
        columns=[
            Column(label=_("What")),
            Column(label=_("Time that there was"), kind="duration"),
            Column(label=_("Time that it took"), kind="duration"),
            Column(label=_("Result"), kind="outcome"),
        ],
        rows=rows,
    )


def _result(one: Clock) -> Cell:
    if one.state in _NOT_COUNTED:
        return state(one)
    return Outcome.PASS if one.state is ClockState.MET else Outcome.FAIL
