"""Evidence: every sealed bundle, filtered and sorted, page by page."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from sqlalchemy import Connection

from include.evidence import index
from include.evidence.index import BundleFilter, Order, Way
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome
from include.messages import _
from include.orchestration.access.permissions import Page
from include.policy import PolicyPack
from plugins.compliance_ui.access import Visitor, opening
from plugins.compliance_ui.names import dag_of, title_of
from plugins.compliance_ui.rendering import show
from plugins.compliance_ui.services import Services, services

router = APIRouter()

_ORDERS = {
    Order.NEWEST: _("newest first"),
    Order.OLDEST: _("oldest first"),
    Order.WORKFLOW: _("by workflow"),
}
_NAMES_FOR = 10.0  # seconds for which new names of workflows may be missing from the choice
_EVER_FOR = 600.0  # seconds; new evidence is by the pack, which is asked each time
_FIRST, _LAST = date(1970, 1, 1), date(9000, 1, 1)


@router.get("/evidence")
def evidence(
    request: Request,
    who: Annotated[Visitor, Depends(opening(Page.EVIDENCE))],
    workflow: Annotated[str, Query(max_length=250)] = "",
    clause: Annotated[str, Query(max_length=20)] = "",
    outcome: Outcome | Literal[""] = "",
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
    order: Order = Order.NEWEST,
    after: int | None = None,
    before: int | None = None,
    last: bool = False,
) -> Response:
    """Show the bundles that the visitor may read.

    Args:
        request: the visitor's.
        who: the visitor.
        workflow: only of this one, by its name in the ledger.
        clause: only evidence for controls of this clause of the policy.
        outcome: only of this one.
        since: first day, in the pack's timezone: ``2026-11-24``; empty for the beginning.
        until: last day, itself included; empty for the end.
        order: how they are sorted.
        after: number of the bundle after which the page begins.
        before: number of the bundle before which it ends.
        last: whether the last page is wanted.
    """
    here = services()
    pack = here.place.pack
    days = (_day(since), _day(until))
    mistaken = [text for text, day in zip((since, until), days, strict=True) if text and not day]
    with here.reading() as conn:
        known = here.memory.keep(
            "workflows", lambda: tuple(index.workflows(conn)), seconds=_NAMES_FOR
        )
        dags = who.readable(map(dag_of, known))
        readable = [one for one in known if dag_of(one) in dags]
        controls = _controls(pack, clause)
        wanted = BundleFilter(
            frozenset(
                one
                for one in readable
                if workflow in ("", one)
                and (controls is None or _is_evidence(here, conn, one, controls))
            ),
            controls,
            outcome or None,
            _moment(days[0], pack.calendar.zone),
            _moment(days[1] + timedelta(days=1) if days[1] else None, pack.calendar.zone),
        )
        way = Way.BEFORE if last or before is not None else Way.AFTER
        begin = None if last else before if before is not None else after
        found = index.page(conn, wanted, order, way, begin)
        total = _count(here, conn, wanted)
        pruned = here.shelf.pruned_up_to(conn)
        ledger = here.ledger(conn, pruned)
    chosen = {
        "workflow": workflow, "clause": clause, "outcome": str(outcome), "since": since,
        "until": until, "order": order.value,
    }  # fmt: skip
    return show(
        request,
        here,
        who,
        Page.EVIDENCE,
        "evidence.html.j2",
        rows=[(row, here.shelf.is_authentic(row)) for row in found.rows],
        found=found,
        ledger=ledger,
        total=total,
        pruned=pruned,
        chosen=chosen,
        mistaken=mistaken,
        workflows=sorted(readable),
        clauses=sorted({one.clause for one in pack.controls}),
        clauses_in=_clauses_in(pack),
        orders=_ORDERS,
        title_of=title_of,
    )


def _count(here: Services, conn: Connection, wanted: BundleFilter) -> int:
    """How many there are: counted anew whenever the ledger has grown."""
    return here.memory.count((wanted, index.end(conn)), lambda: index.count(conn, wanted))


def _is_evidence(here: Services, conn: Connection, workflow: str, wanted: frozenset[str]) -> bool:
    """Whether a workflow's bundles are evidence for a control: by the pack, or ever before.

    Others need not be walked from end to end to find that they are not.
    """
    ever = here.memory.keep("controls", lambda: index.controls_of(conn), seconds=_EVER_FOR)
    today = {one.id for one in here.place.pack.controls_of(workflow)}
    return bool(wanted & (today | ever.get(workflow, frozenset())))


def _controls(pack: PolicyPack, clause: str) -> frozenset[str] | None:
    if not clause:
        return None
    return frozenset(one.id for one in pack.controls if one.clause == clause)


def _clauses_in(pack: PolicyPack) -> Callable[[LedgerRow], list[str]]:
    """What says of which clauses a bundle is evidence; controls that left the pack have none."""
    clauses = {one.id: one.clause for one in pack.controls}
    return lambda row: sorted({clauses[one] for one in row.controls if one in clauses})


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if _FIRST <= day <= _LAST else None


def _moment(day: date | None, zone: ZoneInfo) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), zone)
