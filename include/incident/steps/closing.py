"""Close an incident, and review it: lessons, and corrective actions in the register of findings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection

from include.approvals.form import Field
from include.approvals.question import Answer, Question
from include.findings.register import open_finding
from include.incident import incident_run, register
from include.incident.assessing import outgrown
from include.incident.clocks import milestones
from include.incident.clocks.clock import ClockState, clocks_of
from include.incident.clocks.clock_words import due
from include.incident.entries import Preserved
from include.incident.form import LONGEST
from include.incident.incident_run import IncidentRecord, IncidentRun, report_title, rules_of
from include.incident.names import FINDING_KIND, Kind, Phase, State
from include.incident.steps.report import authorities, is_answered
from include.incident.steps.task import Answered, IncidentTask, StepAnswer, human_task
from include.incident.telling import notifying
from include.incident.timeline import Entry, last_of
from include.messages import Message, _, listed, verbatim
from include.policy.period import later
from include.policy.rules import in_languages
from include.services.errors import ControlFailed

CLOSE, NOT_YET, REVIEWED = "Close", "Not yet", "Reviewed"
_WORDS, _LESSONS = "words", "lessons"
MOST_ACTIONS = 5


def open_points(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    """Return what remains to be done, in working order; nothing if the incident can be closed."""
    reports = [
        report_title(run, record, authority.id, phase)
        for phase in (Phase.FIRST, Phase.REST)
        for authority in authorities(run, record)
        if not is_answered(run, record, authority.id, phase)
    ]
    return [*_unsecured(run, record), *reports, *_undecided(run, record)]


def _unsecured(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    scope = incident_run.require_scope(run, record.incident.id)
    steps = {
        Kind.CONTAINED: _("it is not contained"),
        Kind.GRADED: _("nobody confirmed the grade"),
        Kind.IMPACT: _("nobody assessed the impact"),
    }
    points = [words for kind, words in steps.items() if last_of(record.valid, kind) is None]
    entry = last_of(record.entries, Kind.PRESERVED)
    secured = entry.as_(Preserved) if entry else None
    if entry is None or secured is None or secured.is_pending or secured.version < scope.version:
        points.append(_("the evidence is not secured (task preserve)"))
    elif secured.short and not _is_explained(record, entry):
        names = listed([verbatim(database) for database in secured.short])
        points.append(
            _("fewer people are listed, or fewer log rows extracted, than were counted in "
              "{databases}: say why in a note (update_incident, action note)", databases=names)
        )  # fmt: skip
    if scope.unknown:
        names = listed([verbatim(unknown.database) for unknown in scope.unknown])
        points.append(_("nobody could count what is affected in {databases}", databases=names))
    if proposed := outgrown(run, record):
        title = rules_of(run, record).grade(proposed).message
        points.append(
            _("more is affected than it was graded for, {grade} is proposed: confirm the grade "
              "(update_incident, action regrade)", grade=title)
        )  # fmt: skip
    return points


def _is_explained(record: IncidentRecord, secured: Entry) -> bool:
    """Return whether a later note exists: lost evidence can be explained, not secured."""
    noted = last_of(record.entries, Kind.NOTE)
    return noted is not None and noted.place > secured.place


def _undecided(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    try:
        plan = notifying.plan(run, record)
    except ControlFailed as error:
        return [verbatim(error.message)]
    if not plan.people:
        return []
    if notifying.stands(record, plan) is None:
        return [_("nobody decided whether the people that are affected now are told")]
    if not milestones.tells(record.entries):
        return []
    if milestones.unqueued(record.entries):
        return [_("the notices to people are not queued")]
    with run.state.connect() as conn:
        waiting = notifying.delivery(conn, record.incident.number).get("pending", 0)
        unreached = notifying.unreached(conn, record)
    if waiting:
        return [_("{count} notices wait to be sent", count=waiting)]
    if unreached:
        return [
            _(
                "{count} people could not be told by mail: tell them otherwise, then enter it "
                "(update_incident, action told_otherwise)",
                count=unreached,
            )
        ]
    return []


class Closing(IncidentTask):
    """The end of the handling; refused while anything is open."""

    step = "close"
    title = _("The closing")
    choices = (CLOSE, NOT_YET)
    patience = 8

    def form(self) -> list[Field]:
        """Return the field for the closing words."""
        title = _("How it ended; what remains to be watched")
        return [Field(name=_WORDS, title=title, kind="long_text", longest=LONGEST)]

    def content(self) -> str:
        """Return the digest of the counts and the grade.

        Open points are looked up again when the answer is entered: they may be fewer than on the
        page.
        """
        graded = last_of(self.record.entries, Kind.GRADED)
        scope = incident_run.require_scope(self.run, self.record.incident.id)
        return self.digest((), scope.version, graded.place if graded else None)

    def ask(self) -> Question:
        """Close the handling; refused while anything is open."""
        points = open_points(self.run, self.record)
        left = [_("Still open: {point}", point=point) for point in points]
        summary_due = [
            _("{what}: due {due}.", what=clock.rule.message, due=due(clock))
            for clock in clocks_of(self.run, self.record)
            if clock.rule.begins == "closing"
            and (clock.is_open or clock.state is ClockState.NOT_BEGUN)
        ]
        lines = [
            *(left or [_("Nothing is open: the handling can be closed.")]),
            _("Legal holds stay until they are released."),
            *summary_due,
        ]
        return self.question(_("close the handling"), lines)

    def take(self, answer: Answer) -> Answered:
        """Close the incident; refused if it shall not be closed yet, or something is open."""
        given = self.read(answer)
        if answer.option != CLOSE:
            given.refuse(_("not yet: {words}", words=given.text(_WORDS)))

        def check(record: IncidentRecord) -> Message | None:
            left = open_points(self.run, record)
            return _("it cannot be closed: {points}", points=listed(left)) if left else None

        def close(conn: Connection, record: IncidentRecord) -> Mapping[str, Any]:
            register.ended(conn, record.incident.id, State.CLOSED, given.at)
            return {}

        words = _("The handling was closed. {words}", words=given.text(_WORDS))
        return given.enter(Kind.CLOSED, words, also=close, check=check)


class Review(IncidentTask):
    """Lessons, and up to five corrective actions, each with its owner and days."""

    step = "review"
    title = _("The review of the incident")
    choices = (REVIEWED,)
    patience = 48

    def form(self) -> list[Field]:
        """Return the fields of lessons and corrective actions."""
        roles = {role.id: in_languages(role.title) for role in self.run.roles.values()}
        fields = [
            Field(
                name=_LESSONS,
                title=_("What was learned: what went well, what did not, why it could happen"),
                kind="long_text",
                required=True,
                longest=LONGEST,
            )
        ]
        for number in range(1, MOST_ACTIONS + 1):
            action = _("Corrective action {number}", number=number)
            owner = _("Who answers for action {number}", number=number)
            days = _("Days until action {number} is due; empty: by the policy", number=number)
            fields += [
                Field(name=f"action_{number}", title=action, kind="long_text", longest=LONGEST),
                Field(name=f"owner_{number}", title=owner, kind="choice", options=roles),
                Field(name=f"days_{number}", title=days, kind="number"),
            ]
        return fields

    def content(self) -> str:
        """Return the digest of the incident and the review so far."""
        reviewed = last_of(self.record.entries, Kind.REVIEWED)
        return self.digest((), reviewed.place if reviewed else None)

    def ask(self) -> Question:
        """Review it: lessons and corrective actions, which become findings."""
        return self.question(
            _("review it: lessons and corrective actions"),
            [
                _("Every corrective action becomes a finding: its owner is reminded until a second "
                  "test by another person closes it."),
                _("An incident without any corrective action needs reasons in the lessons."),
            ],
        )  # fmt: skip

    def take(self, answer: Answer) -> Answered:
        """Enter lessons and actions; every action becomes a finding, once.

        An action that is entered again after the task was cleared is the same finding; another
        one is another finding, beside those of before.
        """
        given = self.read(answer)
        if not given.says(_LESSONS):
            given.refuse(_("the lessons say nothing"))
        numbers = [n for n in range(1, MOST_ACTIONS + 1) if given.says(f"action_{n}")]
        for number in numbers:
            if not given.text(f"owner_{number}"):
                given.refuse(_("nobody answers for action {number}", number=number))

        def open_actions(conn: Connection, _record: IncidentRecord) -> Mapping[str, Any]:
            return {"actions": [self._open_action(conn, given, number) for number in numbers]}

        lessons = given.text(_LESSONS)
        words = _(
            "Reviewed, {count} corrective actions. {lessons}", count=len(numbers), lessons=lessons
        )
        return given.enter(Kind.REVIEWED, words, {"lessons": lessons}, also=open_actions)

    def _open_action(self, conn: Connection, given: StepAnswer, place: int) -> dict[str, Any]:
        """Enter a corrective action as a finding."""
        number = self.record.incident.number
        what, owner = given.text(f"action_{place}"), given.text(f"owner_{place}")
        finding = open_finding(
            conn,
            kind=FINDING_KIND,
            reference=f"{number}/{sha256(f'{owner} {what}'.encode()).hexdigest()[:8]}",
            what=_("{number}: {action}", number=number, action=what),
            owner=owner,
            opened_at=given.at,
            due_on=self._due_on(given.values.get(f"days_{place}")),
        )
        return {"finding": finding, "owner": owner, "what": what}

    def _due_on(self, days: object) -> date:
        run = self.run
        if isinstance(days, int):
            return run.now.date() + timedelta(days=min(days, 3_650))
        due_at: datetime = later(run.clock.now(), run.rules.actions_within, run.zone)
        return due_at.astimezone(run.zone).date()


CLOSING, REVIEW = human_task(Closing), human_task(Review)
