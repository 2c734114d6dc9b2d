"""Results of the steps of an incident."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from include.evidence.step_findings import StepResult
from include.incident.scope import Scope

NOT_LISTED = "-"
"""Digest of the list of a drill."""


class IncidentResult(StepResult):
    """The result of a step that only an incident in progress does.

    Attributes:
        asked: whether the step was done; not for a duplicate, or once the incident was cancelled.
    """

    asked: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return the plain JSON form."""
        return self.model_dump(mode="json", exclude={"asked"}) if self.asked else {"asked": False}


class IncidentOpened(StepResult):
    """The incident that a run opened; `duplicate_of` is the number of the one that it is."""

    number: str
    type: str
    aware_at: datetime
    duplicate_of: str | None


class ScopeCounted(IncidentResult):
    """The affected people and records, as they were counted."""

    scope: Scope | None = None


class KeptExtract(BaseModel):
    """The extract of a log.

    Attributes:
        database: of the log; None in entries of older versions.
        log: ``access`` or ``shares``.
        key: of the object in the evidence store.
        rows: in the extract.
        sha256_clear: of the packed file before encryption, hex.
        sha256_stored: of the encrypted object, hex.
    """

    database: str | None = None
    log: str = "access"
    key: str
    rows: int
    sha256_clear: str
    sha256_stored: str


class Preserved(IncidentResult):
    """The evidence that was secured.

    Attributes:
        version: of the scope.
        people: on the frozen list.
        list_sha256: of the list, hex; ``-`` in a drill.
        extracts: of logs, by name.
        holds: legal holds in force, by kind.
        not_listed: databases without a list.
        complete: whether all evidence was secured.
        short: databases that have less than was counted.
        again: whether another try may secure more; None in entries of older versions.
    """

    version: int = 0
    people: int = 0
    list_sha256: str = NOT_LISTED
    extracts: Mapping[str, KeptExtract] = {}
    holds: Mapping[str, int] = {}
    not_listed: tuple[str, ...] = ()
    complete: bool = True
    short: tuple[str, ...] = ()
    again: bool | None = None

    @property
    def is_pending(self) -> bool:
        """Whether another try may secure more."""
        return not self.complete if self.again is None else self.again


class AuthoritiesNamed(StepResult):
    """The ids of the authorities that an incident is reported to."""

    authorities: list[str]


class NoticesQueued(StepResult):
    """The notices to affected people that a run queued.

    Attributes:
        number: of the incident.
        told: whether people are told.
        new: notices that were queued; None if people are not told, as the others.
        again: notices that were queued before.
        undeliverable: notices without a usable address.
    """

    number: str
    told: bool
    new: int | None = None
    again: int | None = None
    undeliverable: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the plain JSON form."""
        return self.model_dump(mode="json", exclude_none=True)


class UpdateEntered(StepResult):
    """An addition to an incident; `entry` is its place in the timeline."""

    number: str
    entry: int
    action: str | None
