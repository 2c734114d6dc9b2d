"""The page of legal holds with the records on hold, reasons, owners and review dates."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from include.holds import registry
from include.holds.registry import HoldKind
from include.messages import _
from include.orchestration.access.permissions import Page
from plugins.compliance_ui.access import Visitor, visitor_of
from plugins.compliance_ui.page_services import page_services
from plugins.compliance_ui.rendering import render_navigation_page

router = APIRouter()

DAG = "enforce_retention"  # its readers may also read the holds that prevent deletions
MAX_ROWS = 200
_KINDS = {
    HoldKind.SUBJECT: _("data subject"),
    HoldKind.WAYBILL: _("waybill"),
    HoldKind.CLASS: _("record class"),
    HoldKind.CASE: _("case"),
    HoldKind.RESTORE_POINT: _("restore point"),
    HoldKind.DATABASE: _("database"),
}


@router.get("/holds")
def holds(
    request: Request, visitor: Annotated[Visitor, Depends(visitor_of(Page.HOLDS))]
) -> Response:
    """Show active legal holds, earliest review date first."""
    visitor.require(DAG)
    services = page_services()
    with services.read_connection() as conn:
        active = registry.active_holds(conn)
    active.sort(key=lambda hold: (hold.review_on, hold.id))
    now = services.now()
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.HOLDS,
        "holds.html.j2",
        holds=active[:MAX_ROWS],
        total=len(active),
        due=sum(hold.review_on <= now.date() for hold in active),
        kinds=_KINDS,
    )
