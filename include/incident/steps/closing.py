"""The human tasks that close an incident and review it.

Each corrective action becomes a finding.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection

from include.approvals.form import Field
from include.approvals.required_action import Answer, RequiredAction
from include.findings.register import open_finding
from include.incident import incident_run, register
from include.incident.communication import notices
from include.incident.entries import Preserved
from include.incident.form import MAX_TEXT
from include.incident.incident_ids import FINDING_KIND, Kind, Phase, State
from include.incident.incident_run import IncidentRecord, IncidentRun, report_title, rules_of
from include.incident.scope_assessment import more_severe_grade
from include.incident.step_titles import HUMAN_STEP_TITLES
from include.incident.steps.report import authorities, is_answered
from include.incident.steps.task import Answered, IncidentTask, StepAnswer, human_task
from include.incident.time_limits import milestones
from include.incident.time_limits.time_limit import TimeLimitState, time_limits_of
from include.incident.time_limits.time_limit_texts import due_text
from include.incident.timeline import Entry, last_of
from include.messages import Message, _, listed
from include.policy.period import add_period
from include.policy.rules import translated_message
from include.services.errors import ControlFailed

CLOSE, NOT_YET, REVIEWED = "Close", "Not yet", "Reviewed"
_WORDS, _LESSONS = "words", "lessons"
MAX_ACTIONS = 5


def open_points(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    """Return display texts for the tasks that have to be done before the incident can be closed."""
    reports = [
        report_title(run, record, authority.id, phase)
        for phase in (Phase.FIRST, Phase.REST)
        for authority in authorities(run, record)
        if not is_answered(run, record, authority.id, phase)
    ]
    return [*_evidence_points(run, record), *reports, *_notice_points(run, record)]


def _evidence_points(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    scope = incident_run.require_scope(run, record.incident.id)
    steps = {
        Kind.CONTAINED: _("the incident is not contained"),
        Kind.GRADED: _("the grade is not confirmed"),
        Kind.IMPACT: _("the impact is not assessed"),
    }
    points = [words for kind, words in steps.items() if last_of(record.valid, kind) is None]
    entry = last_of(record.entries, Kind.PRESERVED)
    secured = entry.as_(Preserved) if entry else None
    if entry is None or secured is None or secured.is_pending or secured.version < scope.version:
        points.append(_("the evidence has not been preserved yet"))
    elif secured.short and not _is_explained(record, entry):
        names = listed(secured.short)
        points.append(
            _("the list of affected people or the log extract of {databases} has fewer entries "
                "than were counted: trigger “Addition to an incident” and enter the reason as a "
                "note", databases=names)
        )  # fmt: skip
    if scope.unknown:
        names = listed([unknown.database for unknown in scope.unknown])
        points.append(
            _("the affected records of {databases} could not be counted", databases=names)
        )
    if proposed := more_severe_grade(run, record):
        title = rules_of(run, record).grade(proposed).message
        points.append(
            _("the incident affects more people than its confirmed grade covers; the proposed "
                "grade is {grade}: trigger “Addition to an incident” and choose “Change the "
                "grade”", grade=title)
        )  # fmt: skip
    return points


def _is_explained(record: IncidentRecord, secured: Entry) -> bool:
    """Return whether a person explained in a note why evidence is incomplete.

    The note must have been added after the evidence was preserved. Lost evidence cannot be
    preserved later, so a note that explains the loss is accepted.

    Args:
        record: incident with its timeline.
        secured: timeline entry that records the incomplete evidence.
    """
    note = last_of(record.entries, Kind.NOTE)
    return note is not None and note.place > secured.place


def _notice_points(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    try:
        plan = notices.plan_notices(run, record)
    except ControlFailed as error:
        return [notices.reason_text(error)]
    if not plan.people:
        return []
    if notices.standing_decision(record, plan) is None:
        return [
            _("it is not decided yet whether to notify every person who is known to be affected")
        ]
    if not milestones.is_notifying_decided(record.entries):
        return []
    if milestones.has_unqueued_notices(record.entries):
        return [_("the notices to affected people are not queued for sending yet")]
    with run.state.connect() as conn:
        waiting_count = notices.count_by_state(conn, record.incident.number).get("pending", 0)
        unreached_count = notices.count_unreached(conn, record)
    if waiting_count:
        return [_("{count} notices are waiting to be sent", count=waiting_count)]
    if unreached_count:
        return [
            _(
                "{count} people could not be notified by mail: notify them in another way, "
                "then trigger “Addition to an incident” and choose “People were notified in "
                "another way”",
                count=unreached_count,
            )
        ]
    return []


class Closing(IncidentTask):
    """The human task to close the incident.

    The answer is refused if required tasks are not done.
    """

    step = "close"
    title = HUMAN_STEP_TITLES["close"]
    choices = (CLOSE, NOT_YET)
    answer_time_factor = 8

    def form(self) -> list[Field]:
        """Return the form field for the closing text."""
        title = _("Outcome of the incident response, and matters that still need attention")
        return [Field(name=_WORDS, title=title, kind="long_text", max_length=MAX_TEXT)]

    def content(self) -> str:
        """Return a digest of the version of the scope and of the confirmed grade.

        The digest does not include the list of tasks that are not done, because tasks may be done
        while a person reads the form for closing the incident. The list is checked again when this
        person's answer is recorded.
        """
        graded = last_of(self.record.entries, Kind.GRADED)
        scope = incident_run.require_scope(self.run, self.record.incident.id)
        return self.digest((), scope.version, graded.place if graded else None)

    def ask(self) -> RequiredAction:
        """Ask a person to close the incident.

        The answer is refused if required tasks are not done.
        """
        points = open_points(self.run, self.record)
        open_lines = [_("Not done yet: {point}", point=point) for point in points]
        summary_due = [
            _(
                "{time_limit}: due {due}.",
                time_limit=time_limit.rule.message,
                due=due_text(time_limit),
            )
            for time_limit in time_limits_of(self.run, self.record)
            if time_limit.rule.begins == "closing"
            and (time_limit.is_open or time_limit.state is TimeLimitState.NOT_BEGUN)
        ]
        lines = [
            *(open_lines or [_("All work on the incident is done, so it can be closed.")]),
            _("Legal holds stay in force until they are released."),
            *summary_due,
        ]
        return self.required_action(_("close the incident"), lines)

    def record_answer(self, answer: Answer) -> Answered:
        """Close the incident.

        The answer is refused if required tasks are not done, or if the person chose to wait.
        """
        step_answer = self.read(answer)
        if answer.option != CLOSE:
            step_answer.refuse(_("not closed yet: {reason}", reason=step_answer.text(_WORDS)))

        def check(record: IncidentRecord) -> Message | None:
            points = open_points(self.run, record)
            return (
                _(
                    "the incident cannot be closed yet, because this work is not complete: "
                    "{points}",
                    points=listed(points),
                )
                if points
                else None
            )

        def close(conn: Connection, record: IncidentRecord) -> Mapping[str, Any]:
            register.end_incident(conn, record.incident.id, State.CLOSED, step_answer.at)
            return {}

        words = _("The incident was closed. {note}", note=step_answer.text(_WORDS))
        return step_answer.record(Kind.CLOSED, words, write_more=close, check=check)


class Review(IncidentTask):
    """The human task to enter lessons and up to five corrective actions, each with an owner."""

    step = "review"
    title = HUMAN_STEP_TITLES["review"]
    choices = (REVIEWED,)
    answer_time_factor = 48

    def form(self) -> list[Field]:
        """Return the form fields for the lessons and the corrective actions."""
        roles = {role.id: translated_message(role.title) for role in self.run.roles.values()}
        fields = [
            Field(
                name=_LESSONS,
                title=_(
                    "Lessons learned: strengths and weaknesses of the response, and why "
                    "the incident could happen"
                ),
                kind="long_text",
                required=True,
                max_length=MAX_TEXT,
            )
        ]
        for number in range(1, MAX_ACTIONS + 1):
            action = _("Corrective action {number}", number=number)
            owner = _("Owner of corrective action {number}", number=number)
            days = _(
                "Days until corrective action {number} is due; if empty, the number of days in "
                "the policy applies",
                number=number,
            )
            fields += [
                Field(name=f"action_{number}", title=action, kind="long_text", max_length=MAX_TEXT),
                Field(name=f"owner_{number}", title=owner, kind="choice", options=roles),
                Field(name=f"days_{number}", title=days, kind="number"),
            ]
        return fields

    def content(self) -> str:
        """Return a digest of the incident and of its newest review."""
        reviewed = last_of(self.record.entries, Kind.REVIEWED)
        return self.digest((), reviewed.place if reviewed else None)

    def ask(self) -> RequiredAction:
        """Ask a person to enter the lessons and corrective actions of the incident.

        Each corrective action becomes a finding.
        """
        return self.required_action(
            _("review the incident: lessons and corrective actions"),
            [
                _("Every corrective action becomes a finding. Its owner receives reminders "
                "until another person has tested the action and closed the finding."),
                _("If no corrective action is required, give the reasons in the field for the "
                  "lessons learned."),
            ],
        )  # fmt: skip

    def record_answer(self, answer: Answer) -> Answered:
        """Record the lessons and corrective actions. Each action becomes one finding.

        If the task is repeated and the same action is entered again, no second finding is created.
        A different action creates a new finding, and the earlier findings remain.
        """
        step_answer = self.read(answer)
        if not step_answer.has_text(_LESSONS):
            step_answer.refuse(_("the lessons learned contain no text"))
        numbers = [n for n in range(1, MAX_ACTIONS + 1) if step_answer.has_text(f"action_{n}")]
        for number in numbers:
            if not step_answer.text(f"owner_{number}"):
                step_answer.refuse(
                    _("the owner of corrective action {number} is missing", number=number)
                )

        def open_actions(conn: Connection, _record: IncidentRecord) -> Mapping[str, Any]:
            return {"actions": [self._open_action(conn, step_answer, number) for number in numbers]}

        lessons = step_answer.text(_LESSONS)
        words = _(
            "The incident was reviewed, with {count} corrective actions. {lessons}",
            count=len(numbers),
            lessons=lessons,
        )
        return step_answer.record(
            Kind.REVIEWED, words, {"lessons": lessons}, write_more=open_actions
        )

    def _open_action(self, conn: Connection, step_answer: StepAnswer, index: int) -> dict[str, Any]:
        """Record one of the entered corrective actions as a finding.

        Args:
            conn: connection to the state database, in a transaction.
            step_answer: answer to the review.
            index: number of the action in the form, from 1.

        Returns:
            The fields of `CorrectiveAction`.
        """
        number = self.record.incident.number
        text, owner = step_answer.text(f"action_{index}"), step_answer.text(f"owner_{index}")
        finding = open_finding(
            conn,
            kind=FINDING_KIND,
            reference=f"{number}/{sha256(f'{owner} {text}'.encode()).hexdigest()[:8]}",
            description=_("{number}: {action}", number=number, action=text),
            owner=owner,
            opened_at=step_answer.at,
            due_on=self._due_on(step_answer.values.get(f"days_{index}")),
        )
        return {"finding": finding, "owner": owner, "what": text}

    def _due_on(self, days: object) -> date:
        run = self.run
        if isinstance(days, int):
            return run.now.date() + timedelta(days=min(days, 3_650))
        due_at: datetime = add_period(run.clock.now(), run.rules.actions_within, run.zone)
        return due_at.astimezone(run.zone).date()


CLOSING, REVIEW = human_task(Closing), human_task(Review)
