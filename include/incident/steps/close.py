"""Close an incident; refused while anything is open, with the list of open points."""

from __future__ import annotations

from include.approvals.form import Field
from include.approvals.question import Question
from include.incident import decisions, incident_run, register, timeline
from include.incident.assessing import outgrown
from include.incident.clocks.clock import ClockState, clocks_of
from include.incident.clocks.clock_words import due
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    record_in,
    report_title,
    rules_of,
)
from include.incident.names import Kind, Phase, State
from include.incident.results import Preserved
from include.incident.rules import HumanStep
from include.incident.steps import answer, page
from include.incident.steps.answer import Answered, Given
from include.incident.steps.page import human_task
from include.incident.steps.report import answered, authorities
from include.incident.telling import notifying
from include.incident.timeline import Entry, last_of
from include.messages import Message, _, listed, verbatim
from include.services.errors import ControlFailed


def open_points(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    """What still has to be done, in the order in which it is done; nothing where it can be closed.

    Args:
        run: the run or command.
        record: the incident.
    """
    return [*_secured(run, record), *_reports(run, record), *_people(run, record)]


def _secured(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    scope = incident_run.newest(run, record.incident.id)
    lacking = {
        Kind.CONTAINED: _("it is not contained"),
        Kind.GRADED: _("nobody confirmed the grade"),
        Kind.IMPACT: _("nobody assessed the impact"),
    }
    found = [words for kind, words in lacking.items() if last_of(record.valid, kind) is None]
    entry = last_of(record.entries, Kind.PRESERVED)
    secured = entry.as_(Preserved) if entry else None
    if entry is None or secured is None or secured.is_pending or secured.version < scope.version:
        found.append(_("the evidence is not secured (task preserve)"))
    elif secured.short and not _explained(record, entry):
        names = listed([verbatim(one) for one in secured.short])
        found.append(
            _("fewer people are listed, or fewer log rows extracted, than were counted in "
              "{databases}: say why in a note (update_incident, action note)", databases=names)
        )  # fmt: skip
    if scope.unknown:
        names = listed([verbatim(one.database) for one in scope.unknown])
        found.append(_("nobody could count what is affected in {databases}", databases=names))
    if proposed := outgrown(run, record):
        title = rules_of(run, record).grade(proposed).message
        found.append(
            _("more is affected than it was graded for, {grade} is proposed: confirm the grade "
              "(update_incident, action regrade)", grade=title)
        )  # fmt: skip
    return found


def _explained(record: IncidentRecord, secured: Entry) -> bool:
    """Whether somebody wrote a note since: what is gone can be explained, not secured."""
    noted = last_of(record.entries, Kind.NOTE)
    return noted is not None and noted.place > secured.place


def _reports(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    return [
        report_title(run, record, one.id, phase)
        for phase in (Phase.FIRST, Phase.REST)
        for one in authorities(run, record)
        if not answered(run, record, one.id, phase)
    ]


def _people(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    try:
        made = notifying.plan(run, record)
    except ControlFailed as error:
        return [verbatim(error.message)]
    if not made.people:
        return []
    if notifying.stands(record, made) is None:
        return [_("nobody decided whether the people that are affected now are told")]
    if not decisions.tells(record.entries):
        return []
    if decisions.unqueued(record.entries):
        return [_("the notices to people are not queued")]
    with run.state.connect() as conn:
        waiting = notifying.delivery(conn, record.incident.number).get("pending", 0)
        untold = notifying.unreached(conn, record)
    if waiting:
        return [_("{count} notices wait to be sent", count=waiting)]
    if untold:
        return [
            _(
                "{count} people could not be told by mail: tell them otherwise, then enter it "
                "(update_incident, action told_otherwise)",
                count=untold,
            )
        ]
    return []


STEP: HumanStep = "close"
CLOSE, NOT_YET = "Close", "Not yet"
WORDS = "words"


def form() -> list[Field]:
    """How it ended, in words."""
    title = _("How it ended; what remains to be watched")
    return [Field(name=WORDS, title=title, kind="long_text", longest=page.LONGEST)]


def ask(run: IncidentRun, record: IncidentRecord) -> Question:
    """Close the handling; refused while anything is open."""
    return page.question(
        run,
        record,
        STEP,
        _("close the handling"),
        [*_lines(run, record), *_summary_due(run, record)],
        choices=[CLOSE, NOT_YET],
        form=form(),
        content=content(run, record),
    )


def _lines(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    left = [_("Still open: {point}", point=point) for point in open_points(run, record)]
    return [
        *(left or [_("Nothing is open: the handling can be closed.")]),
        _("Legal holds stay until they are released."),
    ]


def content(run: IncidentRun, record: IncidentRecord) -> str:
    """Return the digest of what a closing is about: the counts and the grade.

    What is open is looked up again when the answer is entered: it may be less than the page said.
    """
    graded = last_of(record.entries, Kind.GRADED)
    facts = [incident_run.newest(run, record.incident.id).version, graded.place if graded else None]
    return page.content_of(record, STEP, [], form=form(), facts=facts)


def _summary_due(run: IncidentRun, record: IncidentRecord) -> list[Message]:
    """When the summary is due, by each clock that begins when the incident is closed."""
    return [
        _("{what}: due {due}.", what=one.rule.message, due=due(one))
        for one in clocks_of(run, record)
        if one.rule.begins == "closing" and (one.is_open or one.state is ClockState.NOT_BEGUN)
    ]


def take(run: IncidentRun, record: IncidentRecord, given: Given) -> Answered:
    """Close it.

    Raises:
        AskAgain: nobody answered, it is not to be closed yet, something is open, or the form was
            about something else.
    """
    who = answer.person(run, record, STEP, given)
    values = answer.read(run, record, STEP, given, form())
    if given.option != CLOSE:
        cause = _("not yet: {words}", words=values.text(WORDS))
        answer.refuse(run, record, STEP, given, cause, values)
    found = _closed(run, record, given, who, values.text(WORDS))
    if isinstance(found, Message):
        answer.refuse(run, record, STEP, given, found, values)
    return found


def _closed(
    run: IncidentRun, record: IncidentRecord, given: Given, who: str, said: str
) -> Answered | Message:
    """Close it under the incident's lock, or return why it cannot be closed."""
    with run.state.begin() as conn:
        timeline.lock_incident(conn, record.incident.id)
        if (done := answer.taken(conn, record, STEP, given)) is not None:
            return done
        record = record_in(conn, record.incident.number)
        if left := open_points(run, record):
            return _("it cannot be closed: {points}", points=listed(left))
        if content(run, record) != given.content:
            return answer.CHANGED
        register.ended(conn, record.incident.id, State.CLOSED, given.at)
        words = _("The handling was closed. {words}", words=said)
        return answer.enter(
            conn, run, record, STEP, Kind.CLOSED, words, by=who, given=given, data={}
        )


CLOSING = human_task(STEP, _("The closing"), ask, take, (CLOSE, NOT_YET), patience=8)
