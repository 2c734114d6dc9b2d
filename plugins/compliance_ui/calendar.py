"""The calendar of the next 90 days: evidence, findings, legal holds, partners, incidents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

from sqlalchemy import Connection

from include.evidence.check import EvidenceRefused
from include.evidence.control_evidence import ControlEvidence
from include.findings.register import Finding
from include.holds import registry
from include.messages import Message, _, listed
from include.orchestration.access.permissions import Page
from include.partners.upcoming import ending_terms
from plugins.compliance_ui.access import Visitor
from plugins.compliance_ui.holds import DAG as HOLDS_DAG
from plugins.compliance_ui.page_services import PageServices
from plugins.compliance_ui.time_limits import IncidentView

DAYS = 90
PARTNERS_DAG = "review_partners"
_NAMED = 3  # partners that an entry names
_CLAUSES_NAMED = 6


class Kind(StrEnum):
    """The kind of an entry of the calendar."""

    EVIDENCE = "evidence"
    FINDINGS = "findings"
    HOLDS = "holds"
    PARTNERS = "partners"
    INCIDENTS = "incidents"


KINDS = {
    Kind.EVIDENCE: _("Evidence"),
    Kind.FINDINGS: _("Findings"),
    Kind.HOLDS: _("Legal holds"),
    Kind.PARTNERS: _("Partners"),
    Kind.INCIDENTS: _("Incidents"),
}


@dataclass(frozen=True)
class Entry:
    """An entry of the calendar: work that is due on a day.

    Attributes:
        day: the day. Work that is overdue is entered today.
        kind: kind of the entry.
        text: what is due.
        path: path of the page that shows more; empty if there is none.
    """

    day: date
    kind: Kind
    text: Message
    path: str = ""


def upcoming(
    services: PageServices,
    conn: Connection,
    visitor: Visitor,
    evidence: Sequence[ControlEvidence],
    findings: Sequence[Finding],
    incidents: Iterable[IncidentView],
) -> list[Entry]:
    """Return the work that is due in the next 90 days, in the order of the days.

    Args:
        services: services for the request.
        conn: connection to the state database.
        visitor: the visitor; the calendar shows only what the visitor may read.
        evidence: the controls that the visitor may read, with their newest evidence.
        findings: open findings that the visitor may read.
        incidents: open incidents that the visitor may read.
    """
    today = services.now().date()
    last = today + timedelta(days=DAYS)
    entries = [
        *_evidence_entries(services, evidence),
        *_finding_entries(findings, Page.FINDINGS in visitor.pages),
        *_incident_entries(services, incidents, Page.CLOCKS in visitor.pages),
    ]
    if visitor.reads(HOLDS_DAG):
        entries += _hold_entries(conn, Page.HOLDS in visitor.pages)
    entries += _partner_entries(services, evidence, Page.EVIDENCE in visitor.pages)
    moved = [
        entry if entry.day >= today else _overdue(entry, today)
        for entry in entries
        if entry.day <= last
    ]
    order = list(Kind)
    return sorted(moved, key=lambda entry: (entry.day, order.index(entry.kind)))


def _overdue(entry: Entry, today: date) -> Entry:
    """Return an entry of a past day as an entry of today, with its own day in the text."""
    text = _("overdue, {day}: {entry}", day=entry.day, entry=entry.text)
    return Entry(today, entry.kind, text, entry.path)


def _evidence_entries(
    services: PageServices, evidence: Sequence[ControlEvidence]
) -> Iterator[Entry]:
    zone = services.pack.calendar.zone
    by_day: dict[date, list[ControlEvidence]] = {}
    for item in evidence:
        if item.due_at is not None:
            day = item.due_at.astimezone(zone).date()
            by_day.setdefault(day, []).append(item)
    for day, items in by_day.items():
        clauses = listed(sorted({item.control.clause for item in items}), _CLAUSES_NAMED)
        text = _(
            "new evidence for {count} controls (clauses {clauses})",
            count=len(items),
            clauses=clauses,
        )
        path = f"/controls/{items[0].control.id}" if len(items) == 1 else ""
        yield Entry(day, Kind.EVIDENCE, text, path)


def _finding_entries(findings: Iterable[Finding], is_linked: bool) -> Iterator[Entry]:
    counts: dict[date, int] = {}
    for finding in findings:
        counts[finding.due_on] = counts.get(finding.due_on, 0) + 1
    for day, count in counts.items():
        text = _("corrective actions for {count} findings", count=count)
        yield Entry(day, Kind.FINDINGS, text, "/findings" if is_linked else "")


def _hold_entries(conn: Connection, is_linked: bool) -> Iterator[Entry]:
    counts: dict[date, int] = {}
    for hold in registry.active_holds(conn):
        counts[hold.review_on] = counts.get(hold.review_on, 0) + 1
    for day, count in counts.items():
        text = _("review of {count} legal holds", count=count)
        yield Entry(day, Kind.HOLDS, text, "/holds" if is_linked else "")


def _partner_entries(
    services: PageServices, evidence: Sequence[ControlEvidence], is_linked: bool
) -> Iterator[Entry]:
    """Yield the agreements and reviews that end, as the newest valid bundle states them."""
    row = next(
        (
            item.row
            for item in evidence
            if item.control.workflow == PARTNERS_DAG and item.status is not None
        ),
        None,
    )
    if row is None:
        return
    try:
        result = services.bundle_reader.result(row)
    except EvidenceRefused:
        return
    by_day: dict[date, list[Message]] = {}
    for term in ending_terms(result):
        by_day.setdefault(term.last_day, []).append(term.title)
    for day, titles in by_day.items():
        path = f"/evidence/{row.seq}" if is_linked else ""
        yield Entry(day, Kind.PARTNERS, listed(titles, _NAMED), path)


def _incident_entries(
    services: PageServices, incidents: Iterable[IncidentView], is_linked: bool
) -> Iterator[Entry]:
    zone = services.pack.calendar.zone
    for view in incidents:
        for limit in view.time_limits:
            if limit.is_open and limit.due_at is not None:
                text = _("{number}: {limit}", number=view.incident.number, limit=limit.rule.message)
                day = limit.due_at.astimezone(zone).date()
                yield Entry(day, Kind.INCIDENTS, text, "/clocks" if is_linked else "")
