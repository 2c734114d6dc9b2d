"""Export the lists of the pages as Excel and PDF files, with the permissions of their pages."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Annotated, Literal, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query, Request, status
from fastapi.responses import Response
from sqlalchemy import Connection

from include.evidence import index
from include.evidence.bundle_reader import IN_MEMORY, BundleReader
from include.evidence.control_evidence import (
    ClauseEvidence,
    ControlEvidence,
    by_clause,
)
from include.evidence.index import BundleFilter, Direction, Order
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome
from include.exports import excel, pdf
from include.exports.model import EXCEL_ROWS, ExportColumn, ExportTable, rows_of
from include.findings import register
from include.messages import Message, _, listed
from include.orchestration.access.permissions import Page
from include.policy import PolicyPack
from include.policy.rules import Control
from include.reports.i18n import CONTROL_STATES
from include.reports.letterhead import letterhead_of
from include.reports.model import Cell
from plugins.compliance_ui.access import Visitor, visitor_of
from plugins.compliance_ui.control_texts import age_text, state_text
from plugins.compliance_ui.evidence import (
    Days,
    bundle_count,
    clauses_in,
    controls_of_clause,
    filter_of,
    readable_names,
)
from plugins.compliance_ui.files import file_response, limited_turn
from plugins.compliance_ui.finding_lists import finding_columns
from plugins.compliance_ui.language import locale_of
from plugins.compliance_ui.page_services import LedgerState, PageServices, page_services
from plugins.compliance_ui.shown_controls import shown_controls
from plugins.compliance_ui.shown_day import shown_day
from plugins.compliance_ui.work_list import readable_findings
from plugins.compliance_ui.workflow_names import title_of

router = APIRouter()

Suffix = Literal["xlsx", "pdf"]
RowT = TypeVar("RowT")
CONCURRENT_EXPORTS = 2  # a PDF file may take half a minute; bundle pages do not wait for it
_turns = threading.BoundedSemaphore(CONCURRENT_EXPORTS)
_BATCH = 1_000  # bundles that are read from the ledger at a time


@router.get("/exports/overview.{suffix}")
def export_overview(
    request: Request,
    visitor: Annotated[Visitor, Depends(visitor_of(Page.OVERVIEW))],
    suffix: Suffix,
    asof: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """Export the outcome of each control whose workflow the visitor may read.

    Args:
        request: request of the visitor, which states the language.
        visitor: the visitor.
        suffix: format of the file.
        asof: a past day, such as ``2026-09-30``; empty for the present.

    Raises:
        InvalidAddress: `asof` is not a date, or is in the future.
    """
    services = page_services()
    pack, shown = services.pack, shown_day(services, asof)
    with services.read_connection() as conn:
        controls = shown_controls(services, conn, visitor, shown)
    rows = _overview_rows(by_clause(controls.evidence))
    counts = Counter(control.outcome for control in controls.evidence)
    facts: list[tuple[Message, Cell]] = [
        (_("Controls passed"), counts[Outcome.PASS]),
        (_("Controls that need attention"), counts[Outcome.ATTENTION]),
        (_("Controls failed or without valid evidence"), counts[Outcome.FAIL]),
        (_("Controls without evidence yet"), counts[None]),
        (
            _("Controls not in this list, because the exporter may not read their workflows"),
            controls.hidden,
        ),
    ]
    columns, period = _overview_columns(pack), _("as of {moment}", moment=shown.moment)
    table = _table(
        services, visitor, _("Controls by clause"), period, columns, rows,
        len(rows), facts, ledger_warnings(controls.ledger),
    )  # fmt: skip
    return _download(request, services, table, "overview", suffix)


@router.get("/exports/findings.{suffix}")
def export_findings(
    request: Request,
    visitor: Annotated[Visitor, Depends(visitor_of(Page.FINDINGS))],
    suffix: Suffix,
) -> Response:
    """Export the open findings of the workflows that the visitor may read.

    Args:
        request: request of the visitor, which states the language.
        visitor: the visitor.
        suffix: format of the file.
    """
    services = page_services()
    now = services.now()
    with services.read_connection() as conn:
        findings = readable_findings(register.list_findings(conn), visitor)
    overdue = sum(finding.overdue(now.date()) for finding in findings)
    facts: list[tuple[Message, Cell]] = [(_("Overdue findings"), overdue)]
    columns = finding_columns(services.pack, now.date())
    table = _table(
        services, visitor, _("List of open findings"), _("as of {moment}", moment=now), columns,
        findings, len(findings), facts,
    )  # fmt: skip
    return _download(request, services, table, "findings", suffix)


@router.get("/exports/evidence.{suffix}")
def export_evidence(
    request: Request,
    visitor: Annotated[Visitor, Depends(visitor_of(Page.EVIDENCE))],
    suffix: Suffix,
    workflow: Annotated[str, Query(max_length=250)] = "",
    clause: Annotated[str, Query(max_length=20)] = "",
    outcome: Outcome | Literal[""] = "",
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
    order: Order = Order.NEWEST,
) -> Response:
    """Export the evidence bundles that the visitor may read, with the filter of the page.

    Args:
        request: request of the visitor, which states the language.
        visitor: the visitor.
        suffix: format of the file.
        workflow: name of a workflow in the evidence ledger; empty for all workflows.
        clause: number of a policy clause; empty for all bundles.
        outcome: outcome of the bundles; empty for all outcomes.
        since: earliest day of the bundles, such as ``2026-11-24``; empty for no limit.
        until: latest day of the bundles; empty for no limit.
        order: sort order of the bundles.
    """
    services = page_services()
    pack, days = services.pack, _valid_days(since, until)
    facts: list[tuple[Message, Cell]] = [
        (_("Workflow"), title_of(workflow) if workflow else _("all")),
        (_("Clause"), pack.clause_message(clause) if clause else _("all")),
        (_("Outcome"), outcome or _("all")),
    ]
    with services.read_connection() as conn:
        readable = readable_names(services, conn, visitor)
        bundle_filter = filter_of(
            services, conn, readable, workflow, controls_of_clause(pack, clause), outcome, days
        )
        return _download_bundles(
            request, services, conn, visitor, bundle_filter, order, days, _("Evidence bundles"),
            facts, "evidence", suffix,
        )  # fmt: skip


@router.get("/exports/control.{suffix}")
def export_control(
    request: Request,
    visitor: Annotated[Visitor, Depends(visitor_of(Page.EVIDENCE))],
    suffix: Suffix,
    control: Annotated[str, Query(max_length=100)],
    since: Annotated[str, Query(max_length=40)] = "",
    until: Annotated[str, Query(max_length=40)] = "",
) -> Response:
    """Export the history of a control: the bundles that are its evidence, newest first.

    A control that was removed from the policy pack is exported as long as the evidence ledger has
    bundles of it.

    Args:
        request: request of the visitor, which states the language.
        visitor: the visitor.
        suffix: format of the file.
        control: id of the control.
        since: earliest day of the bundles, such as ``2026-11-24``; empty for no limit.
        until: latest day of the bundles; empty for no limit.

    Raises:
        HTTPException: 404 if the control does not exist. The response is the same if the visitor
            may read none of its workflows.
    """
    services = page_services()
    pack, days = services.pack, _valid_days(since, until)
    definition = next((each for each in pack.controls if each.id == control), None)
    with services.read_connection() as conn:
        readable = readable_names(services, conn, visitor)
        bundle_filter = filter_of(services, conn, readable, "", frozenset({control}), "", days)
        may_read = definition is not None and visitor.reads(definition.workflow)
        if not bundle_filter.workflows and not may_read:
            raise HTTPException(status.HTTP_404_NOT_FOUND)
        facts = _control_facts(pack, definition, control)
        history = services.history(conn)
        states = {
            result.seq: CONTROL_STATES[result.state]
            for result in history.results(control, services.now(), EXCEL_ROWS)
        }
        result_column = ExportColumn[LedgerRow](
            _("Result of the control"), 16, lambda row: states.get(row.seq)
        )
        return _download_bundles(
            request, services, conn, visitor, bundle_filter, Order.NEWEST, days,
            _("History of a control"), facts, f"control-{control}", suffix, result_column,
        )  # fmt: skip


def _control_facts(
    pack: PolicyPack, control: Control | None, control_id: str
) -> list[tuple[Message, Cell]]:
    """Return the statements about a control above its history."""
    if control is None:
        removed = _("{control} (no longer in the policy pack)", control=control_id)
        return [(_("Control"), removed)]
    return [
        (_("Control"), control.message),
        (_("Clause"), pack.clause_message(control.clause)),
        (_("Owner"), pack.role_message(control.owner) if control.owner else _("not stated")),
        (_("Legal sources"), listed([source.message for source in control.sources])),
        (
            _("Outcome of the run"),
            _("The outcome of the whole run, which may be evidence for several controls."),
        ),
    ]


def ledger_warnings(ledger: LedgerState) -> list[Message]:
    """Return the reasons not to rely on lists of bundles, such as missing ledger rows."""
    warnings = []
    if ledger.missing:
        warnings.append(
            _("{count} bundles are missing from the evidence ledger.", count=ledger.missing)
        )
    if ledger.row_check.changed:
        warnings.append(
            _(
                "{count} rows of the evidence ledger were changed after they were signed; the "
                "first is number {first}.",
                count=ledger.row_check.changed,
                first=ledger.row_check.first_changed[0],
            )
        )
    if ledger.registers_lost:
        warnings.append(
            _(
                "Sealed erasures, legal holds, erasure requests or findings are missing from the "
                "state database."
            )
        )
    return warnings


@dataclass(frozen=True)
class _OverviewRow:
    """A row of the exported overview.

    Attributes:
        clause: clause with its findings.
        evidence: a control of the clause; None if the clause has findings but no control.
    """

    clause: ClauseEvidence
    evidence: ControlEvidence | None


def _overview_rows(clauses: Sequence[ClauseEvidence]) -> list[_OverviewRow]:
    return [
        _OverviewRow(clause, evidence)
        for clause in clauses
        for evidence in (clause.controls or (None,))
    ]


def _overview_columns(pack: PolicyPack) -> Sequence[ExportColumn[_OverviewRow]]:
    def of_control(cell: Callable[[ControlEvidence], Cell]) -> Callable[[_OverviewRow], Cell]:
        return lambda row: None if row.evidence is None else cell(row.evidence)

    def owner(evidence: ControlEvidence) -> Cell:
        role = evidence.control.owner
        return pack.role_message(role) if role else None

    def measured(evidence: ControlEvidence) -> Cell:
        return evidence.status.figure if evidence.status else None

    def required(evidence: ControlEvidence) -> Cell:
        return evidence.status.requirement if evidence.status else None

    def newest(evidence: ControlEvidence) -> Cell:
        sealed_at = evidence.row.sealed_at if evidence.row else _("none")
        return evidence.finished_at or sealed_at

    def bundle(evidence: ControlEvidence) -> Cell:
        return evidence.row.seq if evidence.row else None

    return (
        ExportColumn(_("Clause"), 22, lambda row: pack.clause_message(row.clause.clause)),
        ExportColumn(_("Outcome of the clause"), 16, lambda row: row.clause.outcome),
        ExportColumn(_("Control"), 36, of_control(lambda evidence: evidence.control.message)),
        ExportColumn(_("Owner"), 18, of_control(owner)),
        ExportColumn(_("Current outcome"), 16, of_control(lambda evidence: evidence.outcome)),
        ExportColumn(_("Outcome of the newest run"), 20, of_control(state_text)),
        ExportColumn(_("Measured"), 24, of_control(measured)),
        ExportColumn(_("Required"), 15, of_control(required)),
        ExportColumn(_("Newest evidence"), 17, of_control(newest)),
        ExportColumn(_("Next due"), 17, of_control(lambda evidence: evidence.due_at)),
        ExportColumn(_("In time"), 16, of_control(age_text)),
        ExportColumn(
            _("Findings"),
            14,
            lambda row: sum(len(bundle.findings) for bundle in row.clause.findings_by_bundle),
        ),
        ExportColumn(_("Bundle"), 12, of_control(bundle)),
    )


def _bundle_columns(
    pack: PolicyPack, reader: BundleReader, pruned: int
) -> Sequence[ExportColumn[LedgerRow]]:
    clauses_of = clauses_in(pack)

    def clause_texts(row: LedgerRow) -> Cell:
        return listed([pack.clause_message(clause) for clause in clauses_of(row)])

    def remark(row: LedgerRow) -> Cell:
        if not reader.is_authentic(row):
            return _("This row of the evidence ledger was changed after it was signed.")
        return _("files removed") if row.seq <= pruned else None

    return (
        ExportColumn(_("Number"), 13, lambda row: row.seq),
        ExportColumn(_("Sealed"), 17, lambda row: row.sealed_at),
        ExportColumn(_("Workflow"), 20, lambda row: title_of(row.dag_id)),
        ExportColumn(_("Outcome of the run"), 16, lambda row: Outcome(row.outcome)),
        ExportColumn(_("Clauses"), 30, clause_texts),
        ExportColumn(_("Run"), 34, lambda row: row.run_id),
        ExportColumn(_("Folder of the bundle"), 50, lambda row: row.bundle),
        ExportColumn(_("Remark"), 24, remark),
    )


def _download_bundles(
    request: Request,
    services: PageServices,
    conn: Connection,
    visitor: Visitor,
    bundle_filter: BundleFilter,
    order: Order,
    days: Days,
    title: Message,
    facts: Sequence[tuple[Message, Cell]],
    name: str,
    suffix: Suffix,
    *further_columns: ExportColumn[LedgerRow],
) -> Response:
    """Return a file with the evidence bundles that match a filter.

    The further columns come after the time of the seal.
    """
    pruned = services.bundle_reader.pruned_up_to(conn)
    number, sealed, *others = _bundle_columns(services.pack, services.bundle_reader, pruned)
    columns = [number, sealed, *further_columns, *others]
    ledger = services.ledger(conn, pruned)
    total = bundle_count(services, conn, bundle_filter, ledger)
    rows = _bundles(conn, bundle_filter, order)
    table = _table(
        services, visitor, title, _period(days), columns, rows, total, facts,
        ledger_warnings(ledger),
    )  # fmt: skip
    return _download(request, services, table, name, suffix)


def _bundles(conn: Connection, bundle_filter: BundleFilter, order: Order) -> Iterator[LedgerRow]:
    """Yield the bundles that match a filter. A batch of rows is in memory at a time."""
    last: int | None = None
    while True:
        page = index.page(conn, bundle_filter, order, Direction.AFTER, last, _BATCH)
        yield from page.rows
        if not page.after:
            return
        last = page.rows[-1].seq


def _valid_days(since: str, until: str) -> Days:
    """Return the days of a period.

    Raises:
        HTTPException: 400 if a text is not a day. A file with the wrong period could be taken for
            the right one.
    """
    days = Days.parse(since, until)
    if days.invalid:
        raise HTTPException(status.HTTP_400_BAD_REQUEST)
    return days


def _period(days: Days) -> Message:
    if days.since and days.until:
        return _("{start} to {end}", start=days.since, end=days.until)
    if days.since:
        return _("from {start}", start=days.since)
    if days.until:
        return _("until {end}", end=days.until)
    return _("all evidence")


def _table(
    services: PageServices,
    visitor: Visitor,
    title: Message,
    period: Message,
    columns: Sequence[ExportColumn[RowT]],
    objects: Sequence[RowT] | Iterator[RowT],
    total: int,
    facts: Sequence[tuple[Message, Cell]],
    warnings: Sequence[Message] = (),
) -> ExportTable:
    return ExportTable(
        title=title,
        period=period,
        letterhead=letterhead_of(services.pack.company),
        created_at=services.now(),
        created_by=visitor.name,
        labels=[column.label for column in columns],
        widths=[column.width for column in columns],
        rows=rows_of(columns, objects),
        total=total,
        facts=facts,
        warnings=warnings,
    )


def _download(
    request: Request, services: PageServices, table: ExportTable, name: str, suffix: Suffix
) -> Response:
    """Return the file of a list. The file has no name on the disk of the server.

    Args:
        request: request of the visitor, which states the language.
        services: services for the request.
        table: the list.
        name: start of the file name that the browser suggests.
        suffix: format of the file.
    """
    locale, timezone = locale_of(request), services.timezone
    content: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - the response closes it
    try:
        with limited_turn(_turns):
            if suffix == "xlsx":
                excel.write_excel(table, locale, timezone, content, EXCEL_ROWS)
            else:
                content.write(pdf.render_list_pdf(table, locale, timezone))
    except BaseException:
        content.close()
        raise
    media_type = excel.MEDIA_TYPE if suffix == "xlsx" else pdf.MEDIA_TYPE
    file_name = f"{name}-{_day_of(table.created_at)}.{suffix}"
    return file_response(content, media_type, file_name, download=True)


def _day_of(moment: datetime) -> str:
    return moment.date().isoformat()
