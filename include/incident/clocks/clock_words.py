"""What people read of clocks: in questions, reports and on the timeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Literal

from include.evidence.model import Outcome
from include.incident.clocks.clock import Clock, ClockState, Why, for_people
from include.incident.rules import ClockRule
from include.messages import Message, _
from include.reports.model import Cell, Columns, Table, table_of, text_table

_ENTERED = 60
"""Seconds between a moment and its entry from which on both are told."""
_WHY = {
    Why.GRADE: _("not for this grade"),
    Why.TYPE: _("not for this type of incident"),
    Why.SYSTEMS: _("not for this company's systems"),
    Why.REGRADED: _("not any more: the incident was regraded"),
    Why.CANCELLED: _("not any more: the incident was cancelled"),
    Why.NOT_NEEDED: _("not any more: a person decided that it is not needed"),
}
_OUTCOMES = {
    ClockState.OVERDUE: Outcome.FAIL,
    ClockState.LATE: Outcome.FAIL,
    ClockState.MISSED: Outcome.FAIL,
    ClockState.DUE_SOON: Outcome.ATTENTION,
    ClockState.MET: Outcome.PASS,
}


def clock_rows(clocks: Iterable[Clock]) -> tuple[Sequence[Message], list[list[Message]]]:
    """Heads and rows for a page on which somebody is asked; only what applies or may yet.

    What has to be done comes first.
    """
    shown = [clock for clock in for_people(clocks) if clock.state is not ClockState.NOT_APPLICABLE]
    heads = [label for label, _kind, _cell in _COLUMNS]
    return heads, [[cell(clock) for _label, _kind, cell in _COLUMNS] for clock in shown]


def clock_table(clocks: Iterable[Clock]) -> Table:
    """All clocks for a report, those that do not apply with the reason; red ones fail."""
    columns: Columns[Clock] = (*_COLUMNS, (_("Result"), "outcome", result))
    return table_of(_("By when what has to be done"), for_people(clocks), columns)


def document_table(clocks: Iterable[Clock]) -> Table:
    """Clocks for who is handed a document: those that apply, or applied."""
    return text_table(_("By when what has to be done"), *clock_rows(clocks))


def outcome(clock: Clock) -> Outcome | None:
    """Red where something ran out, None where nothing can be said yet or has to be."""
    return _OUTCOMES.get(clock.state)


def result(clock: Clock) -> Cell:
    """The outcome, or in a word why there is none."""
    if (found := outcome(clock)) is not None:
        return found
    if clock.is_open or clock.state is ClockState.NOT_BEGUN:
        return _("still open")
    return _("does not apply")


def due(clock: Clock) -> Message:
    """When it is due, in words."""
    if clock.due_at is not None:
        return _moment(clock.due_at)
    if clock.state is ClockState.NOT_APPLICABLE:
        return _("never")
    within = clock.rule.within
    if within.months:
        return _("{period} after the end of the handling", period=str(within))
    length = within.days * 86_400 + within.seconds
    return _("{length:duration} after the end of the handling", length=length)


def state(clock: Clock) -> Message:
    """Where it stands, in words that need no colour."""
    words = _state(clock)
    if clock.provisional and (clock.is_open or clock.is_late):
        return _("{state}; the grade is not confirmed yet", state=words)
    return words


def basis(rule: ClockRule) -> Message:
    """The source of the period, and whether the figure is the company's."""
    if isinstance(rule.basis, str):
        return _("the company's own rule")
    if rule.immediate:
        return _("{source}: at once; the figure is the company's", source=rule.basis.message)
    return rule.basis.message


_COLUMNS: Sequence[tuple[Message, Literal["text"], Callable[[Clock], Message]]] = (
    (_("What"), "text", lambda clock: clock.rule.message),
    (_("Due"), "text", due),
    (_("State"), "text", state),
    (_("Basis"), "text", lambda clock: basis(clock.rule)),
)


def _state(clock: Clock) -> Message:
    lateness = clock.lateness.total_seconds()
    match clock.state:
        case ClockState.OVERDUE:
            return _("OVERDUE by {length:duration}", length=lateness)
        case ClockState.DUE_SOON | ClockState.RUNNING if clock.remaining is not None:
            return _("{length:duration} left", length=clock.remaining.total_seconds())
        case ClockState.NOT_YET:
            return _("only if it is graded otherwise than proposed")
        case ClockState.NOT_BEGUN:
            return _("begins with the end of the handling")
        case ClockState.LATE:
            return _("done {at}, late by {length:duration}", at=_done(clock), length=lateness)
        case ClockState.MET:
            return _("done {at}, in time", at=_done(clock))
        case ClockState.MISSED:
            return _(
                "not done, and was overdue by {length:duration}: {why}",
                length=lateness,
                why=_why(clock),
            )
        case _:
            return _why(clock)


def _why(clock: Clock) -> Message:
    assert clock.why is not None
    return _WHY[clock.why]


def _done(clock: Clock) -> Message:
    assert clock.done is not None
    return happened(clock.done.at, clock.done.recorded_at)


def happened(at: datetime, entered: datetime) -> Message:
    """A moment, and when it was entered where that was later."""
    if (entered - at).total_seconds() < _ENTERED:
        return _moment(at)
    return _("{at} (entered {entered})", at=at, entered=entered)


def _moment(at: datetime) -> Message:
    return Message(text="{at}", values={"at": at})
