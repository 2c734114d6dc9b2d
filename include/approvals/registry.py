"""Requests for approval and the decisions on them: bound to a hash, by another person, once.

Whoever needs an approval asks with the SHA-256 of the exact content, keeps the request's id and,
before acting, calls `require`. An answer that may not count is kept as a refusal, so that an
attempt to approve one's own work is seen in the evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from include.approvals.people import as_compared, is_among
from include.approvals.reasons import says_something, value_free_reason
from include.evidence.model import Approval
from include.services.clock import Clock
from include.services.errors import ControlFailed, UsageError
from include.state.tables import approval_decision, approval_refusal, approval_request

APPROVE, REJECT = "Approve", "Reject"
NOBODY = ""


class Cause(StrEnum):
    """Why an answer does not count."""

    NOBODY = "nobody"
    OWN_REQUEST = "own_request"
    NOT_ENTITLED = "not_entitled"
    NO_REASON = "no_reason"
    DECIDED_BEFORE = "decided_before"
    OTHER_CONTENT = "other_content"  # the answered form was about another content


@dataclass(frozen=True)
class Request:
    """A request for a decision.

    Attributes:
        id: number in the registry.
        kind: what kind of decision, ``intake``.
        subject: what it is about; no customer value.
        sha256: of the exact content.
        requested_by: user ids of those whose work it is; none of them may decide.
        deadline: until when it should be decided, None without one.
    """

    id: int
    dag_id: str
    run_id: str
    kind: str
    subject: str
    sha256: str
    requested_by: tuple[str, ...]
    asked_at: datetime
    deadline: datetime | None

    @property
    def content(self) -> str:
        """Return what the form of this request carries to its answer: the id and the SHA-256."""
        return f"{self.id}:{self.sha256}"


@dataclass(frozen=True)
class Decision:
    """The one decision on a request."""

    request_id: int
    decision: str
    reason: str
    decided_by: str
    decided_at: datetime

    @property
    def approved(self) -> bool:
        """Whether it lets the content in."""
        return self.decision == APPROVE


@dataclass(frozen=True)
class Refusal:
    """An answer that did not count."""

    request_id: int
    decision: str
    decided_by: str
    decided_at: datetime
    cause: Cause


def ask(
    conn: Connection,
    clock: Clock,
    *,
    kind: str,
    subject: str,
    sha256: str,
    requested_by: Sequence[str],
    dag_id: str,
    run_id: str,
    deadline: datetime | None = None,
) -> Request:
    """Ask for a decision; asking again about the same content in the same run is the same request.

    Raises:
        UsageError: nobody is named whose work it is; then nobody could be kept from deciding.
    """
    if not requested_by:
        raise UsageError(f"A request about {subject} names nobody whose work it is.")
    key = {
        "dag_id": dag_id, "run_id": run_id, "kind": kind, "subject": subject, "sha256": sha256
    }  # fmt: skip
    rest = {
        "requested_by": sorted(set(requested_by)), "asked_at": clock.now(), "deadline": deadline
    }  # fmt: skip
    conn.execute(insert(approval_request).values(key | rest).on_conflict_do_nothing())
    row = conn.execute(select(approval_request).filter_by(**key)).mappings().one()
    return _request(dict(row))


def request_of(
    conn: Connection, dag_id: str, run_id: str, kind: str, subject: str
) -> Request | None:
    """Return what a run asked last about a subject, None when it asked nothing."""
    query = (
        select(approval_request)
        .filter_by(dag_id=dag_id, run_id=run_id, kind=kind, subject=subject)
        .order_by(approval_request.c.id.desc())
    )
    row = conn.execute(query).mappings().first()
    return _request(dict(row)) if row else None


def request_about(
    conn: Connection, dag_id: str, run_id: str, kind: str, subject: str, sha256: str
) -> Request | None:
    """Return what a run asked about exactly this content, None when it did not ask.

    It is not always the newest request about the subject: a content may change and change back.

    Args:
        conn: the state database.
        dag_id: with ``run_id``, which run it is.
        run_id: see ``dag_id``.
        kind: of the request.
        subject: of the request.
        sha256: of the content.
    """
    key = {"dag_id": dag_id, "run_id": run_id, "kind": kind, "subject": subject}
    query = select(approval_request).filter_by(**key, sha256=sha256)
    row = conn.execute(query).mappings().one_or_none()
    return _request(dict(row)) if row else None


def request(conn: Connection, request_id: int) -> Request:
    """Return a request; raises UsageError when there is none of that number."""
    query = select(approval_request).where(approval_request.c.id == request_id)
    row = conn.execute(query).mappings().first()
    if row is None:
        raise UsageError(f"There is no request for approval {request_id}.")
    return _request(dict(row))


def decide(
    conn: Connection,
    asked: Request,
    *,
    decision: str,
    reason: str,
    decided_by: str | None,
    decided_at: datetime,
    may_decide: Collection[str],
    content: str,
) -> Decision | Refusal:
    """Enter an answer; commit whatever comes back, since refused answers are kept too.

    The same answer of the same person and moment may be entered again by a repeated task. An answer
    to another form than this request's is `Cause.OTHER_CONTENT`, whoever gave it: the caller has to
    ask again.

    Args:
        conn: the state database, in a transaction.
        asked: the request that is decided on.
        decision: the chosen option.
        reason: words of the person; needed unless it is an approval. What could be a customer's
            number or address in it is blotted out; nothing else left is no reason.
        decided_by: user id; None or empty when nobody answered, which never counts.
        decided_at: when the answer was given.
        may_decide: user ids of those who are entitled.
        content: `Request.content` of the form that was answered; empty where it carried none.
    """
    who = (decided_by or NOBODY).strip()
    cause: Cause | None = None
    if not as_compared(who):
        cause = Cause.NOBODY
    elif content != asked.content:
        cause = Cause.OTHER_CONTENT
    elif is_among(who, asked.requested_by):
        cause = Cause.OWN_REQUEST
    elif not is_among(who, may_decide):
        cause = Cause.NOT_ENTITLED
    elif decision != APPROVE and not says_something(reason):
        cause = Cause.NO_REASON
    values = {"request_id": asked.id, "decision": decision, "decided_by": who}
    values |= {"decided_at": decided_at}
    if cause is None:
        row = values | {"reason": value_free_reason(reason)}
        conn.execute(insert(approval_decision).values(row).on_conflict_do_nothing())
        found = decision_on(conn, asked.id)
        assert found is not None
        if (found.decision, found.decided_by, found.decided_at) == (decision, who, decided_at):
            return found
        cause = Cause.DECIDED_BEFORE
    refused = insert(approval_refusal).values(values | {"cause": str(cause)})
    conn.execute(refused.on_conflict_do_nothing())
    return Refusal(asked.id, decision, who, decided_at, cause)


def decision_on(conn: Connection, request_id: int) -> Decision | None:
    """Return the decision on a request, None while there is none."""
    query = select(approval_decision).where(approval_decision.c.request_id == request_id)
    row = conn.execute(query).mappings().first()
    return Decision(**row) if row else None


def refusals_of(conn: Connection, request_id: int) -> list[Refusal]:
    """Return the answers to a request that did not count, oldest first."""
    table = approval_refusal.c
    columns = (table[field.name] for field in fields(Refusal))
    query = select(*columns).where(table.request_id == request_id).order_by(table.id)
    rows = map(dict, conn.execute(query).mappings())
    return [Refusal(**row | {"cause": Cause(row["cause"])}) for row in rows]


def outdated_answers(conn: Connection, about: Request) -> int:
    """Count the answers of a run about a subject whose form showed another content."""
    query = (
        select(func.count())
        .select_from(approval_refusal.join(approval_request))
        .where(
            approval_request.c.dag_id == about.dag_id,
            approval_request.c.run_id == about.run_id,
            approval_request.c.kind == about.kind,
            approval_request.c.subject == about.subject,
            approval_refusal.c.cause == str(Cause.OTHER_CONTENT),
        )
    )
    return conn.execute(query).scalar_one()


def require(conn: Connection, request_id: int, sha256: str) -> Decision:
    """Return the approval on which somebody may act now.

    Args:
        conn: the state database.
        request_id: what was asked.
        sha256: of the content as it is now.

    Raises:
        ControlFailed: nobody approved, or the content is not what was approved.
    """
    asked = request(conn, request_id)
    found = decision_on(conn, request_id)
    if found is None or not found.approved:
        raise ControlFailed(f"Nobody approved {asked.subject}.", "Ask again.")
    if asked.sha256 != sha256:
        raise ControlFailed(
            f"{asked.subject} is not what was approved: it changed since.",
            "The approval is void. Find out who changed it; the next run asks again.",
        )
    return found


def approvals_of(conn: Connection, dag_id: str, run_id: str) -> list[Approval]:
    """Return the decisions of a run for its ``result.json``, in the order of asking."""
    query = (
        select(
            (approval_request.c.kind + ":" + approval_request.c.subject).label("step"),
            approval_request.c.sha256,
            approval_decision.c.decision,
            approval_decision.c.decided_by,
            approval_decision.c.decided_at,
        )
        .join_from(approval_request, approval_decision)
        .where(approval_request.c.dag_id == dag_id, approval_request.c.run_id == run_id)
        .order_by(approval_request.c.id)
    )
    return [Approval(**row) for row in conn.execute(query).mappings()]


def _request(row: dict[str, object]) -> Request:
    return Request(**row | {"requested_by": tuple(row["requested_by"])})  # type: ignore[arg-type]  # columns are the fields
