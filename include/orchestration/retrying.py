"""Retries of tasks: permanent errors end at once, runs in this process retry for a short time.

Airflow asks `RetryPolicy` after each failure of a task. In Airflow itself, an error that may pass
gets Airflow's own retries. `./parcelseal run` has a person who waits: its retries are shown, and
they take `RetryTime.limit` in all.
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
from include.services.errors import ControlFailed, ParcelSealError, ServiceError, UsageError
from include.services.permanent import is_permanent

DELAYS = (2.0, 5.0, 10.0, 15.0)  # seconds before each retry; the last one repeats
RETRY_TIME = 60.0  # seconds; with the first attempt and the seal a run ends within two minutes
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
        announce: shows a failed attempt to the person who waits.
        limit: seconds from a failure until all retries end; outages add up.
        spent: seconds of earlier outages.
        failed_at: begin of the outage that lasts, of a clock that never goes back; None without.
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
            name: of what is attempted.
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
        """Note that what failed succeeds again."""
        if self.failed_at is not None:
            self.spent += time.monotonic() - self.failed_at
            self.failed_at = None

    def repeat(self, name: str, work: Callable[[], _Result]) -> _Result:
        """Do some work, and repeat it while a service is away and time is left.

        Args:
            name: of what is attempted.
            work: raises ServiceError while a service is away.

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
    """Note that a task of this process's run succeeded.

    Args:
        attempt: number of the attempt, from 1; a later one ends an outage.
    """
    if _in_process is not None and attempt > 1:
        _in_process.recovered()


def is_in_process() -> bool:
    """Return whether a person waits in front of this process for its run."""
    return _in_process is not None


def must_end_soon() -> bool:
    """Return whether an outage took the time of this process's run."""
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
            return RetryDecision.fail("The error is permanent: a retry ends in the same error.")
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
    """Return why an attempt failed, in one line without values of rows."""
    if isinstance(error, ParcelSealError):
        return " ".join(error.message.split())
    return type(error).__name__


def cause_of(error: BaseException) -> ParcelSealError:
    """Return the error for people behind the error with which a task failed."""
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
