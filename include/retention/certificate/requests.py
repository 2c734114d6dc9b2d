"""Judge each open erasure request by the count afterwards, and close the completed requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from types import MappingProxyType

from include.erasure import requests
from include.erasure.requests import ErasureRequest
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import _
from include.retention.certificate.count.remembered import Subject
from include.retention.database import RetentionDatabase
from include.retention.planning.subjects import MOST_RECORDS
from include.retention.results import RequestResult, RequestState


def judge(
    database: RetentionDatabase,
    findings: StepFindings,
    open_requests: Sequence[ErasureRequest],
    subjects: Mapping[int, Subject],
    lasting: Mapping[int, int] = MappingProxyType({}),
) -> list[RequestResult]:
    """Close the completed requests, and enter findings about requests that are late or kept open.

    Requests that an earlier try of the step closed are judged too.

    Args:
        database: of the requests.
        findings: takes the findings.
        open_requests: to judge.
        subjects: result of the count for each request, by request id.
        lasting: request id -> number of its records in classes that are no longer erased on
            request. Such a request is not closed.

    Returns:
        The state of each request, for the report.
    """
    run = database.run
    with run.state.connect() as conn:
        closed = [
            request
            for request in requests.every(conn)
            if request.database == database.name and request.closed_by == _run_name(database)
        ]
    results = [
        _result(request, Subject(request.subject, 0, 0), _closed(database, findings, request))
        for request in closed
    ]
    for request in open_requests:
        subject = subjects[request.id]
        state = _request(database, findings, request, subject, lasting.get(request.id, 0))
        with run.state.begin() as conn:
            kept = state in ("restricted", "restricted_late")
            requests.restrict(conn, run.clock, request.id, restricted=kept)
        results.append(_result(request, subject, state))
    return results


def _result(request: ErasureRequest, subject: Subject, state: RequestState) -> RequestResult:
    return RequestResult(
        request=request.id,
        reference=request.reference,
        received_on=request.received_on,
        due_on=request.due_on,
        left=subject.records,
        unexplained=subject.unexplained,
        taken_over=subject.taken_over,
        state=state,
    )


def _run_name(database: RetentionDatabase) -> str:
    """Return the name of the run in the registry of requests."""
    return " ".join(database.run_key)


def _closed(
    database: RetentionDatabase, findings: StepFindings, request: ErasureRequest
) -> RequestState:
    """Return whether a request was closed in time.

    A request whose records were kept counts as in time if it was restricted by its due date.
    """
    assert request.closed_at is not None
    if _days_late(database, request, request.restricted_at or request.closed_at) <= 0:
        return "closed"
    _late(findings, request, _days_late(database, request, request.closed_at))
    return "closed_late"


def _days_late(database: RetentionDatabase, request: ErasureRequest, moment: datetime) -> int:
    return (moment.astimezone(database.run.zone).date() - request.due_on).days


def _late(findings: StepFindings, request: ErasureRequest, days: int) -> None:
    findings.find(
        "retention.request_late",
        Outcome.FAIL,
        _(
            "Request {reference}, due on {due}, was completed {late} days late.",
            reference=request.reference,
            due=request.due_on,
            late=days,
        ),
        _("Find out why it was late, and inform the data subject."),
    )


def _request(
    database: RetentionDatabase,
    findings: StepFindings,
    request: ErasureRequest,
    subject: Subject,
    lasting: int,
) -> RequestState:
    run, today = database.run, database.run.today
    answered = any(rule.on_request for rule in database.rules)  # otherwise no record was searched
    if request.oversized_at is not None:
        return _oversized(findings, request, today)
    if not subject.records and answered and request.found_at is None:
        return _not_found(findings, request, today)
    if not subject.records and answered and not lasting:
        closed_by = _run_name(database)
        because = "no record is left in the classes that a request erases"
        with run.state.begin() as conn:
            done = requests.close(conn, run.clock, request.id, closed_by=closed_by, because=because)
        return _closed(database, findings, done)
    forgotten = 0 if subject.records else lasting
    if (subject.unexplained or forgotten or not answered) and request.is_overdue(today):
        findings.find(
            "retention.request_overdue",
            Outcome.FAIL,
            _(
                "Request {reference}, due on {due}: {count} records are not erased.",
                reference=request.reference,
                due=request.due_on,
                count=subject.unexplained or forgotten,
            )
            if answered
            else _(
                "Request {reference} was due on {due}, and no record class is erased on request.",
                reference=request.reference,
                due=request.due_on,
            ),
            _("Answer the data subject, and find out why the records were not erased."),
        )
        return "overdue"
    if subject.records and not subject.unexplained:
        findings.find(
            "retention.request_restricted",
            Outcome.ATTENTION,
            _(
                "Request {reference}: {count} records remain. A legal hold, a law or another "
                "record keeps them.",
                reference=request.reference,
                count=subject.records,
            )
            if not subject.taken_over
            else _(
                "Request {reference}: {count} records remain. {others} of them now belong to "
                "another data subject; a legal hold, a law or another record keeps the others.",
                reference=request.reference,
                count=subject.records,
                others=subject.taken_over,
            ),
            _(
                "Inform the data subject. Until the records are erased, they may only be stored "
                "(PIPL 47)."
            ),
        )
        days = _days_late(database, request, run.clock.now())
        if request.restricted_at is None and days > 0:  # erasable records were erased late
            _late(findings, request, days)
            return "restricted_late"
        return "restricted"
    return "open"


def _oversized(findings: StepFindings, request: ErasureRequest, today: date) -> RequestState:
    """Report a request that is too large for any run; a person erases its records."""
    late = request.is_overdue(today)
    findings.find(
        "retention.request_overdue" if late else "retention.request_oversized",
        Outcome.FAIL if late else Outcome.ATTENTION,
        _(
            "Request {reference}, due on {due}, has more than {most} records in one record class: "
            "no run erases or closes it.",
            reference=request.reference,
            due=request.due_on,
            most=MOST_RECORDS,
        ),
        _(
            "Erase the records by hand, then withdraw the request. Or give the class a column that "
            "names the data subject, and enter the request again."
        ),
    )
    return "overdue" if late else "open"


def _not_found(findings: StepFindings, request: ErasureRequest, today: date) -> RequestState:
    """Report a request for whose key no run ever found a record."""
    late = request.is_overdue(today)
    findings.find(
        "retention.request_overdue" if late else "retention.request_not_found",
        Outcome.FAIL if late else Outcome.ATTENTION,
        _(
            "Request {reference}, due on {due}: no record was ever found under its key.",
            reference=request.reference,
            due=request.due_on,
        ),
        _(
            "Compare the key with the request's file and withdraw the request. Then enter it again "
            "with the right key, or inform the data subject that no record exists."
        ),
    )
    return "overdue" if late else "not_found"
