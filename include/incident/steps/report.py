"""The human tasks to hand in the reports to authorities and the summary, and to enter the receipt.

No report is sent automatically. The portals, hotlines and counters of authorities require a person,
and a first report that nobody has checked does more harm than a delay of ten minutes.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from functools import cached_property
from typing import ClassVar

from include.approvals.form import Field
from include.approvals.required_action import Answer, RequiredAction
from include.documents.document_texts import missing_entries
from include.documents.model import Document
from include.incident.communication.authority_report import (
    document_version,
    report_of,
    sealed_document,
    summary_of,
)
from include.incident.entries import Reported
from include.incident.form import MAX_TEXT
from include.incident.incident_ids import Kind, Phase
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    report_title,
    rules_of,
    what_happened,
)
from include.incident.rules import Authority
from include.incident.step_titles import HUMAN_STEP_TITLES
from include.incident.steps.task import (
    Answered,
    IncidentTask,
    StepAnswer,
    human_task,
)
from include.incident.time_limits.milestones import is_declined, is_superseded_by_grade
from include.incident.time_limits.time_limit import Applicability, applicability, facts_of_record
from include.incident.timeline import Entry, of_kind
from include.messages import Message, _, listed
from include.policy.rules import translated_message

HANDED_IN, NOT_NEEDED, DONE = "Handed in", "Not needed", "Handed in or approved"
RECEIPT, _REASON = "receipt", "reason"
_WHEN = Field(
    name="handed_in_at",
    title=_("Time of submission; leave empty for the current time"),
    kind="moment",
)
_VERSION = re.compile(r"[0-9a-f]{8}")


def authorities(run: IncidentRun, record: IncidentRecord) -> list[Authority]:
    """Return the authorities to which an incident has to be reported at its current grade.

    The order is that of incident.yaml.
    """
    facts = facts_of_record(run.rules, record)
    return [
        authority
        for authority in rules_of(run, record).authorities
        if applicability(authority, facts) in (Applicability.YES, Applicability.PROVISIONAL)
    ]


def is_handed_in(record: IncidentRecord, authority: str, phase: Phase) -> bool:
    """Return whether a report to an authority was handed in.

    Args:
        record: incident with its timeline.
        authority: id of the authority in incident.yaml.
        phase: first or follow-up report.
    """
    return any(not is_declined(entry) for entry in _answers(record, authority, phase))


def is_answered(run: IncidentRun, record: IncidentRecord, authority: str, phase: Phase) -> bool:
    """Return whether a report to an authority was handed in or declared not needed.

    A declaration is no longer valid if a more severe grade is confirmed after it.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
        authority: id of the authority in incident.yaml.
        phase: first or follow-up report.
    """
    order = [grade.id for grade in rules_of(run, record).grades]
    return any(
        not (is_declined(entry) and is_superseded_by_grade(entry, record.entries, order))
        for entry in _answers(record, authority, phase)
    )


def _answers(record: IncidentRecord, authority: str, phase: Phase) -> list[Entry]:
    return [
        entry
        for entry in of_kind(record.valid, Kind.REPORTED)
        if entry.as_(Reported).authority == authority and entry.as_(Reported).phase == phase
    ]


class _HandIn(IncidentTask):
    """A human task to hand in a document. The document is sealed before the form is shown.

    Attributes:
        phase: first or follow-up report to an authority; None for the summary.
    """

    phase: ClassVar[Phase | None] = None
    seals_document = True

    @abstractmethod
    def _new_document(self) -> Document:
        """Create the document from the current state of the incident."""

    @cached_property
    def document(self) -> Document:
        """The document to hand in.

        It is created only once, so that the sealed document is the same as the checked document.
        """
        return self._new_document()

    @cached_property
    def missing_fields(self) -> list[Message]:
        """The titles of required fields that are empty in the document."""
        return missing_entries(self.document)

    def _seal(self, name: str) -> str:
        """Seal the document and return the address or path of its bundle.

        If required fields are missing, do not seal the document, and return an empty text.

        Args:
            name: base name of the document's files.
        """
        if self.missing_fields:
            return ""
        return sealed_document(self.run, self.record, self.document, name)

    def _missing_field_lines(self) -> list[Message]:
        """Return a display text that names the missing required fields.

        Return an empty list if no field is missing.
        """
        if not self.missing_fields:
            return []
        fields = listed(self.missing_fields)
        return [
            _(
                "Fields of the document that are still empty: {fields}. The document cannot "
                "be handed in before they are filled in.",
                fields=fields,
            )
        ]

    @staticmethod
    def _location_line(path: str) -> Message:
        if path.startswith(("http://", "https://")):
            return _(
                "Download the document (HTML, PDF, Word; Chinese and English): {address}",
                address=path,
            )
        return _(
            "The document (HTML, PDF, Word; Chinese and English) is stored in {path}", path=path
        )

    def _version(self) -> str:
        """Return the version of the form and its document.

        It consists of the digest of the facts in the form, a colon, and the version of the
        document.
        """
        return f"{self.content()}:{document_version(self.record, self.phase)}"

    @staticmethod
    def shown_version(answer: Answer) -> str:
        """Return the version of the document that the answered form showed.

        Return an empty text if the form showed no document.
        """
        version = answer.content.partition(":")[2]
        return version if _VERSION.fullmatch(version) else ""

    def refuse_if_fields_missing(self, step_answer: StepAnswer) -> None:
        """Refuse an answer if required fields of the document are missing.

        Raises:
            InvalidAnswer: required fields are missing.
        """
        if self.missing_fields:
            step_answer.refuse(
                _(
                    "fields of the document are still empty: {fields}",
                    fields=listed(self.missing_fields),
                )
            )


class _Report(_HandIn):
    """A human task to hand in a report.

    The attribute `part` is the id of the authority that receives the report.
    """

    phase: ClassVar[Phase]
    choices = (HANDED_IN, NOT_NEEDED)

    def _new_document(self) -> Document:
        return report_of(self.run, self.record, self.part, self.phase)

    def form(self) -> list[Field]:
        """Return the form fields: time, receipt, and reasons why the report is not needed."""
        receipt, reason = (
            _("Receipt number, or name of the person who received the report"),
            _("Reasons, if the report is not required"),
        )
        return [
            _WHEN,
            Field(name=RECEIPT, title=receipt, max_length=100, stored_as_typed=True),
            Field(name=_REASON, title=reason, kind="long_text", max_length=MAX_TEXT),
        ]

    def content(self) -> str:
        """Return a digest of the incident's description and the missing fields of the report.

        The digest does not include the version of the report. New entries in the timeline change
        this version, but a report that was handed in stays valid.
        """
        description = _(
            "Description: {description}", description=what_happened(self.run, self.record)
        )
        return self.digest([*self._missing_field_lines(), description])

    def ask(self) -> RequiredAction | None:
        if is_handed_in(self.record, self.part, self.phase):
            return None
        return self.action_for(self._seal(f"{self.phase}-{self.part}"))

    def action_for(self, path: str) -> RequiredAction:
        """Return the required action to hand in the report.

        Args:
            path: address or path of the bundle of the sealed report; empty if the report could not
                be sealed because required fields are missing.
        """
        lines = [
            *self._missing_field_lines(),
            self._location_line(path),
            translated_message(self.rules.authority(self.part).how),
            _(
                "The system does not send the report. Hand it in, then enter the time and the "
                "receipt."
            ),
            _("Description: {description}", description=what_happened(self.run, self.record)),
        ]
        title = report_title(self.run, self.record, self.part, self.phase)
        return self.required_action(title, lines, self._version())

    def record_answer(self, answer: Answer) -> Answered:
        """Record that the report was handed in, or that it is not needed.

        The answer is refused in two cases: it states that the report was handed in, and the receipt
        is missing; or it states that the report is not needed, and the reasons are missing.
        """
        step_answer, is_handed_in = self.read(answer), answer.option == HANDED_IN
        if is_handed_in:
            self.refuse_if_fields_missing(step_answer)
        if is_handed_in and not step_answer.text(RECEIPT):
            step_answer.refuse(_("the receipt is missing"))
        if not is_handed_in and not step_answer.has_text(_REASON):
            step_answer.refuse(_("the reasons contain no text"))
        report = report_title(self.run, self.record, self.part, self.phase)
        words = (
            _(
                "The report was handed in: {report}. Receipt: {receipt}",
                report=report,
                receipt=step_answer.text(RECEIPT),
            )
            if is_handed_in
            else _(
                "The report was not handed in: {report}. {reason}",
                report=report,
                reason=step_answer.text(_REASON),
            )
        )
        data = {"authority": self.part, "phase": str(self.phase), "complete": is_handed_in}
        data |= {"document": self.shown_version(answer)}
        at = step_answer.moment(_WHEN, self.record.incident.aware_at)
        return step_answer.record(Kind.REPORTED, words, data, at)


class FirstReport(_Report):
    """The human task to hand in the first report to an authority."""

    step, phase = "report", Phase.FIRST
    title = HUMAN_STEP_TITLES["report"]

    def ask(self) -> RequiredAction | None:
        """Ask a person to hand in the first report to an authority, and to enter the receipt.

        If a person declared the report not needed and the task is cleared, the task asks again.
        """
        return super().ask()


class FollowUpReport(_Report):
    """The human task to hand in the follow-up report to an authority."""

    step, phase, answer_time_factor = "report_rest", Phase.REST, 8
    title = HUMAN_STEP_TITLES["report_rest"]

    def ask(self) -> RequiredAction | None:
        """Ask a person to hand in the follow-up report to an authority, and to enter the receipt.

        If a person declared the report not needed and the task is cleared, the task asks again.
        """
        return super().ask()


class Summary(_HandIn):
    """The human task for the summary of a closed incident.

    A person hands in the summary to the authority and enters the receipt number. If the law does
    not require this for the grade of the incident, the management approves the summary, and the
    person enters who approved it.
    """

    step = "summary"
    title = HUMAN_STEP_TITLES["summary"]
    choices = (DONE,)
    answer_time_factor = 48

    def _new_document(self) -> Document:
        return summary_of(self.run, self.record)

    def form(self) -> list[Field]:
        """Return the form fields: the time and the receipt."""
        receipt = _("Receipt number, or name of the person who approved the summary")
        return [
            _WHEN,
            Field(name=RECEIPT, title=receipt, required=True, max_length=100, stored_as_typed=True),
        ]

    def content(self) -> str:
        """Return a digest of the incident and the missing fields of the summary."""
        return self.digest(self._missing_field_lines())

    def ask(self) -> RequiredAction:
        """Ask a person to hand in the summary.

        If the law does not require this for the grade of the incident, the management approves the
        summary instead. The summary is due 30 days after the incident was closed.
        """
        return self.action_for(self._seal("summary"))

    def action_for(self, path: str) -> RequiredAction:
        """Return the required action to hand in the summary, or to have it approved.

        Args:
            path: address or path of the bundle of the sealed summary; empty if the summary could
                not be sealed because required fields are missing.
        """
        lines = [
            *self._missing_field_lines(),
            self._location_line(path),
            _(
                "For an incident of the grade from which the law requires a summary, or of a "
                "more severe grade, hand in the summary to the authority. For other incidents, "
                "have the management approve it."
            ),
        ]
        return self.required_action(_("hand in the summary"), lines, self._version())

    def record_answer(self, answer: Answer) -> Answered:
        """Record that the summary was handed in or approved.

        The answer is refused if required fields of the summary are missing.
        """
        step_answer = self.read(answer)
        self.refuse_if_fields_missing(step_answer)
        at = step_answer.moment(_WHEN, self.record.incident.ended_at)
        words = _(
            "The summary was handed in. Receipt: {receipt}", receipt=step_answer.text(RECEIPT)
        )
        return step_answer.record(
            Kind.SUMMARISED, words, {"document": self.shown_version(answer)}, at
        )


REPORT, REPORT_REST, SUMMARY = (human_task(task) for task in (FirstReport, FollowUpReport, Summary))
