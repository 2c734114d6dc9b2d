"""Texts about time limits for approval forms, reports and the timeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Literal

from include.evidence.model import Outcome
from include.incident.clocks.clock import Clock, ClockState, InactiveReason, sort_by_urgency
from include.incident.rules import ClockRule
from include.messages import Message, _, verbatim
from include.policy.period import Period
from include.reports.model import Cell, Columns, Table, table_of, text_table

_ENTRY_DELAY_SECONDS = 60
"""Seconds between an event and its entry from which texts state both times."""
_INACTIVE_TEXTS = {
    InactiveReason.GRADE: _("does not apply to this grade"),
    InactiveReason.TYPE: _("does not apply to this type of incident"),
    InactiveReason.SYSTEMS: _("does not apply to systems such as those of the company"),
    InactiveReason.REGRADED: _("no longer applies: the grade was changed"),
    InactiveReason.CANCELLED: _("no longer applies: the incident was cancelled"),
    InactiveReason.NOT_NEEDED: _("no longer applies: the action was declared not required"),
}
_OUTCOMES = {
    ClockState.OVERDUE: Outcome.FAIL,
    ClockState.LATE: Outcome.FAIL,
    ClockState.MISSED: Outcome.FAIL,
    ClockState.DUE_SOON: Outcome.ATTENTION,
    ClockState.MET: Outcome.PASS,
}


def clock_rows(clocks: Iterable[Clock]) -> tuple[Sequence[Message], list[list[Message]]]:
    """Return the column titles and rows of the table of time limits in an approval form.

    The most urgent time limit comes first. Time limits that do not apply are left out.
    """
    applicable = [
        clock for clock in sort_by_urgency(clocks) if clock.state is not ClockState.NOT_APPLICABLE
    ]
    heads = [label for label, _kind, _cell in _COLUMNS]
    return heads, [[cell(clock) for _label, _kind, cell in _COLUMNS] for clock in applicable]


def clock_table(clocks: Iterable[Clock]) -> Table:
    """Return a report table of all time limits with their outcomes, most urgent first.

    If a time limit has no outcome, the cell says that it is still open or does not apply.
    """
    columns: Columns[Clock] = (*_COLUMNS, (_("Result"), "outcome", clock_result))
    return table_of(_("Time limits and deadlines"), sort_by_urgency(clocks), columns)


def document_table(clocks: Iterable[Clock]) -> Table:
    """Return a table of time limits for a document that is handed in to an authority.

    Time limits that do not apply are left out.
    """
    return text_table(_("Time limits and deadlines"), *clock_rows(clocks))


def clock_outcome(clock: Clock) -> Outcome | None:
    """Return the outcome of a time limit: failed if it was missed, passed if it was met.

    Return None in all other cases.
    """
    return _OUTCOMES.get(clock.state)


def clock_result(clock: Clock) -> Cell:
    """Return the outcome of a time limit as a table cell.

    If there is no outcome, the cell says that the time limit is still open or does not apply.
    """
    if (outcome := clock_outcome(clock)) is not None:
        return outcome
    if clock.is_open or clock.state is ClockState.NOT_BEGUN:
        return _("still open")
    return _("does not apply")


def due_text(clock: Clock) -> Message:
    """Return the deadline of a time limit as text.

    If the time limit starts only when the incident is closed, the text states the length of the
    time limit instead.
    """
    if clock.due_at is not None:
        return _moment(clock.due_at)
    if clock.state is ClockState.NOT_APPLICABLE:
        return _("no deadline")
    within = clock.rule.within
    if within.months:
        months = _("{months} months after the incident is closed", months=within.months)
        return months if within.span == Period("", within.months).span else verbatim(str(within))
    length = within.days * 86_400 + within.seconds
    return _("{length:duration} after the incident is closed", length=length)


def state_text(clock: Clock) -> Message:
    """Return the state of a time limit as text, such as ``3 h left``."""
    words = _plain_state_text(clock)
    if clock.provisional and (clock.is_open or clock.is_late):
        return _("{state}; the grade is not confirmed yet", state=words)
    return words


def basis_text(rule: ClockRule) -> Message:
    """Return a text that names the source of a time limit: a law, or the company itself.

    If the law demands the action at once and sets no period, the text also says that the company
    chose the length.
    """
    if isinstance(rule.basis, str):
        return _("the company's own rule")
    if rule.immediate:
        return _(
            "{source} requires it immediately; the company set the exact time limit",
            source=rule.basis.message,
        )
    return rule.basis.message


_COLUMNS: Sequence[tuple[Message, Literal["text"], Callable[[Clock], Message]]] = (
    (_("Time limit"), "text", lambda clock: clock.rule.message),
    (_("Deadline"), "text", due_text),
    (_("State"), "text", state_text),
    (_("Basis"), "text", lambda clock: basis_text(clock.rule)),
)


def _plain_state_text(clock: Clock) -> Message:
    lateness = clock.lateness.total_seconds()
    match clock.state:
        case ClockState.OVERDUE:
            return _("OVERDUE by {length:duration}", length=lateness)
        case ClockState.DUE_SOON | ClockState.RUNNING if clock.remaining is not None:
            return _("{length:duration} left", length=clock.remaining.total_seconds())
        case ClockState.NOT_YET:
            return _(
                "applies only if the confirmed grade of the incident differs from the "
                "proposed grade"
            )
        case ClockState.NOT_BEGUN:
            return _("starts when the incident is closed")
        case ClockState.LATE:
            return _(
                "done at {at}, late by {length:duration}", at=_done_text(clock), length=lateness
            )
        case ClockState.MET:
            return _("done at {at}, in time", at=_done_text(clock))
        case ClockState.MISSED:
            return _(
                "not done. The deadline had passed {length:duration} before the time limit "
                "stopped applying. Reason: {reason}",
                length=lateness,
                reason=_inactive_text(clock),
            )
        case _:
            return _inactive_text(clock)


def _inactive_text(clock: Clock) -> Message:
    assert clock.inactive_reason is not None
    return _INACTIVE_TEXTS[clock.inactive_reason]


def _done_text(clock: Clock) -> Message:
    assert clock.reached_milestone is not None
    return occurrence_text(clock.reached_milestone.at, clock.reached_milestone.recorded_at)


def occurrence_text(at: datetime, entered: datetime) -> Message:
    """Return the time of an event as text. If it was recorded later, the text has both times.

    Args:
        at: time of the event.
        entered: time at which the event was recorded.
    """
    if (entered - at).total_seconds() < _ENTRY_DELAY_SECONDS:
        return _moment(at)
    return _("{at} (entered later, at {entered})", at=at, entered=entered)


def _moment(at: datetime) -> Message:
    return Message(text="{at}", values={"at": at})
