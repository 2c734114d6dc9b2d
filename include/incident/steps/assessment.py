"""Assess an incident: contain it, confirm its grade, and write its impact."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from sqlalchemy import Connection

from include.approvals.form import Field
from include.approvals.question import Answer, Question
from include.incident import incident_run, register
from include.incident.assessing import Proposal, propose
from include.incident.entries import ImpactAssessed
from include.incident.form import LONGEST
from include.incident.incident_run import IncidentRecord, what_happened
from include.incident.names import Kind
from include.incident.rules import CHECKLIST_FIELDS, IncidentType
from include.incident.scope import Scope
from include.incident.scope_words import scope_lines
from include.incident.steps.task import Answered, IncidentTask, human_task
from include.incident.timeline import last_of
from include.messages import Message, _, listed

CONTAINED, CONFIRM, ASSESSED = "Contained", "Confirm", "Assessed"
_AT, _NOTES = CHECKLIST_FIELDS
_WHEN = Field(name=_AT, title=_("When it was contained; empty means now"), kind="moment")
_GRADE, _REASON = "grade", "reason"
TEXTS: dict[str, Message] = {
    "cause": _("Preliminary cause"),
    "harm": _("Possible harm to people"),
    "measures": _("Measures taken and their effect"),
    "self_help": _("What people can do themselves"),
    "next_steps": _("Trend, leads and next steps"),
}
"""What every report and notice needs: PIPL (2021-11-01) 57; National Incident Reporting Measures
(2025-11-01) 7. In both languages, since people are told in both."""
LANGUAGES = {"zh": _("in Chinese"), "en": _("in English")}


class Containment(IncidentTask):
    """The checklist of the incident's type: each item is done, or the notes say why not."""

    step = "contain"
    title = _("The containment")
    choices = (CONTAINED,)

    @property
    def _type(self) -> IncidentType:
        return self.rules.type(self.record.incident.type)

    def form(self) -> list[Field]:
        """Return the checklist as boxes."""
        boxes = [
            Field(name=item.id, title=item.message, kind="yes_no", value=False)
            for item in self._type.checklist
        ]
        notes = Field(
            name=_NOTES,
            title=_("What was done; of each item that is not ticked, why it does not apply"),
            kind="long_text",
            longest=LONGEST,
        )
        return [*boxes, _WHEN, notes]

    def _lines(self) -> list[Message]:
        return [
            _("What happened: {what}", what=what_happened(self.run, self.record)),
            _("Do what the checklist says, then tick it and choose Contained."),
            _("Do not switch off or clean up what is evidence before it is secured."),
        ]

    def content(self) -> str:
        """Return the digest of the incident and its checklist."""
        return self.digest(self._lines())

    def ask(self) -> Question:
        """Contain it: the checklist of its type."""
        return self.question(_("contain it: {type}", type=self._type.message), self._lines())

    def take(self, answer: Answer) -> Answered:
        """Enter the containment; refused if an item is neither ticked nor explained."""
        given, items = self.read(answer), self._type.checklist
        left = [item for item in items if not given.ticked(item.id)]
        if left and not given.says(_NOTES):
            missing = listed([item.message for item in left])
            given.refuse(_("not ticked, and nothing says why: {items}", items=missing))
        done, notes = [item.id for item in items if given.ticked(item.id)], given.text(_NOTES)
        words = _(
            "Contained: {done} of {all} items of the checklist done. {notes}",
            done=len(done),
            all=len(items),
            notes=notes,
        )
        data = {"items": done, "left": [item.id for item in left], "notes": notes}
        return given.enter(Kind.CONTAINED, words, data, given.moment(_WHEN))


class Grading(IncidentTask):
    """The grade that the counts propose, confirmed or changed by a person."""

    step = "grade"
    title = _("The grading")
    choices = (CONFIRM,)

    @cached_property
    def _scope(self) -> Scope:
        return incident_run.require_scope(self.run, self.record.incident.id)

    @cached_property
    def _proposal(self) -> Proposal:
        return propose(self._scope, self.rules)

    def form(self) -> list[Field]:
        """Return the fields of grade and reasons."""
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
                title=_("Reasons; needed where it is not the proposed grade"),
                kind="long_text",
                longest=LONGEST,
            ),
        ]

    def _lines(self) -> list[Message]:
        graded = last_of(self.record.entries, Kind.GRADED)
        return [
            _("What happened: {what}", what=what_happened(self.run, self.record)),
            *scope_lines(self._scope),
            self._proposal.words,
            *([_("So far: {words}", words=graded.words)] if graded else []),
            _("The grade says whom it is reported to, and by when. It can be changed later."),
        ]

    def content(self) -> str:
        """Return the digest of counts, proposed grade and grade so far."""
        graded = last_of(self.record.entries, Kind.GRADED)
        return self.digest(self._lines(), graded.place if graded else None)

    def ask(self) -> Question:
        """Confirm the grade that the counts propose, or another one with reasons."""
        return self.question(_("confirm the grade"), self._lines())

    def take(self, answer: Answer) -> Answered:
        """Enter the grade; refused if another grade than the proposed one has no reasons."""
        given, proposal = self.read(answer), self._proposal
        grade, reason = given.text(_GRADE), given.text(_REASON)
        if (grade != proposal.grade or not proposal.certain) and not given.says(_REASON):
            given.refuse(
                _("it is not what the counts propose, or not all could be counted: give reasons")
            )
        title = self.rules.grade(grade).message
        words = _("Graded {grade}. {reason}", grade=title, reason=reason)

        def keep(conn: Connection, record: IncidentRecord) -> Mapping[str, str]:
            register.graded(conn, record.incident.id, grade)
            return {"grade": grade, "reason": reason}

        return given.enter(Kind.GRADED, words, also=keep)


class ImpactAssessment(IncidentTask):
    """Cause, possible harm, measures, self-help: the words of reports and notices."""

    step = "impact"
    title = _("The impact assessment")
    choices = (ASSESSED,)

    def form(self) -> list[Field]:
        """Return the texts as fields, each in both languages, with the texts so far."""
        written = last_of(self.record.entries, Kind.IMPACT)
        texts = written.as_(ImpactAssessed).texts if written else {}
        return [
            Field(
                name=f"{name}_{language}",
                title=_("{what} {language}", what=title, language=words),
                kind="long_text",
                required=True,
                longest=LONGEST,
                value=texts.get(f"{name}_{language}"),
            )
            for name, title in TEXTS.items()
            for language, words in LANGUAGES.items()
        ]

    def _lines(self) -> list[Message]:
        return [
            _("What happened: {what}", what=what_happened(self.run, self.record)),
            _("These words go into the authority's report and into notices to people, as written."),
            _("Whoever writes them does not decide whether people are told."),
        ]

    def content(self) -> str:
        """Return the digest of the incident and the words so far."""
        written = last_of(self.record.entries, Kind.IMPACT)
        return self.digest(self._lines(), written.place if written else None)

    def ask(self) -> Question:
        """Write cause, possible harm, measures and what people can do, in both languages."""
        return self.question(
            _("write what happened, what may come of it, and what people can do"), self._lines()
        )

    def take(self, answer: Answer) -> Answered:
        """Enter the texts; refused if one of them says nothing."""
        given, fields = self.read(answer), self.form()
        if silent := [field.title for field in fields if not given.says(field.name)]:
            given.refuse(_("these fields say nothing: {fields}", fields=listed(silent)))
        texts = {field.name: given.text(field.name) for field in fields}
        return given.enter(Kind.IMPACT, _("The impact was assessed."), {"texts": texts})


CONTAIN, GRADING, IMPACT = (human_task(task) for task in (Containment, Grading, ImpactAssessment))
