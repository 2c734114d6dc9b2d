"""Determine the state of each erasure request after the verification. Close completed requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from types import MappingProxyType

from include.erasure import requests
from include.erasure.requests import ErasureRequest
from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import _
from include.retention.certificate.count.request_conditions import RemainingOfSubject
from include.retention.database import RetentionDatabase
from include.retention.planning.subjects import MOST_RECORDS
from include.retention.results import RequestResult, RequestState


def judge_requests(
    database: RetentionDatabase,
    findings: StepFindings,
    open_requests: Sequence[ErasureRequest],
    subjects: Mapping[int, RemainingOfSubject],
    lasting: Mapping[int, int] = MappingProxyType({}),
) -> list[RequestResult]:
    """Close completed erasure requests, and report requests that are late or cannot be completed.

    Args:
        database: database of the requests.
        findings: collector of the findings of the verification step.
        open_requests: open requests of the database.
        subjects: request id -> numbers of the remaining records of its data subject.
        lasting: request id -> number of records that runs found for the request, but whose record
            class is no longer erased on request. A request with such records stays open.

    Returns:
        The state of each request, for the report. Requests that an earlier attempt of the step
        closed are included.
    """
    run = database.run
    with run.state.connect() as conn:
        closed = [
            request
            for request in requests.all_requests(conn)
            if request.database == database.name and request.closed_by == _run_name(database)
        ]
    results = [
        _result(
            request,
            RemainingOfSubject(request.subject, 0, 0),
            _state_of_closed(database, findings, request),
        )
        for request in closed
    ]
    for request in open_requests:
        subject = subjects[request.id]
        state = _state_of_open(database, findings, request, subject, lasting.get(request.id, 0))
        with run.state.begin() as conn:
            kept = state in ("restricted", "restricted_late")
            requests.set_restricted(conn, run.clock, request.id, restricted=kept)
        results.append(_result(request, subject, state))
    return results


def _result(
    request: ErasureRequest, subject: RemainingOfSubject, state: RequestState
) -> RequestResult:
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
    """Return the text that is stored in the column `closed_by` of requests that this run closes."""
    return " ".join(database.run_key)


def _state_of_closed(
    database: RetentionDatabase, findings: StepFindings, request: ErasureRequest
) -> RequestState:
    """Return the state of a closed request: ``closed``, or ``closed_late`` if completed late.

    A late completion is reported. A request is not late if, on its due date, the only remaining
    records were records that had to be kept, for example by law.
    """
    assert request.closed_at is not None
    if _days_late(database, request, request.restricted_at or request.closed_at) <= 0:
        return "closed"
    _report_late(findings, request, _days_late(database, request, request.closed_at))
    return "closed_late"


def _days_late(database: RetentionDatabase, request: ErasureRequest, moment: datetime) -> int:
    return (moment.astimezone(database.run.zone).date() - request.due_on).days


def _report_late(findings: StepFindings, request: ErasureRequest, days: int) -> None:
    findings.find(
        "retention.request_late",
        Outcome.FAIL,
        _(
            "Erasure request {reference}, due on {due}, was completed {late} days late.",
            reference=request.reference,
            due=request.due_on,
            late=days,
        ),
        _("Find out the reason for the delay, and inform the data subject."),
    )


def _state_of_open(
    database: RetentionDatabase,
    findings: StepFindings,
    request: ErasureRequest,
    subject: RemainingOfSubject,
    lasting: int,
) -> RequestState:
    run, today = database.run, database.run.today
    answered = any(rule.on_request for rule in database.rules)  # otherwise no record was searched
    if request.oversized_at is not None:
        return _report_oversized(findings, request, today)
    if not subject.records and answered and request.found_at is None:
        return _report_not_found(findings, request, today)
    if not subject.records and answered and not lasting:
        closed_by = _run_name(database)
        because = "no record is left in the classes that a request erases"
        with run.state.begin() as conn:
            closed = requests.close(
                conn, run.clock, request.id, closed_by=closed_by, because=because
            )
        return _state_of_closed(database, findings, closed)
    forgotten = 0 if subject.records else lasting
    if (subject.unexplained or forgotten or not answered) and request.is_overdue(today):
        findings.find(
            "retention.request_overdue",
            Outcome.FAIL,
            _(
                "Erasure request {reference}, due on {due}: {count} records are not deleted.",
                reference=request.reference,
                due=request.due_on,
                count=subject.unexplained or forgotten,
            )
            if answered
            else _(
                "Erasure request {reference} was due on {due}, but no record class of this "
                "database is deleted on request.",
                reference=request.reference,
                due=request.due_on,
            ),
            _("Inform the data subject, and find out why the records were not deleted."),
        )
        return "overdue"
    if subject.records and not subject.unexplained:
        findings.find(
            "retention.request_restricted",
            Outcome.ATTENTION,
            _(
                "Erasure request {reference}: {count} records remain because of a legal hold, "
                "a law or a reference from another record.",
                reference=request.reference,
                count=subject.records,
            )
            if not subject.taken_over
            else _(
                "Erasure request {reference}: {count} records remain. {others} of them now "
                "belong to another data subject; the remaining records are kept because of a "
                "legal hold, a law or a reference from another record.",
                reference=request.reference,
                count=subject.records,
                others=subject.taken_over,
            ),
            _(
                "Inform the data subject. Until the records are deleted, they may only be "
                "stored and protected (Personal Information Protection Law (2021-11-01), article "
                "47)."
            ),
        )
        days = _days_late(database, request, run.clock.now())
        if request.restricted_at is None and days > 0:  # erasable records were erased late
            _report_late(findings, request, days)
            return "restricted_late"
        return "restricted"
    return "open"


def _report_oversized(findings: StepFindings, request: ErasureRequest, today: date) -> RequestState:
    """Report an erasure request with too many records in a record class.

    The keys of more than `MOST_RECORDS` records are not stored. Runs do not erase these records, so
    a person has to erase them.

    Args:
        findings: collector of the findings of the verification step.
        request: the erasure request.
        today: current day in the policy pack's timezone.
    """
    late = request.is_overdue(today)
    findings.find(
        "retention.request_overdue" if late else "retention.request_oversized",
        Outcome.FAIL if late else Outcome.ATTENTION,
        _(
            "Erasure request {reference}, due on {due}, has more than {limit} records in one "
            "record class. Runs neither delete these records nor close the request.",
            reference=request.reference,
            due=request.due_on,
            limit=MOST_RECORDS,
        ),
        _(
            "Delete the records by hand, then withdraw the request. Or add a column that "
            "identifies the data subject to the record class, and enter the request again."
        ),
    )
    return "overdue" if late else "open"


def _report_not_found(findings: StepFindings, request: ErasureRequest, today: date) -> RequestState:
    """Report an erasure request whose key has never matched a record."""
    late = request.is_overdue(today)
    findings.find(
        "retention.request_overdue" if late else "retention.request_not_found",
        Outcome.FAIL if late else Outcome.ATTENTION,
        _(
            "Erasure request {reference}, due on {due}: no record has ever matched the key in "
            "the request.",
            reference=request.reference,
            due=request.due_on,
        ),
        _(
            "Compare the key with the file of the request and withdraw the request. Then enter "
            "the request again with the right key, or inform the data subject that no record "
            "exists."
        ),
    )
    return "overdue" if late else "not_found"
