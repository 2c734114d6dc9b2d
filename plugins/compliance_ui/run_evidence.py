"""The evidence of a run of Airflow: redirect to its bundle, or show its bundles before the seal.

Airflow's pages of runs and task instances link here.
"""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request, status
from fastapi.responses import RedirectResponse, Response

from include.evidence import ledger
from include.messages import _
from include.orchestration.access.permissions import Page
from include.registry import WORKFLOWS, workflow
from plugins.compliance_ui.files import Reader
from plugins.compliance_ui.page_services import page_services
from plugins.compliance_ui.rendering import TemplateHelpers, render_navigation_page
from plugins.compliance_ui.workflow_names import title_of

router = APIRouter()


@router.get("/runs/{dag_id}/{run_id:path}")
def show_evidence_of_run(request: Request, visitor: Reader, dag_id: str, run_id: str) -> Response:
    """Redirect to the evidence bundle of a run.

    If the run has not sealed its bundle yet, the page lists the interim bundles of the run, such as
    the documents of an incident.

    Args:
        request: request of the visitor.
        visitor: the visitor.
        dag_id: DAG id of the workflow.
        run_id: Airflow's id of the run.

    Raises:
        HTTPException: 404 if there is no such workflow, or if the visitor may not read it.
    """
    if dag_id not in WORKFLOWS or not visitor.reads(dag_id):
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    services = page_services()
    with services.read_connection() as conn:
        row = ledger.find(conn, dag_id, run_id)
        interim = ledger.interim_rows(conn, f"{dag_id}.", run_id)
        for name in workflow(dag_id).interim_bundles:
            other = ledger.find(conn, name, run_id)
            interim += [] if other is None else [other]
    if row is not None:
        helpers = TemplateHelpers(request, services.timezone)
        address = helpers.link(f"/evidence/{row.seq}", **request.query_params)
        return RedirectResponse(address, status.HTTP_303_SEE_OTHER)
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.EVIDENCE,
        "run_evidence.html.j2",
        title=_("Evidence of a run"),
        workflow_title=title_of(dag_id),
        dag=dag_id,
        run_id=run_id,
        rows=interim,
        title_of=title_of,
    )
