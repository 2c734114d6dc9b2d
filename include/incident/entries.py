"""The data of timeline entries, one model for each kind; `Entry.as_` reads them.

Fields that older entries lack have a default. `Preserved` is also the result of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from include.evidence.step_findings import StepResult
from include.frozen import FrozenModel
from include.incident.names import Phase
from include.incident.rules import HumanStep
from include.incident.scope import Scope
from include.messages import Message


class EntryData(FrozenModel):
    """The data of an entry.

    Attributes:
        step: human step that it belongs to; None for an addition or another step.
        option: chosen answer.
        part: authority of a report; empty for other steps.
        action: of an addition; None for an entry of a step.
        complete: whether the step was done, and not in part only.
        voids: places of earlier entries that were made by mistake and do not count.
    """

    step: HumanStep | None = None
    option: str = ""
    part: str = ""
    action: str | None = None
    complete: bool = True
    voids: tuple[int, ...] = ()


class Opened(EntryData):
    """`critical`: whether the company's systems were critical; None in older entries."""

    critical: bool | None = None


class Scoped(EntryData):
    """A count of what is affected.

    Attributes:
        version: of the scope.
        unknown: databases in which nobody could count.
        proposed: grade that the counts propose.
        certain: whether it is certain.
        accounts: suspects.
    """

    version: int = 0
    unknown: tuple[str, ...] = ()
    proposed: str = ""
    certain: bool = False
    accounts: tuple[str, ...] = ()


class GradeConfirmed(EntryData):
    """A grade of incident.yaml."""

    grade: str


class Reported(EntryData):
    """A report to an authority: handed in if `complete`, else said not to be needed."""

    authority: str = ""
    phase: Phase | None = None


class ImpactAssessed(EntryData):
    """Texts of reports and notices, by field and language."""

    texts: Mapping[str, str]


class Decided(EntryData):
    """A decision whether people are told.

    Attributes:
        tell: whether they are.
        sha256: of `bound`.
        bound: what the decision is bound to; None in older entries.
        request: id of the request for approval; None if nobody was affected.
        people: on the list.
        version: of the scope.
        adds_to: place of the decision that it adds to; None if it is about everybody.
    """

    tell: bool
    sha256: str = ""
    bound: Mapping[str, str] | None = None
    request: int | None = None
    people: int = 0
    version: int = 0
    adds_to: int | None = None


class NoticesQueuedFor(EntryData):
    """`sha256` of the decision whose notices were queued, and its version of the scope."""

    version: int = 0
    sha256: str = ""


class Told(EntryData):
    """The state of all notices once none waits: counts by state, and when the last was settled."""

    states: Mapping[str, int] = {}
    settled: datetime | None = None


class OfPerson(EntryData):
    """A person who was taken off, or assigned a duty."""

    account: str = ""
    duty: str = ""


class Refused(EntryData):
    """An answer that did not count: why, and what was entered, by field."""

    cause: Message
    given: Mapping[str, Any] = {}


class Woken(EntryData):
    """`key` of the notification about a clock."""

    key: str


class CorrectiveAction(BaseModel):
    """A corrective action, with the number of its finding and the role that owns it."""

    finding: int | str
    owner: str
    what: str


class Reviewed(EntryData):
    """The lessons and corrective actions of a review."""

    lessons: str = ""
    actions: tuple[CorrectiveAction, ...] = ()


class PartnerNote(EntryData):
    """A note about the partner at which the incident happened; None in every other note."""

    partner: str | None = None


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
        """Return whether another try may secure more."""
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
