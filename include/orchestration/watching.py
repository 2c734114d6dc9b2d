"""A task that looks again and again while its run goes on, and holds no slot between two looks.

It is a plain task that reschedules itself. The run cannot end before its next look, so a look that
is far away makes a run that is over wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowRescheduleException

from include.orchestration.human import AGAIN_AFTER
from include.orchestration.starter import is_in_process
from include.services.clock import Clock

ENDED = {"success", "failed", "skipped", "upstream_failed", "removed"}
IN_PROCESS = timedelta(seconds=1)  # nobody else waits for the slot, but the command for its end


def watch(clock: Clock, look: Callable[[], datetime | None], at_most: timedelta) -> int:
    """Look, then look again at the moment that the look named, until there is nothing to watch.

    There is nothing to watch when a look says so, or when every other task of the run has ended
    that does not wait for this one: then nothing in it can happen any more.

    Args:
        clock: of the run.
        look: does what there is to do and returns when something happens next; None when it is
            over. It is done once more after the others ended.
        at_most: time between two looks, whatever the look says.

    Returns:
        How many tasks had ended when it was over.

    Raises:
        AirflowRescheduleException: at the end of every look but the last.
    """
    ended, going_on = _others()  # before the look, which then sees all that they did
    next_moment = look()
    if next_moment is None or not going_on:
        return ended
    now = clock.now()
    pause = IN_PROCESS if is_in_process() else min(max(next_moment - now, AGAIN_AFTER), at_most)
    raise AirflowRescheduleException(now + pause)  # type: ignore[no-untyped-call]


def _others() -> tuple[int, int]:
    """How many tasks of the run have ended and how many have not, without this one and its own."""
    context: Any = get_current_context()
    run, task = context["dag_run"], context["task"]
    waiting = {task.task_id, *task.get_flat_relative_ids(upstream=False)}
    wanted = sorted(set(context["dag"].task_dict) - waiting)
    found = context["ti"].get_task_states(dag_id=run.dag_id, run_ids=[run.run_id], task_ids=wanted)
    states = list(found.get(run.run_id, {}).values())
    ended = sum(state in ENDED for state in states)
    return ended, len(states) - ended
