"""Open an incident: register it, start its time limits, and call the team.

If the incident happened at a partner, the security review of the partner is reopened.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from sqlalchemy import Connection

from include.evidence.step_findings import StepFindings
from include.incident import register, timeline
from include.incident.entries import IncidentOpened, PartnerNote
from include.incident.form import read_trigger_form
from include.incident.incident_ids import ALERT, STEP_OPEN, Kind, State
from include.incident.incident_run import (
    IncidentRecord,
    IncidentRun,
    record_of,
    rules_of,
    scenario_of,
)
from include.incident.register import Incident
from include.incident.time_limits.escalation import with_link
from include.messages import _
from include.notify import outbox
from include.notify.notification import Notification, to_role
from include.notify.status import first_sent
from include.services.errors import refusing_inputs
from include.workflow.run_context import PartnerIncident, PartnerReaction


def reopen_review(run: IncidentRun, record: IncidentRecord) -> None:
    """Reopen the security review of the partner at which an incident happened.

    The first call appends a timeline entry. If the timeline already has this entry, nothing is
    done. So a repeated task does not reopen the review again, and answers that the partner has sent
    since are kept. A drill does not reopen a review, and neither does a duplicate or an incident of
    a type that does not concern partners.

    Args:
        run: services and rules of the current run or command.
        record: incident with its timeline.
    """
    incident = record.incident
    if scenario_of(run) is not None or not incident.requires_steps or incident.partner is None:
        return
    incident_type = rules_of(run, record).type(incident.type)
    if not incident_type.partner or any(
        entry.kind is Kind.NOTE and entry.as_(PartnerNote).partner for entry in record.entries
    ):
        return
    by = run.triggered_by or run.run.dag_id
    at_partner = PartnerIncident(
        incident.partner, incident.number, incident_type.title["en"], by, run.clock.now()
    )
    with run.state.begin() as conn:
        reaction = run.task.on_partner_incident(conn, at_partner) or _no_register(at_partner)
        timeline.append(
            conn, incident.id, Kind.NOTE, reaction.words, by=STEP_OPEN, clock=run.clock,
            data={"partner": incident.partner, "review": reaction.review}, once="partner_review",
        )  # fmt: skip


def _no_register(incident: PartnerIncident) -> PartnerReaction:
    words = _(
        "The policy pack has no rules for partners, so the security review of partner "
        "{partner} was not reopened. Stop the sharing of customer data with this partner by "
        "hand.",
        partner=incident.partner,
    )
    return PartnerReaction(None, words)


log = logging.getLogger(__name__)


def open_incident(run: IncidentRun, findings: StepFindings) -> IncidentOpened:
    """Register the incident, queue the call of its team, and reopen the review of a partner.

    If the same form was submitted before, the incident is registered as a duplicate of the earlier
    incident, and the team is not called.

    Raises:
        CouldNotRun: the form is invalid, so no incident was opened.
    """
    del findings
    triggered_at = run.task.triggered_at or run.clock.now()
    with refusing_inputs():
        form = read_trigger_form(run.parameters, run.rules, triggered_at, run.zone)
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
            outbox.queue_notifications(
                conn, _team_calls(run, incident), run.run, run.clock.now(), run.notices
            )
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


def record_team_call(conn: Connection, run: IncidentRun, incident: Incident) -> bool:
    """Record on the timeline that the team was called, once a mail was sent for each duty.

    The entry states the time at which the last of these mails was sent, even if the entry is
    written later.

    Args:
        conn: connection to the state database, in a transaction.
        run: services and rules of the current run or command.
        incident: incident whose team was called.

    Returns:
        Whether the timeline contains the team call.
    """
    if any(entry.kind is Kind.TEAM_CALLED for entry in timeline.entries(conn, incident.id)):
        return True
    sent_times = [
        first_sent(conn, ALERT, _call_prefix(incident.number, duty.id)) for duty in run.rules.team
    ]
    known_times = [sent_at for sent_at in sent_times if sent_at is not None]
    if len(known_times) < len(sent_times):
        return False
    # the clock of the sending machine may be ahead of this machine's
    at = min(max(known_times), run.clock.now())
    words = _(
        "The incident team was called. Number of duties whose people were notified: {count}.",
        count=len(run.rules.team),
    )
    timeline.append(
        conn, incident.id, Kind.TEAM_CALLED, words, by=STEP_OPEN, clock=run.clock, happened_at=at,
        once="called",
    )  # fmt: skip
    return True


def _team_calls(run: IncidentRun, incident: Incident) -> Iterator[Notification]:
    type_title = run.rules.type(incident.type).message
    for duty in run.rules.team:
        yield from to_role(
            run.roles[duty.role],
            kind=ALERT,
            key=f"{_call_prefix(incident.number, duty.id)}call",
            heading=_("Incident {number}: {type}", number=incident.number, type=type_title),
            line=with_link(
                _(
                    "You are called to the incident team. Your duty: {duty}. Open Required Actions "
                    "in Airflow. The form of incident {number} shows the steps and their "
                    "deadlines. The company became aware of the incident at {aware}.",
                    duty=duty.message,
                    number=incident.number,
                    aware=incident.aware_at,
                ),
                run.task.run_address,
            ),
            urgent=True,
        )


def _call_prefix(number: str, duty: str) -> str:
    return f"{number}/called/{duty}/"
