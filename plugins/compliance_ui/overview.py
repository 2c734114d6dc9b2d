"""The overview page: the outcome of each control, why it did not pass, and how it was before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from airflow.api_fastapi.common.db.common import SessionDep
from fastapi import APIRouter, Query, Request, status
from fastapi.responses import RedirectResponse, Response
from markupsafe import Markup
from sqlalchemy import Connection

from include.evidence import control_index, index
from include.evidence.control_evidence import (
    ClauseEvidence,
    ControlEvidence,
    by_clause,
    worst,
)
from include.evidence.control_reasons import reason_of
from include.evidence.ledger import LedgerRow
from include.evidence.model import ControlState, Outcome
from include.incident.incident_ids import WORKFLOW as INCIDENT_DAG
from include.incident.time_limits import time_limit_texts
from include.messages import Message, _
from include.orchestration.access.permissions import Page
from include.reports.i18n import CONTROL_STATES, Translator
from plugins.compliance_ui import calendar
from plugins.compliance_ui.access import AnyVisitor, Visitor
from plugins.compliance_ui.control_texts import age_text, state_text
from plugins.compliance_ui.language import locale_of
from plugins.compliance_ui.page_services import LedgerState, PageServices, page_services
from plugins.compliance_ui.pictures import AGE_TITLES, draw_pictures
from plugins.compliance_ui.rendering import first_page, render_fragment, render_navigation_page
from plugins.compliance_ui.required_actions import open_actions
from plugins.compliance_ui.shown_controls import shown_controls
from plugins.compliance_ui.shown_day import ShownDay, last_quarter, shown_day
from plugins.compliance_ui.time_limits import open_incidents
from plugins.compliance_ui.work_list import readable_findings
from plugins.compliance_ui.workflow_names import dag_of, title_of

router = APIRouter()

_SEVERITIES = (Outcome.FAIL, Outcome.ATTENTION)


@dataclass(frozen=True)
class Shortfall:
    """A control or clause that did not pass, with the reason.

    Attributes:
        outcome: ``fail`` or ``attention``.
        title: title of the control, or the number and title of the clause.
        reason: why it did not pass.
        path: path of the page that shows more; empty if the visitor may open none.
        control_path: path of the control's page; empty for a clause.
    """

    outcome: Outcome
    title: Message
    reason: Message
    path: str
    control_path: str = ""


@dataclass(frozen=True)
class RemovedControl:
    """A control that was in force on a past day, and that the policy pack no longer has.

    Attributes:
        id: id of the control.
        clause: number of its policy clause, as sealed.
        state: its state in the newest bundle of that day, according to the history index.
        row: ledger row of this bundle.
    """

    id: str
    clause: str
    state: Message
    row: LedgerRow


@router.get("/")
def overview(
    request: Request,
    session: SessionDep,
    visitor: AnyVisitor,
    asof: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """Show the outcome of each control whose workflow the visitor may read.

    Airflow's navigation links to this page. A visitor who may not open this page is redirected to
    the first page that the visitor may open.

    Args:
        request: request of the visitor.
        session: session of Airflow's metadata database.
        visitor: the visitor.
        asof: a past day, such as ``2026-09-30``. The page then shows what it would have shown at
            the end of that day. Empty for the present.

    Raises:
        HTTPException: 403 if the visitor may open no page.
        InvalidAddress: `asof` is not a date, or is in the future.
    """
    if Page.OVERVIEW not in visitor.pages:
        return RedirectResponse(first_page(request, visitor), status.HTTP_303_SEE_OTHER)
    services = page_services()
    shown = shown_day(services, asof)
    pack = services.pack
    translator = Translator(locale_of(request), services.timezone)
    with services.read_connection() as conn:
        controls = shown_controls(services, conn, visitor, shown)
        evidence, ledger = controls.evidence, controls.ledger
        findings = readable_findings(services.findings(conn, ledger, shown.as_of), visitor)
        history = services.history(conn)
        pictures = draw_pictures(
            services, history, evidence, shown, controls.known_since, findings, translator
        )
        incidents, entries, removed, first_sealed_on = [], [], [], None
        if shown.is_past:
            removed = _removed_controls(services, conn, visitor, shown)
            first = index.first_sealed(conn)
            if first is not None and first > shown.moment:
                first_sealed_on = first.astimezone(shown.moment.tzinfo).date()
        else:
            if visitor.reads(INCIDENT_DAG):
                incidents = open_incidents(services, conn)
            entries = calendar.upcoming(services, conn, visitor, evidence, findings, incidents)
    clauses = by_clause(evidence)
    actions = []
    if Page.WAITING in visitor.pages and not shown.is_past:
        actions = open_actions(session, visitor)
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.OVERVIEW,
        "overview.html.j2",
        pack=pack,
        shown=shown,
        last_quarter=last_quarter(services.now().date()),
        clauses=clauses,
        clause_name=pack.clause_message,
        ledger=ledger,
        counts=Counter(control.outcome for control in evidence),
        outcome=_overall_outcome(clauses, ledger),
        shortfalls=list(_shortfalls(services, clauses, Page.EVIDENCE in visitor.pages)),
        pictures=pictures,
        age_titles=AGE_TITLES,
        entries=entries,
        entry_kinds=calendar.KINDS,
        incidents=incidents,
        due=time_limit_texts.due_text,
        due_state=time_limit_texts.state_text,
        opens_time_limits=Page.CLOCKS in visitor.pages,
        opens_evidence=Page.EVIDENCE in visitor.pages,
        removed=removed,
        first_sealed_on=first_sealed_on,
        yours=sum(action.is_for_visitor for action in actions),
        open_actions=len(actions),
        overdue_actions=sum(action.is_overdue(shown.moment) for action in actions),
        title_of=title_of,
        hidden=controls.hidden,
        open_findings=len(findings),
        overdue=sum(finding.overdue(shown.day) for finding in findings),
        may_export_history=Page.EVIDENCE in visitor.pages,
        controls_table=_controls_table(request, services, evidence, clauses, shown),
    )


def _controls_table(
    request: Request,
    services: PageServices,
    evidence: Sequence[ControlEvidence],
    clauses: Sequence[ClauseEvidence],
    shown: ShownDay,
) -> Markup:
    """Return the table of controls, from a cache.

    The table of the present is rendered again after a minute, because it states ages.
    """
    key = (
        "controls",
        locale_of(request),
        request.scope.get("root_path", ""),
        services.pack.sha256,
        shown.moment.replace(second=0, microsecond=0),
        tuple(_identity(item) for item in evidence),
    )

    def render() -> str:
        return render_fragment(
            request,
            services,
            "controls_table.html.j2",
            shown=shown,
            clauses=clauses,
            clause_name=services.pack.clause_message,
            title_of=title_of,
            state=state_text,
            age=age_text,
            sparkline=sparkline,
        )

    return Markup(services.cache.picture(key, render))  # noqa: S704 - escaped by the template


def _identity(evidence: ControlEvidence) -> Hashable:
    """Return everything about a control on which the table of controls depends."""
    return (
        evidence.control.id,
        evidence.row and (evidence.row.seq, evidence.row.sums_sha256),
        evidence.outcome,
        evidence.age,
        evidence.problem and repr(evidence.problem),
        evidence.due_at,
        evidence.is_checked,
        evidence.is_indexed,
        evidence.trend,
        len(evidence.findings),
    )


def _overall_outcome(clauses: Sequence[ClauseEvidence], ledger: LedgerState) -> Outcome | None:
    """Return the worst outcome of the clauses, or None if no clause has an outcome.

    If rows of the evidence ledger are missing or changed, or registers lost entries, the result is
    "failed".
    """
    if not clauses:
        return None
    return Outcome.FAIL if ledger.broken else worst(clause.outcome for clause in clauses)


def _shortfalls(
    services: PageServices, clauses: Sequence[ClauseEvidence], opens_evidence: bool
) -> list[Shortfall]:
    """Return the controls and clauses that did not pass, failures first.

    A clause is listed itself if findings make it worse than its controls.
    """
    shortfalls = []
    zone = services.pack.calendar.zone
    for clause in clauses:
        for item in clause.controls:
            outcome, reason = item.outcome, reason_of(item, zone)
            if outcome is None or reason is None:
                continue
            path = f"/evidence/{item.row.seq}" if item.row and opens_evidence else ""
            control_path = f"/controls/{item.control.id}"
            message = item.control.message
            shortfalls.append(Shortfall(outcome, message, reason, path, control_path))
        outcome = clause.outcome
        if outcome in _SEVERITIES and outcome not in {item.outcome for item in clause.controls}:
            name = services.pack.clause_message(clause.clause)
            shortfalls += _from_findings(clause, name, outcome, opens_evidence)
    return sorted(shortfalls, key=lambda shortfall: _SEVERITIES.index(shortfall.outcome))


def _from_findings(
    clause: ClauseEvidence, name: Message, outcome: Outcome, opens_evidence: bool
) -> Iterable[Shortfall]:
    for bundle in clause.findings_by_bundle:
        findings = [finding for finding in bundle.findings if finding.severity is outcome]
        if findings:
            reason = _(
                "Findings of the newest run of “{workflow}” about this clause: {count}.",
                workflow=title_of(bundle.row.dag_id),
                count=len(findings),
            )
            path = f"/evidence/{bundle.row.seq}#findings" if opens_evidence else ""
            yield Shortfall(outcome, name, reason, path)


def _removed_controls(
    services: PageServices, conn: Connection, visitor: Visitor, shown: ShownDay
) -> list[RemovedControl]:
    """Return the controls that were in force on a past day and are not in the policy pack now.

    A control was in force if the newest bundle of its workflow on that day names it.
    """
    names = index.workflows(conn)
    dags = visitor.readable(map(dag_of, names))
    of = [name for name in names if dag_of(name) in dags]
    newest = index.newest_of(conn, of, 1, sealed_by=shown.moment)
    present = {control.id for control in services.pack.controls}
    removed = []
    for (row,) in newest.values():
        for name in sorted({*row.controls} - present):
            indexed = control_index.find(conn, name, row.seq)
            if indexed is not None:
                state = CONTROL_STATES[ControlState(indexed.state)]
                removed.append(RemovedControl(name, indexed.clause, state, row))
    return removed


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
