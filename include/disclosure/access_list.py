"""List requests with their grants, for the command and the compliance pages."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, and_, select

from include.approvals.registry import APPROVE
from include.disclosure import grants
from include.disclosure.grants import Grant, GrantState
from include.disclosure.requests import UseRequest, load_requests
from include.disclosure.tables import use_request, use_request_run
from include.state.tables import approval_decision, approval_request

MOST_LISTED = 1000


@dataclass(frozen=True)
class ListedRequest:
    """A request with its grant.

    Attributes:
        request: the request.
        grant: grant of the request; None if it was not approved.
        state: state of the grant; ``requested`` without a grant, ``expired`` if the approved time
            is over and `expire_grants` has not run since.
        openings: how often the extract was opened.
    """

    request: UseRequest
    grant: Grant | None
    state: str
    openings: int


class ApprovalProgress(StrEnum):
    """The state of the approval, as long as the request has no grant.

    Attributes:
        PREPARED: nobody was asked yet.
        WAITING: a person has to decide, or the decision takes effect soon.
        REJECTED: a person rejected the request.
        LAPSED: nobody decided in time, which counts as a rejection.
    """

    PREPARED = "prepared"
    WAITING = "waiting"
    REJECTED = "rejected"
    LAPSED = "lapsed"


def list_requests(
    conn: Connection,
    now: datetime,
    limit: int = MOST_LISTED,
    *,
    is_listed: Callable[[str], bool] | None = None,
) -> list[ListedRequest]:
    """Return requests with their grants, newest first.

    Args:
        conn: the state database.
        now: current time.
        limit: largest number of requests.
        is_listed: returns whether the requests of an account are listed; None for all accounts.
    """
    query = select(use_request.c.id).order_by(use_request.c.id.desc()).limit(limit)
    if is_listed is not None:
        accounts = conn.scalars(select(use_request.c.requester).distinct()).all()
        query = query.where(use_request.c.requester.in_(list(filter(is_listed, accounts))))
    numbers = conn.scalars(query).all()
    stored, granted = load_requests(conn, numbers), grants.find_grants(conn, numbers)
    opened = grants.count_openings(conn)
    return [_entry(stored[number], granted.get(number), opened, now) for number in numbers]


def _entry(
    request: UseRequest, grant: Grant | None, opened: dict[int, int], now: datetime
) -> ListedRequest:
    state = "requested" if grant is None else str(grant.state)
    if grant is not None and grant.state is GrantState.DELIVERED and not grant.is_open(now):
        state = "expired"
    return ListedRequest(request, grant, state, opened.get(request.id, 0))


def approval_progress(
    conn: Connection, numbers: Collection[int], now: datetime
) -> dict[int, ApprovalProgress]:
    """Return how far the approvals of requests without a grant are, by the number of the request.

    Args:
        conn: the state database.
        numbers: numbers of the requests.
        now: current time.
    """
    run, approval, decision = use_request_run.c, approval_request.c, approval_decision.c
    joined = use_request_run.outerjoin(
        approval_request,
        and_(approval.dag_id == run.dag_id, approval.run_id == run.run_id),
    ).outerjoin(approval_decision, decision.request_id == approval.id)
    query = (
        select(run.request_id, approval.deadline, decision.decision, decision.decided_at)
        .select_from(joined)
        .where(run.request_id.in_(numbers))
        .order_by(run.request_id, approval.id)
    )
    progress = dict.fromkeys(numbers, ApprovalProgress.PREPARED)
    for number, deadline, decided, decided_at in conn.execute(query):
        if decided is not None and decided != APPROVE:
            progress[number] = ApprovalProgress.REJECTED
        elif deadline is not None and deadline < (decided_at or now):
            progress[number] = ApprovalProgress.LAPSED
        elif progress[number] is ApprovalProgress.PREPARED:
            progress[number] = ApprovalProgress.WAITING
    return progress
