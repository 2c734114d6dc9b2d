"""Looking at an incident from time to time: wake people, and enter what has happened meanwhile.

Whoever looks late loses nothing: rungs that passed are told once, and lateness is computed from
timestamps, never from when anybody looked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from include.incident import opening, timeline
from include.incident.clocks import waking
from include.incident.clocks.clock import clocks_of
from include.incident.entries import EntryData, Woken
from include.incident.incident_run import IncidentRecord, IncidentRun, record_in
from include.incident.names import ALERT, INDIVIDUAL, STEP_WATCH, Kind, State
from include.incident.rules import HumanStep
from include.incident.telling import notifying
from include.notify import outbox
from include.notify.status import statuses

SOON = timedelta(minutes=1)  # while messages wait to be sent
IDLE = timedelta(minutes=5)


@dataclass(frozen=True)
class Look:
    """What a look came to.

    Attributes:
        over: nothing is left to watch: it was cancelled, or summarised.
        again_at: when to look next.
        waiting: messages of the incident that are queued and not sent.
    """

    over: bool
    again_at: datetime
    waiting: int


def look(run: IncidentRun, number: str) -> Look:
    """Queue what people are to be woken about; enter what has been reached.

    Args:
        run: the run or command.
        number: of the incident.
    """
    now = run.clock.now()
    with run.state.begin() as conn:
        record = record_in(conn, number)
        clocks = clocks_of(run, record)
        if record.incident.is_led:
            woken = [one for one in record.entries if one.kind is Kind.WOKEN]
            told = {entry.as_(Woken).key for entry in woken}
            due = waking.wake_ups(number, clocks, run.rules.wake, now, run.zone, told)
            rows = waking.notices(due, run.rules, run.roles, run.zone)
            outbox.queue(conn, rows, run.run, now, run.notices)
            unanswered: Counter[HumanStep] = Counter(
                step
                for entry in record.entries
                if entry.kind is Kind.UNANSWERED and (step := entry.as_(EntryData).step)
            )
            quiet = waking.silent(number, unanswered, run.rules, run.roles, run.now)
            outbox.queue(conn, quiet, run.run, now, run.notices)
            undone = waking.corrected(number, _corrected(record), run.rules, run.roles, run.now)
            outbox.queue(conn, undone, run.run, now, run.notices)
            for one in due:
                timeline.append(
                    conn, record.incident.id, Kind.WOKEN, waking.told_words(one), by=STEP_WATCH,
                    clock=run.clock, data={"key": one.key, "clock": one.clock.id}, once=one.key,
                )  # fmt: skip
    waiting = settle(run, number)
    again = SOON if waiting else IDLE
    following = waking.next_look(clocks, run.rules.wake, now, run.zone)
    over = not record.incident.is_led or any(one.kind is Kind.SUMMARISED for one in record.entries)
    return Look(over and not waiting, min(now + again, following or now + again), waiting)


def _corrected(record: IncidentRecord) -> dict[int, HumanStep | None]:
    """Corrections by their place, with the step whose answer each voids."""
    by_place = {one.place: one for one in record.entries}
    return {
        one.place: by_place[min(one.as_(EntryData).voids)].as_(EntryData).step
        for one in record.entries
        if one.kind is Kind.CORRECTED
    }


def failed(run: IncidentRun, number: str, tasks: Sequence[str]) -> bool:
    """Tell those who lead of tasks that failed for good, each once; whether the incident goes on.

    Args:
        run: the run or command.
        number: of the incident.
        tasks: ids of those tasks.
    """
    now = run.clock.now()
    with run.state.begin() as conn:
        record = record_in(conn, number)
        summarised = any(one.kind is Kind.SUMMARISED for one in record.entries)
        if not record.incident.is_led or summarised:
            return False
        rows = waking.failed(number, tasks, run.rules, run.roles, now.astimezone(run.zone))
        outbox.queue(conn, rows, run.run, now, run.notices)
    return True


def settle(run: IncidentRun, number: str) -> int:
    """Enter that the team was called and people were told, once it is so; how many still wait.

    Args:
        run: the run or command.
        number: of the incident.
    """
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
