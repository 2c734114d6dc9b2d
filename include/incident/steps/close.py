"""Closing: refused while anything is open, and said what that is."""

from __future__ import annotations

from include.approvals.form import Field
from include.approvals.question import Question
from include.incident import register, scopes, timeline
from include.incident.clocks.clock import ClockState
from include.incident.clocks.clock_words import due
from include.incident.clocks.standing import clocks_of
from include.incident.incident_run import IncidentRecord, IncidentRun, record_in
from include.incident.names import Kind, State
from include.incident.open_points import open_points
from include.incident.rules import HumanStep
from include.incident.steps import answer, page
from include.incident.steps.answer import Answered, Given
from include.incident.steps.human_task import human_task
from include.incident.timeline import last_of
from include.messages import Message, _, listed

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
    facts = [scopes.newest(run, record.incident.id).version, graded.place if graded else None]
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
