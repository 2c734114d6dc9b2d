"""An incident at a partner opens its security review again; until that passes nothing is shared."""

from __future__ import annotations

from include.incident import timeline
from include.incident.entries import PartnerNote
from include.incident.incident_run import IncidentRecord, IncidentRun, rules_of, scenario_of
from include.incident.names import STEP_OPEN, Kind
from include.messages import _
from include.workflow.reaction import PartnerIncident, PartnerReaction


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
