"""The page of incident deadlines: open incidents and the time limits that apply to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from include.evidence.model import Outcome
from include.incident import register
from include.incident.incident_ids import WORKFLOW, State
from include.incident.incident_run import IncidentRecord, record_in
from include.incident.register import Incident
from include.incident.rule_checks import INCIDENT
from include.incident.time_limits import time_limit_texts
from include.incident.time_limits.time_limit import (
    TimeLimit,
    TimeLimitState,
    sort_by_urgency,
    time_limits_at,
)
from include.messages import Message, _, verbatim
from include.orchestration.access.permissions import Page
from include.policy.rules import translated_message
from include.services.errors import UsageError
from plugins.compliance_ui.access import Visitor, visitor_of
from plugins.compliance_ui.page_services import PageServices, page_services
from plugins.compliance_ui.rendering import render_navigation_page

router = APIRouter()

_STATES = {
    State.OPEN: _("open"),
    State.CLOSED: _("closed"),
    State.CANCELLED: _("cancelled"),
    State.DUPLICATE: _("duplicate"),
}


@dataclass(frozen=True)
class IncidentView:
    """An incident as the page of incident deadlines shows it.

    Attributes:
        incident: the incident in the register of incidents.
        time_limits: time limits that apply or may still apply, with the most urgent deadline first.
        type: title of the incident type.
        grade: title of the confirmed grade; None if no grade is confirmed yet.
        state: description of the incident's state.
    """

    incident: Incident
    time_limits: Sequence[TimeLimit]
    type: Message
    grade: Message | None
    state: Message

    @property
    def is_running(self) -> bool:
        """Whether the incident is open, or at least one of its time limits is still open."""
        return self.incident.state is State.OPEN or any(
            time_limit.is_open for time_limit in self.time_limits
        )

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of the incident's time limits.

        A time limit whose deadline is in the future has the outcome "passed".
        """
        return Outcome.worst(
            [
                time_limit_texts.time_limit_outcome(time_limit) or Outcome.PASS
                for time_limit in self.time_limits
            ]
            or [Outcome.PASS]
        )


@router.get("/clocks")
def incident_deadlines(
    request: Request, visitor: Annotated[Visitor, Depends(visitor_of(Page.CLOCKS))]
) -> Response:
    """Show open incidents with their deadlines, and the number of ended incidents."""
    visitor.require(WORKFLOW)
    services = page_services()
    rules = services.pack.section(INCIDENT)
    if rules is None:
        raise UsageError(
            "The policy pack has no incident.yaml.",
            "Write one: docs/reference/policy-pack/incident.md.",
        )
    with services.read_connection() as conn:
        incidents = [
            incident for incident in register.list_incidents(conn) if incident.requires_steps
        ]
        records = [record_in(conn, incident.number) for incident in incidents]
    views = [_incident_view(services, record) for record in records]
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.CLOCKS,
        "time_limits.html.j2",
        running=[view for view in views if view.is_running],
        over=sum(not view.is_running for view in views),
        due=time_limit_texts.due_text,
        state=time_limit_texts.state_text,
        basis=time_limit_texts.basis_text,
        time_limit_outcome=time_limit_texts.time_limit_outcome,
    )


def _incident_view(services: PageServices, record: IncidentRecord) -> IncidentView:
    rules, pack = services.pack.section(INCIDENT), services.pack
    assert rules is not None
    incident = record.incident
    kept = incident.kept
    types = {type_.id: type_ for type_ in (*rules.types, *((kept.type,) if kept else ()))}
    grades = {grade.id: grade for grade in (kept.grades if kept else rules.grades)}
    time_limits = time_limits_at(rules, record, services.now(), pack.calendar.zone)
    return IncidentView(
        incident,
        [
            time_limit
            for time_limit in sort_by_urgency(time_limits)
            if time_limit.state is not TimeLimitState.NOT_APPLICABLE
        ],
        translated_message(types[incident.type].title)
        if incident.type in types
        else verbatim(incident.type),
        None
        if record.grade is None
        else translated_message(grades[record.grade].title)
        if record.grade in grades
        else verbatim(record.grade),
        _STATES[incident.state],
    )
