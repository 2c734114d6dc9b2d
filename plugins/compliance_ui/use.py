"""The pages of requests for customer information, and the download of an approved extract."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Request, status
from fastapi.responses import Response
from sqlalchemy import Connection

from include.approvals import registry
from include.approvals.approvers import same_person
from include.approvals.registry import APPROVE, REJECT, Decision
from include.disclosure import grants
from include.disclosure.access_list import ApprovalProgress, approval_progress, list_requests
from include.disclosure.approval import FIRST, SECOND
from include.disclosure.expiry_report import REASONS
from include.disclosure.extract_store import STORE, has_extract_store
from include.disclosure.grants import Grant, GrantState
from include.disclosure.opening import file_name_of, open_extract, size_of
from include.disclosure.request_text import describe_request, purpose_title
from include.disclosure.requests import UseRequest, load_request, run_of
from include.disclosure.rules import USE
from include.disclosure.use_report import CANNOT_RECALL, LOGIN_ENDS
from include.disclosure.workflow import USE_INFORMATION
from include.messages import Message, _, verbatim
from include.notify.outbox import Run
from include.orchestration.access.permissions import Page, PageScope
from include.services.errors import UsageError
from plugins.compliance_ui.access import Visitor, name_of, visitor_of
from plugins.compliance_ui.page_services import PageServices, page_services
from plugins.compliance_ui.rendering import render_navigation_page
from plugins.compliance_ui.streaming import StreamedDownload

router = APIRouter()

DAG = USE_INFORMATION.id
MAX_ROWS = 200
CONCURRENT_EXTRACTS = 2  # extracts that are downloaded at the same time
_turns = threading.BoundedSemaphore(CONCURRENT_EXTRACTS)
UseVisitor = Annotated[Visitor, Depends(visitor_of(Page.USE))]
Number = Annotated[int, Path(ge=1, lt=2**63)]
_KINDS = {FIRST: _("Supervisor"), SECOND: _("Second approval")}
_DECISIONS = {APPROVE: _("approved"), REJECT: _("rejected")}
_CHANNELS = {"page": _("compliance page"), "command": _("command")}
_PROGRESS = {
    ApprovalProgress.PREPARED: _("prepared; nobody was asked yet"),
    ApprovalProgress.WAITING: _("waits for approval"),
    ApprovalProgress.REJECTED: _("rejected"),
    ApprovalProgress.LAPSED: _("not approved: nobody decided in time"),
}
_CANNOT_BE_OPENED = _(
    "The extract cannot be opened any more, so nothing was downloaded. The state below says why."
)


@dataclass(frozen=True)
class ListedUse:
    """A row of the list.

    Attributes:
        request: the request.
        requester: name and account of the requester.
        purpose: name of the purpose.
        state: state in words.
        expires_at: end of the access; None if the request was not approved.
        openings: how often the extract was opened.
        copies: whether deleted copies are confirmed; None if nothing was opened or the access has
            not ended.
    """

    request: UseRequest
    requester: str
    purpose: Message
    state: Message
    expires_at: datetime | None
    openings: int
    copies: Message | None


@dataclass(frozen=True)
class DecisionView:
    """An approval request on the page of a request.

    Attributes:
        title: who has to decide.
        deadline: latest time for the decision; None if there is none.
        decision: the decision; None if nobody decided yet.
        words: the decision in words.
        person: name and account of the person who decided.
    """

    title: Message
    deadline: datetime | None
    decision: Decision | None
    words: Message | None
    person: str


@router.get("/use")
def list_use(request: Request, visitor: UseVisitor) -> Response:
    """Show requests for customer information, newest first.

    A visitor without the right to see the requests of all people sees only their own.
    """
    visitor.require(DAG)
    services = page_services()
    now = services.now()
    sees_all = visitor.has_scope(PageScope.USE_OF_ALL)
    with services.read_connection() as conn:
        listed = list_requests(
            conn,
            now,
            MAX_ROWS + 1,
            is_listed=None if sees_all else lambda account: same_person(account, visitor.name),
        )
        waiting = [entry.request.id for entry in listed if entry.grant is None]
        progress = approval_progress(conn, waiting, now)
    names = _names({entry.request.requester for entry in listed})
    rows = [
        ListedUse(
            entry.request,
            names[entry.request.requester],
            purpose_title(services.pack, entry.request.content.purpose),
            _state(entry.grant, progress.get(entry.request.id), now),
            entry.grant.expires_at if entry.grant else None,
            entry.openings,
            _copies(entry.grant, entry.openings),
        )
        for entry in listed[:MAX_ROWS]
    ]
    return render_navigation_page(
        request,
        services,
        visitor,
        Page.USE,
        "use.html.j2",
        rows=rows,
        is_cut=len(listed) > MAX_ROWS,
        sees_all=sees_all,
        configured=has_extract_store(services.core),
        has_rules=services.pack.section(USE) is not None,
        may_trigger=visitor.triggers(DAG),
        may_answer=visitor.answers(DAG),
        dag=DAG,
    )


@router.get("/use/{number}")
def show_use(request: Request, visitor: UseVisitor, number: Number) -> Response:
    """Show a request: content, decisions, openings and end.

    Raises:
        HTTPException: 404 if there is no such request, or if the visitor may not see it.
    """
    return _detail(request, page_services(), visitor, number)


@router.post("/use/{number}")
def download_extract(request: Request, visitor: UseVisitor, number: Number) -> Response:
    """Record that the requester opens the extract, and return the encrypted file.

    A browser never sends POST on its own, as it may do for a link that it prefetches. `Guard`
    refuses the request if another website sends it.

    Raises:
        HTTPException: 404 if there is no such request, or if the visitor may not see it; 403 if the
            visitor is not the requester; 503 if too many extracts are downloaded now.
    """
    services = page_services()
    with services.read_connection() as conn:
        use = _readable(conn, visitor, number)
        grant = grants.find_grant(conn, number)
    if not same_person(visitor.name, use.requester):
        raise HTTPException(status.HTTP_403_FORBIDDEN)
    if grant is None or not grant.is_open(services.now()) or not has_extract_store(services.core):
        return _detail(request, services, visitor, number, _CANNOT_BE_OPENED)

    def read() -> Iterator[bytes]:
        return open_extract(
            services.recorder, services.store(STORE), services.core.clock, number,
            person=visitor.name, channel="page",
        ).pieces  # fmt: skip

    name = file_name_of(number, use.content.form)
    try:
        return StreamedDownload(read, _turns, name, "application/octet-stream", size_of(use, grant))
    except UsageError:  # the access ended a moment ago
        return _detail(request, services, visitor, number, _CANNOT_BE_OPENED)


def _readable(conn: Connection, visitor: Visitor, number: int) -> UseRequest:
    """Return a request that the visitor may see.

    Raises:
        HTTPException: 404 if there is no such request, or if the visitor may not see it.
    """
    try:
        use = load_request(conn, number)
    except UsageError as error:
        raise HTTPException(status.HTTP_404_NOT_FOUND) from error
    is_visible = same_person(visitor.name, use.requester) or visitor.has_scope(PageScope.USE_OF_ALL)
    if not is_visible or not visitor.reads(DAG):
        raise HTTPException(status.HTTP_404_NOT_FOUND)
    return use


def _detail(
    request: Request,
    services: PageServices,
    visitor: Visitor,
    number: int,
    problem: Message | None = None,
) -> Response:
    now = services.now()
    with services.read_connection() as conn:
        use = _readable(conn, visitor, number)
        grant = grants.find_grant(conn, number)
        run = run_of(conn, number)
        progress = approval_progress(conn, [number], now) if grant is None else {}
        decisions = _decisions(conn, use, run)
        opened = grants.openings(conn, number)
    is_own = same_person(visitor.name, use.requester)
    is_open = grant is not None and grant.is_open(now)
    configured = has_extract_store(services.core)
    response = render_navigation_page(
        request,
        services,
        visitor,
        Page.USE,
        "use_request.html.j2",
        title=_("Request {number}", number=number),
        problem=problem,
        use=use,
        requester=name_of(use.requester),
        items=describe_request(services.pack, use),
        state=_state(grant, progress.get(number), now),
        grant=grant,
        run=run,
        decisions=decisions,
        openings=[(name_of(person), at, _CHANNELS[channel]) for person, at, channel in opened],
        reason=REASONS[grant.end_reason] if grant is not None and grant.end_reason else None,
        ended_by=name_of(grant.ended_by) if grant is not None and grant.ended_by else "",
        confirmed_by=name_of(grant.confirmed_by) if grant and grant.confirmed_by else "",
        copies=_copies(grant, len(opened)),
        cannot_recall=LOGIN_ENDS if grant is not None and grant.is_login else CANNOT_RECALL,
        is_own=is_own,
        may_download=is_own and is_open and configured,
        configured=configured,
        file_name=file_name_of(number, use.content.form),
        may_confirm=(
            is_own and grant is not None and grant.confirmed_at is None and visitor.triggers(DAG)
        ),
        may_answer=progress.get(number) is ApprovalProgress.WAITING and visitor.answers(DAG),
        sees_evidence=Page.EVIDENCE in visitor.pages,
    )
    if problem is not None:
        response.status_code = status.HTTP_409_CONFLICT
    return response


def _decisions(conn: Connection, use: UseRequest, run: Run | None) -> list[DecisionView]:
    """Return the approval requests of a request, with their decisions."""
    views = []
    for kind, title in _KINDS.items() if run is not None else ():
        assert run is not None
        approval = registry.find_request(
            conn, run.dag_id, run.run_id, kind, f"request {use.id}", use.sha256
        )
        if approval is None:
            continue
        decision = registry.decision_on(conn, approval.id)
        words = _DECISIONS.get(decision.decision) if decision else None
        if decision is not None and words is None:
            words = verbatim(decision.decision)
        person = name_of(decision.decided_by) if decision else ""
        views.append(DecisionView(title, approval.deadline, decision, words, person))
    return views


def _state(grant: Grant | None, progress: ApprovalProgress | None, now: datetime) -> Message:
    """Return the state of a request in words.

    Args:
        grant: grant of the request; None if it was not approved.
        progress: how far the approval is; None if the request was approved.
        now: current time.
    """
    if grant is None:
        return _PROGRESS[progress or ApprovalProgress.PREPARED]
    if grant.end_reason is not None:
        return _("ended: {reason}", reason=REASONS[grant.end_reason])
    if now >= grant.expires_at:
        return _("expired")
    if grant.state is GrantState.DELIVERED:
        return _("can be opened until {moment}", moment=grant.expires_at)
    return _("approved; the extract is not delivered yet")


def _copies(grant: Grant | None, openings: int) -> Message | None:
    """Return whether the requester confirmed that local copies are deleted."""
    if grant is None:
        return None
    if grant.confirmed_at is not None:
        return _("confirmed at {moment}", moment=grant.confirmed_at)
    return _("deletion not confirmed yet") if openings and grant.end_reason is not None else None


def _names(accounts: Iterable[str]) -> Mapping[str, str]:
    return {account: name_of(account) for account in accounts}
