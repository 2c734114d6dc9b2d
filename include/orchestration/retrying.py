"""Retries of tasks: permanent errors end at once, runs in this process retry for a short time.

Airflow asks `RetryPolicy` after each failure of a task. Under Airflow's scheduler, a transient
error gets Airflow's own retries. A person waits for `./parcelseal run`: it shows its retries, and
they take `RetryTime.limit` in total.
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

DELAYS = (2.0, 5.0, 10.0, 15.0)  # seconds before each retry; the last one repeats
RETRY_TIME = 60.0  # seconds; so a run with its first attempt and its seal ends in two minutes
SEAL_TIME = 20.0  # seconds more for the seal: without it the run leaves no evidence
_Result = TypeVar("_Result")
Announce = Callable[[str, float], None]
"""Shows that an attempt failed: what failed and why, and the seconds until the next attempt."""


class PermanentFailure(AirflowFailException):
    """A task failed, and no retry removes the cause.

    Attributes:
        error: the cause.
    """

    def __init__(self, error: ParcelSealError) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class RetryTime:
    """The time budget for retries of this process.

    Args:
        announce: shows a failed attempt on the terminal.
        limit: seconds for the retries of all outages together.
        spent: seconds of earlier outages.
        failed_at: start of the current outage, by the monotonic clock; None without an outage.
        is_used_up: whether an attempt was not repeated because no time was left.
    """

    announce: Announce
    limit: float = RETRY_TIME
    spent: float = 0.0
    failed_at: float | None = None
    is_used_up: bool = False

    def next_delay(
        self, name: str, reason: str, attempt: int, lasted: float, reserve: float = 0.0
    ) -> float | None:
        """Return the seconds until the next attempt, or None when the time is used up.

        Args:
            name: name of the task or service.
            reason: why the attempt failed, in one line.
            attempt: number of the attempt that failed, from 1.
            lasted: seconds that the attempt took.
            reserve: seconds beyond the limit that this attempt may use.
        """
        now = time.monotonic()
        self.failed_at = self.failed_at or now
        delay = DELAYS[min(attempt, len(DELAYS)) - 1]
        # The next attempt may take as long as this one.
        end = self.spent + now - self.failed_at + delay + min(lasted, self.limit / 4)
        if end > self.limit + reserve:
            self.is_used_up = True
            return None
        self.announce(f"{name}: attempt {attempt} failed: {reason}", delay)
        return delay

    def recovered(self) -> None:
        """Record the end of an outage."""
        if self.failed_at is not None:
            self.spent += time.monotonic() - self.failed_at
            self.failed_at = None

    def repeat(self, name: str, work: Callable[[], _Result]) -> _Result:
        """Call a function, and repeat the call while a service is unavailable and time is left.

        Args:
            name: name of the service.
            work: the function; raises ServiceError while the service is unavailable.

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
    """Retry the tasks of a run in this process for a short time only, while the block runs."""
    global _in_process
    before, _in_process = _in_process, retry_time
    try:
        yield
    finally:
        _in_process = before


def note_success(attempt: int) -> None:
    """Record that a task of this process's run succeeded.

    Args:
        attempt: number of the attempt, from 1; a number above 1 ends an outage.
    """
    if _in_process is not None and attempt > 1:
        _in_process.recovered()


def is_in_process() -> bool:
    """Return whether this process executes a run for a person who waits for it."""
    return _in_process is not None


def must_end_soon() -> bool:
    """Return whether outages used up the retry time of this process's run."""
    return _in_process is not None and _in_process.is_used_up


class RetryPolicy(AirflowRetryPolicy):
    """Fails a task at once after a permanent error, whatever retries it has left."""

    def evaluate(
        self,
        exception: BaseException,
        try_number: int,
        max_tries: int,
        context: Any = None,
    ) -> RetryDecision:
        """Return whether Airflow retries a task, and when; see Airflow's `RetryPolicy`."""
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
    """Return the reason of a failed attempt, in one line without values of rows."""
    if isinstance(error, ParcelSealError):
        return " ".join(error.message.split())
    return type(error).__name__


def cause_of(error: BaseException) -> ParcelSealError:
    """Return the error to show to people for the error with which a task failed."""
    if isinstance(error, PermanentFailure):
        return error.error
    if isinstance(error, ParcelSealError):
        return error
    if isinstance(error, AirflowFailException):
        return ControlFailed(str(error))
    return (UsageError if is_permanent(error) else ServiceError)(reason_of(error))


def _name_of(task: Any) -> str:
    index = getattr(task, "map_index", -1)
    return str(task.task_id) if index is None or index < 0 else f"{task.task_id}[{index}]"
