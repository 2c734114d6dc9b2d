"""The page that lists all sealed bundles, with filters, a sort order and several result pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from sqlalchemy import Connection

from include.evidence import index
from include.evidence.check import EvidenceRefused
from include.evidence.index import BundleFilter, Direction, Order
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome
from include.messages import _
from include.orchestration.access.permissions import Page
from include.policy import PolicyPack
from include.registry import WORKFLOWS
from include.reports.i18n import Translator
from include.services.errors import ServiceError
from include.services.objectstore.base import ObjectMissing
from plugins.compliance_ui.access import Visitor, visitor_of
from plugins.compliance_ui.language import locale_of
from plugins.compliance_ui.page_services import LedgerState, PageServices, page_services
from plugins.compliance_ui.rendering import render_navigation_page
from plugins.compliance_ui.workflow_names import dag_of, title_of

router = APIRouter()

_ORDERS = {
    Order.NEWEST: _("newest first"),
    Order.OLDEST: _("oldest first"),
    Order.WORKFLOW: _("by workflow"),
}
_NAMES_CACHED_FOR = 10.0  # seconds for which the filter may lack a new workflow
_CONTROLS_CACHED_FOR = 600.0  # seconds; controls of the current pack are always up to date
_FIRST, _LAST = date(1970, 1, 1), date(9000, 1, 1)


@router.get("/evidence")
def evidence(
    request: Request,
    visitor: Annotated[Visitor, Depends(visitor_of(Page.EVIDENCE))],
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
    """Show the evidence bundles that the visitor may read.

    Args:
        request: request of the visitor.
        visitor: the visitor.
        workflow: name of a workflow in the evidence ledger; empty for the bundles of all workflows.
        clause: number of a policy clause. Only bundles that are evidence for a control of this
            clause are shown; empty for all bundles.
        outcome: outcome of the bundles to show; empty for all outcomes.
        since: earliest day of the bundles to show, in the timezone of the policy pack, such as
            ``2026-11-24``; empty for no limit.
        until: latest day of the bundles to show; empty for no limit.
        order: sort order of the bundles.
        after: sequence number of a bundle. The result page begins with the next bundle in the sort
            order. None for the first result page.
        before: sequence number of a bundle. The result page ends with the previous bundle in the
            sort order. If it is set, ``after`` is ignored.
        last: whether to show the last result page. If it is True, ``after`` and ``before`` are
            ignored.
    """
    services = page_services()
    pack = services.pack
    days = Days.parse(since, until)
    translator = Translator(locale_of(request), services.timezone)
    with services.read_connection() as conn:
        readable = readable_names(services, conn, visitor)
        bundle_filter = filter_of(
            services, conn, readable, workflow, controls_of_clause(pack, clause), outcome, days
        )
        direction = Direction.BEFORE if last or before is not None else Direction.AFTER
        begin = None if last else before if before is not None else after
        page = index.page(conn, bundle_filter, order, direction, begin)
        pruned = services.bundle_reader.pruned_up_to(conn)
        ledger = services.ledger(conn, pruned)
        total = bundle_count(services, conn, bundle_filter, ledger)
    filters = {
        "workflow": workflow, "clause": clause, "outcome": str(outcome), "since": since,
        "until": until, "order": order.value,
    }  # fmt: skip
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.EVIDENCE,
        "evidence.html.j2",
        rows=[(row, services.bundle_reader.is_authentic(row)) for row in page.rows],
        rows_page=page,
        could_not_run=_runs_that_could_not_run(services, page.rows, pruned),
        ledger=ledger,
        total=total,
        pruned=pruned,
        chosen=filters,
        invalid_days=days.invalid,
        workflows=sorted(readable),
        clauses=sorted({control.clause for control in pack.controls}),
        clauses_in=clauses_in(pack),
        orders=_ORDERS,
        clause_text=cache(lambda number: translator.text(pack.clause_message(number))),
        title_text=cache(lambda name: translator.text(title_of(name))),
    )


@dataclass(frozen=True)
class Days:
    """The first and the last day of a filter. A day is None if the filter has no such limit.

    Attributes:
        since: first day, in the timezone of the policy pack.
        until: last day.
        invalid: texts that were entered as days but are not days. The filter ignores them.
    """

    since: date | None
    until: date | None
    invalid: tuple[str, ...] = ()

    @staticmethod
    def parse(since: str, until: str) -> Days:
        """Return the days that a visitor entered, such as ``2026-11-24``; empty for no limit."""
        days = (_day(since), _day(until))
        texts = zip((since, until), days, strict=True)
        return Days(*days, tuple(text for text, day in texts if text and not day))


def readable_names(services: PageServices, conn: Connection, visitor: Visitor) -> list[str]:
    """Return the names in the evidence ledger whose bundles a visitor may read.

    Args:
        services: services for the request.
        conn: connection to the state database.
        visitor: the visitor.
    """
    names = services.cache.get(
        "workflows", lambda: tuple(index.workflows(conn)), seconds=_NAMES_CACHED_FOR
    )
    dags = visitor.readable(map(dag_of, names))
    return [name for name in names if dag_of(name) in dags]


def filter_of(
    services: PageServices,
    conn: Connection,
    readable: Sequence[str],
    workflow: str,
    controls: frozenset[str] | None,
    outcome: Outcome | Literal[""],
    days: Days,
) -> BundleFilter:
    """Return the filter for the bundles that a visitor may read and wants to see.

    Args:
        services: services for the request.
        conn: connection to the state database.
        readable: names in the ledger whose bundles the visitor may read.
        workflow: name in the ledger; empty for the bundles of all workflows.
        controls: ids of controls; the bundles are evidence for one of them. None for all bundles.
        outcome: outcome of the bundles; empty for all outcomes.
        days: first and last day on which the bundles were sealed.
    """
    zone = services.pack.calendar.zone
    return BundleFilter(
        frozenset(
            name
            for name in readable
            if workflow in ("", name)
            and (controls is None or _is_evidence(services, conn, name, controls))
        ),
        controls,
        outcome or None,
        _moment(days.since, zone),
        _moment(days.until + timedelta(days=1) if days.until else None, zone),
    )


def _runs_that_could_not_run(
    services: PageServices, rows: Iterable[LedgerRow], pruned: int
) -> frozenset[int]:
    """Return the sequence numbers of bundles whose run could not run.

    The evidence ledger does not have this fact, so the function reads the result of each bundle
    that is evidence for no control. Few bundles of workflows are. If a result cannot be read, the
    page shows the outcome of the ledger.

    Args:
        services: services for the request.
        rows: ledger rows of the bundles.
        pruned: sequence number up to which the files of bundles were removed.
    """
    numbers = set()
    for row in rows:
        if row.controls or row.seq <= pruned or row.dag_id not in WORKFLOWS:
            continue
        try:
            could_not_run = services.bundle_reader.result(row).could_not_run
        except (EvidenceRefused, ObjectMissing):
            continue
        except ServiceError:  # the next read would wait just as long
            break
        if could_not_run:
            numbers.add(row.seq)
    return frozenset(numbers)


def bundle_count(
    services: PageServices, conn: Connection, bundle_filter: BundleFilter, ledger: LedgerState
) -> int:
    """Return the number of bundles that match a filter.

    The number is cached until a row is added to the evidence ledger.

    Args:
        services: services for the request.
        conn: connection to the state database.
        bundle_filter: the filter.
        ledger: state of the ledger.
    """
    key = (bundle_filter, ledger.newest)
    return services.cache.count(key, lambda: index.count(conn, bundle_filter))


def _is_evidence(
    services: PageServices, conn: Connection, workflow: str, controls: frozenset[str]
) -> bool:
    """Return whether a bundle of a workflow can be evidence for one of some controls.

    It can be evidence if the policy pack assigns one of the controls to the workflow, or if the
    evidence ledger has such a bundle. The query for bundles includes only workflows for which the
    result is True. Otherwise it would read all bundles of the other workflows in vain.

    Args:
        services: services for the request.
        conn: connection to the state database.
        workflow: name of the workflow in the evidence ledger.
        controls: ids of the controls.
    """
    ledger_controls = services.cache.get(
        "controls", lambda: index.controls_of(conn), seconds=_CONTROLS_CACHED_FOR
    )
    pack_controls = {control.id for control in services.pack.controls_of(workflow)}
    return bool(controls & (pack_controls | ledger_controls.get(workflow, frozenset())))


def controls_of_clause(pack: PolicyPack, clause: str) -> frozenset[str] | None:
    """Return the ids of the controls of a clause; None if the number of the clause is empty."""
    if not clause:
        return None
    return frozenset(control.id for control in pack.controls if control.clause == clause)


def clauses_in(pack: PolicyPack) -> Callable[[LedgerRow], list[str]]:
    """Return a function that lists the clauses for which a bundle is evidence.

    A bundle may also be evidence for a control that was removed from the policy pack. Such a
    control has no clause and is ignored.
    """
    clauses = {control.id: control.clause for control in pack.controls}
    return lambda row: sorted({clauses[control] for control in row.controls if control in clauses})


def _day(text: str) -> date | None:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if _FIRST <= day <= _LAST else None


def _moment(day: date | None, zone: ZoneInfo) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), zone)
