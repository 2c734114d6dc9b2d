"""Findings and actions: what was found, who answers for it, by when, and what is overdue."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from include.findings import register
from include.findings.register import State
from include.messages import Message, _, verbatim
from include.orchestration.access.permissions import Page
from include.policy import PolicyPack
from include.policy.rules import in_languages
from plugins.compliance_ui.access import Visitor, opening
from plugins.compliance_ui.names import dag_of_findings, title_of
from plugins.compliance_ui.rendering import show
from plugins.compliance_ui.services import services

router = APIRouter()

MOST = 200  # rows of a page
_STATES = {
    State.OPEN: _("waits for an answer"),
    State.ANSWERED: _("answered; waits for its retest by somebody else"),
    State.CLOSED: _("closed"),
}


@router.get("/findings")
def findings(
    request: Request, who: Annotated[Visitor, Depends(opening(Page.FINDINGS))]
) -> Response:
    """Show open findings of the workflows that the visitor may read, the one due first ahead."""
    here = services()
    owners = dag_of_findings()
    pack, now, dags = here.place.pack, here.now(), who.readable(owners.values())
    with here.reading() as conn:
        listed = register.listed(conn)
    shown = [one for one in listed if owners.get(one.kind) in dags]
    return show(
        request,
        here,
        who,
        Page.FINDINGS,
        "findings.html.j2",
        findings=shown[:MOST],
        total=len(shown),
        overdue=sum(one.overdue(now.date()) for one in shown),
        states=_STATES,
        kind_of=lambda one: title_of(owners[one.kind]),
        owner_of=lambda one: _owner(pack, one.owner),
    )


def _owner(pack: PolicyPack, role: str) -> Message:
    return in_languages(pack.roles[role].title) if role in pack.roles else verbatim(role)
