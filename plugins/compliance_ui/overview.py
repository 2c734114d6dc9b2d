"""The overview page: the outcome of each control and the age of its evidence, grouped by clause."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Request, status
from fastapi.responses import RedirectResponse, Response

from include.evidence.control_evidence import (
    Age,
    ClauseEvidence,
    by_clause,
    read_control_evidence,
)
from include.evidence.model import Outcome
from include.orchestration.access.permissions import Page
from plugins.compliance_ui.access import AnyVisitor
from plugins.compliance_ui.control_texts import age_text, state_text
from plugins.compliance_ui.page_services import LedgerState, page_services
from plugins.compliance_ui.rendering import first_page, render_navigation_page
from plugins.compliance_ui.required_actions import open_actions
from plugins.compliance_ui.work_list import readable_findings
from plugins.compliance_ui.workflow_names import title_of

router = APIRouter()


@router.get("/")
def overview(request: Request, session: SessionDep, visitor: AnyVisitor) -> Response:
    """Show the outcome of each control whose workflow the visitor may read.

    Airflow's navigation links to this page. A visitor who may not open this page is redirected to
    the first page that the visitor may open.

    Raises:
        HTTPException: 403 if the visitor may open no page.
    """
    if Page.OVERVIEW not in visitor.pages:
        return RedirectResponse(first_page(request, visitor), status.HTTP_303_SEE_OTHER)
    services = page_services()
    pack, now = services.pack, services.now()
    dags = visitor.readable(control.workflow for control in pack.controls)
    controls = [control for control in pack.controls if control.workflow in dags]
    with services.read_connection() as conn:
        pruned = services.bundle_reader.pruned_up_to(conn)
        evidence = read_control_evidence(
            conn, services.bundle_reader, controls, now, pack.calendar.zone, pruned
        )
        ledger = services.ledger(conn, pruned)
        open_findings = readable_findings(conn, visitor)
    clauses = by_clause(evidence)
    actions = open_actions(session, visitor) if Page.WAITING in visitor.pages else []
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.OVERVIEW,
        "overview.html.j2",
        pack=pack,
        clauses=clauses,
        clause_name=pack.clause_message,
        ledger=ledger,
        counts=Counter(control.outcome for control in evidence),
        outcome=_overall_outcome(clauses, ledger),
        never=sum(control.age is Age.NEVER for control in evidence),
        yours=sum(action.is_for_visitor for action in actions),
        title_of=title_of,
        hidden=len(pack.controls) - len(controls),
        open_findings=len(open_findings),
        overdue=sum(finding.overdue(now.date()) for finding in open_findings),
        may_export_history=Page.EVIDENCE in visitor.pages,
        state=state_text,
        age=age_text,
        sparkline=sparkline,
    )


def _overall_outcome(clauses: Sequence[ClauseEvidence], ledger: LedgerState) -> Outcome | None:
    """Return the worst outcome of the clauses, or None if the visitor sees no clause.

    If rows of the evidence ledger are missing or changed, or registers lost entries, the result is
    "failed".
    """
    if not clauses:
        return None
    return Outcome.FAIL if ledger.broken else Outcome.worst([clause.outcome for clause in clauses])


_BARS = {Outcome.PASS: (8, 4), Outcome.ATTENTION: (5, 7), Outcome.FAIL: (1, 11)}
"""Top and height of a bar by outcome. Worse outcomes have higher bars, also without colours."""


def sparkline(trend: Sequence[Outcome]) -> dict[Outcome, str]:
    """Return a bar chart of a control's recent outcomes, as one SVG path for each outcome.

    Each bar is 4 units wide, with a gap of 1 unit to the next bar. The chart is 12 units high.

    Args:
        trend: outcomes of the newest bundles that are evidence for the control, the oldest first.
    """
    paths: dict[Outcome, str] = {}
    for position, outcome in enumerate(trend):
        top, height = _BARS[outcome]
        paths[outcome] = paths.get(outcome, "") + f"M{position * 5} {top}h4v{height}h-4z"
    return paths
