"""Opening an incident: it is registered, its clocks begin, and the team is called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from include.evidence.model import Outcome, StepRecord
from include.incident import form, register, timeline
from include.incident.incident_run import IncidentRun
from include.incident.names import ALERT, STEP_OPEN, Kind, State
from include.incident.register import Incident
from include.messages import _
from include.notify import outbox
from include.notify.notice import Notice
from include.notify.roles import to_role
from include.notify.status import first_sent


def open_incident(run: IncidentRun, given: Mapping[str, Any], pressed_at: datetime) -> StepRecord:
    """Register an incident and queue the call to its team; safe to repeat.

    Args:
        run: the run or command.
        given: the trigger form.
        pressed_at: when the run was triggered.

    Raises:
        UsageError: the form cannot be used; nothing was opened.
    """
    read = form.read(given, run.rules, pressed_at, run.zone)
    with run.state.begin() as conn:
        made = register.open_incident(
            conn,
            read,
            run.rules,
            run.run,
            by=run.triggered_by or "",
            zone=run.zone,
            clock=run.clock,
            year=run.now.year,
        )
        if made.state is not State.DUPLICATE:
            outbox.queue(conn, _calls(run, made), run.run, run.clock.now(), run.notices)
    data = {
        "number": made.number,
        "type": made.type,
        "aware_at": made.aware_at.isoformat(),
        "duplicate_of": made.duplicate_of,
    }
    return StepRecord(step=STEP_OPEN, outcome=Outcome.PASS, data=data)


def called(conn: Connection, run: IncidentRun, found: Incident) -> bool:
    """Enter that the team was called, once the call to every duty has left; whether it has.

    That is when the mail left for the duty that was reached last, whoever looks however late.

    Args:
        conn: the state database, in a transaction.
        run: the run or command.
        found: the incident.
    """
    if any(one.kind is Kind.TEAM_CALLED for one in timeline.entries(conn, found.id)):
        return True
    left = [first_sent(conn, ALERT, _prefix(found.number, duty.id)) for duty in run.rules.team]
    reached = [one for one in left if one is not None]
    if len(reached) < len(left):
        return False
    # who sent it may have a clock that is ahead of this machine's
    at = min(max(reached), run.clock.now())
    words = _("The team was called: {count} duties.", count=len(run.rules.team))
    timeline.append(
        conn, found.id, Kind.TEAM_CALLED, words, by=STEP_OPEN, clock=run.clock, happened_at=at,
        once="called",
    )  # fmt: skip
    return True


def _calls(run: IncidentRun, made: Incident) -> Iterator[Notice]:
    kind = run.rules.type(made.type).message
    for duty in run.rules.team:
        yield from to_role(
            run.roles[duty.role],
            kind=ALERT,
            key=f"{_prefix(made.number, duty.id)}call",
            heading=_("Incident {number}: {type}", number=made.number, type=kind),
            line=_(
                "You are called: {duty}. Open Airflow, Required actions; {number} shows what is "
                "to be done by when. Aware since {aware}.",
                duty=duty.message,
                number=made.number,
                aware=made.aware_at,
            ),
            urgent=True,
        )


def _prefix(number: str, duty: str) -> str:
    return f"{number}/called/{duty}/"
