"""Watch an incident: notify people about time limits, and record the delivery of notifications.

A check may be late without harm: each notification is sent once, and a delay is calculated from
recorded times of events, not from the time of the check.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from include.incident import incident_opening, timeline
from include.incident.communication import notices
from include.incident.entries import EntryData, EscalationSent
from include.incident.incident_ids import ALERT, INDIVIDUAL, STEP_WATCH, Kind, State
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_of,
    record_in,
)
from include.incident.time_limits import escalation
from include.incident.time_limits.escalation import UrgentNotification
from include.incident.time_limits.time_limit import time_limits_of
from include.incident.timeline import of_kind
from include.notify import outbox
from include.notify.notification import Notification
from include.notify.status import statuses
from include.workflow.step import WatchResult

SENDING_INTERVAL = timedelta(minutes=1)  # while messages wait to be sent
IDLE_INTERVAL = timedelta(minutes=5)


def watch_once(run: IncidentRun) -> WatchResult:
    """Queue the notifications about an incident that are due, and return when to check again.

    The task that calls this function then sends the queued notifications. The watch ends when the
    incident is summarized and no message waits to be sent. It also ends if the incident needs no
    steps.
    """
    number, now, rules = incident_of(run).incident.number, run.clock.now(), run.rules
    with run.state.begin() as conn:
        record = record_in(conn, number)
        time_limits = time_limits_of(run, record)
        if record.incident.requires_steps:
            sent_keys = {
                entry.as_(EscalationSent).key for entry in of_kind(record.entries, Kind.WOKEN)
            }
            escalations = escalation.due_escalations(
                number, time_limits, rules.wake, now, run.zone, sent_keys
            )
            rows = [
                *escalation.escalation_notifications(
                    escalations, rules, run.roles, run.zone, run.task.run_address
                ),
                *_role_notifications(
                    run, [*_unanswered_steps(run, record), *_corrections(run, record)]
                ),
            ]
            outbox.queue_notifications(conn, rows, run.run, now, run.notices)
            for wake_up in escalations:
                timeline.append(
                    conn, record.incident.id, Kind.WOKEN, escalation.timeline_words(wake_up),
                    by=STEP_WATCH, clock=run.clock, once=wake_up.key,
                    data={"key": wake_up.key, "clock": wake_up.time_limit.id},
                )  # fmt: skip
    waiting = settle_notifications(run) > 0
    if _is_over(record) and not waiting:
        return WatchResult(None, has_unsent=False)
    check_at = now + (SENDING_INTERVAL if waiting else IDLE_INTERVAL)
    escalation_at = escalation.next_escalation_at(time_limits, rules.wake, now, run.zone)
    return WatchResult(min(check_at, escalation_at or check_at), has_unsent=waiting)


def _role_notifications(
    run: IncidentRun, urgent: Iterable[UrgentNotification]
) -> Iterator[Notification]:
    for notice in urgent:
        yield from notice.for_roles(run.roles, run.now.date(), run.task.run_address)


def _unanswered_steps(run: IncidentRun, record: IncidentRecord) -> Iterator[UrgentNotification]:
    """Yield a notification for each step that people did not answer in time."""
    unanswered = Counter(
        step
        for entry in of_kind(record.entries, Kind.UNANSWERED)
        if (step := entry.as_(EntryData).step)
    )
    for step, times in unanswered.items():
        yield escalation.unanswered_step(record.incident.number, step, times, run.rules)


def _corrections(run: IncidentRun, record: IncidentRecord) -> Iterator[UrgentNotification]:
    """Yield a notification for each correction on the timeline.

    The notification says that the work in the corrected entry has to be done again. If this entry
    was the answer to a step, the notification names the step.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
    """
    by_place = {entry.place: entry for entry in record.entries}
    for entry in of_kind(record.entries, Kind.CORRECTED):
        voided = by_place[min(entry.as_(EntryData).voids)]
        step = voided.as_(EntryData).step
        yield escalation.corrected_entry(record.incident.number, entry.place, step, run.rules)


def _is_over(record: IncidentRecord) -> bool:
    """Return whether the watch may end, because the incident was summarized or needs no steps."""
    return not record.incident.requires_steps or bool(of_kind(record.entries, Kind.SUMMARISED))


def report_failed_tasks(run: IncidentRun, failed_tasks: Sequence[str]) -> bool:
    """Notify the incident leader and the management once about each failed task.

    The watch then continues, because a person can correct the cause and clear the failed task in
    Airflow, so the task is repeated. No notification is sent if the watch has ended.

    Args:
        run: current run.
        failed_tasks: ids of the run's failed Airflow tasks.

    Returns:
        Whether the incident still has to be watched.
    """
    record = incident_of(run)
    if _is_over(record):
        return False
    number = record.incident.number
    urgent = [escalation.failed_task(number, task, run.rules) for task in failed_tasks]
    with run.state.begin() as conn:
        outbox.queue_notifications(
            conn, _role_notifications(run, urgent), run.run, run.clock.now(), run.notices
        )
    return True


def settle_notifications(run: IncidentRun) -> int:
    """Record on the timeline the call of the incident team and the delivery of notices.

    The caller must first send the mails.

    Returns:
        The number of notifications and notices of the incident that wait to be sent.
    """
    number = incident_of(run).incident.number
    with run.state.begin() as conn:
        record = record_in(conn, number)
        if record.incident.state is State.DUPLICATE:
            return 0
        incident_opening.record_team_call(conn, run, record.incident)
        notices.record_delivery(conn, run, record)
        return sum(
            count
            for kind in (ALERT, INDIVIDUAL)
            for (state, _cause), count in statuses(conn, kind, f"{number}/").items()
            if state == "pending"
        )
