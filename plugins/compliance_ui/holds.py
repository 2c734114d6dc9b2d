"""Holds: what may not be deleted, why, who answers for it, and when to ask whether it is needed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from include.holds import registry
from include.holds.registry import HoldKind
from include.messages import _
from include.orchestration.access.permissions import Page
from plugins.compliance_ui.access import Visitor, opening
from plugins.compliance_ui.rendering import show
from plugins.compliance_ui.services import services

router = APIRouter()

DAG = "enforce_retention"  # who may read what is deleted may read what keeps it
MOST = 200  # rows of a page
_KINDS = {
    HoldKind.SUBJECT: _("data subject"),
    HoldKind.WAYBILL: _("waybill"),
    HoldKind.CLASS: _("record class"),
    HoldKind.CASE: _("case"),
    HoldKind.RESTORE_POINT: _("restore point"),
    HoldKind.DATABASE: _("database"),
}


@router.get("/holds")
def holds(request: Request, who: Annotated[Visitor, Depends(opening(Page.HOLDS))]) -> Response:
    """Show active holds, the one to be reviewed first at the head."""
    who.require(DAG)
    here = services()
    with here.reading() as conn:
        active = registry.active(conn)
    active.sort(key=lambda one: (one.review_on, one.id))
    now = here.now()
    return show(
        request,
        here,
        who,
        Page.HOLDS,
        "holds.html.j2",
        holds=active[:MOST],
        total=len(active),
        due=sum(one.review_on <= now.date() for one in active),
        kinds=_KINDS,
    )
