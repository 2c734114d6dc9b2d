"""Weekly reminders to the owners of findings that are due soon or overdue."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime

from sqlalchemy import Connection

from include.findings.register import Finding, list_findings, record_reminder
from include.findings.run_findings import is_behind
from include.messages import _
from include.notify import outbox
from include.notify.notification import Notification, to_role
from include.notify.outbox import Run
from include.policy.rules import NotificationRules, Role

log = logging.getLogger(__name__)
_HEADING = _("Findings for which you are responsible")


def remind_owners(
    conn: Connection,
    kind: str,
    *,
    roles: Mapping[str, Role],
    rules: NotificationRules,
    run: Run,
    now: datetime,
) -> list[int]:
    """Send weekly reminders to the owners of findings that are due soon or overdue.

    The findings of all types of work are examined. For each finding, the event that records the
    reminder and the notifications to the owner are written in the same transaction. While the
    register is far behind the evidence ledger, no reminders of findings of runs are sent, because
    later runs may have closed them.

    Args:
        conn: connection to the state database, with an open transaction.
        kind: kind of the notifications, such as ``audit.finding``. It does not select findings.
        roles: id of a role -> role of roles.yaml. If the owner of a finding is not in this mapping,
            no reminder is sent for the finding.
        rules: rules of notices.yaml.
        run: the run that sends the reminders.
        now: current time, in the timezone in which days are counted.

    Returns:
        The numbers of the findings whose owners were reminded.
    """
    due = [
        finding
        for finding in list_findings(conn)
        if finding.needs_reminder(now) and finding.owner in roles  # others cannot be notified
    ]
    if is_behind(conn):
        log.warning("The register is behind the ledger. Owners get no reminders of runs' findings.")
        due = [finding for finding in due if finding.origin is None]
    for due_finding in due:
        record_reminder(conn, due_finding.id, by=run.dag_id, at=now)
    outbox.queue_notifications(conn, _notifications(due, kind, roles, now), run, now, rules)
    return [finding.id for finding in due]


def keep_due_keys(conn: Connection, keys: Sequence[str], today: date) -> set[str]:
    """Return the keys of those reminders whose finding is open without an accepted risk.

    Args:
        conn: connection to the state database.
        keys: keys of reminders that `remind_owners` queued. Each key begins with the number of the
            finding.
        today: current date.
    """
    due = {str(finding.id) for finding in list_findings(conn) if not finding.is_accepted(today)}
    return {key for key in keys if key.partition("/")[0] in due}


def _notifications(
    due: Sequence[Finding], kind: str, roles: Mapping[str, Role], now: datetime
) -> Iterator[Notification]:
    for due_finding in due:
        values = {
            "number": due_finding.id,
            "finding": due_finding.description,
            "day": due_finding.due_on,
        }
        if due_finding.overdue(now.date()):
            line = _("OVERDUE: finding {number}, which was due on {day}: {finding}", **values)
        else:
            line = _("Finding {number}, due on {day}: {finding}", **values)
        yield from to_role(
            roles[due_finding.owner],
            kind=kind,
            key=f"{due_finding.id}/{now.date()}",
            heading=_HEADING,
            line=line,
            due_on=due_finding.due_on,
        )
