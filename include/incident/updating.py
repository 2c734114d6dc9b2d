"""What people add to an incident at any time: notes, hand-overs, people, another grade, an end.

Every update is an entry of the timeline; none changes what stands there. Whoever is of the team or
of its management may enter one; whoever is a suspect or was taken off may not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from include.approvals.people import is_among, same_person
from include.approvals.reasons import says_something, value_free_reason
from include.evidence.step_findings import StepFindings
from include.incident import register, timeline
from include.incident.clocks.milestones import is_declined
from include.incident.entries import Reported, Told, UpdateEntered
from include.incident.form import LONGEST, Action
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_number,
    record_in,
    record_of,
    rules_of,
)
from include.incident.names import Kind, State
from include.incident.rules import HumanStep
from include.incident.selection import moment
from include.incident.team import (
    Team,
    everybody,
    is_known,
    leading,
    team_of,
    who_answered,
)
from include.incident.telling import notifying
from include.incident.timeline import Entry
from include.messages import Message, _
from include.services.errors import UsageError

_USER_ID = re.compile(r"[\w.@-]{1,100}")
MOST_NAMES = 10


@dataclass(frozen=True)
class Update:
    """One update as it was entered.

    Attributes:
        action: what it does.
        words: what happened or why, in the person's words.
        account: of whom it is: taken off, assigned, or whom the shift is handed to.
        duty: that is assigned.
        grade: that is confirmed.
        entry: place of the entry that was made by mistake.
        at: when it happened, as it was typed; empty means now, and what ends clocks is now.
    """

    action: Action
    words: str
    account: str = ""
    duty: str = ""
    grade: str = ""
    entry: int | None = None
    at: str = ""


def enter_update(run: IncidentRun, findings: StepFindings) -> UpdateEntered:
    """Enter an update on the timeline, in the name of who triggered the run."""
    del findings
    entry = enter(
        run,
        incident_number(run),
        _update(run.parameters),
        by=run.triggered_by or "",
        once=f"{run.run.dag_id}/{run.run.run_id}",
    )
    action = run.parameters.get("action")
    return UpdateEntered(number=incident_number(run), entry=entry.place, action=action)


def is_widened(parameters: Mapping[str, Any]) -> bool:
    """Return whether an update says that more is affected."""
    return parameters.get("action") == Action.WIDEN


def _update(parameters: Mapping[str, Any]) -> Update:
    def text(name: str) -> str:
        return str(parameters.get(name) or "")

    return Update(
        action=Action(text("action") or Action.NOTE),
        words=text("words"),
        account=text("account"),
        duty=text("duty"),
        grade=text("grade"),
        entry=parameters.get("entry"),
        at=text("at"),
    )


def enter(
    run: IncidentRun, number: str, update: Update, *, by: str, once: str | None = None
) -> Entry:
    """Enter an update; `Action.WIDEN` is only noted here, and counted by who calls this.

    Args:
        run: the run or command.
        number: of the incident.
        update: as it was entered.
        by: user id of who enters it.
        once: what makes it the same one when a task is repeated.

    Raises:
        UsageError: there is no such incident, it ended, a field is missing or wrong, or the person
            may not.
    """
    incident_id = record_of(run, number).incident.id
    with run.state.begin() as conn:  # what is looked at here stays so until it is entered
        timeline.lock_incident(conn, incident_id)
        if once is not None and (before := timeline.entered(conn, incident_id, once)) is not None:
            return before  # a repeated task; it may have been cancelled by this very entry
        record = record_in(conn, number)
        _refuse(run, record, update, by)
        words = value_free_reason(update.words, LONGEST)
        _refuse_moment(update)
        kind, message, data = _made(run, record, update, words)
        entry = timeline.append(
            conn, record.incident.id, kind, message, by=by, clock=run.clock,
            happened_at=_moment(run, record, update), data={"action": str(update.action), **data},
            once=once,
        )  # fmt: skip
        if update.action is Action.REGRADE:
            register.graded(conn, record.incident.id, update.grade)
        elif update.action is Action.CANCEL:
            register.ended(conn, record.incident.id, State.CANCELLED, entry.recorded_at)
        elif update.action is Action.CORRECT:
            notifying.told(conn, run, record_in(conn, number))  # whether all are, without it
    return entry


def _refuse(run: IncidentRun, record: IncidentRecord, update: Update, by: str) -> None:
    number, state = record.incident.number, record.incident.state
    if state is not State.OPEN and update.action not in _AFTER_THE_END[state]:
        may = ", ".join(sorted(_AFTER_THE_END[state]))
        raise UsageError(f"{number} is {state}: what may still be added is {may}.", "Add a note.")
    if not by.strip():
        raise UsageError("The run names no user.", "Trigger it in Airflow while you are logged in.")
    team = _entitled(run, record, update)
    if not team.may(by):
        raise UsageError(
            f"{by} may not do that with {number}: not of its team for it, taken off, or a suspect.",
            f"Have somebody else enter it: {', '.join(team.people[:MOST_NAMES]) or 'nobody left'}.",
        )
    if not says_something(update.words):
        raise UsageError("`words` says nothing.", "Write what happened, or why.")
    entered_by = [entry.by for entry in record.entries if entry.place == update.entry]
    if update.action is Action.CORRECT and is_among(by, entered_by):
        raise UsageError(
            "Nobody takes back alone what they entered.", "Have somebody else who leads enter it."
        )
    if update.action is Action.ASSIGN and same_person(update.account, by):
        raise UsageError("Nobody assigns a duty to themselves.", "Have somebody else assign it.")


def _entitled(run: IncidentRun, record: IncidentRecord, update: Update) -> Team:
    """Who may enter it: for what gives or takes power, those who lead.

    An incident is not cancelled by who opened it or wrote its impact: it takes two people.
    """
    if update.action is Action.CANCEL:
        writers = who_answered(record.entries, Kind.IMPACT)
        return team_of(run, record, "decide", {*writers, record.incident.opened_by})
    if update.action is Action.REGRADE:
        return team_of(run, record, "grade")
    if update.action in (Action.TAKE_OFF, Action.CORRECT):
        return leading(run, record)
    steps: tuple[HumanStep, ...] = ("grade", "decide", "close")
    powerful = {run.rules.steps[one] for one in steps} | {run.rules.management}
    if update.action is Action.ASSIGN and update.duty.strip() in powerful:
        return leading(run, record)
    return everybody(run, record)


def _refuse_moment(update: Update) -> None:
    """Refuse a moment for what is decided here and now."""
    if update.at.strip() and update.action in _NOW:
        raise UsageError(
            f"`at` cannot be said for {update.action}: it counts from when it is entered, so that "
            "what ran out before stays told.",
            "Leave `at` empty; write in the words since when it was known.",
        )


def _moment(run: IncidentRun, record: IncidentRecord, update: Update) -> datetime | None:
    try:
        found = moment(update.at, run.zone)
    except ValueError:
        raise UsageError(
            f"`at` is no moment: {update.at}.", "Write 2026-11-26T03:15:00+08:00."
        ) from None
    if found is not None and found > run.clock.now():
        raise UsageError("`at` is yet to come.", "Enter when it happened.")
    first = record.incident.began_at or record.incident.aware_at
    if found is not None and found < first:
        raise UsageError(f"`at` lies before {first.isoformat()}.", "Enter when it happened.")
    return found


# What can be found to have been a mistake, and cannot be undone by entering the contrary.
_CORRECTABLE = (Kind.REPORTED, Kind.CONTAINED, Kind.TOLD_OTHERWISE)

# Decided here and now: a moment before would undo what ran out since.
_NOW = {Action.REGRADE, Action.CANCEL, Action.CORRECT}

# Review and summary come after the closing, and whoever does them may turn out to be a suspect.
_PEOPLE = {Action.NOTE, Action.HAND_OVER, Action.TAKE_OFF, Action.ASSIGN}
_AFTER_THE_END: Mapping[State, set[Action]] = {
    State.CLOSED: _PEOPLE,
    State.CANCELLED: {Action.NOTE},
    State.DUPLICATE: {Action.NOTE},
}

Made = tuple[Kind, Message, Mapping[str, Any]]


def _hand_over(run: IncidentRun, record: IncidentRecord, update: Update, words: str) -> Made:
    account = _needed("account", update.account)
    if not everybody(run, record).may(account):
        raise UsageError(
            f"{account} is not of the team of {record.incident.number}, was taken off, or a "
            "suspect.",
            "Assign that person first: action `assign`.",
        )
    message = _("The shift was handed over to {account}. {words}", account=account, words=words)
    return Kind.HANDED_OVER, message, {"to": account}


def _take_off(run: IncidentRun, record: IncidentRecord, update: Update, words: str) -> Made:
    account = _existing(run, record, update)
    message = _("{account} was taken off: {words}", account=account, words=words)
    return Kind.TAKEN_OFF, message, {"account": account}


def _assign(run: IncidentRun, record: IncidentRecord, update: Update, words: str) -> Made:
    account, named = _account(update), _needed("duty", update.duty)
    duty = {one.id: one for one in run.rules.team}.get(named)
    if duty is None:
        known = ", ".join(one.id for one in run.rules.team)
        raise UsageError(f"`duty`: there is none called {named}.", f"There are: {known}.")
    message = _(
        "{account} was assigned: {duty}. {words}", account=account, duty=duty.message, words=words
    )
    return Kind.ASSIGNED, message, {"account": account, "duty": duty.id}


def _regrade(run: IncidentRun, record: IncidentRecord, update: Update, words: str) -> Made:
    named = _needed("grade", update.grade)
    grade = {one.id: one for one in rules_of(run, record).grades}.get(named)
    if grade is None:
        known = ", ".join(one.id for one in rules_of(run, record).grades)
        raise UsageError(f"`grade`: there is none called {named}.", f"There are: {known}.")
    message = _("Graded {grade}. {reason}", grade=grade.message, reason=words)
    return Kind.GRADED, message, {"grade": named, "reason": words}


def _correct(_run: IncidentRun, record: IncidentRecord, update: Update, words: str) -> Made:
    if update.entry is None:
        raise UsageError("`entry` is missing.", "Write its number in the timeline.")
    wrong = next((entry for entry in record.valid if entry.place == update.entry), None)
    if wrong is None or wrong.kind not in _CORRECTABLE:
        can = ", ".join(str(entry.place) for entry in record.valid if entry.kind in _CORRECTABLE)
        raise UsageError(
            f"`entry`: {update.entry} is none that can be corrected: what was handed in, contained "
            "or told otherwise.",
            f"There are: {can or 'none'}. For anything else enter how it is now.",
        )
    message = _(
        "Entry {entry} was a mistake and does not count: {words}", entry=wrong.place, words=words
    )
    return Kind.CORRECTED, message, {"voids": [wrong.place, *_resting_on(record, wrong)]}


def _resting_on(record: IncidentRecord, wrong: Entry) -> list[int]:
    """Places of entries that count only because of a mistake, or that it had taken back.

    That all were told, where some were told otherwise alone; and that a report is not needed, which
    was given up when it was entered as handed in.
    """
    if wrong.kind is Kind.REPORTED:
        return [
            entry.place
            for entry in record.valid
            if entry.kind is Kind.REPORTED
            and entry.place < wrong.place
            and is_declined(entry)
            and entry.as_(Reported).authority == wrong.as_(Reported).authority
            and entry.as_(Reported).phase == wrong.as_(Reported).phase
        ]
    later = [entry for entry in record.valid if entry.place > wrong.place]
    again = next((entry.place for entry in later if entry.kind is Kind.TOLD_OTHERWISE), None)
    return [
        entry.place
        for entry in later
        if wrong.kind is Kind.TOLD_OTHERWISE
        and entry.kind is Kind.TOLD
        and (again is None or entry.place < again)
        and set(entry.as_(Told).states) - {"sent"}
    ]


_PLAIN = {
    Action.NOTE: (Kind.NOTE, _("{words}", words="")),
    Action.TOLD_OTHERWISE: (
        Kind.TOLD_OTHERWISE,
        _("People without a usable address were told otherwise: {words}", words=""),
    ),
    Action.WIDEN: (Kind.NOTE, _("What is affected was widened: {words}", words="")),
    Action.CANCEL: (Kind.CANCELLED, _("Cancelled, it was none: {words}", words="")),
}
"""Kinds of entries that hold nothing but the words."""
_CHECKED = {
    Action.HAND_OVER: _hand_over,
    Action.TAKE_OFF: _take_off,
    Action.ASSIGN: _assign,
    Action.REGRADE: _regrade,
    Action.CORRECT: _correct,
}


def _made(run: IncidentRun, record: IncidentRecord, update: Update, words: str) -> Made:
    """Return the kind, words and data of the entry of an update."""
    if (check := _CHECKED.get(update.action)) is not None:
        return check(run, record, update, words)
    kind, message = _PLAIN[update.action]
    return kind, message.model_copy(update={"values": {"words": words}}), {}


def _account(update: Update) -> str:
    """A user id; whoever is assigned may be of another company, and stand in no table."""
    account = _needed("account", update.account)
    if not _USER_ID.fullmatch(account) or value_free_reason(account, LONGEST) != account:
        raise UsageError(
            "`account` is no user id: letters, digits, `.`, `_`, `-` and `@`, and no number or "
            "address that could be a customer's.",
            "Write the user id that the person has in Airflow.",
        )
    return account


def _existing(run: IncidentRun, record: IncidentRecord, update: Update) -> str:
    """The user id of somebody who is there: after a slip of the hand nobody would be taken off."""
    account = _account(update)
    if not everybody(run, record).may(account) and not is_known(run, account):
        raise UsageError(
            f"`account`: nobody has the user id {account}.",
            "Write the user id that the person has in Airflow.",
        )
    return account


def _needed(name: str, value: str) -> str:
    if not value.strip():
        raise UsageError(f"`{name}` is missing.", "Fill it in.")
    return value.strip()
