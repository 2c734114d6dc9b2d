"""Errors that reach people: one clear line with what to do, and the exit code that goes with it."""

from __future__ import annotations


class ParcelSealError(Exception):
    """Base of every error that is meant to be read by a person.

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
    """A service did not do its part: database, store, mail (exit code 3).

    Attributes:
        is_permanent: whether a retry would end in the same error, until a person removes the cause.
    """

    exit_code = 3
    is_permanent = False
