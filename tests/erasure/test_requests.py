"""Data subjects' requests: entered once while open, due after thirty days, closed and kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from include.erasure.requests import (
    ErasureRequest,
    add,
    close,
    every,
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


def ask(conn: Connection, subject: str = "12", **more: Any) -> ErasureRequest:
    given = {
        "database": "courier",
        "reference": "R-1",
        "received_on": TODAY,
        "entered_by": "privacy",
    } | more
    return add(conn, CLOCK, subject=subject, **given)


def test_a_request_is_due_thirty_days_after_it_was_received(conn: Connection) -> None:
    """Not after it was entered (GB/T 35273-2020, 8.7 a)."""
    request = ask(conn, " 12 ", received_on=date(2026, 11, 1))
    assert request.due_on == date(2026, 12, 1)
    assert (request.subject, request.entered_at) == ("12", START)
    assert open_requests(conn, "courier") == every(conn) == [request]
    assert open_requests(conn, "partners") == []


def test_asking_again_changes_nothing_while_the_request_is_open(conn: Connection) -> None:
    """A second letter does not move the deadline; the database's prefix is no other subject."""
    first = ask(conn, received_on=TODAY - timedelta(days=9))
    assert ask(conn, reference="R-2") == first
    assert ask(conn, "courier/12") == first
    assert open_request(conn, "courier", "courier/12") == first
    assert ask(conn, database="partners") != first
    assert ask(conn, "courier/12", database="partners").subject == "courier/12"
    close(conn, CLOCK, first.id, closed_by="run", because="erased")
    again = ask(conn, reference="R-2")
    assert (again.reference, again.received_on) == ("R-2", TODAY)


def test_a_key_that_begins_like_its_database_is_written_with_both(conn: Connection) -> None:
    """Asked for again, it is found again."""
    request = ask(conn, "courier/courier/12")
    assert request.subject == "courier/12"
    assert ask(conn, "courier/courier/12") == request


def test_two_who_enter_it_at_once_get_one_request(ledger_state: Engine) -> None:
    """The second waits for the first and finds it."""

    def enter() -> int:
        with ledger_state.begin() as conn:
            return ask(conn, "both").id

    try:
        with ThreadPoolExecutor(4) as pool:
            ids = {one.result(20) for one in [pool.submit(enter) for _ in range(4)]}
    finally:
        with ledger_state.begin() as conn:
            conn.exec_driver_sql(emptying(["erasure_request", "erasure_request_record"]))
    assert len(ids) == 1


def test_a_request_is_overdue_after_its_last_day(conn: Connection) -> None:
    """On that day it is in time; once closed it is not overdue."""
    request = ask(conn)
    assert not request.is_overdue(request.due_on)
    late = request.due_on + timedelta(days=1)
    assert request.is_overdue(late)
    closed = close(conn, CLOCK, request.id, closed_by="run", because="erased")
    assert not closed.is_overdue(late)


def test_a_request_is_closed_once_and_kept(conn: Connection) -> None:
    """With who and why; a second closing would overwrite them."""
    request = ask(conn)
    closed = withdraw(conn, CLOCK, request.id, by="privacy", because="asked by mistake")
    assert (closed.closed_at, closed.closed_by) == (START, "privacy")
    assert every(conn) == [closed]
    assert open_requests(conn, "courier") == []
    assert open_request(conn, "courier", "12") is None
    for wrong in (request.id, 10**9):
        with pytest.raises(UsageError, match=f"no open request {wrong}"):
            close(conn, CLOCK, wrong, closed_by="run", because="erased")
    assert every(conn) == [closed]


@pytest.mark.parametrize("field", ["subject", "reference", "entered_by"])
@pytest.mark.parametrize("text", ["  ", "138 0013 8000", "53010219900307123X"])
def test_what_is_empty_or_a_persons_number_is_refused(
    conn: Connection, field: str, text: str
) -> None:
    """The registry names people by key; the message does not repeat what was typed."""
    with pytest.raises(UsageError) as refused:
        ask(conn, **{field: text})
    assert not text.strip() or text not in str(refused.value)
    assert every(conn) == []


def test_a_running_number_behind_its_database_is_a_key(conn: Connection) -> None:
    """As for holds."""
    with pytest.raises(UsageError, match="looks like"):
        ask(conn, "13800138000")
    assert ask(conn, "courier/13800138000").subject == "13800138000"
    with pytest.raises(UsageError, match="subject"):
        ask(conn, "courier/")


@pytest.mark.parametrize("text", ["", "13800138000 called"])
def test_a_withdrawal_says_who_and_why_without_numbers_of_people(
    conn: Connection, text: str
) -> None:
    """And closes nothing when it does not."""
    request = ask(conn)
    for texts in ({"by": text, "because": "x"}, {"by": "privacy", "because": text}):
        with pytest.raises(UsageError):
            withdraw(conn, CLOCK, request.id, **texts)
    assert open_requests(conn, "courier") == [request]


def test_a_request_of_the_future_is_refused(conn: Connection) -> None:
    """Where the day has begun somewhere on earth it may be today: packs have timezones."""
    latest = (START + timedelta(hours=14)).date()
    assert ask(conn, received_on=latest).received_on == latest
    with pytest.raises(UsageError, match="future"):
        ask(conn, "13", received_on=latest + timedelta(days=1))
