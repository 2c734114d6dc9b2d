"""Texts about time limits for approval forms, reports and the timeline."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Literal

from include.evidence.model import Outcome
from include.incident.rules import TimeLimitRule
from include.incident.time_limits.time_limit import (
    InactiveReason,
    TimeLimit,
    TimeLimitState,
    sort_by_urgency,
)
from include.messages import Message, _, verbatim
from include.policy.period import Period
from include.reports.model import Cell, Columns, Table, table_of

_ENTRY_DELAY_SECONDS = 60
"""Seconds between an event and its entry from which texts state both times."""
_INACTIVE_TEXTS = {
    InactiveReason.GRADE: _("does not apply to incidents of this grade"),
    InactiveReason.TYPE: _("does not apply to this type of incident"),
    InactiveReason.SYSTEMS: _("does not apply to the company's type of systems"),
    InactiveReason.REGRADED: _("no longer applies: the grade was changed"),
    InactiveReason.CANCELLED: _("no longer applies: the incident was cancelled"),
    InactiveReason.NOT_NEEDED: _("no longer applies: the action was declared not required"),
}
_OUTCOMES = {
    TimeLimitState.OVERDUE: Outcome.FAIL,
    TimeLimitState.LATE: Outcome.FAIL,
    TimeLimitState.MISSED: Outcome.FAIL,
    TimeLimitState.DUE_SOON: Outcome.ATTENTION,
    TimeLimitState.MET: Outcome.PASS,
}


def deadline_rows(
    time_limits: Iterable[TimeLimit],
) -> tuple[Sequence[Message], list[list[Message]]]:
    """Return the column titles and rows of the table of time limits in an approval form.

    The most urgent time limit comes first. Time limits that do not apply are left out. The table
    states no remaining time: an approval form keeps its text until a person answers, so the
    remaining time would be wrong soon.
    """
    columns = _columns_with(lasting_state_text)
    return [label for label, _kind, _cell in columns], [
        [cell(time_limit) for _label, _kind, cell in columns]
        for time_limit in _applicable(time_limits)
    ]


def _applicable(time_limits: Iterable[TimeLimit]) -> list[TimeLimit]:
    """Return the time limits that apply, the most urgent first."""
    return [
        time_limit
        for time_limit in sort_by_urgency(time_limits)
        if time_limit.state is not TimeLimitState.NOT_APPLICABLE
    ]


def lasting_state_text(time_limit: TimeLimit) -> Message:
    """Return the state of a time limit as text that stays right while the time limit is open."""
    if not time_limit.is_open or time_limit.due_at is None:
        return state_text(time_limit)
    words = _("OVERDUE") if time_limit.state is TimeLimitState.OVERDUE else _("not done yet")
    if time_limit.state is TimeLimitState.NOT_YET:
        words = _plain_state_text(time_limit)
    return _with_provisional_grade(time_limit, words)


def time_limit_table(time_limits: Iterable[TimeLimit]) -> Table:
    """Return a report table of all time limits with their outcomes, most urgent first.

    If a time limit has no outcome, the cell says that it is still open or does not apply.
    """
    columns: Columns[TimeLimit] = (
        *_columns_with(state_text),
        (_("Result"), "outcome", time_limit_result),
    )
    return table_of(_("Time limits and deadlines"), sort_by_urgency(time_limits), columns)


def document_table(time_limits: Iterable[TimeLimit]) -> Table:
    """Return a table of time limits for a document that is handed in to an authority.

    Time limits that do not apply are left out. The table states deadlines as dates and times, and
    never the time that is left, which would be wrong as soon as the document is read.
    """
    columns = _columns_with(_document_state_text)
    return table_of(_("Time limits and deadlines"), _applicable(time_limits), columns)


def time_limit_outcome(time_limit: TimeLimit) -> Outcome | None:
    """Return the outcome of a time limit: failed if it was missed, passed if it was met.

    Return None in all other cases.
    """
    return _OUTCOMES.get(time_limit.state)


def time_limit_result(time_limit: TimeLimit) -> Cell:
    """Return the outcome of a time limit as a table cell.

    If there is no outcome, the cell says that the time limit is still open or does not apply.
    """
    if (outcome := time_limit_outcome(time_limit)) is not None:
        return outcome
    if time_limit.is_open or time_limit.state is TimeLimitState.NOT_BEGUN:
        return _("still open")
    return _("does not apply")


def due_text(time_limit: TimeLimit) -> Message:
    """Return the deadline of a time limit as text.

    If the time limit starts only when the incident is closed, the text states the length of the
    time limit instead.
    """
    if time_limit.due_at is not None:
        return _moment(time_limit.due_at)
    if time_limit.state is TimeLimitState.NOT_APPLICABLE:
        return _("no deadline")
    within = time_limit.rule.within
    if within.months:
        months = _("{months} months after the incident is closed", months=within.months)
        return months if within.span == Period("", within.months).span else verbatim(str(within))
    length = within.days * 86_400 + within.seconds
    return _("{length:duration} after the incident is closed", length=length)


def state_text(time_limit: TimeLimit) -> Message:
    """Return the state of a time limit as text, such as ``3 h left``."""
    return _with_provisional_grade(time_limit, _plain_state_text(time_limit))


def _with_provisional_grade(time_limit: TimeLimit, words: Message) -> Message:
    if time_limit.provisional and (time_limit.is_open or time_limit.is_late):
        return _("{state}; the grade is not confirmed yet", state=words)
    return words


def _document_state_text(time_limit: TimeLimit) -> Message:
    """Return the state of a time limit as text without a duration until now."""
    match time_limit.state:
        case TimeLimitState.DUE_SOON | TimeLimitState.RUNNING:
            words = _("not due yet")
        case TimeLimitState.OVERDUE:
            words = _("not done by the deadline")
        case _:
            return state_text(time_limit)
    return _with_provisional_grade(time_limit, words)


def basis_text(rule: TimeLimitRule) -> Message:
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


def _columns_with(
    state: Callable[[TimeLimit], Message],
) -> Sequence[tuple[Message, Literal["text"], Callable[[TimeLimit], Message]]]:
    """Return the columns of a table of time limits.

    Args:
        state: function that returns the state of a time limit as text.
    """
    return (
        (_("Time limit"), "text", lambda time_limit: time_limit.rule.message),
        (_("Deadline"), "text", due_text),
        (_("State"), "text", state),
        (_("Basis"), "text", lambda time_limit: basis_text(time_limit.rule)),
    )


def _plain_state_text(time_limit: TimeLimit) -> Message:
    lateness = time_limit.lateness.total_seconds()
    match time_limit.state:
        case TimeLimitState.OVERDUE:
            return _("OVERDUE by {length:duration}", length=lateness)
        case TimeLimitState.DUE_SOON | TimeLimitState.RUNNING if time_limit.remaining is not None:
            return _("{length:duration} left", length=time_limit.remaining.total_seconds())
        case TimeLimitState.NOT_YET:
            return _(
                "applies only if the confirmed grade of the incident differs from the "
                "proposed grade"
            )
        case TimeLimitState.NOT_BEGUN:
            return _("counted from the closing of the incident")
        case TimeLimitState.LATE:
            return _(
                "done at {at}, late by {length:duration}",
                at=_done_text(time_limit),
                length=lateness,
            )
        case TimeLimitState.MET:
            return _("done at {at}, in time", at=_done_text(time_limit))
        case TimeLimitState.MISSED:
            return _(
                "not done; overdue by {length:duration} when the time limit stopped applying "
                "({reason})",
                length=lateness,
                reason=_inactive_text(time_limit),
            )
        case _:
            return _inactive_text(time_limit)


def _inactive_text(time_limit: TimeLimit) -> Message:
    assert time_limit.inactive_reason is not None
    return _INACTIVE_TEXTS[time_limit.inactive_reason]


def _done_text(time_limit: TimeLimit) -> Message:
    assert time_limit.reached_milestone is not None
    return occurrence_text(
        time_limit.reached_milestone.at, time_limit.reached_milestone.recorded_at
    )


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
