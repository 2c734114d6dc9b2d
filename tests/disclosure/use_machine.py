"""Random sequences of requests, approvals, deliveries, openings, ends, legal holds and failures.

The machine keeps a model in plain Python: the approvals of each request with person and time, the
permitted content of its extract, and the legal holds. It compares every opening, every object in
the store and every record with the model. A legal hold changes nothing in the model of an extract:
it protects the original record, and never prolongs a copy.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pyzipper
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from include.disclosure import expiry, grants
from include.disclosure.absence_proof import PROVE
from include.disclosure.approval import APPROVE, APPROVE_SECOND
from include.disclosure.delivery import DELIVER
from include.disclosure.expiry import EXPIRE
from include.disclosure.grants import EndReason
from include.disclosure.opening import open_extract
from include.disclosure.use_check import CHECK
from include.disclosure.use_confirm import CONFIRM_COPIES
from include.evidence.model import Outcome
from include.holds.registry import HoldKind, active_holds
from include.services.clock import SystemClock
from include.services.database import LOGIN_PREFIX
from include.services.errors import ControlFailed, CouldNotRun, UsageError
from include.services.objectstore.base import StoreError
from tests.disclosure.use_fixtures import (
    EMPLOYEES,
    RULES,
    WITH_LOGINS,
    UseCompany,
    UseRun,
    drop_logins,
    erase,
    hold,
    new_pack,
    release_hold,
)

PEOPLE = [row[0] for row in EMPLOYEES]
NOT_CLERK = [person for person in PEOPLE if person != "clerk"]


@dataclass
class ModelledRequest:
    """The state of a request in the model.

    Attributes:
        run: run of the request.
        number: number of the request.
        fields: requested columns.
        unmasked: whether the ID numbers are requested without a mask.
        days: requested days.
        records: number of records of the plan.
        department: department of the requester at the check.
        first: first approver, and time of the approval; None without a first approval.
        second: second approver, and time of the approval; None without a second approval.
        asked_at: time of the first request to the supervisor; None before.
        asked_twice_at: time of the first request to the second approver; None before.
        is_decided: whether the supervisor decided.
        is_decided_twice: whether the second approver decided.
        contents: customers of the newest snapshot from which an extract was written.
        is_delivered: whether a delivery succeeded.
        is_ended: whether the access was ended.
        openings: number of successful openings.
        is_login: whether a database login is delivered in place of a file.
    """

    run: UseRun
    number: int
    fields: tuple[str, ...]
    unmasked: bool
    days: int
    records: int
    department: str
    first: tuple[str, datetime] | None = None
    second: tuple[str, datetime] | None = None
    asked_at: datetime | None = None
    asked_twice_at: datetime | None = None
    is_decided: bool = False
    is_decided_twice: bool = False
    contents: frozenset[int] = frozenset()
    is_delivered: bool = False
    is_ended: bool = False
    openings: int = 0
    refusals: list[str] = field(default_factory=list)
    is_login: bool = False

    @property
    def approved_at(self) -> datetime | None:
        """When the last required approval was given; None if one is missing."""
        if self.first is None or (self.unmasked and self.second is None):
            return None
        return max(at for _person, at in filter(None, (self.first, self.second)))

    @property
    def expires_at(self) -> datetime | None:
        """End of the access; None if an approval is missing."""
        return None if self.approved_at is None else self.approved_at + timedelta(days=self.days)


class Killed(BaseException):
    """Raised in place of the end of a process."""


class UseMachine(RuleBasedStateMachine):
    """Operations on requests and extracts, in any order."""

    company: UseCompany

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[ModelledRequest] = []
        self.active = {row[0]: True for row in EMPLOYEES if row[0] != "leaver"}
        self.department = "service"
        self.erased: dict[int, datetime] = {}
        self.holds: dict[int, set[int]] = {}  # number of an active hold -> customers on hold
        self.sessions: dict[int, psycopg.Connection[Any]] = {}  # sessions of logins, by request

    @initialize()
    def begin(self) -> None:
        """Begin with five customers."""
        self.company.reset()
        self.company.pack = new_pack(WITH_LOGINS)
        self.company.clock.at = SystemClock().now()  # the view of a login reads the server's clock
        self.company.add_customers(4)
        self.customers = {1, 2, 3, 4}

    def teardown(self) -> None:
        """Close the sessions of logins, and drop the logins."""
        for session in self.sessions.values():
            session.close()
        drop_logins(self.company.source)

    def _choose(self, index: int) -> ModelledRequest:
        return self.requests[index % len(self.requests)]

    @rule(unmasked=st.booleans(), days=st.integers(1, 3), is_login=st.booleans())
    def request(self, unmasked: bool, days: int, is_login: bool) -> None:
        """Make a request, or a new request in place of an edit, and check it."""
        fields = ("customer_id", "name", *(("id_number",) if unmasked else ()))
        prepared = self.company.request(
            fields=list(fields),
            unmasked=["id_number"] if unmasked else [],
            days=days,
            form="login" if is_login else "zip",
        )
        run = self.company.start(request=prepared.id)
        may_request = self.active["clerk"] and (self.active["lead"] or self.active["boss"])
        try:
            run.step(CHECK)
        except CouldNotRun:
            assert not may_request or prepared.plan.records == 0
            return
        assert may_request
        self.requests.append(
            ModelledRequest(
                run,
                prepared.id,
                fields,
                unmasked,
                days,
                prepared.plan.records,
                self.department,
                is_login=is_login,
            )
        )

    @precondition(lambda self: self.requests)
    @rule(index=st.integers(0, 5), person=st.sampled_from(PEOPLE), rejects=st.booleans())
    def approve(self, index: int, person: str, rejects: bool) -> None:
        """Let anybody answer the question to the supervisor."""
        request = self._choose(index)
        supervisor = "lead" if self.active["lead"] else "boss"
        option = "Reject" if rejects else "Approve"
        try:
            record = request.run.answer(APPROVE, person, option)
        except ControlFailed:
            assert not any(self.active[approver] for approver in ("lead", "boss"))
            return
        if record is None or request.is_decided:
            return
        approved = bool(record.data["approved"])
        now = self.company.clock.now()
        request.asked_at = request.asked_at or now
        if person == supervisor and self.active[person]:
            request.is_decided = True
            is_in_time = now <= request.asked_at + RULES.response.span
            assert approved is (is_in_time and not rejects)
            if approved:
                request.first = (person, now)
        else:
            assert not approved
            assert record.outcome is Outcome.FAIL

    @precondition(lambda self: self.requests)
    @rule(index=st.integers(0, 5), person=st.sampled_from(PEOPLE))
    def approve_again(self, index: int, person: str) -> None:
        """Let anybody answer the question for the second approval."""
        request = self._choose(index)
        if not request.is_decided:
            return
        request.run.answer(APPROVE, None)  # the stored decision is found again
        try:
            record = request.run.answer(APPROVE_SECOND, person)
        except ControlFailed:
            assert not any(self.active[approver] for approver in ("officer", "deputy"))
            return
        if record is None or request.is_decided_twice:
            return
        may_decide = person in ("officer", "deputy") and self.active[person]
        now = self.company.clock.now()
        request.asked_twice_at = request.asked_twice_at or now
        is_in_time = now <= request.asked_twice_at + RULES.response.span
        assert bool(record.data["approved"]) is (may_decide and is_in_time)
        if may_decide:
            request.is_decided_twice = True
            request.second = (person, now) if is_in_time else None

    @precondition(lambda self: self.requests)
    @rule(
        index=st.integers(0, 5),
        killed=st.sampled_from([None, "begin_delivery", "record_delivery", "queue"]),
    )
    def deliver(self, index: int, killed: str | None) -> None:
        """Deliver an extract, and sometimes kill the worker before one of its commits."""
        request = self._choose(index)
        self._let_questions_end(request)
        now, expires_at = self.company.clock.now(), request.expires_at
        before = self._may_open(request)
        try:
            with _killing(killed):
                record = request.run.step(DELIVER)
        except Killed:
            return
        except ControlFailed as error:
            request.refusals.append(error.message)
            return
        if not record.data["delivered"]:
            assert request.approved_at is None
            return
        assert expires_at is not None
        assert now < expires_at
        if not before:
            assert request.approved_at is not None
            assert now <= request.approved_at + grants.LONGEST_DELIVERY
            assert request.department == self.department
        assert self.active["clerk"]
        assert not request.is_ended
        if not before:
            request.contents = frozenset(self._selected())
            assert len(request.contents) <= request.records
        request.is_delivered = True

    def _let_questions_end(self, request: ModelledRequest) -> None:
        """End open questions without an answer, as the workflow does before the delivery."""
        now = self.company.clock.now()
        try:
            request.run.answer(APPROVE, None)
            request.asked_at = request.asked_at or now
            if request.run.answer(APPROVE_SECOND, None) is not None:
                request.asked_twice_at = request.asked_twice_at or now
        except ControlFailed:
            groups = (("lead", "boss"), ("officer", "deputy"))
            assert not all(any(self.active[person] for person in group) for group in groups)

    def _selected(self) -> set[int]:
        return {number for number in self.customers if number not in self.erased}

    def _may_open(self, request: ModelledRequest) -> bool:
        return (
            request.is_delivered
            and not request.is_ended
            and request.expires_at is not None
            and self.company.clock.now() < request.expires_at
        )

    @rule(unmasked=st.booleans(), days=st.integers(1, 3), is_login=st.booleans())
    def deliver_new_request(self, unmasked: bool, days: int, is_login: bool) -> None:
        """Let the entitled people approve a new request, and deliver its extract or login."""
        before = len(self.requests)
        self.request(unmasked, days, is_login)
        if len(self.requests) == before:
            return
        supervisor = "lead" if self.active["lead"] else "boss"
        self.approve(-1, supervisor, rejects=False)
        if unmasked:
            self.approve_again(-1, "deputy")
        self.deliver(-1, None)

    @precondition(lambda self: self.requests)
    @rule(index=st.integers(0, 5), person=st.sampled_from(["clerk", "clerk", "lead", "officer"]))
    def open(self, index: int, person: str) -> None:
        """Open an extract, and compare its content with the model."""
        request = self._choose(index)
        company = self.company
        try:
            opened = open_extract(
                company.state, company.store, company.clock, request.number, person=person,
                channel="page",
            )  # fmt: skip
        except UsageError:
            assert person != "clerk" or not self._may_open(request)
            return
        assert person == "clerk"
        assert self._may_open(request)
        request.openings += 1
        if request.is_login:
            assert company.password(request.number) not in b"".join(opened.pieces).decode()
            self._read_with_login(request)
            return
        with pyzipper.AESZipFile(io.BytesIO(b"".join(opened.pieces))) as archive:
            archive.setpassword(company.password(request.number).encode())
            text = archive.read(f"extract-{request.number}.csv").decode("utf-8-sig")
        head, *lines = text.splitlines()
        assert head == ",".join(request.fields)
        expected = {
            f"{number},王**" + (f",ID{number}" if request.unmasked else "")
            for number in request.contents
        }
        assert set(lines) == expected
        assert len(lines) == len(expected)

    def _read_with_login(self, request: ModelledRequest) -> None:
        """Read all records with a login, and keep its session open."""
        company = self.company
        [name] = [
            grant.object_key for grant in self._grants() if grant.request_id == request.number
        ]
        if request.number in self.sessions:
            self.sessions[request.number].close()
        session = psycopg.connect(
            company.source, user=name, password=company.password(request.number), autocommit=True
        )
        self.sessions[request.number] = session
        cursor = session.execute("SELECT * FROM customer")
        assert [column.name for column in cursor.description or ()] == list(request.fields)
        rows = cursor.fetchall()
        expected = {
            (number, "王**", *((f"ID{number}",) if request.unmasked else ()))
            for number in request.contents & self._existing()
        }
        assert set(rows) == expected
        assert len(rows) == len(expected)

    @rule(hours=st.sampled_from([1, 5, 23, 25, 49, 80]))
    def wait(self, hours: int) -> None:
        """Let time pass."""
        self.company.clock.at += timedelta(hours=hours)

    @rule(person=st.sampled_from(["clerk", "lead", "boss", "officer"]), active=st.booleans())
    def leave(self, person: str, active: bool) -> None:
        """Let an employee leave or return."""
        self.company.set_employee(person, active=active)
        self.active[person] = active

    @rule(department=st.sampled_from(["service", "warehouse"]))
    def transfer(self, department: str) -> None:
        """Transfer the requester to a department."""
        self.company.set_employee("clerk", department=department)
        self.department = department

    @rule(count=st.integers(1, 2))
    def add_customers(self, count: int) -> None:
        """Add customers, which no approval covers yet."""
        highest = max(self.customers)
        self.company.add_customers(count, after=highest)
        self.customers |= set(range(highest + 1, highest + 1 + count))

    @precondition(lambda self: len(self.customers) > 1)
    @rule(index=st.integers(0, 3), is_deleted=st.booleans())
    def erase(self, index: int, is_deleted: bool) -> None:
        """Enter the erasure request of a customer, and sometimes delete the record."""
        subject = sorted(self.customers)[index % len(self.customers)]
        if subject not in self.erased:
            erase(self.company, str(subject))
            self.erased[subject] = self.company.clock.now()
        if is_deleted and not self._is_held(subject):
            self.company.execute("DELETE FROM customer WHERE customer_id = %s", subject)

    @rule(
        index=st.integers(0, 5),
        kind=st.sampled_from([HoldKind.SUBJECT, HoldKind.CASE, HoldKind.DATABASE]),
        has_prefix=st.booleans(),
    )
    def place_hold(self, index: int, kind: HoldKind, has_prefix: bool) -> None:
        """Place a legal hold on a customer, on one record, or on all records of the database."""
        existing = sorted(self._existing())
        if not existing:
            return
        customer = existing[index % len(existing)]
        value = f"shop/{customer}" if has_prefix else str(customer)
        held = {customer}
        if kind is HoldKind.DATABASE:
            value, held = "shop", set(existing)
        self.holds[hold(self.company, kind, value)] = held

    @precondition(lambda self: self.holds)
    @rule(index=st.integers(0, 5))
    def release_hold(self, index: int) -> None:
        """Release a legal hold."""
        number = sorted(self.holds)[index % len(self.holds)]
        release_hold(self.company, number)
        del self.holds[number]

    @rule(
        index=st.integers(0, 3),
        kind=st.sampled_from([HoldKind.SUBJECT, HoldKind.CASE, HoldKind.DATABASE]),
        is_erased=st.booleans(),
        is_login=st.booleans(),
    )
    def end_extract_on_hold(
        self, index: int, kind: HoldKind, is_erased: bool, is_login: bool
    ) -> None:
        """Deliver an extract, place a hold, and let the access end by its time or by an erasure."""
        self.deliver_new_request(False, 1, is_login)
        self.place_hold(index, kind, True)
        if is_erased:
            self.erase(index, False)
        else:
            self.wait(25)
        self.expire(None)

    def _is_held(self, customer: int) -> bool:
        return any(customer in customers for customers in self.holds.values())

    def _existing(self) -> set[int]:
        return {number for (number,) in self.company.execute("SELECT customer_id FROM customer")}

    @precondition(lambda self: self.requests)
    @rule(index=st.integers(0, 5), person=st.sampled_from(["clerk", "lead"]))
    def confirm(self, index: int, person: str) -> None:
        """Confirm that local copies are deleted, which ends the access."""
        request = self._choose(index)
        run = self.company.start(by=person, action="confirm", request=request.number)
        try:
            run.step(CONFIRM_COPIES)
        except CouldNotRun:
            return
        assert person == "clerk"
        request.is_ended = True

    @precondition(lambda self: self.requests)
    @rule(index=st.integers(0, 5))
    def end(self, index: int) -> None:
        """End an access by hand."""
        request, now = self._choose(index), self.company.clock.now()
        with self.company.state.begin() as conn:
            if grants.end_access(conn, request.number, EndReason.ENDED_BY_PERSON, now, by="lead"):
                request.is_ended = True

    @rule(failure=st.sampled_from([None, None, "store", "killed"]))
    def expire(self, failure: str | None) -> None:
        """Run `expire_grants`, sometimes with a store that is away or a kill in the middle."""
        run = self.company.start("expire_grants", by=None)
        started_at = run.started_at
        ending = [
            request
            for request in self.requests
            if not request.is_ended
            and self._has_grant(request.number)
            and self._has_to_end(request, started_at)
        ]
        for request in ending:
            request.is_ended = True
        if failure is not None:
            with _failing_deletion(failure):
                try:
                    run.step(EXPIRE)
                except (StoreError, Killed):
                    # Accesses whose time is over are ended first, the others perhaps not yet.
                    ended = {grant.request_id for grant in self._grants() if grant.ending_at}
                    for request in ending:
                        assert request.expires_at is not None
                        is_over = started_at >= request.expires_at
                        assert request.number in ended or not is_over
                        request.is_ended = request.number in ended
                    return
        run.step(EXPIRE)
        proof = run.step(PROVE)
        assert proof.outcome is Outcome.PASS, proof.findings
        live = {request.number for request in self.requests if self._may_open(request)}
        stored = [int(key.split("/")[1]) for key in self.company.objects()]
        stored += self._logins()
        delivering = {
            grant.request_id
            for grant in self._grants()
            if grant.state is grants.GrantState.DELIVERING
        }
        assert set(stored) <= live | delivering
        assert live <= set(stored)
        assert len(stored) == len(set(stored))
        self._check_holds(set(stored))

    def _logins(self) -> list[int]:
        """Return the number of the request of each login; each has a role and a schema."""
        roles, schemas = (
            [name for (name,) in self.company.execute(query, LOGIN_PREFIX)]
            for query in (
                "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s) ORDER BY 1",
                "SELECT nspname FROM pg_namespace WHERE starts_with(nspname, %s) ORDER BY 1",
            )
        )
        assert roles == schemas
        sessions = self.company.execute(
            "SELECT usename FROM pg_stat_activity WHERE starts_with(usename, %s)", LOGIN_PREFIX
        )
        assert {name for (name,) in sessions} <= set(roles)
        return [int(name.removeprefix(LOGIN_PREFIX).partition("_")[0]) for name in roles]

    def _check_holds(self, stored: set[int]) -> None:
        """Check that legal holds prolong no extract, and that they keep the original records.

        Args:
            stored: numbers of the requests with an extract in the store.
        """
        ended = {grant.request_id for grant in self._grants() if grant.ended_at is not None}
        for request in self.requests:
            if request.is_ended and any(map(self._is_held, request.contents)):
                assert request.number not in stored
                assert request.number in ended
        with self.company.state.connect() as conn:
            assert {active.id for active in active_holds(conn)} == set(self.holds)
        assert set().union(*self.holds.values()) <= self._existing()

    def _has_to_end(self, request: ModelledRequest, now: datetime) -> bool:
        assert request.expires_at is not None
        return (
            now >= request.expires_at
            or not self.active["clerk"]
            or self._department(request.number) != self.department
            or bool(set(self.erased) & set(request.contents))
            or self._is_late(request, now)
        )

    def _is_late(self, request: ModelledRequest, now: datetime) -> bool:
        assert request.approved_at is not None
        late = now > request.approved_at + grants.LONGEST_DELIVERY
        return not request.is_delivered and late

    def _department(self, number: int) -> str:
        return next(grant.department for grant in self._grants() if grant.request_id == number)

    def _has_grant(self, number: int) -> bool:
        return any(grant.request_id == number for grant in self._grants())

    def _grants(self) -> list[grants.Grant]:
        with self.company.state.connect() as conn:
            return grants.grants_in(conn, list(grants.GrantState))

    @invariant()
    def no_record_is_lost(self) -> None:
        """Compare the recorded grants and openings with the model."""
        if not self.requests:
            return
        with self.company.state.connect() as conn:
            counted = grants.count_openings(conn)
        for request in self.requests:
            assert counted.get(request.number, 0) == request.openings
        for grant in self._grants():
            [request] = [entry for entry in self.requests if entry.number == grant.request_id]
            assert grant.expires_at == request.expires_at
            assert grant.is_open(self.company.clock.now()) <= self._may_open(request)


@contextmanager
def _killing(moment: str | None) -> Iterator[None]:
    """Kill the worker in place of a call."""
    if moment is None:
        yield
        return
    import include.disclosure.delivery as delivery

    def killed(*_: Any, **__: Any) -> Any:
        raise Killed

    holder: Any = delivery if moment == "queue" else grants
    name = "queue_delivery" if moment == "queue" else moment
    original: Callable[..., Any] = getattr(holder, name)
    setattr(holder, name, killed)
    try:
        yield
    finally:
        setattr(holder, name, original)


@contextmanager
def _failing_deletion(failure: str) -> Iterator[None]:
    """Let the deletion of extracts and logins fail."""
    original, remove = expiry.delete_extracts, expiry.remove_logins

    def fail(*_: Any) -> int:
        if failure == "killed":
            raise Killed
        raise StoreError("the store is away")

    expiry.delete_extracts = fail  # type: ignore[assignment] # put back below
    expiry.remove_logins = fail  # type: ignore[assignment] # put back below
    try:
        yield
    finally:
        expiry.delete_extracts, expiry.remove_logins = original, remove
