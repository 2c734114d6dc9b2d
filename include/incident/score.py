"""The score sheet of a drill: how long every step took, held against the time that there was."""

from __future__ import annotations

from collections.abc import Sequence

from include.evidence.model import Outcome
from include.incident.clocks.clock import Clock, ClockState
from include.messages import _
from include.reports.model import Cell, Column, Table

_POINTS = {ClockState.MET: 1}


def score(clocks: Sequence[Clock]) -> tuple[int, int]:
    """Points of a drill: one for each clock that was met, of all that applied and were due.

    Args:
        clocks: as they stand at its end.
    """
    played = [one for one in clocks if one.due_at is not None]
    return sum(_POINTS.get(one.state, 0) for one in played), len(played)


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
        met = Outcome.PASS if one.state is ClockState.MET else Outcome.FAIL
        rows.append([one.rule.message, allowed, took, met])
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
