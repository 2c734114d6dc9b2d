"""Errors that reach people: one clear line, an exit code, and whether a retry can help."""

from __future__ import annotations


class ParcelSealError(Exception):
    """Base of every error that people read.

    Attributes:
        message: what happened, in one line.
        action: what the reader can do about it; may be empty.
    """

    exit_code = 3

    def __init__(self, message: str, action: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.action = action

    def __str__(self) -> str:
        return f"{self.message} {self.action}".strip()


class UsageError(ParcelSealError):
    """The command or the configuration is wrong (exit code 2)."""

    exit_code = 2


class ControlFailed(ParcelSealError):
    """The work was done and shows that the control did not hold (exit code 1)."""

    exit_code = 1


class ServiceError(ParcelSealError):
    """A service failed: database, store, mail (exit code 3).

    Attributes:
        is_permanent: whether a retry would end in the same error, until a person removes the cause.
    """

    exit_code = 3
    is_permanent = False


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

    Errors of configuration, data and rights are permanent, also if a library's error wraps them.
    An unavailable service is transient, and so is an unexpected error without an SQLSTATE.

    Args:
        error: the error of the failed attempt.
    """
    if isinstance(error, ServiceError):
        return error.is_permanent
    if isinstance(error, (ParcelSealError, KeyboardInterrupt)):
        return True
    return sqlstate_of(error).startswith(PERMANENT_STATES) and not _is_outdated_plan(error)


def sqlstate_of(error: BaseException) -> str:
    """Return the SQLSTATE of an error or of the database error that it wraps; empty if none."""
    return getattr(_database_error(error), "sqlstate", None) or ""


def _is_outdated_plan(error: BaseException) -> bool:
    """Return whether a table changed after a statement on it was prepared; a retry prepares again.

    PostgreSQL gives the error the SQLSTATE of unsupported features, 0A000.
    """
    diagnosis = getattr(_database_error(error), "diag", None)
    return getattr(diagnosis, "source_function", None) == "RevalidateCachedQuery"


def _database_error(error: BaseException) -> BaseException:
    wrapped = getattr(error, "orig", None)
    return _database_error(wrapped) if isinstance(wrapped, BaseException) else error
