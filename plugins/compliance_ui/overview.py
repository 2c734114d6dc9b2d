"""Overview: clause by clause, what held, what did not, and how old the proof is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Request, status
from fastapi.responses import RedirectResponse, Response

from include.evidence.model import Outcome
from include.evidence.standing import Age, ClauseStanding, Standing, by_clause, standings
from include.findings import register
from include.messages import Message, _
from include.orchestration.access.permissions import Page
from include.reports.i18n import CONTROL_STATES
from plugins.compliance_ui.access import Anybody
from plugins.compliance_ui.names import dag_of_findings, title_of
from plugins.compliance_ui.rendering import first_page, show
from plugins.compliance_ui.services import LedgerState, services
from plugins.compliance_ui.waiting import open_questions

router = APIRouter()

_AGES = {
    Age.IN_TIME: _("in time"),
    Age.LATE: _("late"),
    Age.STALE: _("too old to count"),
    Age.NEVER: _("no evidence yet"),
}


@router.get("/")
def overview(request: Request, session: SessionDep, who: Anybody) -> Response:
    """Show how every control stands whose workflow the visitor may read.

    Airflow's navigation leads here: who may open other pages only is sent to their first one.

    Raises:
        HTTPException: 403 for who may open none.
    """
    if Page.OVERVIEW not in who.pages:
        return RedirectResponse(first_page(request, who), status.HTTP_303_SEE_OTHER)
    here = services()
    pack, now = here.place.pack, here.now()
    owners = dag_of_findings()
    dags = who.readable([*(one.workflow for one in pack.controls), *owners.values()])
    shown = [one for one in pack.controls if one.workflow in dags]
    with here.reading() as conn:
        pruned = here.shelf.pruned_up_to(conn)
        found = standings(conn, here.shelf, shown, now, pack.calendar.zone, pruned)
        ledger = here.ledger(conn, pruned)
        open_findings = [one for one in register.listed(conn) if owners.get(one.kind) in dags]
    clauses = by_clause(found)
    waits = open_questions(session, who) if Page.WAITING in who.pages else []
    return show(
        request,
        here,
        who,
        Page.OVERVIEW,
        "overview.html.j2",
        pack=pack,
        clauses=clauses,
        ledger=ledger,
        counts=Counter(one.outcome for one in found),
        outcome=_whole(clauses, ledger),
        never=sum(one.age is Age.NEVER for one in found),
        yours=sum(one.yours for one in waits),
        title_of=title_of,
        hidden=len(pack.controls) - len(shown),
        open_findings=len(open_findings),
        overdue=sum(one.overdue(now.date()) for one in open_findings),
        state=_state,
        age=lambda one: _AGES[one.age],
        sparkline=sparkline,
    )


def _whole(clauses: Sequence[ClauseStanding], ledger: LedgerState) -> Outcome | None:
    """The worst of all; None where there is nothing to show. A changed ledger shows nothing."""
    if not clauses:
        return None
    return Outcome.FAIL if ledger.broken else Outcome.worst([one.outcome for one in clauses])


def _state(one: Standing) -> Message:
    if one.problem is not None:
        return _("cannot be believed: {reason}", reason=one.problem)
    if one.status is None:
        return _AGES[Age.NEVER]
    state = CONTROL_STATES[one.status.state]
    if one.is_checked:
        return state
    return _("{state}; its files are too large to be checked here", state=state)


_BARS = {Outcome.PASS: (8, 4), Outcome.ATTENTION: (5, 7), Outcome.FAIL: (1, 11)}
"""Top and height: the worse the higher, so that the trend can be read without colours."""


def sparkline(trend: Sequence[Outcome]) -> dict[Outcome, str]:
    """Return the bars of a trend as one SVG path per outcome; 5 wide each, 12 high."""
    paths: dict[Outcome, str] = {}
    for place, one in enumerate(trend):
        top, height = _BARS[one]
        paths[one] = paths.get(one, "") + f"M{place * 5} {top}h4v{height}h-4z"
    return paths
