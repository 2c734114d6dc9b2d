"""The page of open findings with owners, due dates and corrective actions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from include.findings import register
from include.findings.register import State
from include.messages import Message, _, verbatim
from include.orchestration.access.permissions import Page
from include.policy import PolicyPack
from include.policy.rules import translated_message
from plugins.compliance_ui.access import Visitor, visitor_of
from plugins.compliance_ui.page_services import page_services
from plugins.compliance_ui.rendering import render_navigation_page
from plugins.compliance_ui.workflow_names import dag_of_findings, title_of

router = APIRouter()

MAX_ROWS = 200
_STATES = {
    State.OPEN: _("waits for the owner's answer"),
    State.ANSWERED: _("answered; waits for a retest by another person"),
    State.CLOSED: _("closed"),
}


@router.get("/findings")
def findings(
    request: Request, visitor: Annotated[Visitor, Depends(visitor_of(Page.FINDINGS))]
) -> Response:
    """Show open findings of the workflows that the visitor may read, earliest due date first."""
    services = page_services()
    owners = dag_of_findings()
    pack, now, dags = services.pack, services.now(), visitor.readable(owners.values())
    with services.read_connection() as conn:
        open_findings = register.list_findings(conn)
    readable = [finding for finding in open_findings if owners.get(finding.kind) in dags]
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.FINDINGS,
        "findings.html.j2",
        findings=readable[:MAX_ROWS],
        total=len(readable),
        overdue=sum(finding.overdue(now.date()) for finding in readable),
        states=_STATES,
        kind_of=lambda finding: title_of(owners[finding.kind]),
        owner_of=lambda finding: _owner(pack, finding.owner),
    )


def _owner(pack: PolicyPack, role: str) -> Message:
    return translated_message(pack.roles[role].title) if role in pack.roles else verbatim(role)
