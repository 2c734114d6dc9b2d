"""Retries of tasks: permanent errors are not retried, and in-process runs retry for a short time.

Airflow calls `RetryPolicy` after each failure of a task. Under Airflow's scheduler, a task with a
transient error is retried by Airflow's own rules. In-process runs print each retry and limit the
time for all retries to `RetryTime.limit`, because a person waits for `./parcelseal run`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from airflow.sdk import RetryDecision
from airflow.sdk import RetryPolicy as AirflowRetryPolicy
from airflow.sdk.exceptions import AirflowFailException

from include.services.clock import SystemClock
from include.services.errors import (
    ControlFailed,
    ParcelSealError,
    ServiceError,
    UsageError,
    is_permanent,
)

DELAYS = (2.0, 5.0, 10.0, 15.0)  # seconds before each retry; the last delay repeats
RETRY_TIME = 60.0  # seconds; a run with its first attempt and its seal then ends in two minutes
SEAL_TIME = 20.0  # more seconds for the seal: an unsealed run leaves no evidence
_Result = TypeVar("_Result")
Announce = Callable[[str, float], None]
"""Shows that an attempt failed: what failed and why, and the seconds until the next attempt."""


class PermanentFailure(AirflowFailException):
    """Raised when a task fails with an error that a retry cannot remove.

    Attributes:
        error: the error with which the task failed.
    """

    def __init__(self, error: ParcelSealError) -> None:
        super().__init__(str(error))
        self.error = error


class TaskFailed(SystemExit):
    """Ends a task as failed, without a traceback in its log and without a retry.

    Airflow logs a traceback for every exception except SystemExit. Raise it after the log states
    why the task fails.
    """

    def __init__(self) -> None:
        super().__init__(1)


@dataclass
class RetryTime:
    """The time budget for all retries of an in-process run.

    An outage lasts from the first failed attempt until the next successful attempt.

    Attributes:
        announce: prints a failed attempt on the terminal.
        limit: seconds for the retries of all outages together.
        spent: seconds that earlier outages took.
        failed_at: start of the current outage, in seconds of the monotonic clock; None if there is
            no outage.
        is_used_up: whether the remaining time was too short for another attempt.
    """

    announce: Announce
    limit: float = RETRY_TIME
    spent: float = 0.0
    failed_at: float | None = None
    is_used_up: bool = False

    def next_delay(
        self, name: str, reason: str, attempt: int, lasted: float, reserve: float = 0.0
    ) -> float | None:
        """Return the seconds until the next attempt, or None if the time budget is used up.

        Args:
            name: name of the task or service.
            reason: why the attempt failed, in one line.
            attempt: number of the failed attempt; the first attempt has the number 1.
            lasted: seconds that the failed attempt took.
            reserve: number of seconds by which the next attempt may exceed the time budget.
        """
        now = time.monotonic()
        self.failed_at = self.failed_at or now
        delay = DELAYS[min(attempt, len(DELAYS)) - 1]
        # The next attempt may take as long as this attempt.
        end = self.spent + now - self.failed_at + delay + min(lasted, self.limit / 4)
        if end > self.limit + reserve:
            self.is_used_up = True
            return None
        self.announce(f"{name}: attempt {attempt} failed: {reason}", delay)
        return delay

    def recovered(self) -> None:
        """Record that the current outage has ended, and add its duration to `spent`."""
        if self.failed_at is not None:
            self.spent += time.monotonic() - self.failed_at
            self.failed_at = None

    def repeat(self, name: str, work: Callable[[], _Result]) -> _Result:
        """Call a function, and repeat the call while a service is unavailable and time is left.

        Args:
            name: name of the service.
            work: the function, which raises ServiceError while the service is unavailable.

        Raises:
            ParcelSealError: the error of the last attempt.
        """
        attempt = 1
        while True:
            begun = time.monotonic()
            try:
                result = work()
            except ServiceError as error:
                lasted = time.monotonic() - begun
                delay = None
                if not is_permanent(error):
                    delay = self.next_delay(name, error.message, attempt, lasted)
                if delay is None:
                    raise
            else:
                self.recovered()
                return result
            time.sleep(delay)
            attempt += 1


_in_process: RetryTime | None = None


@contextmanager
def retrying_in_process(retry_time: RetryTime) -> Iterator[None]:
    """Limit the retries of an in-process run to a time budget while the block executes."""
    global _in_process
    previous, _in_process = _in_process, retry_time
    try:
        yield
    finally:
        _in_process = previous


def note_success(attempt: int) -> None:
    """End the current outage of an in-process run, because a task of the run succeeded.

    Outside of an in-process run, the function does nothing.

    Args:
        attempt: number of the successful attempt, from 1. If it is 1, no attempt of the task
            failed, so the function does nothing.
    """
    if _in_process is not None and attempt > 1:
        _in_process.recovered()


def is_in_process() -> bool:
    """Return whether a command, such as `./parcelseal run`, executes a run in this process."""
    return _in_process is not None


def must_end_soon() -> bool:
    """Return whether this process's run has used up its time budget for retries."""
    return _in_process is not None and _in_process.is_used_up


class RetryPolicy(AirflowRetryPolicy):
    """An Airflow retry policy that does not retry a task after a permanent error."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Any = None,
    ) -> RetryDecision:
        """Return whether Airflow retries a failed task, and after which delay.

        The arguments are those of the same method of Airflow's `RetryPolicy`.
        """
        if isinstance(exception, TaskFailed):
            return RetryDecision.fail()
        if is_permanent(exception):
            return RetryDecision.fail("The error is permanent: a retry would fail in the same way.")
        if _in_process is None or context is None or try_number > max_tries:
            return RetryDecision.default()
        task = context["ti"]
        started = task.start_date
        delay = _in_process.next_delay(
            _name_of(task),
            reason_of(exception),
            try_number,
            (SystemClock().now() - started).total_seconds() if started else 0.0,
            SEAL_TIME if task.task_id == "seal" else 0.0,
        )
        if delay is None:
            return RetryDecision.fail("The time for retries of this command is used up.")
        return RetryDecision.retry(timedelta(seconds=delay))


def reason_of(error: BaseException) -> str:
    """Return why an attempt failed, in one line without values of records."""
    if isinstance(error, ParcelSealError):
        return " ".join(error.message.split())
    return type(error).__name__


def cause_of(error: BaseException) -> ParcelSealError:
    """Convert the error with which a task failed to an error that may be shown to people."""
    if isinstance(error, PermanentFailure):
        return error.error
    if isinstance(error, ParcelSealError):
        return error
    if isinstance(error, TaskFailed):
        return ControlFailed("The control failed.")
    if isinstance(error, AirflowFailException):
        return ControlFailed(str(error))
    return (UsageError if is_permanent(error) else ServiceError)(reason_of(error))


def _name_of(task: Any) -> str:
    index = getattr(task, "map_index", -1)
    return str(task.task_id) if index is None or index < 0 else f"{task.task_id}[{index}]"
