"""A task that looks again and again while its run goes on, and holds no slot between two looks.

It is a plain task that reschedules itself. The run cannot end before its next look, so a look that
is far away makes a run that is over wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowRescheduleException

from include.orchestration.human import AGAIN_AFTER
from include.orchestration.starter import is_in_process
from include.services.clock import Clock

ENDED = {"success", "failed", "skipped", "upstream_failed", "removed"}
IN_PROCESS = timedelta(seconds=1)  # nobody else waits for the slot, but the command for its end


def watch(
    clock: Clock,
    look: Callable[[], datetime | None],
    at_most: timedelta,
    goes_on: Callable[[Mapping[str, str]], bool] = lambda _states: False,
) -> int:
    """Check the run, and reschedule the task for the next check until the watch ends.

    The watch ends when `look` returns None. It also ends when all other tasks, except those that
    wait for this task, have ended and `goes_on` returns False.

    Args:
        clock: of the run.
        look: does what there is to do and returns when something happens next; None when it is
            over. It is done once more after the others ended.
        at_most: time between two looks, whatever the look says.
        goes_on: says whether to go on watching though all others ended, by their states: somebody
            may clear one that failed. Never asked in one process, where nobody can.

    Returns:
        How many tasks had ended when it was over.

    Raises:
        AirflowRescheduleException: at the end of every look but the last.
    """
    states = others()  # before the look, which then sees all that they did
    ended = sum(state in ENDED for state in states.values())
    next_moment = look()
    if next_moment is None:
        return ended
    if ended == len(states) and (is_in_process() or not goes_on(states)):
        return ended
    now = clock.now()
    pause = IN_PROCESS if is_in_process() else min(max(next_moment - now, AGAIN_AFTER), at_most)
    raise AirflowRescheduleException(now + pause)  # type: ignore[no-untyped-call]


def others() -> Mapping[str, str]:
    """States of the run's other tasks by id, without this one and those that wait for it."""
    context: Any = get_current_context()
    run, task = context["dag_run"], context["task"]
    waiting = {task.task_id, *task.get_flat_relative_ids(upstream=False)}
    wanted = sorted(set(context["dag"].task_dict) - waiting)
    found = context["ti"].get_task_states(dag_id=run.dag_id, run_ids=[run.run_id], task_ids=wanted)
    return dict(found.get(run.run_id, {}))
