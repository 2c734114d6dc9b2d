"""Tests of the register of erasure requests."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from include.erasure.requests import (
    ErasureRequest,
    add,
    all_requests,
    close,
    open_request,
    open_requests,
    withdraw,
)
from include.services.clock import FixedClock
from include.services.errors import UsageError
from tests.evidence.support import START
from tests.support.registers import emptying

CLOCK = FixedClock(START)
TODAY = START.date()


@pytest.fixture
def conn(ledger: Connection) -> Connection:
    return ledger


def add_request(conn: Connection, subject: str = "12", **changes: Any) -> ErasureRequest:
    fields = {
        "database": "courier",
        "reference": "R-1",
        "received_on": TODAY,
        "entered_by": "privacy",
    } | changes
    return add(conn, CLOCK, subject=subject, **fields)


def test_erasure_request_is_due_thirty_days_after_receipt(conn: Connection) -> None:
    """The thirty days count from the receipt, not from the entry (GB/T 35273-2020, 8.7 a)."""
    request = add_request(conn, " 12 ", received_on=date(2026, 11, 1))
    assert request.due_on == date(2026, 12, 1)
    assert (request.subject, request.entered_at) == ("12", START)
    assert open_requests(conn, "courier") == all_requests(conn) == [request]
    assert open_requests(conn, "partners") == []


def test_adding_a_second_erasure_request_for_a_data_subject_returns_the_open_request(
    conn: Connection,
) -> None:
    """The first due date is kept, even if the second request has the prefix of the database."""
    first = add_request(conn, received_on=TODAY - timedelta(days=9))
    assert add_request(conn, reference="R-2") == first
    assert add_request(conn, "courier/12") == first
    assert open_request(conn, "courier", "courier/12") == first
    assert add_request(conn, database="partners") != first
    assert add_request(conn, "courier/12", database="partners").subject == "courier/12"
    close(conn, CLOCK, first.id, closed_by="run", because="erased")
    again = add_request(conn, reference="R-2")
    assert (again.reference, again.received_on) == ("R-2", TODAY)


def test_adding_an_erasure_request_removes_the_database_prefix_of_the_key_only_once(
    conn: Connection,
) -> None:
    request = add_request(conn, "courier/courier/12")
    assert request.subject == "courier/12"
    assert add_request(conn, "courier/courier/12") == request


def test_concurrent_additions_for_same_subject_create_one_request(ledger_state: Engine) -> None:
    def enter() -> int:
        with ledger_state.begin() as conn:
            return add_request(conn, "both").id

    try:
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(enter) for _ in range(4)]
            ids = {future.result(20) for future in futures}
    finally:
        with ledger_state.begin() as conn:
            conn.exec_driver_sql(emptying(["erasure_request", "erasure_request_record"]))
    assert len(ids) == 1


def test_request_is_overdue_after_due_date_unless_closed(conn: Connection) -> None:
    request = add_request(conn)
    assert not request.is_overdue(request.due_on)
    late = request.due_on + timedelta(days=1)
    assert request.is_overdue(late)
    closed = close(conn, CLOCK, request.id, closed_by="run", because="erased")
    assert not closed.is_overdue(late)


def test_closing_a_closed_or_unknown_request_fails_and_changes_no_request(conn: Connection) -> None:
    request = add_request(conn)
    closed = withdraw(conn, CLOCK, request.id, by="privacy", because="asked by mistake")
    assert (closed.closed_at, closed.closed_by) == (START, "privacy")
    assert all_requests(conn) == [closed]
    assert open_requests(conn, "courier") == []
    assert open_request(conn, "courier", "12") is None
    for request_id in (request.id, 10**9):
        with pytest.raises(UsageError, match=f"Erasure request {request_id} does not exist"):
            close(conn, CLOCK, request_id, closed_by="run", because="erased")
    assert all_requests(conn) == [closed]


@pytest.mark.parametrize("field", ["subject", "reference", "entered_by"])
@pytest.mark.parametrize("text", ["  ", "138 0013 8000", "53010219900307123X"])
def test_adding_a_request_raises_usage_error_if_a_text_is_empty_or_a_phone_or_id_number(
    conn: Connection, field: str, text: str
) -> None:
    with pytest.raises(UsageError) as refused:
        add_request(conn, **{field: text})
    assert not text.strip() or text not in str(refused.value)
    assert all_requests(conn) == []


def test_key_that_looks_like_a_phone_number_is_accepted_only_with_a_database_prefix(
    conn: Connection,
) -> None:
    with pytest.raises(UsageError, match="looks like"):
        add_request(conn, "13800138000")
    assert add_request(conn, "courier/13800138000").subject == "13800138000"
    with pytest.raises(UsageError, match="subject"):
        add_request(conn, "courier/")


@pytest.mark.parametrize("text", ["", "13800138000 called"])
def test_withdrawing_a_request_raises_usage_error_if_a_text_is_empty_or_has_a_phone_number(
    conn: Connection, text: str
) -> None:
    request = add_request(conn)
    for texts in ({"by": text, "because": "x"}, {"by": "privacy", "because": text}):
        with pytest.raises(UsageError):
            withdraw(conn, CLOCK, request.id, **texts)
    assert open_requests(conn, "courier") == [request]


def test_adding_a_request_raises_usage_error_if_its_day_of_receipt_is_in_the_future(
    conn: Connection,
) -> None:
    """A day that has already begun in any timezone is accepted."""
    latest = (START + timedelta(hours=14)).date()
    assert add_request(conn, received_on=latest).received_on == latest
    with pytest.raises(UsageError, match="future"):
        add_request(conn, "13", received_on=latest + timedelta(days=1))
