"""A task that looks again and again ends with its run, and sleeps in between."""

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


def watched(
    states: dict[str, str | None],
    look: Callable[[], datetime | None],
    starter: str = "E00003",
    goes_on: Callable[[Mapping[str, str]], bool] = lambda _states: False,
) -> Any:
    """Look once in a run of those states; returns the moment of the next look, or the end."""
    from airflow.sdk import DAG, task
    from airflow.sdk.exceptions import AirflowRescheduleException
    from airflow.sdk.execution_time.context import set_current_context

    from include.orchestration.watching import watch

    with DAG("watched", schedule=None) as dag:

        @task
        def nothing() -> None:
            """Do nothing."""

        one, two = (nothing.override(task_id=name)() for name in ("one", "two"))
        watching, after = (nothing.override(task_id=name)() for name in ("watch", "after"))
        [one, two] >> watching >> after

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
            return watch(FixedClock(NOW), look, AT_MOST, goes_on)
        except AirflowRescheduleException as again:
            return again.reschedule_date


GOING_ON = {"one": "success", "two_0": "awaiting_input", "two_1": None}
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
def test_it_looks_again_when_something_happens_next(
    next_moment: datetime, again: timedelta
) -> None:
    """But never in the same breath, where Airflow would take it for killed."""
    assert watched(GOING_ON, lambda: next_moment) == NOW + again


def test_it_ends_when_a_look_says_that_it_is_over() -> None:
    """Whatever else goes on."""
    assert watched(GOING_ON, lambda: None) == 1


def test_it_ends_with_the_others_after_a_last_look() -> None:
    """Also where they failed: a run that waits for its watch would never end."""
    looks: list[int] = []

    def look() -> datetime:
        looks.append(1)
        return NOW + LATER

    assert watched(ENDED, look) == 3
    assert looks == [1]


def test_it_goes_on_where_a_failed_task_may_be_cleared() -> None:
    """Else the evidence would be sealed in the midst of an incident; in one process nobody can."""
    asked: list[Mapping[str, str]] = []

    def goes_on(states: Mapping[str, str]) -> bool:
        asked.append(states)
        return True

    assert watched(ENDED, lambda: NOW + LATER, goes_on=goes_on) == NOW + LATER
    assert asked == [ENDED]
    assert watched(ENDED, lambda: None, goes_on=goes_on) == 3
    assert watched(ENDED, lambda: NOW + LATER, "dag_test", goes_on) == 3
    assert asked == [ENDED]


def test_in_a_run_of_the_command_it_looks_every_second() -> None:
    """The command waits for its end, and nobody else for its slot."""
    found = watched(GOING_ON, lambda: NOW + LATER, starter="dag_test")
    assert found == NOW + timedelta(seconds=1)


def test_who_started_a_run_is_a_person_or_nobody() -> None:
    """The in-process runner's own name is nobody's."""
    from airflow.sdk.execution_time.context import set_current_context

    from include.orchestration.starter import is_in_process, started_by

    for name, who, ours in (("E1", "E1", False), (None, None, False), ("dag_test", None, True)):
        context: Any = {"dag_run": SimpleNamespace(triggering_user_name=name)}
        with set_current_context(context):
            assert (started_by(), is_in_process()) == (who, ours)
