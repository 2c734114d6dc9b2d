"""The page of required actions: open requests of workflows to people, with deadlines and forms."""

from __future__ import annotations

from typing import Annotated

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from include.orchestration.access.permissions import Page
from plugins.compliance_ui.access import Visitor, visitor_of
from plugins.compliance_ui.page_services import page_services
from plugins.compliance_ui.rendering import render_navigation_page
from plugins.compliance_ui.required_actions import open_actions

router = APIRouter()

MAX_ROWS = 200


@router.get("/waiting")
def required_actions_page(
    request: Request,
    session: SessionDep,
    visitor: Annotated[Visitor, Depends(visitor_of(Page.WAITING))],
) -> Response:
    """Show the required actions that the visitor may read.

    The required actions that the visitor may answer come first.
    """
    services = page_services()
    actions = open_actions(session, visitor)
    yours = [action for action in actions if action.is_for_visitor]
    others = [action for action in actions if not action.is_for_visitor]
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.WAITING,
        "waiting.html.j2",
        yours=yours[:MAX_ROWS],
        others=others[:MAX_ROWS],
        yours_total=len(yours),
        others_total=len(others),
    )
