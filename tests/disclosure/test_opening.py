"""An opening is recorded before the first byte, with the few rights of the compliance pages."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine, text

from include.disclosure import grants
from include.disclosure.delivery import DELIVER
from include.disclosure.grants import EndReason
from include.disclosure.opening import OpenedExtract, open_extract
from include.disclosure.requests import UseRequest, load_request
from include.registry import pages_tables
from include.services.errors import UsageError
from include.state.connect import recording_engine
from include.state.reading import grant_pages
from tests.disclosure.test_delivery import approved, grant_of
from tests.disclosure.use_fixtures import UseCompany


@pytest.fixture
def pages(company: UseCompany) -> Iterator[Engine]:
    """Provide an engine of the state database with the rights of the compliance pages."""
    role = f"pages_{uuid.uuid4().hex[:8]}"
    name = sql.Identifier(role).as_string()
    with company.state.begin() as conn:
        conn.execute(text(f"CREATE ROLE {name}"))
        grant_pages(conn, role, pages_tables())
    with company.state.connect() as conn:
        conninfo = conn.connection.driver_connection.info.dsn  # type: ignore[union-attr] # psycopg
        password = conn.connection.driver_connection.info.password  # type: ignore[union-attr]
    login = psycopg.conninfo.make_conninfo(conninfo, password=password, options=f"-c role={role}")
    engine = recording_engine(login, 1)
    yield engine
    engine.dispose()
    with company.state.begin() as conn:
        conn.execute(text(f"DROP OWNED BY {name}"))
        conn.execute(text(f"DROP ROLE {name}"))


def delivered(company: UseCompany) -> int:
    """Return the number of a request whose extract can be opened."""
    run, number = approved(company)
    run.step(DELIVER)
    return number


def open_as_clerk(company: UseCompany, state: Engine, number: int) -> OpenedExtract:
    """Open an extract on the page as its requester."""
    return open_extract(state, company.store, company.clock, number, person="clerk", channel="page")


def test_pages_login_can_open_an_extract_and_change_nothing_else(
    company: UseCompany, pages: Engine
) -> None:
    number = delivered(company)
    opened = open_as_clerk(company, pages, number)
    with company.state.connect() as conn:
        assert [row[::2] for row in grants.openings(conn, number)] == [("clerk", "page")]
    assert b"".join(opened.pieces) == company.store.get(grant_of(company, number).object_key)
    for statement in (
        "UPDATE use_grant SET expires_at = now()",
        "SELECT 1 FROM use_grant FOR UPDATE",
        "UPDATE use_opening SET opened_by = 'x'",
        "DELETE FROM use_opening",
        "SELECT key FROM use_request_key",
        "INSERT INTO use_request_key VALUES (1, 'x')",
    ):
        with pytest.raises(Exception, match="permission denied"), pages.begin() as conn:
            conn.execute(text(statement))


@pytest.mark.parametrize("refusal", ["other person", "ended", "expired", "not delivered"])
def test_refused_opening_leaves_no_record(company: UseCompany, pages: Engine, refusal: str) -> None:
    number = approved(company)[1] if refusal == "not delivered" else delivered(company)
    person = "lead" if refusal == "other person" else "clerk"
    if refusal == "ended":
        with company.state.begin() as conn:
            grants.end_access(conn, number, EndReason.ENDED_BY_PERSON, company.clock.now())
    elif refusal == "expired":
        company.clock.at = grant_of(company, number).expires_at
    with pytest.raises(UsageError):
        open_extract(pages, company.store, company.clock, number, person=person, channel="page")
    with company.state.connect() as conn:
        assert grants.openings(conn, number) == []


def test_opening_that_waited_for_the_end_of_the_access_is_refused(
    company: UseCompany, pages: Engine
) -> None:
    """The statement sees the state before the commit of the end, and then waits for its lock."""
    number = delivered(company)
    errors: list[UsageError] = []

    def open_it() -> None:
        try:
            open_as_clerk(company, pages, number)
        except UsageError as error:
            errors.append(error)

    thread = threading.Thread(target=open_it)
    with company.state.begin() as conn:
        grants.end_access(conn, number, EndReason.ENDED_BY_PERSON, company.clock.now())
        thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        until = time.monotonic() + 10
        while not conn.scalar(text(waiting)):
            assert time.monotonic() < until, "the opening does not wait for the lock"
            conn.execute(text("SELECT pg_stat_clear_snapshot()"))
            time.sleep(0.02)
    thread.join(10)
    assert [str(error.message) for error in errors] == [
        f"The extract of request {number} cannot be opened."
    ]
    with company.state.connect() as conn:
        assert grants.openings(conn, number) == []


def test_end_of_the_access_waits_for_the_record_of_an_opening(company: UseCompany) -> None:
    number = delivered(company)
    with company.state.begin() as conn, company.state.connect() as other:
        request = request_of(company, number)
        grants.record_opening(
            conn, request, person="clerk", channel="page", now=company.clock.now()
        )
        other.execute(text("SET lock_timeout = '200ms'"))
        with pytest.raises(Exception, match="lock timeout"):
            grants.end_access(other, number, EndReason.ENDED_BY_PERSON, company.clock.now())
        other.rollback()


def request_of(company: UseCompany, number: int) -> UseRequest:
    """Return a stored request."""
    with company.state.connect() as conn:
        return load_request(conn, number)
