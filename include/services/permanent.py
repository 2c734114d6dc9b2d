"""Distinguish permanent errors, which a retry cannot remove, from transient errors."""

from __future__ import annotations

from include.services.errors import ParcelSealError, ServiceError

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
