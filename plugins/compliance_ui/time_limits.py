"""The page of incident deadlines: open incidents and the time limits that apply to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from sqlalchemy import Connection

from include.evidence import ledger
from include.evidence.check import EvidenceRefused
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome
from include.incident import register
from include.incident.incident_ids import WORKFLOW, State
from include.incident.incident_run import IncidentRecord, record_in
from include.incident.register import Incident
from include.incident.rule_checks import INCIDENT
from include.incident.time_limits import time_limit_texts
from include.incident.time_limits.time_limit import (
    TimeLimit,
    TimeLimitState,
    sort_by_urgency,
    time_limits_at,
)
from include.messages import Message, _, verbatim
from include.orchestration.access.permissions import Page
from include.policy.rules import translated_message
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.base import ObjectMissing
from plugins.compliance_ui.access import Visitor, visitor_of
from plugins.compliance_ui.page_services import PageServices, page_services
from plugins.compliance_ui.rendering import render_navigation_page
from plugins.compliance_ui.workflow_names import title_of

router = APIRouter()

_NEVER = datetime.max.replace(tzinfo=UTC)

_STATES = {
    State.OPEN: _("open"),
    State.CLOSED: _("closed"),
    State.CANCELLED: _("cancelled"),
    State.DUPLICATE: _("duplicate"),
}


@dataclass(frozen=True)
class DocumentView:
    """A sealed document of an incident, with the files that a person can hand in.

    Attributes:
        row: ledger row of the document's bundle.
        title: title of the document.
        files: names of the document's files; empty if the bundle cannot be read.
    """

    row: LedgerRow
    title: Message
    files: Sequence[str]


@dataclass(frozen=True)
class IncidentView:
    """An incident as the page of incident deadlines shows it.

    Attributes:
        incident: the incident in the register of incidents.
        time_limits: time limits that apply or may still apply, with the most urgent deadline first.
        type: title of the incident type.
        grade: title of the confirmed grade; None if no grade is confirmed yet.
        state: description of the incident's state.
        documents: sealed documents of the incident, such as reports to authorities, oldest first;
            empty if the visitor may not open evidence bundles.
    """

    incident: Incident
    time_limits: Sequence[TimeLimit]
    type: Message
    grade: Message | None
    state: Message
    documents: Sequence[DocumentView] = ()

    @property
    def is_running(self) -> bool:
        """Whether the incident is open, or at least one of its time limits is still open."""
        return self.incident.state is State.OPEN or any(
            time_limit.is_open for time_limit in self.time_limits
        )

    @property
    def next_deadline(self) -> TimeLimit | None:
        """The running time limit with the earliest deadline; None if no time limit is running."""
        running = [limit for limit in self.time_limits if limit.is_open and limit.due_at]
        return min(running, key=lambda limit: limit.due_at or _NEVER, default=None)

    @property
    def outcome(self) -> Outcome:
        """The worst outcome of the incident's time limits.

        A time limit whose deadline is in the future has the outcome "passed".
        """
        return Outcome.worst(
            [
                time_limit_texts.time_limit_outcome(time_limit) or Outcome.PASS
                for time_limit in self.time_limits
            ]
            or [Outcome.PASS]
        )


@router.get("/clocks")
def incident_deadlines(
    request: Request, visitor: Annotated[Visitor, Depends(visitor_of(Page.CLOCKS))]
) -> Response:
    """Show open incidents with their deadlines, and the number of ended incidents."""
    visitor.require(WORKFLOW)
    services = page_services()
    rules = services.pack.section(INCIDENT)
    if rules is None:
        raise UsageError(
            "The policy pack has no incident.yaml.",
            "Write one: docs/reference/policy-pack/incident.md.",
        )
    with services.read_connection() as conn:
        incidents = [
            incident for incident in register.list_incidents(conn) if incident.requires_steps
        ]
        records = [record_in(conn, incident.number) for incident in incidents]
        pruned = services.bundle_reader.pruned_up_to(conn)
        rows = {
            record.incident.number: [
                row
                for row in ledger.interim_rows(conn, f"{WORKFLOW}.", record.incident.run.run_id)
                if row.seq > pruned
            ]
            for record in records
            if Page.EVIDENCE in visitor.pages
        }
    views = [_incident_view(services, record) for record in records]
    views = [
        replace(view, documents=_documents(services, rows.get(view.incident.number, ())))
        if view.is_running
        else view
        for view in views
    ]
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.CLOCKS,
        "time_limits.html.j2",
        running=[view for view in views if view.is_running],
        over=sum(not view.is_running for view in views),
        due=time_limit_texts.due_text,
        state=time_limit_texts.state_text,
        basis=time_limit_texts.basis_text,
        time_limit_outcome=time_limit_texts.time_limit_outcome,
    )


def _documents(services: PageServices, rows: Iterable[LedgerRow]) -> list[DocumentView]:
    """Return the sealed documents of an incident.

    If the evidence store does not answer, the documents have no files, and the page shows only the
    links to their bundles.

    Args:
        services: services for the request.
        rows: ledger rows of the documents' bundles.
    """
    documents, is_available = [], True
    for row in rows:
        files: list[str] = []
        kind = row.dag_id.removeprefix(f"{WORKFLOW}.").partition("-")[0]
        title = _DOCUMENTS.get(kind, title_of(row.dag_id))
        if is_available:
            try:
                names = services.bundle_reader.signed(row).sums.files
                files = sorted(name for name in names if _is_document(name))
            except (EvidenceRefused, ObjectMissing):
                files = []
            except ServiceError:  # the next bundle would wait just as long
                is_available = False
        documents.append(DocumentView(row, title, files))
    return documents


def _is_document(name: str) -> bool:
    return not name.startswith("report.") and PurePosixPath(name).suffix in _DOCUMENT_TYPES


_DOCUMENT_TYPES = {".docx", ".pdf", ".html"}
_DOCUMENTS = {
    "first": _("First report"),
    "rest": _("Follow-up report"),
    "summary": _("Summary"),
    "notice": _("Notice to affected people"),
}


def open_incidents(services: PageServices, conn: Connection) -> list[IncidentView]:
    """Return the incidents that are not closed, with the most urgent deadline first.

    The result is empty if the policy pack has no rules for incidents.

    Args:
        services: services for the request.
        conn: connection to the state database.
    """
    if services.pack.section(INCIDENT) is None:
        return []
    views = [
        _incident_view(services, record_in(conn, incident.number))
        for incident in register.list_incidents(conn)
        if incident.requires_steps and incident.state is State.OPEN
    ]
    return sorted(views, key=lambda view: (view.next_deadline is None, _due_number(view)))


def _due_number(view: IncidentView) -> float:
    limit = view.next_deadline
    return limit.due_at.timestamp() if limit is not None and limit.due_at else 0.0


def _incident_view(services: PageServices, record: IncidentRecord) -> IncidentView:
    rules, pack = services.pack.section(INCIDENT), services.pack
    assert rules is not None
    incident = record.incident
    kept = incident.kept
    types = {type_.id: type_ for type_ in (*rules.types, *((kept.type,) if kept else ()))}
    grades = {grade.id: grade for grade in (kept.grades if kept else rules.grades)}
    time_limits = time_limits_at(rules, record, services.now(), pack.calendar.zone)
    return IncidentView(
        incident,
        [
            time_limit
            for time_limit in sort_by_urgency(time_limits)
            if time_limit.state is not TimeLimitState.NOT_APPLICABLE
        ],
        translated_message(types[incident.type].title)
        if incident.type in types
        else verbatim(incident.type),
        None
        if record.grade is None
        else translated_message(grades[record.grade].title)
        if record.grade in grades
        else verbatim(record.grade),
        _STATES[incident.state],
    )
