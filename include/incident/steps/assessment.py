"""The human tasks that assess an incident: containment, grade and impact."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from sqlalchemy import Connection

from include.approvals.form import Field
from include.approvals.required_action import Answer, RequiredAction
from include.incident import incident_run, register
from include.incident.entries import ImpactAssessed
from include.incident.form import MAX_TEXT
from include.incident.incident_ids import Kind
from include.incident.incident_run import IncidentRecord, what_happened
from include.incident.rules import CHECKLIST_FIELDS, IncidentType
from include.incident.scope import Scope
from include.incident.scope_assessment import Proposal, propose_grade
from include.incident.scope_texts import scope_lines
from include.incident.step_titles import HUMAN_STEP_TITLES
from include.incident.steps.task import Answered, IncidentTask, human_task
from include.incident.timeline import last_of
from include.messages import Message, _, listed

CONTAINED, CONFIRM, ASSESSED = "Contained", "Confirm", "Assessed"
_AT, _NOTES = CHECKLIST_FIELDS
_WHEN = Field(
    name=_AT, title=_("Time of containment; leave empty for the current time"), kind="moment"
)
_GRADE, _REASON = "grade", "reason"
TEXTS: dict[str, Message] = {
    "cause": _("Preliminary cause"),
    "harm": _("Possible harm to people"),
    "measures": _("Measures taken and their effect"),
    "self_help": _("Measures that affected people can take to protect themselves"),
    "next_steps": _("Expected development of the incident, traces of its cause, and next steps"),
}
"""Texts that every report and notice needs: PIPL (2021-11-01) 57; National Incident Reporting
Measures (2025-11-01) 7. In both languages, since notices are in both."""
LANGUAGES = {"zh": _("in Chinese"), "en": _("in English")}


class Containment(IncidentTask):
    """The human task to contain an incident, with the checklist of the incident's type.

    The person has to tick each measure of the checklist, or explain in the notes why it is not
    ticked.
    """

    step = "contain"
    title = HUMAN_STEP_TITLES["contain"]
    choices = (CONTAINED,)

    @property
    def _type(self) -> IncidentType:
        return self.rules.type(self.record.incident.type)

    def form(self) -> list[Field]:
        """Return the form fields: the time, the notes, and a checkbox for each measure."""
        boxes = [
            Field(name=item.id, title=item.message, kind="yes_no", value=False)
            for item in self._type.checklist
        ]
        notes = Field(
            name=_NOTES,
            title=_(
                "Measures that were taken, and for each checklist item that is not ticked "
                "the reason why it does not apply"
            ),
            kind="long_text",
            max_length=MAX_TEXT,
        )
        return [*boxes, _WHEN, notes]

    def _lines(self) -> list[Message]:
        return [
            _("Carry out the items of the checklist and tick them, then choose Contained."),
            _("Checklist: {items}", items=listed([item.message for item in self._type.checklist])),
            _(
                "Do not switch off or clean up devices and data that are evidence before they "
                "are preserved."
            ),
            _("Description: {description}", description=what_happened(self.run, self.record)),
        ]

    def content(self) -> str:
        """Return a digest of the facts and the checklist that the form shows."""
        return self.digest(self._lines())

    def ask(self) -> RequiredAction:
        """Ask a person to contain the incident with the checklist of its type."""
        return self.required_action(
            _("contain the incident ({type})", type=self._type.message), self._lines()
        )

    def record_answer(self, answer: Answer) -> Answered:
        """Record the containment.

        Refuse the answer if a measure is not ticked and not explained.
        """
        step_answer, items = self.read(answer), self._type.checklist
        unticked = [item for item in items if not step_answer.is_ticked(item.id)]
        if unticked and not step_answer.has_text(_NOTES):
            missing = listed([item.message for item in unticked])
            step_answer.refuse(
                _(
                    "these checklist items are not ticked, and no reason is given: {items}",
                    items=missing,
                )
            )
        ticked_ids, notes = (
            [item.id for item in items if step_answer.is_ticked(item.id)],
            step_answer.text(_NOTES),
        )
        words = _(
            "The incident is contained. Completed items of the checklist: {done} of {total}. "
            "{notes}",
            done=len(ticked_ids),
            total=len(items),
            notes=notes,
        )
        data = {"items": ticked_ids, "left": [item.id for item in unticked], "notes": notes}
        return step_answer.record(Kind.CONTAINED, words, data, step_answer.moment(_WHEN))


class Grading(IncidentTask):
    """The human task to confirm the proposed grade, or to choose another grade."""

    step = "grade"
    title = HUMAN_STEP_TITLES["grade"]
    choices = (CONFIRM,)

    @cached_property
    def _scope(self) -> Scope:
        return incident_run.require_scope(self.run, self.record.incident.id)

    @cached_property
    def _proposal(self) -> Proposal:
        return propose_grade(self._scope, self.rules)

    def form(self) -> list[Field]:
        """Return the form fields: the grade and the reasons for it."""
        return [
            Field(
                name=_GRADE,
                title=_("Grade"),
                kind="choice",
                options={grade.id: grade.message for grade in self.rules.grades},
                value=self._proposal.grade,
                required=True,
            ),
            Field(
                name=_REASON,
                title=_("Reasons; required if the grade differs from the proposed grade"),
                kind="long_text",
                max_length=MAX_TEXT,
            ),
        ]

    def _lines(self) -> list[Message]:
        graded = last_of(self.record.entries, Kind.GRADED)
        return [
            _("Description: {description}", description=what_happened(self.run, self.record)),
            *scope_lines(self._scope, self.run.pack.databases),
            self._proposal.words,
            *([_("Earlier grading: {entry}", entry=graded.words)] if graded else []),
            _(
                "The grade decides which authorities receive a report, and by when. It can be "
                "changed later."
            ),
        ]

    def content(self) -> str:
        """Return a digest of the counts, the proposed grade and the confirmed grade."""
        graded = last_of(self.record.entries, Kind.GRADED)
        return self.digest(self._lines(), graded.place if graded else None)

    def ask(self) -> RequiredAction:
        """Ask a person to confirm the proposed grade, or to choose another grade with reasons."""
        return self.required_action(_("confirm the grade"), self._lines())

    def record_answer(self, answer: Answer) -> Answered:
        """Record the grade, or refuse the answer if it needs reasons and has none.

        Reasons are needed if the grade differs from the proposed grade, or if some databases could
        not be counted.
        """
        step_answer, proposal = self.read(answer), self._proposal
        grade, reason = step_answer.text(_GRADE), step_answer.text(_REASON)
        if (grade != proposal.grade or not proposal.certain) and not step_answer.has_text(_REASON):
            step_answer.refuse(
                _(
                    "reasons are required, because the selected grade differs from the "
                    "proposed grade or some databases could not be counted"
                )
            )
        title = self.rules.grade(grade).message
        words = _("The grade of the incident is {grade}. {reason}", grade=title, reason=reason)

        def keep(conn: Connection, record: IncidentRecord) -> Mapping[str, str]:
            register.set_grade(conn, record.incident.id, grade)
            return {"grade": grade, "reason": reason}

        return step_answer.record(Kind.GRADED, words, write_more=keep)


class ImpactAssessment(IncidentTask):
    """The human task to write the impact texts: cause, harm, measures and self-help."""

    step = "impact"
    title = HUMAN_STEP_TITLES["impact"]
    choices = (ASSESSED,)

    def form(self) -> list[Field]:
        """Return the form fields: one per impact text and language, with the current text."""
        written = last_of(self.record.entries, Kind.IMPACT)
        texts = written.as_(ImpactAssessed).texts if written else {}
        return [
            Field(
                name=f"{name}_{language}",
                title=_("{field} {language}", field=title, language=words),
                kind="long_text",
                required=True,
                max_length=MAX_TEXT,
                value=texts.get(f"{name}_{language}"),
            )
            for name, title in TEXTS.items()
            for language, words in LANGUAGES.items()
        ]

    def _lines(self) -> list[Message]:
        return [
            _("Description: {description}", description=what_happened(self.run, self.record)),
            _(
                "The reports to authorities and the notices to affected people will contain "
                "these texts without changes."
            ),
            _(
                "The person who writes these texts may not decide whether affected people are "
                "notified."
            ),
        ]

    def content(self) -> str:
        """Return a digest of the facts that the form shows and of the current impact texts."""
        written = last_of(self.record.entries, Kind.IMPACT)
        return self.digest(self._lines(), written.place if written else None)

    def ask(self) -> RequiredAction:
        """Ask a person to write cause, possible harm, measures and self-help, in both languages."""
        return self.required_action(
            _("describe the cause, the possible harm, and the measures that people can take"),
            self._lines(),
        )

    def record_answer(self, answer: Answer) -> Answered:
        """Record the impact texts, or refuse the answer if a text is empty."""
        step_answer, fields = self.read(answer), self.form()
        if empty_fields := [
            field.title for field in fields if not step_answer.has_text(field.name)
        ]:
            step_answer.refuse(
                _("these fields contain no text: {fields}", fields=listed(empty_fields))
            )
        texts = {field.name: step_answer.text(field.name) for field in fields}
        return step_answer.record(Kind.IMPACT, _("The impact was assessed."), {"texts": texts})


CONTAIN, GRADING, IMPACT = (human_task(task) for task in (Containment, Grading, ImpactAssessment))
