"""Store approval requests and decisions in the state database.

A workflow creates a request with the SHA-256 of the exact content to approve, stores the request's
id and calls `require_approval` before it acts. Each request gets at most one decision. The decision
is valid only if the approver saw the content with this SHA-256 and is not a requester. An invalid
answer is not a decision: it is stored as a refusal, and the evidence thus shows an attempt to
approve one's own work.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from include.approvals.approvers import is_among, normalize_person
from include.approvals.reasons import has_words, redact_reason
from include.evidence.model import Approval
from include.services.clock import Clock
from include.services.errors import ControlFailed, UsageError
from include.state.tables import approval_decision, approval_refusal, approval_request

APPROVE, REJECT = "Approve", "Reject"
NOBODY = ""


class RefusalCause(StrEnum):
    """The reason why an answer to an approval request is invalid.

    Attributes:
        NOBODY: nobody answered.
        OWN_REQUEST: the person is a requester.
        NOT_ENTITLED: the person is not an approver.
        NO_REASON: the decision is not an approval, and the person entered no reason.
        DECIDED_BEFORE: the request already has a decision.
        OTHER_CONTENT: the form that the person answered did not show the content of the request,
            for example because the content has changed since.
    """

    NOBODY = "nobody"
    OWN_REQUEST = "own_request"
    NOT_ENTITLED = "not_entitled"
    NO_REASON = "no_reason"
    DECIDED_BEFORE = "decided_before"
    OTHER_CONTENT = "other_content"  # the answered form was about another content


@dataclass(frozen=True)
class Request:
    """An approval request, as stored in the state database.

    Attributes:
        id: number of the request.
        dag_id: DAG id of the run that created the request.
        run_id: id of the run that created the request.
        kind: type of the content to decide on, such as ``intake``.
        subject: description of the content, without customer data.
        sha256: SHA-256 of the exact content.
        requested_by: user ids of the requesters, who may not decide.
        requested_at: time of the request.
        deadline: latest time for the decision; None if the request has no deadline.
    """

    id: int
    dag_id: str
    run_id: str
    kind: str
    subject: str
    sha256: str
    requested_by: tuple[str, ...]
    requested_at: datetime
    deadline: datetime | None

    @property
    def content(self) -> str:
        """Return a text with the request's id and the SHA-256 of its content.

        The form of the required action stores this text in a hidden field.
        """
        return f"{self.id}:{self.sha256}"


@dataclass(frozen=True)
class Decision:
    """The valid decision of an approver on an approval request.

    Attributes:
        request_id: number of the request.
        decision: option that the approver chose, such as `APPROVE`.
        reason: reason that the approver entered, with possible customer data redacted.
        decided_by: user id of the approver.
        decided_at: time of the answer.
    """

    request_id: int
    decision: str
    reason: str
    decided_by: str
    decided_at: datetime

    @property
    def approved(self) -> bool:
        """Return whether the approver chose `APPROVE`."""
        return self.decision == APPROVE


@dataclass(frozen=True)
class Refusal:
    """An invalid answer to an approval request, which was refused.

    Attributes:
        request_id: number of the request.
        decision: option that the person chose.
        decided_by: user id of the person; empty if no person answered.
        decided_at: time of the answer.
        cause: why the answer is invalid.
    """

    request_id: int
    decision: str
    decided_by: str
    decided_at: datetime
    cause: RefusalCause


def create_request(
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
    """Create an approval request, or return the run's earlier request for the same content.

    An earlier request counts if its kind, subject and SHA-256 are the same. Its requesters and
    deadline stay as they are. For the arguments, see the attributes of `Request`.

    Raises:
        UsageError: `requested_by` is empty, so separation of duties could not be checked.
    """
    if not requested_by:
        raise UsageError(f"The approval request for {subject} has no requester.")
    key = {
        "dag_id": dag_id, "run_id": run_id, "kind": kind, "subject": subject, "sha256": sha256
    }  # fmt: skip
    details = {
        "requested_by": sorted(set(requested_by)), "requested_at": clock.now(), "deadline": deadline
    }  # fmt: skip
    conn.execute(insert(approval_request).values(key | details).on_conflict_do_nothing())
    row = conn.execute(select(approval_request).filter_by(**key)).mappings().one()
    return _request(dict(row))


def latest_request(
    conn: Connection, dag_id: str, run_id: str, kind: str, subject: str
) -> Request | None:
    """Return a run's newest approval request about a subject, or None if no request exists.

    For the arguments, see `find_request`.
    """
    query = (
        select(approval_request)
        .filter_by(dag_id=dag_id, run_id=run_id, kind=kind, subject=subject)
        .order_by(approval_request.c.id.desc())
    )
    row = conn.execute(query).mappings().first()
    return _request(dict(row)) if row else None


def find_request(
    conn: Connection, dag_id: str, run_id: str, kind: str, subject: str, sha256: str
) -> Request | None:
    """Return a run's approval request for a certain content, or None if no request exists.

    The returned request is not always the newest request about the subject: the content may change
    and later change back.

    Args:
        conn: the state database.
        dag_id: DAG id of the run.
        run_id: id of the run.
        kind: type of the content, see `Request`.
        subject: subject of the request.
        sha256: SHA-256 of the content.
    """
    key = {"dag_id": dag_id, "run_id": run_id, "kind": kind, "subject": subject}
    query = select(approval_request).filter_by(**key, sha256=sha256)
    row = conn.execute(query).mappings().one_or_none()
    return _request(dict(row)) if row else None


def load_request(conn: Connection, request_id: int) -> Request:
    """Return the approval request with the given number.

    Raises:
        UsageError: the request does not exist.
    """
    query = select(approval_request).where(approval_request.c.id == request_id)
    row = conn.execute(query).mappings().first()
    if row is None:
        raise UsageError(f"The approval request {request_id} does not exist.")
    return _request(dict(row))


def decide(
    conn: Connection,
    request: Request,
    *,
    decision: str,
    reason: str,
    decided_by: str | None,
    decided_at: datetime,
    may_decide: Collection[str],
    content: str,
) -> Decision | Refusal:
    """Store an answer to an approval request as a decision, or as a refusal if it is invalid.

    The caller must commit the transaction in both cases.

    If a retried task passes a stored answer again, the stored decision is returned. Any other
    answer to a decided request is refused. If the form did not show the content of this request,
    the answer is refused with `RefusalCause.OTHER_CONTENT`, whether or not the person may decide.
    After this refusal, the caller has to ask again.

    Args:
        conn: the state database, in a transaction.
        request: approval request that the person answered.
        decision: option that the person chose.
        reason: reason that the person entered; required for every decision except an approval.
            Possible customer data is redacted. A reason without words counts as missing; redacted
            data does not count as words.
        decided_by: user id of the person. None or an empty text means that no person answered; the
            answer is then invalid.
        decided_at: time of the answer.
        may_decide: user ids of the approvers.
        content: `Request.content` of the answered form; empty if the form has none.
    """
    decider = (decided_by or NOBODY).strip()
    cause: RefusalCause | None = None
    if not normalize_person(decider):
        cause = RefusalCause.NOBODY
    elif content != request.content:
        cause = RefusalCause.OTHER_CONTENT
    elif is_among(decider, request.requested_by):
        cause = RefusalCause.OWN_REQUEST
    elif not is_among(decider, may_decide):
        cause = RefusalCause.NOT_ENTITLED
    elif decision != APPROVE and not has_words(reason):
        cause = RefusalCause.NO_REASON
    values = {"request_id": request.id, "decision": decision, "decided_by": decider}
    values |= {"decided_at": decided_at}
    if cause is None:
        row = values | {"reason": redact_reason(reason)}
        conn.execute(insert(approval_decision).values(row).on_conflict_do_nothing())
        stored = decision_on(conn, request.id)
        assert stored is not None
        if (stored.decision, stored.decided_by, stored.decided_at) == (
            decision,
            decider,
            decided_at,
        ):
            return stored
        cause = RefusalCause.DECIDED_BEFORE
    statement = insert(approval_refusal).values(values | {"cause": str(cause)})
    conn.execute(statement.on_conflict_do_nothing())
    return Refusal(request.id, decision, decider, decided_at, cause)


def decision_on(conn: Connection, request_id: int) -> Decision | None:
    """Return the decision on an approval request, or None if the request is not decided yet."""
    query = select(approval_decision).where(approval_decision.c.request_id == request_id)
    row = conn.execute(query).mappings().first()
    return Decision(**row) if row else None


def refusals_of(conn: Connection, request_id: int) -> list[Refusal]:
    """Return the invalid answers to an approval request, oldest first."""
    table = approval_refusal.c
    columns = (table[field.name] for field in fields(Refusal))
    query = select(*columns).where(table.request_id == request_id).order_by(table.id)
    rows = map(dict, conn.execute(query).mappings())
    return [Refusal(**row | {"cause": RefusalCause(row["cause"])}) for row in rows]


def outdated_answers(conn: Connection, latest: Request) -> int:
    """Count the answers that a run refused because the person saw an outdated form.

    An answer is counted if it was about the subject of `latest` and was refused with
    `RefusalCause.OTHER_CONTENT`.

    Args:
        conn: the state database.
        latest: newest request of the run about the subject.
    """
    query = (
        select(func.count())
        .select_from(approval_refusal.join(approval_request))
        .where(
            approval_request.c.dag_id == latest.dag_id,
            approval_request.c.run_id == latest.run_id,
            approval_request.c.kind == latest.kind,
            approval_request.c.subject == latest.subject,
            approval_refusal.c.cause == str(RefusalCause.OTHER_CONTENT),
        )
    )
    return conn.execute(query).scalar_one()


def require_approval(conn: Connection, request_id: int, sha256: str) -> Decision:
    """Return the decision that approves a content; raise ControlFailed if there is none.

    Args:
        conn: the state database.
        request_id: number of the approval request.
        sha256: SHA-256 of the content as it is now.

    Raises:
        ControlFailed: the request is undecided or rejected, or the content has changed since the
            request.
    """
    request = load_request(conn, request_id)
    decision = decision_on(conn, request_id)
    if decision is None or not decision.approved:
        raise ControlFailed(f"{request.subject} was not approved.", "Request the approval again.")
    if request.sha256 != sha256:
        raise ControlFailed(
            f"{request.subject} changed after its approval.",
            "The approval is void. Find out who changed the content. The next run requests "
            "approval again.",
        )
    return decision


def approvals_of(conn: Connection, dag_id: str, run_id: str) -> list[Approval]:
    """Return the decisions on a run's approval requests, in the form used in ``result.json``.

    The oldest approval request comes first. Requests without a decision are left out.
    """
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
