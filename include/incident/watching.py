"""Watch an incident: wake people about its clocks, and enter what was reached meanwhile.

A late look loses nothing: each rung is told once, and lateness is computed from timestamps, never
from the moment of a look.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from include.incident import opening, timeline
from include.incident.clocks import waking
from include.incident.clocks.clock import clocks_of
from include.incident.clocks.waking import Urgent
from include.incident.entries import EntryData, Woken
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    incident_of,
    record_in,
)
from include.incident.names import ALERT, INDIVIDUAL, STEP_WATCH, Kind, State
from include.incident.telling import notifying
from include.incident.timeline import of_kind
from include.notify import outbox
from include.notify.notice import Notice
from include.notify.status import statuses
from include.workflow.step import Look

SOON = timedelta(minutes=1)  # while messages wait to be sent
IDLE = timedelta(minutes=5)


def look(run: IncidentRun) -> Look:
    """Look at the clocks, wake people, send; again until nothing is left to watch.

    While the incident is not over a failed task ends nothing: people are told, and may clear it.
    """
    number, now, rules = incident_of(run).incident.number, run.clock.now(), run.rules
    with run.state.begin() as conn:
        record = record_in(conn, number)
        clocks = clocks_of(run, record)
        if record.incident.is_led:
            woken = {entry.as_(Woken).key for entry in of_kind(record.entries, Kind.WOKEN)}
            due = waking.wake_ups(number, clocks, rules.wake, now, run.zone, woken)
            rows = [
                *waking.notices(due, rules, run.roles, run.zone),
                *_notices(run, [*_unanswered(run, record), *_corrected(run, record)]),
            ]
            outbox.queue(conn, rows, run.run, now, run.notices)
            for wake_up in due:
                timeline.append(
                    conn, record.incident.id, Kind.WOKEN, waking.told_words(wake_up),
                    by=STEP_WATCH, clock=run.clock, once=wake_up.key,
                    data={"key": wake_up.key, "clock": wake_up.clock.id},
                )  # fmt: skip
    waiting = settle(run) > 0
    if _is_over(record) and not waiting:
        return Look(None, has_unsent=False)
    again_at = now + (SOON if waiting else IDLE)
    following = waking.next_look(clocks, rules.wake, now, run.zone)
    return Look(min(again_at, following or again_at), has_unsent=waiting)


def _notices(run: IncidentRun, urgent: Iterable[Urgent]) -> Iterator[Notice]:
    for notice in urgent:
        yield from notice.notices(run.roles, run.now.date())


def _unanswered(run: IncidentRun, record: IncidentRecord) -> Iterator[Urgent]:
    """Yield the notices of steps that were not answered in time."""
    unanswered = Counter(
        step
        for entry in of_kind(record.entries, Kind.UNANSWERED)
        if (step := entry.as_(EntryData).step)
    )
    for step, times in unanswered.items():
        yield waking.unanswered_step(record.incident.number, step, times, run.rules)


def _corrected(run: IncidentRun, record: IncidentRecord) -> Iterator[Urgent]:
    """Yield the notices of corrections, each about the step whose answer it voids."""
    by_place = {entry.place: entry for entry in record.entries}
    for entry in of_kind(record.entries, Kind.CORRECTED):
        voided = by_place[min(entry.as_(EntryData).voids)]
        step = voided.as_(EntryData).step
        yield waking.corrected_entry(record.incident.number, entry.place, step, run.rules)


def _is_over(record: IncidentRecord) -> bool:
    """Return whether nothing is left to watch: not led, or summarised."""
    return not record.incident.is_led or bool(of_kind(record.entries, Kind.SUMMARISED))


def goes_on(run: IncidentRun, failed_tasks: Sequence[str]) -> bool:
    """Tell those who lead which tasks failed, each once; return whether the incident goes on."""
    record = incident_of(run)
    if _is_over(record):
        return False
    number = record.incident.number
    urgent = [waking.failed_task(number, task, run.rules) for task in failed_tasks]
    with run.state.begin() as conn:
        outbox.queue(conn, _notices(run, urgent), run.run, run.clock.now(), run.notices)
    return True


def settle(run: IncidentRun) -> int:
    """Enter that the team was called and people were told; return how many notices still wait."""
    number = incident_of(run).incident.number
    with run.state.begin() as conn:
        record = record_in(conn, number)
        if record.incident.state is State.DUPLICATE:
            return 0
        opening.called(conn, run, record.incident)
        notifying.told(conn, run, record)
        return sum(
            count
            for kind in (ALERT, INDIVIDUAL)
            for (state, _cause), count in statuses(conn, kind, f"{number}/").items()
            if state == "pending"
        )
