"""The findings of the register that concern the clauses and the period of an inspection pack."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Text, literal, select
from sqlalchemy.dialects.postgresql import ARRAY

from include.evidence.model import Outcome
from include.findings.register import Finding, list_findings
from include.inspection.packed_bundle import FOLDER
from include.inspection.request import PackRequest
from include.messages import Message, _
from include.state.tables import evidence_ledger


@dataclass(frozen=True)
class ReportingBundle:
    """A bundle that reported a finding.

    Attributes:
        number: number of the bundle in the evidence ledger; None if the ledger has no row for it.
        bundle: folder of the bundle in the evidence store.
    """

    number: int | None
    bundle: str

    @property
    def folder(self) -> str:
        """The folder that the bundle has in a pack that contains it."""
        return f"{FOLDER}/{self.bundle}"


@dataclass(frozen=True)
class PackFinding:
    """A finding of the register about the clauses of an inspection pack.

    Attributes:
        number: number of the finding in the register.
        clause: number of the clause; empty if the finding is about the clauses of its workflow.
        workflow: DAG id of the workflow; empty for findings that every workflow reports.
        severity: severity in the newest report.
        description: description of the deviation.
        state: state at the time of the pack, with the day on which it was closed or is due.
        is_closed: whether the finding is closed.
        reports: bundles of the first and of the newest report that the recipient may read.
    """

    number: int
    clause: str
    workflow: str
    severity: Outcome
    description: Message
    state: Message
    is_closed: bool
    reports: tuple[ReportingBundle, ...]


def read_findings(
    conn: Connection,
    request: PackRequest,
    workflows: Collection[str],
    may_read: Callable[[str], bool],
) -> list[PackFinding]:
    """Return the findings about the clauses that were open at any time of the period.

    A finding without a clause is about the clauses of its workflow. Findings of workflows that the
    recipient may not read are left out, and so are their bundles.

    Args:
        conn: connection to the state database.
        request: clauses and period.
        workflows: workflows that have controls of the clauses.
        may_read: function that takes a workflow name of the ledger, and returns whether the
            recipient of the pack may read its bundles.
    """

    def belongs(finding: Finding) -> bool:
        origin = finding.origin
        if origin is None or finding.opened_at >= request.until:
            return False
        if finding.closed_at is not None and finding.closed_at < request.since:
            return False
        if origin.workflow and not may_read(origin.workflow):
            return False
        return origin.clause in request.clauses or (
            not origin.clause and origin.workflow in workflows
        )

    findings = [finding for finding in list_findings(conn, closed=True) if belongs(finding)]
    bundles = {bundle for finding in findings for bundle in _bundles_of(finding)}
    rows = _ledger_rows(conn, bundles)
    return [
        _pack_finding(finding, rows, may_read, request)
        for finding in sorted(findings, key=lambda finding: finding.id)
    ]


def reporting_bundles(findings: Iterable[PackFinding]) -> frozenset[str]:
    """Return the folders, in the evidence store, of the bundles that reported the findings."""
    return frozenset(report.bundle for finding in findings for report in finding.reports)


def finding_entry(finding: PackFinding, packed: Collection[str]) -> dict[str, Any]:
    """Return a finding as an object for manifest.json.

    Args:
        finding: the finding.
        packed: folders, in the evidence store, of the bundles in the pack.
    """
    return {
        "number": finding.number,
        "clause": finding.clause,
        "workflow": finding.workflow,
        "severity": str(finding.severity),
        "closed": finding.is_closed,
        "reports": [
            {
                "number": report.number,
                "folder": report.folder,
                "in_pack": report.bundle in packed,
            }
            for report in finding.reports
        ],
    }


def _bundles_of(finding: Finding) -> list[str]:
    assert finding.origin is not None
    return list(dict.fromkeys((finding.origin.opened_in, finding.origin.reported_in)))


def _ledger_rows(conn: Connection, bundles: Collection[str]) -> dict[str, tuple[int, str]]:
    """Return the number and the workflow of each bundle that has a row in the ledger."""
    ledger = evidence_ledger.c
    names = literal(sorted(bundles), ARRAY(Text))
    query = select(ledger.bundle, ledger.seq, ledger.dag_id).where(ledger.bundle == names.any_())
    return {bundle: (seq, workflow) for bundle, seq, workflow in conn.execute(query)}


def _pack_finding(
    finding: Finding,
    rows: dict[str, tuple[int, str]],
    may_read: Callable[[str], bool],
    request: PackRequest,
) -> PackFinding:
    origin = finding.origin
    assert origin is not None
    reports = []
    for bundle in _bundles_of(finding):
        name = bundle.partition("/")[0]
        number, workflow = rows.get(bundle, (None, name))
        if may_read(name) and may_read(workflow):
            reports.append(ReportingBundle(number, bundle))
    return PackFinding(
        number=finding.id,
        clause=origin.clause,
        workflow=origin.workflow,
        severity=finding.severity,
        description=finding.description,
        state=_state(finding, request),
        is_closed=finding.closed_at is not None,
        reports=tuple(reports),
    )


def _state(finding: Finding, request: PackRequest) -> Message:
    if finding.closed_at is not None:
        day = finding.closed_at.astimezone(request.zone).date()
        return _("closed on {day}", day=day.isoformat())
    return _("open; due date: {day}", day=finding.due_on.isoformat())
