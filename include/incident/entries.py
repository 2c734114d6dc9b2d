"""Models for the data of timeline entries, one model per kind of entry.

`Entry.as_` parses the data of an entry with one of these models. If entries of older versions lack
a field, the field has a default. `Preserved` is also the result of the step that preserves
evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from include.evidence.step_findings import StepResult
from include.frozen import FrozenModel
from include.incident.incident_ids import Phase
from include.incident.rules import HumanStep
from include.incident.scope import Scope
from include.messages import Message


class EntryData(FrozenModel):
    """The fields that the data of any timeline entry may have.

    Attributes:
        step: step that a person answered with this entry; None if an update or an automatic task
            wrote the entry.
        option: id of the answer that the person chose; empty if the entry records no choice.
        part: id of the authority if the step is a report to an authority; empty for other steps.
        action: action of the update that the entry records; None if a step wrote the entry.
        complete: whether the step was done completely.
        voids: positions in the timeline of earlier entries that this entry declares to be mistakes.
            Such earlier entries are ignored.
    """

    step: HumanStep | None = None
    option: str = ""
    part: str = ""
    action: str | None = None
    complete: bool = True
    voids: tuple[int, ...] = ()


class Opened(EntryData):
    """The data of the first timeline entry, which opens the incident.

    Attributes:
        critical: whether the company's systems were critical information infrastructure; None in
            entries of older versions.
    """

    critical: bool | None = None


class Scoped(EntryData):
    """The data of an entry about a count of affected records.

    Attributes:
        version: version of the scope that the count produced.
        unknown: names of the databases that could not be counted.
        proposed: id of the grade that ParcelSeal proposes after this count.
        certain: whether everything on which the grade depends could be counted.
        accounts: accounts that may have caused the incident.
    """

    version: int = 0
    unknown: tuple[str, ...] = ()
    proposed: str = ""
    certain: bool = False
    accounts: tuple[str, ...] = ()


class GradeConfirmed(EntryData):
    """The data of an entry in which a person confirmed the grade of the incident.

    Attributes:
        grade: id of the grade in incident.yaml.
    """

    grade: str


class Reported(EntryData):
    """The data of an entry about a report to an authority.

    If `complete` is true, the report was handed in. Otherwise a person declared that it is not
    needed.

    Attributes:
        authority: id of the authority in incident.yaml.
        phase: first or follow-up report.
    """

    authority: str = ""
    phase: Phase | None = None


class ImpactAssessed(EntryData):
    """The data of an entry with texts about an incident's impact, for reports and notices.

    Attributes:
        texts: form field, such as ``cause_en``, -> text. Each field has one language.
    """

    texts: Mapping[str, str]


class Decided(EntryData):
    """The data of a decision whether to notify affected people.

    Attributes:
        tell: whether the people are to be notified.
        sha256: digest (hex) of `bound`.
        bound: data that the decision is about, such as digests of the notice text and of the list
            of people; None in entries of older versions.
        request: id of the approval request; None if no person is affected.
        people: number of people on the list of affected people.
        version: version of the scope.
        adds_to: position in the timeline of the earlier decision that this decision extends to more
            people; None if this decision covers everybody on the list.
    """

    tell: bool
    sha256: str = ""
    bound: Mapping[str, str] | None = None
    request: int | None = None
    people: int = 0
    version: int = 0
    adds_to: int | None = None


class NoticesQueuedFor(EntryData):
    """The data of an entry which records that the notices of a decision were queued.

    Attributes:
        version: version of the scope on which the decision was made.
        sha256: value of `Decided.sha256` in the entry of the decision.
    """

    version: int = 0
    sha256: str = ""


class NoticesSettled(EntryData):
    """The data of an entry about the delivery of an incident's notices.

    The entry is written once no notice waits to be sent any more.

    Attributes:
        states: number of notices by delivery state.
        settled: time at which the last notice was sent or given up.
    """

    states: Mapping[str, int] = {}
    settled: datetime | None = None


class TeamChange(EntryData):
    """The data of an entry that removes an account from the team or assigns it to a duty.

    Attributes:
        account: user id of the person.
        duty: id of the duty to which the account is assigned; empty if it is removed.
    """

    account: str = ""
    duty: str = ""


class Refused(EntryData):
    """The data of an entry about an answer that ParcelSeal refused.

    Attributes:
        cause: reason for the refusal.
        given: values that the person entered, by form field.
    """

    cause: Message
    given: Mapping[str, Any] = {}


class EscalationSent(EntryData):
    """The data of an entry which records that a notification about a time limit was sent.

    Attributes:
        key: key of the notification.
    """

    key: str


class CorrectiveAction(BaseModel):
    """A corrective action that people entered in the review of an incident.

    Attributes:
        finding: number of the finding that was opened for the action.
        owner: role that is responsible for the action.
        what: text of the action.
    """

    finding: int | str
    owner: str
    what: str


class Reviewed(EntryData):
    """The lessons and corrective actions that people entered in the review of an incident.

    Attributes:
        lessons: text about the lessons.
        actions: corrective actions, in the order of the form.
    """

    lessons: str = ""
    actions: tuple[CorrectiveAction, ...] = ()


class PartnerNote(EntryData):
    """The data of a timeline entry that is a note.

    Attributes:
        partner: number of the partner if the note records that the incident happened at a partner;
            None for other notes.
    """

    partner: str | None = None


NOT_LISTED = "-"
"""Digest of a list that does not exist, as in a drill."""


class IncidentResult(StepResult):
    """The result of a step that is skipped if the incident is a duplicate or was cancelled.

    Attributes:
        asked: whether the step was done; false if it was skipped.
    """

    asked: bool = True

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values; for a skipped step, return only ``asked``."""
        return self.model_dump(mode="json", exclude={"asked"}) if self.asked else {"asked": False}


class IncidentOpened(StepResult):
    """The result of the step that opens an incident.

    Attributes:
        number: number of the incident.
        type: id of the incident type in incident.yaml.
        aware_at: time at which the company became aware of the incident.
        duplicate_of: number of the incident that this incident duplicates; None if it is not a
            duplicate.
    """

    number: str
    type: str
    aware_at: datetime
    duplicate_of: str | None


class ScopeCounted(IncidentResult):
    """The result of a step that counts affected people and records.

    Attributes:
        scope: counted scope; None if the step was skipped.
    """

    scope: Scope | None = None


class KeptExtract(BaseModel):
    """An encrypted extract of a database log in the evidence store.

    Attributes:
        database: name of the database that contains the log; None in entries of older versions.
        log: ``access`` for the access log or ``shares`` for the sharing log.
        key: key of the object in the evidence store.
        rows: number of log rows in the extract.
        sha256_clear: digest (hex) of the compressed file before encryption.
        sha256_stored: digest (hex) of the encrypted object.
    """

    database: str | None = None
    log: str = "access"
    key: str
    rows: int
    sha256_clear: str
    sha256_stored: str


class Preserved(IncidentResult):
    """The result of the step that preserves an incident's evidence.

    Attributes:
        version: version of the scope.
        people: number of people on the stored list of affected people.
        list_sha256: digest (hex) of the list; ``-`` in a drill.
        extracts: log extracts in the evidence store. The key is ``<database>`` for an access log,
            and ``<database>.shares`` for a sharing log.
        holds: number of legal holds in force, by kind of hold, such as a hold on a whole database.
        not_listed: names of the databases whose affected people could not be listed.
        complete: whether all evidence was preserved.
        short: names of the databases whose list of people or log extract is incomplete, because it
            has fewer items than were counted.
        again: whether a retry may preserve more evidence; None in entries of older versions.
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
        """Whether a retry may preserve more evidence."""
        return not self.complete if self.again is None else self.again


class AuthoritiesNamed(StepResult):
    """The result of the step that determines the authorities to which an incident is reported.

    Attributes:
        authorities: ids of these authorities, as incident.yaml defines them.
    """

    authorities: list[str]


class NoticesQueued(StepResult):
    """The result of the step that queues notices to affected people.

    Attributes:
        number: number of the incident.
        told: whether people are notified; if false, all counts are None.
        new: number of notices that this run added to the queue.
        again: number of notices that were already in the queue.
        undeliverable: number of notices without a usable address.
    """

    number: str
    told: bool
    new: int | None = None
    again: int | None = None
    undeliverable: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the result as JSON values without the fields that are None."""
        return self.model_dump(mode="json", exclude_none=True)


class UpdateEntered(StepResult):
    """The result of a run that recorded an update.

    Attributes:
        number: number of the incident.
        entry: position of the update in the timeline.
        action: action of the update.
    """

    number: str
    entry: int
    action: str | None
