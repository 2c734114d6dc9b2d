"""Notifications about extracts: the password by mail, the end of the access, the confirmation.

The password of an extract goes by mail, and the file is opened on a page or by a command. The
password is never stored: it is derived again for each attempt to send the mail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection

from include.approvals import registry
from include.approvals.registry import Request
from include.disclosure import grants, requests
from include.disclosure.content import DeliveryForm
from include.disclosure.extract_store import password_of
from include.disclosure.grants import Grant, GrantState
from include.disclosure.notification_kinds import APPROVAL, DELIVERED
from include.disclosure.requests import UseRequest
from include.disclosure.roster import Employee, StaffRoster
from include.disclosure.rules import UseRules
from include.messages import Message, _
from include.notify.notification import Notification
from include.notify.outbox import queue_notifications
from include.workflow.run_context import RunContext

MOST_QUEUED = 200  # notifications of one transaction, which locks the queue
_HEADING = _("Use of customer information")


def notification_of(
    kind: str, key: str, line: Message, employee: Employee, *, urgent: bool
) -> Notification:
    """Return a notification to an employee. A notification with the same key is sent only once.

    Args:
        kind: kind of the notification.
        key: key of the notification, unique within its kind and employee.
        line: text of the notification.
        employee: recipient.
        urgent: whether the notification is sent at once.
    """
    return Notification(
        kind=kind,
        key=f"{key}:{employee.person}",
        recipient=employee.person,
        heading=_HEADING,
        line=line,
        name=employee.name,
        address=employee.mail,
        urgent=urgent,
    )


def queue(
    run: RunContext[UseRules], conn: Connection, notifications: Iterable[Notification]
) -> None:
    """Queue notifications in a transaction, which locks the queue from now on until its end.

    Args:
        run: context of the run.
        conn: the state database, in a transaction.
        notifications: notifications to queue.
    """
    queue_notifications(conn, notifications, run.run, run.now, run.notices)


def queue_reminders(run: RunContext[UseRules], reminders: Sequence[Notification]) -> None:
    """Queue many notifications in short transactions, because approvals wait for the queue.

    A killed call can be repeated: each notification is queued once.

    Args:
        run: context of the run.
        reminders: notifications to queue.
    """
    for first in range(0, len(reminders), MOST_QUEUED):
        with run.state.begin() as conn:
            queue(run, conn, reminders[first : first + MOST_QUEUED])


def queue_delivery(
    run: RunContext[UseRules],
    conn: Connection,
    request: UseRequest,
    grant: Grant,
    employee: Employee,
) -> None:
    """Queue the mail that tells the requester where the extract is, with its password."""
    if request.content.form is DeliveryForm.AGE:
        line = _(
            "Your extract of request {number} can be opened until {expires_at}. Only the machine "
            "with the age key can decrypt it.",
            number=request.id,
            expires_at=grant.expires_at,
        )
    elif request.content.form is DeliveryForm.LOGIN:
        line = _(
            "Your database login of request {number} can be used until {expires_at}. The page Use "
            "of information names the server and the user. Password:",
            number=request.id,
            expires_at=grant.expires_at,
        )
    else:
        line = _(
            "Your extract of request {number} can be opened until {expires_at} on the page Use of "
            "information. Delete all copies when you no longer need them. Password:",
            number=request.id,
            expires_at=grant.expires_at,
        )
    key = f"{request.id}:{grant.attempt}"
    queue(run, conn, [notification_of(DELIVERED, key, line, employee, urgent=True)])


def delivered_still_due(run: RunContext[UseRules], keys: Sequence[str]) -> set[str]:
    """Return the keys of extracts that can still be opened."""
    with run.state.connect() as conn:
        return {
            key
            for key in keys
            if (grant := _grant_of(conn, key)) is not None and grant.is_open(run.now)
        }


def passwords(run: RunContext[UseRules], keys: Sequence[str]) -> Mapping[str, str]:
    """Return the password of each extract; an empty text for an extract for a machine.

    Raises:
        UsageError: the connection ``extract_store`` has no secret.
        ControlFailed: a stored request does not match its digest.
    """
    secrets = dict.fromkeys(keys, "")
    with run.state.connect() as conn:
        for key in keys:
            grant = _grant_of(conn, key)
            if grant is not None:
                request = requests.load_request(conn, grant.request_id)
                secrets[key] = password_of(run, request, grant)
    return secrets


def _grant_of(conn: Connection, key: str) -> Grant | None:
    """Return the grant that a key names, if the attempt in the key is still its extract."""
    number, attempt, *_person = key.split(":")
    grant = grants.find_grant(conn, int(number))
    return grant if grant is not None and grant.attempt == attempt else None


def approval_still_due(run: RunContext[UseRules], keys: Sequence[str]) -> set[str]:
    """Return the keys of approval requests without a decision."""
    with run.state.connect() as conn:
        return {
            key
            for key in keys
            if registry.decision_on(conn, int(key.split(":")[0])) is None
            and _is_in_time(registry.load_request(conn, int(key.split(":")[0])).deadline, run.now)
        }


def _is_in_time(deadline: datetime | None, now: datetime) -> bool:
    return deadline is None or now <= deadline


def ending_still_due(run: RunContext[UseRules], keys: Sequence[str]) -> set[str]:
    """Return the keys of extracts that can still be opened."""
    with run.state.connect() as conn:
        return {
            key
            for key in keys
            if (grant := grants.find_grant(conn, int(key.split(":")[0]))) is not None
            and grant.is_open(run.now)
        }


def confirm_still_due(run: RunContext[UseRules], keys: Sequence[str]) -> set[str]:
    """Return the keys of ended grants whose requester confirmed nothing yet."""
    with run.state.connect() as conn:
        return {
            key
            for key in keys
            if (grant := grants.find_grant(conn, int(key.split(":")[0]))) is not None
            and grant.confirmed_at is None
            and grant.state in (GrantState.ENDING, GrantState.ENDED)
        }


def queue_approval(
    run: RunContext[UseRules],
    conn: Connection,
    request: UseRequest,
    approval: Request,
    approvers: Sequence[str],
    roster: StaffRoster,
) -> None:
    """Queue the mail that asks people for a decision. Each person gets it once."""
    employees = [employee for person in approvers if (employee := roster.find(person)) is not None]
    line = _(
        "{person} requests customer information (request {number}). Decide by {deadline} under "
        "Required Actions in Airflow.",
        person=request.requester,
        number=request.id,
        deadline=approval.deadline,
    )
    queue(
        run,
        conn,
        [
            notification_of(APPROVAL, str(approval.id), line, employee, urgent=True)
            for employee in employees
        ],
    )
