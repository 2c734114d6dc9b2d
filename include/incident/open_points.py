"""What keeps an incident from being closed: everything that somebody still has to do."""

from __future__ import annotations

from include.incident import decisions, scopes
from include.incident.assessing import outgrown
from include.incident.incident_run import IncidentRecord, IncidentRun, rules_of
from include.incident.names import Kind, Phase
from include.incident.results import Preserved
from include.incident.steps.report import answered, authorities
from include.incident.telling import notifying, reached
from include.incident.timeline import Entry, last_of
from include.incident.words import report_title
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
    scope = scopes.newest(run, record.incident.id)
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
        waiting = reached.delivery(conn, record.incident.number).get("pending", 0)
        untold = reached.unreached(conn, record)
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
