"""The watch of a run checks the run at intervals and ends together with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from include.services.clock import FixedClock

pytestmark = pytest.mark.airflow
NOW = datetime(2026, 3, 2, 8, tzinfo=UTC)
AT_MOST = timedelta(minutes=5)
LATER = timedelta(minutes=2)


def watch_once(
    states: dict[str, str | None],
    look: Callable[[], datetime | None],
    starter: str = "E00003",
    keeps_watching: Callable[[Mapping[str, str]], bool] = lambda _states: False,
) -> Any:
    """Execute the task `watch` once; return the time of its next check, or its result.

    Args:
        states: task id -> state of each other task of the run.
        look: checks the run; returns the time of the next event, or None to end the watch.
        starter: user id of the person who triggered the run.
        keeps_watching: returns whether the watch continues after all other tasks have ended.
    """
    from airflow.sdk import DAG, task
    from airflow.sdk.exceptions import AirflowRescheduleException
    from airflow.sdk.execution_time.context import set_current_context

    from include.orchestration.run_watch import watch

    with DAG("watched", schedule=None) as dag:

        @task
        def nothing() -> None:
            """Do nothing."""

        first, second = (nothing.override(task_id=name)() for name in ("one", "two"))
        watch_task, after = (nothing.override(task_id=name)() for name in ("watch", "after"))
        [first, second] >> watch_task >> after

    def get_task_states(dag_id: str, run_ids: list[str], task_ids: list[str]) -> Any:
        assert (dag_id, run_ids) == ("watched", ["r1"])
        assert task_ids == ["one", "two"]
        return {"r1": states}

    context: Any = {
        "dag": dag,
        "task": dag.get_task("watch"),
        "dag_run": SimpleNamespace(dag_id="watched", run_id="r1", triggering_user_name=starter),
        "ti": SimpleNamespace(get_task_states=get_task_states),
    }
    with set_current_context(context):
        try:
            return watch(FixedClock(NOW), look, AT_MOST, keeps_watching)
        except AirflowRescheduleException as again:
            return again.reschedule_date


RUNNING = {"one": "success", "two_0": "awaiting_input", "two_1": None}
ENDED = {"one": "success", "two_0": "upstream_failed", "two_1": "skipped"}


@pytest.mark.parametrize(
    ("next_moment", "again"),
    [
        (NOW + LATER, LATER),
        (NOW + timedelta(days=1), AT_MOST),
        (NOW - timedelta(hours=1), timedelta(seconds=10)),
    ],
    ids=["then", "at most", "at once is a moment later"],
)
def test_watch_task_is_rescheduled_for_the_time_that_its_check_returns(
    next_moment: datetime, again: timedelta
) -> None:
    """The next check is never at once, because Airflow would treat the task as killed."""
    assert watch_once(RUNNING, lambda: next_moment) == NOW + again


def test_watch_task_ends_if_its_check_returns_no_time() -> None:
    assert watch_once(RUNNING, lambda: None) == 1


def test_watch_task_ends_after_all_other_tasks_of_the_run_have_ended() -> None:
    """This also holds if tasks failed, because the run cannot end before its watch."""
    looks: list[int] = []

    def look() -> datetime:
        looks.append(1)
        return NOW + LATER

    assert watch_once(ENDED, look) == 3
    assert looks == [1]


def test_watch_task_is_rescheduled_while_a_failed_task_may_still_be_cleared() -> None:
    """Otherwise the run would be sealed before the incident has ended."""
    asked: list[Mapping[str, str]] = []

    def keeps_watching(states: Mapping[str, str]) -> bool:
        asked.append(states)
        return True

    assert watch_once(ENDED, lambda: NOW + LATER, keeps_watching=keeps_watching) == NOW + LATER
    assert asked == [ENDED]
    assert watch_once(ENDED, lambda: None, keeps_watching=keeps_watching) == 3
    assert watch_once(ENDED, lambda: NOW + LATER, "dag_test", keeps_watching) == 3
    assert asked == [ENDED]


def test_watch_task_is_rescheduled_every_second_in_an_in_process_run() -> None:
    next_check_at = watch_once(RUNNING, lambda: NOW + LATER, starter="dag_test")
    assert next_check_at == NOW + timedelta(seconds=1)


def test_triggering_user_is_none_if_a_schedule_or_command_started_the_run() -> None:
    from airflow.sdk.execution_time.context import set_current_context

    from include.orchestration.run_trigger import is_in_process, triggering_user

    for name, user, in_process in (
        ("E1", "E1", False),
        (None, None, False),
        ("dag_test", None, True),
    ):
        context: Any = {"dag_run": SimpleNamespace(triggering_user_name=name)}
        with set_current_context(context):
            assert (triggering_user(), is_in_process()) == (user, in_process)
