"""Define the errors whose messages are shown to users.

Each error has a one-line message, an exit code, and a flag that says whether a retry can help.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class ParcelSealError(Exception):
    """The base class of all errors whose message is written for users.

    Attributes:
        message: description of the problem in one line.
        action: advice to the user; may be empty.
    """

    exit_code = 3

    def __init__(self, message: str, action: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.action = action

    def __str__(self) -> str:
        return f"{self.message} {self.action}".strip()


class UsageError(ParcelSealError):
    """The command line or the configuration is wrong (exit code 2)."""

    exit_code = 2


class CouldNotRun(UsageError):
    """A run was refused before it worked on anything: its inputs are wrong, or rules are missing.

    Such a run says nothing about a control.
    """


class ControlFailed(ParcelSealError):
    """A control failed (exit code 1)."""

    exit_code = 1


class ServiceError(ParcelSealError):
    """A service failed, such as a database, store or mail server (exit code 3).

    Attributes:
        is_permanent: whether retries are useless until a person removes the cause of the error.
    """

    exit_code = 3
    is_permanent = False


@contextmanager
def refusing_inputs() -> Iterator[None]:
    """Convert a UsageError of the block to CouldNotRun, because the block reads a run's inputs."""
    try:
        yield
    except UsageError as error:
        raise CouldNotRun(error.message, error.action) from None


PERMANENT_STATES = (
    "0A",  # feature not supported: an extension that the server lacks, among others
    "22",  # data exception: the same row fails again
    "28",  # the server refuses user or password
    "3D",  # no such database
    "3F",  # no such schema
    "42",  # no such table or column, no right
    "58P01",  # the server lacks a file: the library of an extension
)
"""Classes of SQLSTATE, and one SQLSTATE, whose cause only a person can remove.

See PostgreSQL 18, appendix A.
"""


def is_permanent(error: BaseException) -> bool:
    """Return whether a retry would end in the same error.

    Errors of configuration, data and permissions are permanent, even if an error of a library wraps
    them. Errors of unavailable services are not permanent. An unexpected error without an SQLSTATE
    is not permanent.

    Args:
        error: error of the failed attempt.
    """
    if isinstance(error, ServiceError):
        return error.is_permanent
    if isinstance(error, (ParcelSealError, KeyboardInterrupt)):
        return True
    return sqlstate_of(error).startswith(PERMANENT_STATES) and not _is_outdated_plan(error)


def sqlstate_of(error: BaseException) -> str:
    """Return the SQLSTATE of an error or of the database error that it wraps.

    The result is empty if the error has no SQLSTATE.
    """
    return getattr(_database_error(error), "sqlstate", None) or ""


def _is_outdated_plan(error: BaseException) -> bool:
    """Return whether a prepared statement failed because its table was changed in the meantime.

    A retry prepares the statement again and may succeed. PostgreSQL reports this error with
    SQLSTATE 0A000, which usually stands for unsupported features.
    """
    diagnosis = getattr(_database_error(error), "diag", None)
    return getattr(diagnosis, "source_function", None) == "RevalidateCachedQuery"


def _database_error(error: BaseException) -> BaseException:
    wrapped = getattr(error, "orig", None)
    return _database_error(wrapped) if isinstance(wrapped, BaseException) else error
