"""Record updates of an incident, such as notes, changes of the team, or a new grade.

An update can be entered at any time. It is a new timeline entry and changes no earlier entry. The
team and the management may enter updates, except suspects and people who were removed from the
team.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from include.approvals.approvers import is_among, same_person
from include.approvals.reasons import has_words, redact_reason
from include.evidence.step_findings import StepFindings
from include.incident import register, timeline
from include.incident.communication import notices
from include.incident.entries import NoticesSettled, Reported, UpdateEntered
from include.incident.form import MAX_TEXT, Action
from include.incident.incident_ids import Kind, State
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_number,
    record_in,
    record_of,
    rules_of,
)
from include.incident.rules import HumanStep
from include.incident.selection import parse_moment
from include.incident.team import (
    Team,
    answer_authors,
    is_known_account,
    leaders,
    team_of,
    whole_team,
)
from include.incident.time_limits.milestones import is_declined
from include.incident.timeline import Entry
from include.messages import Message, _
from include.services.errors import UsageError, refusing_inputs

_USER_ID = re.compile(r"[\w.@-]{1,100}")
MAX_NAMES = 10


@dataclass(frozen=True)
class Update:
    """The values that a person entered in the form of an update.

    Attributes:
        action: action of the update.
        words: description of the event, or reason for the action.
        account: account that is removed from the team, assigned to a duty, or takes over the shift.
        duty: id of the duty to which the account is assigned.
        grade: id of the new grade.
        entry: position in the timeline of the entry that was a mistake.
        at: time of the event; empty means now. It must be empty if the action can end a time limit.
    """

    action: Action
    words: str
    account: str = ""
    duty: str = ""
    grade: str = ""
    entry: int | None = None
    at: str = ""


def enter_update(run: IncidentRun, findings: StepFindings) -> UpdateEntered:
    """Record on the timeline the update that a person entered in the trigger form.

    The author of the update is the person who triggered the run.

    Raises:
        CouldNotRun: a field is missing or wrong, or the person may not enter this update. Nothing
            was recorded.
    """
    del findings
    with refusing_inputs():
        entry = record_update(
            run,
            incident_number(run),
            _update(run.parameters),
            by=run.triggered_by or "",
            once=f"{run.run.dag_id}/{run.run.run_id}",
        )
    action = run.parameters.get("action")
    return UpdateEntered(number=incident_number(run), entry=entry.place, action=action)


def is_widened(parameters: Mapping[str, Any]) -> bool:
    """Return whether the person who filled in the form of an update chose `Action.WIDEN`.

    Args:
        parameters: parameters of the run.
    """
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


def record_update(
    run: IncidentRun, number: str, update: Update, *, by: str, once: str | None = None
) -> Entry:
    """Record an update on the timeline.

    For `Action.WIDEN`, the caller must then count the affected records of the wider scope.

    Args:
        run: services and rules of the current run or command.
        number: number of the incident.
        update: values that the person entered.
        by: user id of the person.
        once: key that identifies the entry if a task is repeated.

    Raises:
        UsageError: the incident does not exist or has ended, a field is missing or wrong, or the
            person may not enter this update.
    """
    incident_id = record_of(run, number).incident.id
    with run.state.begin() as conn:  # the checked state cannot change before the entry is written
        timeline.lock_incident(conn, incident_id)
        if (
            once is not None
            and (existing := timeline.find_entry(conn, incident_id, once)) is not None
        ):
            return existing  # a repeated task; this entry may have cancelled the incident
        record = record_in(conn, number)
        _check_update(run, record, update, by)
        words = redact_reason(update.words, MAX_TEXT)
        _check_moment(update)
        kind, message, data = _entry_content(run, record, update, words)
        entry = timeline.append(
            conn, record.incident.id, kind, message, by=by, clock=run.clock,
            happened_at=_moment(run, record, update), data={"action": str(update.action), **data},
            once=once,
        )  # fmt: skip
        if update.action is Action.REGRADE:
            register.set_grade(conn, record.incident.id, update.grade)
        elif update.action is Action.CANCEL:
            register.end_incident(conn, record.incident.id, State.CANCELLED, entry.recorded_at)
        elif update.action is Action.CORRECT:
            notices.record_delivery(
                conn, run, record_in(conn, number)
            )  # the correction may change the outcome
    return entry


def _check_update(run: IncidentRun, record: IncidentRecord, update: Update, by: str) -> None:
    number, state = record.incident.number, record.incident.state
    if state is not State.OPEN and update.action not in _ALLOWED_AFTER_END[state]:
        allowed = ", ".join(sorted(_ALLOWED_AFTER_END[state]))
        raise UsageError(
            f"{number} is {state}. Only these actions are allowed: {allowed}.", "Add a note."
        )
    if not by.strip():
        raise UsageError("The run names no user.", "Trigger it in Airflow while you are logged in.")
    team = _entitled_team(run, record, update)
    if not team.is_member(by):
        raise UsageError(
            f"{by} may not enter this for {number}: not in the team for it, removed, or a suspect.",
            f"These people may enter it: {', '.join(team.people[:MAX_NAMES]) or 'none is left'}.",
        )
    if not has_words(update.words):
        raise UsageError("`words` contains no words.", "Describe the event, or give the reason.")
    entered_by = [entry.by for entry in record.entries if entry.place == update.entry]
    if update.action is Action.CORRECT and is_among(by, entered_by):
        raise UsageError(
            "The author of an entry may not correct it.",
            "Have another leader enter the correction.",
        )
    if update.action is Action.ASSIGN and same_person(update.account, by):
        raise UsageError("You may not assign a duty to yourself.", "Have another person assign it.")


def _entitled_team(run: IncidentRun, record: IncidentRecord, update: Update) -> Team:
    """Return the people who may enter an update.

    Only leaders may remove a person from the team, correct an entry, or assign a person to the
    management or to a duty that grades, decides or closes. The person who opened the incident and
    the authors of its impact texts may not cancel it.
    """
    if update.action is Action.CANCEL:
        writers = answer_authors(record.entries, Kind.IMPACT)
        return team_of(run, record, "decide", {*writers, record.incident.opened_by})
    if update.action is Action.REGRADE:
        return team_of(run, record, "grade")
    if update.action in (Action.TAKE_OFF, Action.CORRECT):
        return leaders(run, record)
    steps: tuple[HumanStep, ...] = ("grade", "decide", "close")
    powerful = {run.rules.steps[step] for step in steps} | {run.rules.management}
    if update.action is Action.ASSIGN and update.duty.strip() in powerful:
        return leaders(run, record)
    return whole_team(run, record)


def _check_moment(update: Update) -> None:
    """Refuse a time in an update whose action counts from the moment at which it is recorded.

    Raises:
        UsageError: the form contains a time, but the action does not allow it.
    """
    if update.at.strip() and update.action in _IMMEDIATE_ACTIONS:
        raise UsageError(
            f"`at` is not allowed for {update.action}: the action counts from its entry, so that "
            "time limits missed before stay reported.",
            "Leave `at` empty, and write the time into `words`.",
        )


def _moment(run: IncidentRun, record: IncidentRecord, update: Update) -> datetime | None:
    try:
        happened_at = parse_moment(update.at, run.zone)
    except ValueError:
        raise UsageError(
            f"`at` is not a valid time: {update.at}.", "Write 2026-11-26T03:15:00+08:00."
        ) from None
    if happened_at is not None and happened_at > run.clock.now():
        raise UsageError("`at` is in the future.", "Enter the time of the event.")
    first = record.incident.began_at or record.incident.aware_at
    if happened_at is not None and happened_at < first:
        raise UsageError(f"`at` is before {first.isoformat()}.", "Enter the time of the event.")
    return happened_at


# Kinds of entries that can be corrected as mistakes. Other kinds are undone by a contrary entry.
_CORRECTABLE = (Kind.REPORTED, Kind.CONTAINED, Kind.TOLD_OTHERWISE)

# With an earlier time, time limits that were missed since would no longer count as missed.
_IMMEDIATE_ACTIONS = {Action.REGRADE, Action.CANCEL, Action.CORRECT}

# Actions allowed after the closing: review and summary still need a team without suspects.
_TEAM_ACTIONS = {Action.NOTE, Action.HAND_OVER, Action.TAKE_OFF, Action.ASSIGN}
_ALLOWED_AFTER_END: Mapping[State, set[Action]] = {
    State.CLOSED: _TEAM_ACTIONS,
    State.CANCELLED: {Action.NOTE},
    State.DUPLICATE: {Action.NOTE},
}

EntryContent = tuple[Kind, Message, Mapping[str, Any]]


def _hand_over(
    run: IncidentRun, record: IncidentRecord, update: Update, words: str
) -> EntryContent:
    account = _require_field("account", update.account)
    if not whole_team(run, record).is_member(account):
        raise UsageError(
            f"{account} is not in the team of {record.incident.number}, was removed, or is a "
            "suspect.",
            "Assign this person first: action `assign`.",
        )
    message = _(
        "The shift of the incident team was handed over to {account}. {note}",
        account=account,
        note=words,
    )
    return Kind.HANDED_OVER, message, {"to": account}


def _take_off(run: IncidentRun, record: IncidentRecord, update: Update, words: str) -> EntryContent:
    account = _existing_account(run, record, update)
    message = _(
        "{account} was removed from the incident team. Reason: {reason}",
        account=account,
        reason=words,
    )
    return Kind.TAKEN_OFF, message, {"account": account}


def _assign(run: IncidentRun, record: IncidentRecord, update: Update, words: str) -> EntryContent:
    account, duty_id = _account_id(update), _require_field("duty", update.duty)
    duty = {duty_of_team.id: duty_of_team for duty_of_team in run.rules.team}.get(duty_id)
    if duty is None:
        duty_ids = ", ".join(duty_of_team.id for duty_of_team in run.rules.team)
        raise UsageError(f"`duty`: {duty_id} does not exist.", f"Duties: {duty_ids}.")
    message = _(
        "{account} was assigned to a duty of the incident team: {duty}. {note}",
        account=account,
        duty=duty.message,
        note=words,
    )
    return Kind.ASSIGNED, message, {"account": account, "duty": duty.id}


def _regrade(run: IncidentRun, record: IncidentRecord, update: Update, words: str) -> EntryContent:
    grade_id = _require_field("grade", update.grade)
    grade = {grade.id: grade for grade in rules_of(run, record).grades}.get(grade_id)
    if grade is None:
        grade_ids = ", ".join(grade.id for grade in rules_of(run, record).grades)
        raise UsageError(f"`grade`: {grade_id} does not exist.", f"Grades: {grade_ids}.")
    message = _("The grade of the incident is {grade}. {reason}", grade=grade.message, reason=words)
    return Kind.GRADED, message, {"grade": grade_id, "reason": words}


def _correct(_run: IncidentRun, record: IncidentRecord, update: Update, words: str) -> EntryContent:
    if update.entry is None:
        raise UsageError("`entry` is missing.", "Enter the number of the entry in the timeline.")
    wrong = next((entry for entry in record.valid if entry.place == update.entry), None)
    if wrong is None or wrong.kind not in _CORRECTABLE:
        correctable = ", ".join(
            str(entry.place) for entry in record.valid if entry.kind in _CORRECTABLE
        )
        raise UsageError(
            f"`entry`: {update.entry} cannot be corrected. Only reports, the containment, and "
            "notifications in another way can be.",
            f"Entries: {correctable or 'none'}. For other entries, record the current state.",
        )
    message = _(
        "Entry {entry} of the timeline was a mistake and is no longer valid. Reason: {reason}",
        entry=wrong.place,
        reason=words,
    )
    return Kind.CORRECTED, message, {"voids": [wrong.place, *_dependent_positions(record, wrong)]}


def _dependent_positions(record: IncidentRecord, wrong: Entry) -> list[int]:
    """Return the positions of other timeline entries that are wrong because of the same mistake.

    A correction declares these entries to be mistakes too. If the mistake says that people were
    notified in another way, they are the entries about incomplete delivery that follow, up to the
    next entry of the kind `Kind.TOLD_OTHERWISE`. If the mistake says that a report was handed in,
    they are the earlier entries that declare this report not needed.

    Args:
        record: incident with its timeline.
        wrong: entry that is a mistake.
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
    next_position = next(
        (entry.place for entry in later if entry.kind is Kind.TOLD_OTHERWISE), None
    )
    return [
        entry.place
        for entry in later
        if wrong.kind is Kind.TOLD_OTHERWISE
        and entry.kind is Kind.TOLD
        and (next_position is None or entry.place < next_position)
        and set(entry.as_(NoticesSettled).states) - {"sent"}
    ]


_WORDS_ONLY = {
    Action.NOTE: (Kind.NOTE, Message(text="{note}")),
    Action.TOLD_OTHERWISE: (
        Kind.TOLD_OTHERWISE,
        _("People without a usable e-mail address were notified in another way: {note}", note=""),
    ),
    Action.WIDEN: (Kind.NOTE, _("The scope of the incident was widened: {note}", note="")),
    Action.CANCEL: (
        Kind.CANCELLED,
        _(
            "The incident was cancelled, because an examination showed that it was not an "
            "incident: {note}",
            note="",
        ),
    ),
}
"""Actions whose entries contain only the words."""
_CONTENT_BUILDERS = {
    Action.HAND_OVER: _hand_over,
    Action.TAKE_OFF: _take_off,
    Action.ASSIGN: _assign,
    Action.REGRADE: _regrade,
    Action.CORRECT: _correct,
}


def _entry_content(
    run: IncidentRun, record: IncidentRecord, update: Update, words: str
) -> EntryContent:
    """Return the kind, display text and data of the timeline entry that records an update.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        update: values that the person entered.
        words: the entered text, with customer data redacted.
    """
    if (build := _CONTENT_BUILDERS.get(update.action)) is not None:
        return build(run, record, update, words)
    kind, message = _WORDS_ONLY[update.action]
    return kind, message.model_copy(update={"values": {"note": words}}), {}


def _account_id(update: Update) -> str:
    """Return the user id that was entered in an update. It need not exist in any table.

    Raises:
        UsageError: the field is empty or is not a user id.
    """
    account = _require_field("account", update.account)
    if not _USER_ID.fullmatch(account) or redact_reason(account, MAX_TEXT) != account:
        raise UsageError(
            "`account` is not a user id: letters, digits, `.`, `_`, `-` and `@`, without a number "
            "or address that could be a customer's.",
            "Enter the person's user id in Airflow.",
        )
    return account


def _existing_account(run: IncidentRun, record: IncidentRecord, update: Update) -> str:
    """Return the user id that was entered in an update, after checking that the account exists.

    A mistyped user id would otherwise be recorded, and nobody would be removed from the team.

    Raises:
        UsageError: the account does not exist.
    """
    account = _account_id(update)
    if not whole_team(run, record).is_member(account) and not is_known_account(run, account):
        raise UsageError(
            f"`account`: the user id {account} does not exist.",
            "Enter the person's user id in Airflow.",
        )
    return account


def _require_field(name: str, value: str) -> str:
    if not value.strip():
        raise UsageError(f"`{name}` is missing.", "Fill it in.")
    return value.strip()
