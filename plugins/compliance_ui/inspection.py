"""The form and the download of an inspection pack."""

from __future__ import annotations

import threading
from datetime import date
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, status
from fastapi.responses import Response

from include.evidence.control_index import sealed_clauses
from include.inspection.pack import InspectionPack, PackSources
from include.inspection.request import MOST_CLAUSES, request_of
from include.messages import Message, _
from include.orchestration.access.permissions import Page
from plugins.compliance_ui.access import Visitor, visitor_of
from plugins.compliance_ui.page_services import PageServices, page_services
from plugins.compliance_ui.rendering import render_navigation_page
from plugins.compliance_ui.streaming import StreamedDownload
from plugins.compliance_ui.workflow_names import dag_of, title_of

router = APIRouter()

Reader = Annotated[Visitor, Depends(visitor_of(Page.EVIDENCE))]
Clauses = Annotated[list[str], Query(max_length=MOST_CLAUSES)]
Day = Annotated[str, Query(max_length=40)]

CONCURRENT_PACKS = 2  # packs that are downloaded at the same time
_turns = threading.BoundedSemaphore(CONCURRENT_PACKS)
_TITLE = _("Inspection pack")


@router.get("/inspection-pack")
def inspection_form(
    request: Request,
    visitor: Reader,
    clause: Clauses = [],  # noqa: B006 - FastAPI copies it
    first_day: Day = "",
    last_day: Day = "",
) -> Response:
    """Show the form in which the visitor chooses clauses and period of an inspection pack.

    Args:
        request: request of the visitor.
        visitor: the visitor.
        clause: numbers of the clauses that are selected at first.
        first_day: first day of the period that the form shows at first.
        last_day: last day of the period that the form shows at first.
    """
    return _form(request, page_services(), visitor, clause, first_day, last_day, None)


@router.get("/inspection-pack/pack.zip")
def download_pack(
    request: Request,
    visitor: Reader,
    clause: Clauses = [],  # noqa: B006
    first_day: Day = "",
    last_day: Day = "",
) -> Response:
    """Return an inspection pack as a stream. It contains only bundles that the visitor may read.

    If the selection is not valid, the form is shown again with the reason. If the evidence store
    fails during the download, the connection is closed before the ZIP file is complete.

    Args:
        request: request of the visitor.
        visitor: the visitor.
        clause: numbers of the clauses.
        first_day: first day of the period, in the timezone of the policy pack.
        last_day: last day of the period.
    """
    services = page_services()
    problem, chosen = _selection(services, clause, first_day, last_day)
    if problem is not None:
        return _form(request, services, visitor, clause, first_day, last_day, problem)
    first, last = chosen
    readable: dict[str, bool] = {}

    def may_read(name: str) -> bool:
        dag = dag_of(name)
        if dag not in readable:
            readable[dag] = visitor.reads(dag)
        return readable[dag]

    sources = PackSources(
        store=services.bundle_reader.store,
        connect=services.read_connection,
        trusted=services.core.trusted,
        policy=services.pack,
        title_of=title_of,
        may_read=may_read,
        pending=services.pending_signature,
        created_at=services.core.clock.now(),
        code_version=services.core.code_version,
    )
    # `_selection` has checked that the clauses exist in the policy pack or in sealed bundles.
    pack = InspectionPack(request_of(services.pack, clause, first, last, clause), sources)
    name = f"inspection-pack-{'-'.join(pack.request.clauses)}-{first}-{last}.zip"
    return StreamedDownload(pack.chunks, _turns, name, "application/zip")


def _selection(
    services: PageServices, clauses: list[str], first_day: str, last_day: str
) -> tuple[Message | None, tuple[date, date]]:
    """Return the reason why a selection is not valid, or None and the days of the period."""
    days = []
    for words in (first_day, last_day):
        try:
            days.append(date.fromisoformat(words))
        except ValueError:
            return _("Enter the first and the last day of the period."), (date.min, date.min)
    available = _clauses(services)
    if not clauses:
        return _("Choose at least one clause."), (days[0], days[1])
    if not available.issuperset(clauses):
        return _("The policy pack has no control of this clause."), (days[0], days[1])
    if days[0] > days[1] or days[0].year < 1970 or days[1].year > 9000:
        return _("The first day must not be after the last day."), (days[0], days[1])
    return None, (days[0], days[1])


def _clauses(services: PageServices) -> set[str]:
    """Return the clauses of the policy pack, and those for which bundles were sealed."""
    with services.read_connection() as conn:
        sealed = sealed_clauses(conn).values()
    return {control.clause for control in services.pack.controls}.union(*sealed)


def _form(
    request: Request,
    services: PageServices,
    visitor: Visitor,
    clauses: list[str],
    first_day: str,
    last_day: str,
    problem: Message | None,
) -> Response:
    pack = services.pack
    controls = [control for control in pack.controls if control.clause]
    hidden = sorted(
        {control.workflow for control in controls if not visitor.reads(dag_of(control.workflow))}
    )
    response = render_navigation_page(
        request,
        services,
        visitor,
        Page.EVIDENCE,
        "inspection.html.j2",
        title=_TITLE,
        clauses=sorted(filter(None, _clauses(services))),
        clause_name=pack.clause_message,
        chosen=clauses,
        first_day=first_day,
        last_day=last_day,
        problem=problem,
        hidden=[title_of(name) for name in hidden],
        fingerprints=services.bundle_reader.keys.fingerprints,
    )
    if problem is not None:
        response.status_code = status.HTTP_400_BAD_REQUEST
    return response
