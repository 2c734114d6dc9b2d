"""Reports to authorities and the summary: a person hands each in, and enters when and the receipt.

Nothing is sent to an authority by itself: portals, hotlines and counters want a person, and a first
report that nobody read does more harm than one that is ten minutes later.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from functools import cached_property
from typing import ClassVar

from include.approvals.form import Field
from include.approvals.question import Answer, Question
from include.documents.model import Document
from include.documents.words import missing
from include.incident.clocks.clock import Bearing, bearing, facts_from
from include.incident.clocks.milestones import is_declined, outgrown
from include.incident.entries import Reported
from include.incident.form import LONGEST
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    report_title,
    rules_of,
    what_happened,
)
from include.incident.names import Kind, Phase
from include.incident.rules import Authority
from include.incident.steps.task import (
    Answered,
    IncidentTask,
    StepAnswer,
    human_task,
)
from include.incident.telling.authority_report import (
    document_version,
    report_of,
    sealed_document,
    summary_of,
)
from include.incident.timeline import Entry, of_kind
from include.messages import Message, _, listed
from include.policy.rules import in_languages

HANDED_IN, NOT_NEEDED, DONE = "Handed in", "Not needed", "Handed in or approved"
RECEIPT, _REASON = "receipt", "reason"
_WHEN = Field(name="handed_in_at", title=_("When it was handed in; empty means now"), kind="moment")
_VERSION = re.compile(r"[0-9a-f]{8}")


def authorities(run: IncidentRun, record: IncidentRecord) -> list[Authority]:
    """Return the authorities that an incident is reported to now, in the order of the pack."""
    facts = facts_from(run.rules, record)
    return [
        authority
        for authority in rules_of(run, record).authorities
        if bearing(authority, facts) in (Bearing.YES, Bearing.PROVISIONAL)
    ]


def is_handed_in(record: IncidentRecord, authority: str, phase: Phase) -> bool:
    """Return whether a report was handed in."""
    return any(not is_declined(entry) for entry in _answers(record, authority, phase))


def is_answered(run: IncidentRun, record: IncidentRecord, authority: str, phase: Phase) -> bool:
    """Return whether a report was handed in, or said not to be needed.

    That it is not needed stands until a worse grade is confirmed.
    """
    order = [grade.id for grade in rules_of(run, record).grades]
    return any(
        not (is_declined(entry) and outgrown(entry, record.entries, order))
        for entry in _answers(record, authority, phase)
    )


def _answers(record: IncidentRecord, authority: str, phase: Phase) -> list[Entry]:
    return [
        entry
        for entry in of_kind(record.valid, Kind.REPORTED)
        if entry.as_(Reported).authority == authority and entry.as_(Reported).phase == phase
    ]


class _HandIn(IncidentTask):
    """Hand in a document that is sealed when the question is asked.

    Attributes:
        phase: which report to an authority it is; None for the summary.
    """

    phase: ClassVar[Phase | None] = None
    seals_document = True

    @abstractmethod
    def _new_document(self) -> Document:
        """Return the document as it is now."""

    @cached_property
    def document(self) -> Document:
        """The document: the same for the check and the seal."""
        return self._new_document()

    @cached_property
    def lacking(self) -> list[Message]:
        """The required fields of the document that say nothing."""
        return missing(self.document)

    def _seal(self, name: str) -> str:
        """Seal the document unless it lacks fields; return its path."""
        if self.lacking:
            return ""
        return sealed_document(self.run, self.record, self.document, name)

    def _blocked(self) -> list[Message]:
        """The line that the document cannot be handed in, if it lacks required fields."""
        if not self.lacking:
            return []
        fields = listed(self.lacking)
        return [_("The document lacks: {fields}. It cannot be handed in.", fields=fields)]

    @staticmethod
    def _lies_in(path: str) -> Message:
        return _("The document (HTML, PDF, Word; Chinese and English) lies in {path}", path=path)

    def _version(self) -> str:
        """The content of the form with the version of the document that the page shows."""
        return f"{self.content()}:{document_version(self.record, self.phase)}"

    @staticmethod
    def shown_version(answer: Answer) -> str:
        """The version of the document that a form showed; empty if it named none."""
        version = answer.content.partition(":")[2]
        return version if _VERSION.fullmatch(version) else ""

    def refuse_lacking(self, given: StepAnswer) -> None:
        """Refuse that a document was handed in if it lacks required fields."""
        if self.lacking:
            given.refuse(_("the document lacks: {fields}", fields=listed(self.lacking)))


class _Report(_HandIn):
    """A report to the authority that the part names."""

    phase: ClassVar[Phase]
    title = _("The report to {part}", part="")
    choices = (HANDED_IN, NOT_NEEDED)

    def _new_document(self) -> Document:
        return report_of(self.run, self.record, self.part, self.phase)

    def form(self) -> list[Field]:
        """Return the fields of moment, receipt, and reasons if it is not needed."""
        receipt, reason = (
            _("Number of the receipt, or who took it"),
            _("Reasons, where it is not needed"),
        )
        return [
            _WHEN,
            Field(name=RECEIPT, title=receipt, longest=100, exact=True),
            Field(name=_REASON, title=reason, kind="long_text", longest=LONGEST),
        ]

    def content(self) -> str:
        """Return the digest of the incident and missing fields.

        The version of the document is left out: it was handed in, whatever was entered since.
        """
        what = _("What happened: {what}", what=what_happened(self.run, self.record))
        return self.digest([*self._blocked(), what])

    def ask(self) -> Question | None:
        if is_handed_in(self.record, self.part, self.phase):
            return None
        return self.question_about(self._seal(f"{self.phase}-{self.part}"))

    def question_about(self, path: str) -> Question:
        """Return the question about the document in a sealed bundle."""
        lines = [
            *self._blocked(),
            _("What happened: {what}", what=what_happened(self.run, self.record)),
            self._lies_in(path),
            in_languages(self.rules.authority(self.part).how),
            _("Nothing is sent by itself: hand it in, then enter when, and the receipt."),
        ]
        title = report_title(self.run, self.record, self.part, self.phase)
        return self.question(title, lines, self._version())

    def take(self, answer: Answer) -> Answered:
        """Enter that it was handed in, or is not needed; refused without receipt or reasons."""
        given, is_given = self.read(answer), answer.option == HANDED_IN
        if is_given:
            self.refuse_lacking(given)
        if is_given and not given.text(RECEIPT):
            given.refuse(_("the receipt is missing"))
        if not is_given and not given.says(_REASON):
            given.refuse(_("the reasons say nothing"))
        report = report_title(self.run, self.record, self.part, self.phase)
        words = (
            _("Handed in: {report}. Receipt: {receipt}", report=report, receipt=given.text(RECEIPT))
            if is_given
            else _("Not handed in: {report}. {why}", report=report, why=given.text(_REASON))
        )
        data = {"authority": self.part, "phase": str(self.phase), "complete": is_given}
        data |= {"document": self.shown_version(answer)}
        at = given.moment(_WHEN, self.record.incident.aware_at)
        return given.enter(Kind.REPORTED, words, data, at)


class FirstReport(_Report):
    """The first report to an authority."""

    step, phase = "report", Phase.FIRST

    def ask(self) -> Question | None:
        """Hand the first report to an authority, then enter when and the receipt.

        A person who clears the task of a report that was said not to be needed is asked again.
        """
        return super().ask()


class FollowUpReport(_Report):
    """The follow-up report to an authority."""

    step, phase, patience = "report_rest", Phase.REST, 8

    def ask(self) -> Question | None:
        """Hand the follow-up report to an authority, then enter when and the receipt.

        A person who clears the task of a report that was said not to be needed is asked again.
        """
        return super().ask()


class Summary(_HandIn):
    """The summary that is due some time after the closing: handed in, or approved here."""

    step = "summary"
    title = _("The summary")
    choices = (DONE,)
    patience = 48

    def _new_document(self) -> Document:
        return summary_of(self.run, self.record)

    def form(self) -> list[Field]:
        """Return the fields of moment and receipt."""
        receipt = _("Number of the receipt, or who approved it")
        return [
            _WHEN,
            Field(name=RECEIPT, title=receipt, required=True, longest=100, exact=True),
        ]

    def content(self) -> str:
        """Return the digest of the incident and missing fields."""
        return self.digest(self._blocked())

    def ask(self) -> Question:
        """Hand in the summary, or have it approved; due 30 days after the closing."""
        return self.question_about(self._seal("summary"))

    def question_about(self, path: str) -> Question:
        """Return the question about the document in a sealed bundle."""
        lines = [
            *self._blocked(),
            self._lies_in(path),
            _("From the grade that the law names it goes to the authority, else to management."),
        ]
        return self.question(_("hand in the summary"), lines, self._version())

    def take(self, answer: Answer) -> Answered:
        """Enter that it was handed in; refused while the document lacks a field."""
        given = self.read(answer)
        self.refuse_lacking(given)
        at = given.moment(_WHEN, self.record.incident.ended_at)
        words = _("The summary was handed in. Receipt: {receipt}", receipt=given.text(RECEIPT))
        return given.enter(Kind.SUMMARISED, words, {"document": self.shown_version(answer)}, at)


REPORT, REPORT_REST, SUMMARY = (human_task(task) for task in (FirstReport, FollowUpReport, Summary))
