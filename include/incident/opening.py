"""Open an incident: register it, start its clocks, call the team, and review a partner involved."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from sqlalchemy import Connection

from include.evidence.step_findings import StepFindings
from include.incident import register, timeline
from include.incident.entries import IncidentOpened, PartnerNote
from include.incident.form import read
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    record_of,
    rules_of,
    scenario_of,
)
from include.incident.names import ALERT, STEP_OPEN, Kind, State
from include.incident.register import Incident
from include.messages import _
from include.notify import outbox
from include.notify.notice import Notice, to_role
from include.notify.status import first_sent
from include.workflow.run_context import PartnerIncident, PartnerReaction


def reopen_review(run: IncidentRun, record: IncidentRecord) -> None:
    """Open the review of the partner at which an incident happened again, and enter it; once.

    What the partner answers later stays when the task is repeated. A drill reopens nothing.
    """
    incident = record.incident
    if scenario_of(run) is not None or not incident.is_led or incident.partner is None:
        return
    kind = rules_of(run, record).type(incident.type)
    if not kind.partner or any(
        entry.kind is Kind.NOTE and entry.as_(PartnerNote).partner for entry in record.entries
    ):
        return
    by = run.triggered_by or run.run.dag_id
    at_partner = PartnerIncident(
        incident.partner, incident.number, kind.title["en"], by, run.clock.now()
    )
    with run.state.begin() as conn:
        reaction = run.task.on_partner_incident(conn, at_partner) or _no_register(at_partner)
        timeline.append(
            conn, incident.id, Kind.NOTE, reaction.words, by=STEP_OPEN, clock=run.clock,
            data={"partner": incident.partner, "review": reaction.review}, once="partner_review",
        )  # fmt: skip


def _no_register(incident: PartnerIncident) -> PartnerReaction:
    words = _(
        "The policy pack has no partners.yaml: no security review of partner {partner} was opened "
        "again; stop sharing with it by other means.",
        partner=incident.partner,
    )
    return PartnerReaction(None, words)


log = logging.getLogger(__name__)


def open_incident(run: IncidentRun, findings: StepFindings) -> IncidentOpened:
    """Register the incident, start its clocks, call its team.

    A form that was sent twice registers a duplicate of the first incident.

    Raises:
        UsageError: the form cannot be used; nothing was opened.
    """
    del findings
    triggered_at = run.task.triggered_at or run.clock.now()
    form = read(run.parameters, run.rules, triggered_at, run.zone)
    with run.state.begin() as conn:
        incident = register.open_incident(
            conn,
            form,
            run.rules,
            run.run,
            by=run.triggered_by or "",
            zone=run.zone,
            clock=run.clock,
            year=run.now.year,
        )
        if incident.state is not State.DUPLICATE:
            outbox.queue(conn, _calls(run, incident), run.run, run.clock.now(), run.notices)
    reopen_review(run, record_of(run, incident.number))
    if incident.duplicate_of:
        log.warning(
            "This is %s, a duplicate of %s: nothing is done here. Answer the steps of %s. If it is "
            "another incident, trigger again with `This is another incident`.",
            incident.number, incident.duplicate_of, incident.duplicate_of,
        )  # fmt: skip
    return IncidentOpened(
        number=incident.number,
        type=incident.type,
        aware_at=incident.aware_at,
        duplicate_of=incident.duplicate_of,
    )


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
