"""A task that checks its run at intervals, and occupies no worker slot between two checks.

The task reschedules itself after each check. When all other tasks have ended, the run stays open
until the next check of this task. So a long interval delays the end of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowRescheduleException

from include.orchestration.human_step import RESCHEDULE_DELAY
from include.orchestration.run_trigger import is_in_process
from include.services.clock import Clock

ENDED = {"success", "failed", "skipped", "upstream_failed", "removed"}
IN_PROCESS_INTERVAL = timedelta(seconds=1)  # no other task needs the slot, and a command waits


def watch(
    clock: Clock,
    check: Callable[[], datetime | None],
    max_interval: timedelta,
    keeps_watching: Callable[[Mapping[str, str]], bool] = lambda _states: False,
) -> int:
    """Check the run, and reschedule the task for the next check, or end the watch.

    The watch ends when `check` returns None. It also ends when all other tasks have ended and
    `keeps_watching` returns False. Tasks that wait for this task do not count.

    Args:
        clock: clock of the run.
        check: checks the run; returns the time of the next event, or None to end the watch. It is
            called once more after all other tasks have ended.
        max_interval: longest time between two checks.
        keeps_watching: returns whether the watch continues even though all other tasks have ended,
            because a person may clear a failed task. Its argument is task id -> state. It is not
            called in an in-process run, where no person can clear a task.

    Returns:
        The number of other tasks that had ended before the last check.

    Raises:
        AirflowRescheduleException: the watch continues. Raised after every check except the last.
    """
    states = other_task_states()  # read first, so that the check sees all work of ended tasks
    ended = sum(state in ENDED for state in states.values())
    next_event_at = check()
    if next_event_at is None:
        return ended
    if ended == len(states) and (is_in_process() or not keeps_watching(states)):
        return ended
    now = clock.now()
    interval = (
        IN_PROCESS_INTERVAL
        if is_in_process()
        else min(max(next_event_at - now, RESCHEDULE_DELAY), max_interval)
    )
    raise AirflowRescheduleException(now + interval)  # type: ignore[no-untyped-call]


def other_task_states() -> Mapping[str, str]:
    """Return the states of the other tasks of the run: task id -> state.

    Tasks that wait for the running task are left out.
    """
    context: Any = get_current_context()
    run, task = context["dag_run"], context["task"]
    waiting = {task.task_id, *task.get_flat_relative_ids(upstream=False)}
    others = sorted(set(context["dag"].task_dict) - waiting)
    task_states = context["ti"].get_task_states(
        dag_id=run.dag_id, run_ids=[run.run_id], task_ids=others
    )
    return dict(task_states.get(run.run_id, {}))
