"""A permanent error ends a task at once, and an in-process run retries for a short time."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import ProgrammingError

from include.services.clock import SystemClock
from include.services.errors import ControlFailed, ServiceError, UsageError, is_permanent

pytestmark = pytest.mark.airflow


def wrapped(error: psycopg.Error) -> ProgrammingError:
    return ProgrammingError("SELECT", {}, error)


@pytest.mark.parametrize(
    ("error", "permanent"),
    [
        (UsageError("wrong"), True),
        (ControlFailed("failed"), True),
        (ServiceError("away"), False),
        (psycopg.errors.InsufficientPrivilege(), True),
        (psycopg.errors.UndefinedTable(), True),
        (wrapped(psycopg.errors.UndefinedTable()), True),
        (psycopg.errors.InvalidPassword(), True),
        (psycopg.errors.InvalidCatalogName(), True),
        (psycopg.errors.FeatureNotSupported(), True),
        (psycopg.errors.UndefinedFile(), True),
        (psycopg.errors.TooManyConnections(), False),
        (psycopg.errors.DeadlockDetected(), False),
        (psycopg.errors.AdminShutdown(), False),
        (KeyError("name"), False),
        (KeyboardInterrupt(), True),
    ],
)
def test_is_permanent_returns_true_only_for_errors_that_a_retry_cannot_resolve(
    error: BaseException, permanent: bool
) -> None:
    assert is_permanent(error) is permanent


def test_task_is_not_retried_after_a_permanent_error() -> None:
    from airflow.sdk import RetryAction

    from include.orchestration.workflow import DEFAULT_ARGS

    policy = DEFAULT_ARGS["retry_policy"]
    assert policy.evaluate(UsageError("unmigrated"), 1, 5).action is RetryAction.FAIL
    assert policy.evaluate(ServiceError("away"), 1, 5).action is RetryAction.DEFAULT


def test_in_process_run_announces_retries_and_fails_if_the_next_retry_exceeds_its_time_limit() -> (
    None
):
    from airflow.sdk import RetryAction

    from include.orchestration.retry_policy import RetryPolicy, RetryTime, retrying_in_process

    announcements: list[tuple[str, float]] = []
    task = SimpleNamespace(task_id="back_up", map_index=0, start_date=SystemClock().now())
    context: Any = {"ti": task}
    retry_time = RetryTime(lambda text, seconds: announcements.append((text, seconds)), limit=10)
    with retrying_in_process(retry_time):
        first = RetryPolicy().evaluate(ServiceError("no answer"), 1, 5, context)
        last = RetryPolicy().evaluate(ServiceError("no answer"), 3, 5, context)
        exhausted = RetryPolicy().evaluate(ServiceError("no answer"), 6, 5, context)
        task.task_id = "seal"
        seal = RetryPolicy().evaluate(ServiceError("no answer"), 3, 5, context)
    assert (first.action, first.retry_delay) == (RetryAction.RETRY, timedelta(seconds=2))
    assert announcements[0] == ("back_up[0]: attempt 1 failed: no answer", 2)
    assert retry_time.is_used_up
    assert last.action is RetryAction.FAIL  # ten seconds more would be beyond the limit
    assert exhausted.action is RetryAction.DEFAULT
    assert seal.action is RetryAction.RETRY


def test_repeat_calls_its_function_again_after_a_service_error_and_measures_the_outage() -> None:
    from include.orchestration.retry_policy import RetryTime

    answers = iter([ServiceError("away"), "done"])

    def work() -> str:
        answer = next(answers)
        if isinstance(answer, ServiceError):
            raise answer
        return str(answer)

    retry_time = RetryTime(lambda _text, _seconds: None)
    assert retry_time.repeat("state_db", work) == "done"
    assert retry_time.failed_at is None
    assert retry_time.spent >= 2
    with pytest.raises(UsageError):
        retry_time.repeat("state_db", lambda: (_ for _ in ()).throw(UsageError("refused")))
