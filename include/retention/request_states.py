"""What became of each open request by the count afterwards; requests that are done are closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Literal
from zoneinfo import ZoneInfo

from include.erasure import requests
from include.erasure.requests import ErasureRequest
from include.evidence.examination import Examination
from include.evidence.model import Outcome
from include.messages import _
from include.retention import told
from include.retention.desk import Desk
from include.retention.subjects import MOST_RECORDS
from include.retention.verify_records import Subject

RequestState = Literal[
    "closed", "closed_late", "restricted", "restricted_late", "overdue", "open", "not_found"
]


def judge(
    desk: Desk,
    seen: Examination,
    asked: Sequence[ErasureRequest],
    subjects: dict[int, Subject],
    lasting: Mapping[int, int] = MappingProxyType({}),
    linked: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Close the requests that are done, and enter findings about late ones.

    Requests that an earlier try of the step closed count too.

    Args:
        desk: of the database.
        seen: takes the findings.
        asked: open requests.
        subjects: what the count found of each, by request id.
        lasting: by request id, how many records that runs found for it are of classes that no
            request erases any more. It is not closed then.
        linked: record classes erased on request whose records an erasure may cut off from their
            data subject. A request that an earlier version found is not closed then: that version
            kept no keys of such records.

    Returns:
        The state of each request, for the report.
    """
    run = _run(desk)
    with desk.state.connect() as conn:
        before = [
            one
            for one in requests.every(conn)
            if one.database == desk.database.name and one.closed_by == run
        ]
    became = [
        told.of_subject(one, Subject(one.subject, 0, 0), _closed(desk, seen, one)) for one in before
    ]
    for one in asked:
        found = subjects[one.id]
        state = _request(desk, seen, one, found, lasting.get(one.id, 0), linked)
        with desk.state.begin() as conn:
            kept = state in ("restricted", "restricted_late")
            requests.restrict(conn, desk.clock, one.id, restricted=kept)
        became.append(told.of_subject(one, found, state))
    return became


def _run(desk: Desk) -> str:
    """How the registry of requests names a run."""
    return f"{desk.dag_id} {desk.run_id}"


def _closed(desk: Desk, seen: Examination, one: ErasureRequest) -> RequestState:
    """Say whether a request was closed in time, or as soon as nothing kept its records any more."""
    assert one.closed_at is not None
    if _days_late(desk, one, one.restricted_at or one.closed_at) <= 0:
        return "closed"
    _late(seen, one, _days_late(desk, one, one.closed_at))
    return "closed_late"


def _days_late(desk: Desk, one: ErasureRequest, moment: datetime) -> int:
    return (moment.astimezone(ZoneInfo(desk.timezone)).date() - one.due_on).days


def _late(seen: Examination, one: ErasureRequest, days: int) -> None:
    seen.find(
        "retention.request_late",
        Outcome.FAIL,
        _(
            "Request {reference}, due on {due}, was completed {late} days late.",
            reference=one.reference,
            due=one.due_on,
            late=days,
        ),
        _("Find out why it was late, and inform the data subject."),
    )


def _request(
    desk: Desk,
    seen: Examination,
    one: ErasureRequest,
    found: Subject,
    lasting: int,
    linked: Sequence[str],
) -> RequestState:
    today = desk.today
    answered = any(rule.on_request for rule in desk.rules)  # else nothing was looked for
    if one.oversized_at is not None:
        return _oversized(seen, one, today)
    if not found.records and answered and one.found_at is None:
        return _not_found(seen, one, today)
    if not found.records and answered and not lasting:
        if one.found_earlier and linked:
            return _found_earlier(seen, one, today, linked)
        with desk.state.begin() as conn:
            because = "no record is left in the classes that a request erases"
            done = requests.close(conn, desk.clock, one.id, closed_by=_run(desk), because=because)
        return _closed(desk, seen, done)
    forgotten = 0 if found.records else lasting
    if (found.unexplained or forgotten or not answered) and one.is_overdue(today):
        seen.find(
            "retention.request_overdue",
            Outcome.FAIL,
            _(
                "Request {reference}, due on {due}: {count} records are not erased.",
                reference=one.reference,
                due=one.due_on,
                count=found.unexplained or forgotten,
            )
            if answered
            else _(
                "Request {reference} was due on {due}, and no record class is erased on request.",
                reference=one.reference,
                due=one.due_on,
            ),
            _("Answer the data subject, and find out why the records were not erased."),
        )
        return "overdue"
    if found.records and not found.unexplained:
        seen.find(
            "retention.request_restricted",
            Outcome.ATTENTION,
            _(
                "Request {reference}: {count} records remain. A legal hold, a law or another "
                "record keeps them.",
                reference=one.reference,
                count=found.records,
            )
            if not found.taken_over
            else _(
                "Request {reference}: {count} records remain. {others} of them now belong to "
                "another data subject; a legal hold, a law or another record keeps the others.",
                reference=one.reference,
                count=found.records,
                others=found.taken_over,
            ),
            _(
                "Inform the data subject. Until the records are erased, they may only be stored "
                "(PIPL 47)."
            ),
        )
        days = _days_late(desk, one, desk.clock.now())
        if one.restricted_at is None and days > 0:  # what could go went only now
            _late(seen, one, days)
            return "restricted_late"
        return "restricted"
    return "open"


def _oversized(seen: Examination, one: ErasureRequest, today: date) -> RequestState:
    """Report a request that no run can carry out; a person has to, and then closes it."""
    late = one.is_overdue(today)
    seen.find(
        "retention.request_overdue" if late else "retention.request_oversized",
        Outcome.FAIL if late else Outcome.ATTENTION,
        _(
            "Request {reference}, due on {due}, has more than {most} records in one record class: "
            "no run erases or closes it.",
            reference=one.reference,
            due=one.due_on,
            most=MOST_RECORDS,
        ),
        _(
            "Erase the records by hand, then withdraw the request. Or give the class a column that "
            "names the data subject, and enter the request again."
        ),
    )
    return "overdue" if late else "open"


def _found_earlier(
    seen: Examination, one: ErasureRequest, today: date, linked: Sequence[str]
) -> RequestState:
    """Report a request of which records may be left that no run can find; a person has to look."""
    late = one.is_overdue(today)
    seen.find(
        "retention.request_overdue" if late else "retention.request_found_earlier",
        Outcome.FAIL if late else Outcome.ATTENTION,
        _(
            "Request {reference}, due on {due}: an earlier version may have erased the records "
            "through which others are found, and did not keep the keys of these. Records may be "
            "left in: {classes}.",
            reference=one.reference,
            due=one.due_on,
            classes=", ".join(linked),
        ),
        _(
            "Search these record classes for the data subject, and erase by hand what is left. "
            "Then withdraw the request with that reason: no run closes it."
        ),
    )
    return "overdue" if late else "open"


def _not_found(seen: Examination, one: ErasureRequest, today: date) -> RequestState:
    """No run ever found a record by this key: nothing shows that anything was erased."""
    late = one.is_overdue(today)
    seen.find(
        "retention.request_overdue" if late else "retention.request_not_found",
        Outcome.FAIL if late else Outcome.ATTENTION,
        _(
            "Request {reference}, due on {due}: no record was ever found under its key.",
            reference=one.reference,
            due=one.due_on,
        ),
        _(
            "Compare the key with the request's file and withdraw the request. Then enter it again "
            "with the right key, or inform the data subject that no record exists."
        ),
    )
    return "overdue" if late else "not_found"
