"""The data of timeline entries, one model for each kind; `Entry.as_` reads them.

Entries of older versions lack what was added since: such fields have a default. `Preserved` is in
`include.incident.results`, since the step returns it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from include.incident.names import Phase
from include.incident.rules import HumanStep
from include.messages import Message


class EntryData(BaseModel):
    """The data of an entry.

    Attributes:
        step: human step that it belongs to; None for an addition or another step.
        option: chosen answer.
        part: authority of a report; empty for other steps.
        action: of an addition; None for an entry of a step.
        complete: whether the step was done, and not in part only.
        voids: places of earlier entries that were made by mistake and do not count.
    """

    model_config = ConfigDict(frozen=True)

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
