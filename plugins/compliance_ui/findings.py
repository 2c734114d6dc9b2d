"""The work list with open findings and required actions, and the page of a finding."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Depends, HTTPException, Request, status
from fastapi.responses import Response
from sqlalchemy import Connection

from include.evidence import ledger
from include.finding_updates.enter import is_confidential
from include.finding_updates.workflow import UPDATE_FINDING
from include.findings import register
from include.findings.decisions import Deciders
from include.findings.register import Event, Finding, State
from include.findings.run_findings import unread_bundles
from include.messages import _
from include.orchestration.access.permissions import Page
from include.policy import PolicyPack
from include.services.errors import UsageError
from plugins.compliance_ui.access import Visitor, name_of, visitor_of
from plugins.compliance_ui.page_services import page_services
from plugins.compliance_ui.rendering import render_navigation_page
from plugins.compliance_ui.work_list import (
    View,
    dag_of_finding,
    is_of_every_workflow,
    roles_of,
    source_of,
    state_of,
    work_items,
)

router = APIRouter()

MAX_ROWS = 200
MAX_UNREAD = 10
_VIEWS = {
    View.ALL: _("All"),
    View.DEPARTMENT: _("My department"),
    View.MINE: _("Mine"),
}
_EVENTS = {
    Event.COMMENTED: _("comment"),
    Event.REASSIGNED: _("new owner"),
    Event.ACCEPTED: _("risk accepted"),
    Event.WITHDRAWN: _("acceptance of the risk withdrawn"),
}
FindingsVisitor = Annotated[Visitor, Depends(visitor_of(Page.FINDINGS))]


@router.get("/findings")
def findings(
    request: Request, session: SessionDep, visitor: FindingsVisitor, view: View = View.ALL
) -> Response:
    """Show open findings and required actions that the visitor may read, overdue items first."""
    services = page_services()
    with services.read_connection() as conn:
        items = work_items(conn, session, services, visitor)
        unread = sorted(unread_bundles(conn))
    chosen = [item for item in items if item.is_in(view)]
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.FINDINGS,
        "findings.html.j2",
        items=chosen[:MAX_ROWS],
        total=len(chosen),
        overdue=sum(item.is_overdue for item in chosen),
        views=[
            (entry, title, sum(item.is_in(entry) for item in items))
            for entry, title in _VIEWS.items()
        ],
        view=view,
        unread=unread[-MAX_UNREAD:],
        unread_total=len(unread),
        badge=sum(item.is_in(View.DEPARTMENT) for item in items),
        has_role=bool(roles_of(services.pack, visitor)),
        today=services.now().date(),
    )


@router.get("/findings/{number}")
def finding_page(request: Request, visitor: FindingsVisitor, number: int) -> Response:
    """Show a finding with its history and its evidence.

    Raises:
        HTTPException: 404 if the register has no such finding, or if the visitor may not read it.
    """
    services = page_services()
    with services.read_connection() as conn:
        try:
            finding = register.get_finding(conn, number)
        except UsageError as error:
            raise HTTPException(status.HTTP_404_NOT_FOUND) from error
        if not is_of_every_workflow(finding) and not visitor.reads(dag_of_finding(finding)):
            raise HTTPException(status.HTTP_404_NOT_FOUND)
        origin = finding.origin
        evidence = {
            bundle: _seq_of(conn, bundle)
            for bundle in (
                *((origin.opened_in, origin.reported_in) if origin is not None else ()),
                finding.closed_in,
            )
            if bundle
        }
    pack, today = services.pack, services.now().date()
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.FINDINGS,
        "finding.html.j2",
        title=_("Finding {number}", number=finding.id),
        finding=finding,
        evidence=evidence,
        source=source_of(finding),
        clause=pack.clause_message(origin.clause) if origin is not None and origin.clause else None,
        owner=pack.role_message(finding.owner),
        assignee=name_of(finding.assignee) if finding.assignee else "",
        state=state_of(finding, today),
        today=today,
        events=_EVENTS,
        may_update=_may_update(services.pack, visitor, finding),
        name_of=name_of,
    )


def _may_update(pack: PolicyPack, visitor: Visitor, finding: Finding) -> bool:
    """Return whether the visitor may enter a comment or decision about a finding in Airflow."""
    if finding.state is State.CLOSED or is_confidential(finding):
        return False
    deciders = Deciders(pack.roles, pack.findings, pack.calendar.zone)
    is_entitled = any(deciders.may_comment(account, finding) for account in visitor.ids)
    return is_entitled and visitor.reads(UPDATE_FINDING.id)


def _seq_of(conn: Connection, bundle: str) -> int | None:
    """Return the sequence number of a bundle; None if the ledger has no row of the bundle."""
    row = ledger.find_bundle(conn, bundle)
    return None if row is None else row.seq
