"""Requests for customer information of the company that the pages show, in each state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Engine

from include.approvals import registry
from include.approvals.registry import APPROVE, REJECT
from include.disclosure import grants
from include.disclosure.approval import FIRST
from include.disclosure.content import DeliveryForm, PlannedColumn, RequestContent, UsePlan
from include.disclosure.extract_store import extract_key
from include.disclosure.grants import EndReason
from include.disclosure.logins.create import login_name
from include.disclosure.requests import UseRequest, attach_run, store_request
from include.disclosure.use_form import make_content
from include.notify.outbox import Run
from include.services.clock import FixedClock
from include.services.objectstore.base import ObjectStore

LIVE, OTHER, EXPIRED, WAITING, REJECTED, ENDED, PREPARED, LOGIN = range(1, 9)
"""Numbers of the requests, in the order in which `fill_use` stores them."""
SERVER = "courier on db.example:5432"  # where the login is
DAYS = 3  # days of access of each request


@dataclass
class UseData:
    """Stores requests, approvals and extracts.

    Attributes:
        state: engine of the state database, with the login of its owner.
        store: the extract store.
        now: current time.
        words: text that people entered, which contains a script.
    """

    state: Engine
    store: ObjectStore
    now: datetime
    words: str

    def fill(self) -> None:
        """Store a request in each state."""
        long_ago = self.now - timedelta(days=DAYS + 2)
        stored = [
            self.deliver("employee", self.now - timedelta(hours=1)),
            self.deliver("supervisor", self.now - timedelta(hours=1)),
            self.deliver("employee", long_ago),
            self.ask(f"E00099 {self.words}", self.now - timedelta(minutes=5)),
            self.ask("employee", self.now - timedelta(hours=2), REJECT),
            self._end(self.deliver("employee", long_ago)),
            self._request("employee", self.now),
            self.deliver_login("employee", self.now - timedelta(hours=1)),
        ]
        assert [request.id for request in stored] == [
            LIVE, OTHER, EXPIRED, WAITING, REJECTED, ENDED, PREPARED, LOGIN,
        ]  # fmt: skip

    def deliver(self, requester: str, at: datetime, extract: bytes = b"") -> UseRequest:
        """Store an approved request whose extract was delivered, and return the request.

        Args:
            requester: account of the requester.
            at: time of the request, of the approval and of the delivery.
            extract: content of the encrypted file; empty for a default that names the request.
        """
        request = self.ask(requester, at, APPROVE)
        content = extract or extract_of(request.id)
        key = extract_key(request.id, "a1", request.content.form)
        self.store.put(key, content)
        self._record(request, at, key, self.store.description, content)
        return request

    def deliver_login(self, requester: str, at: datetime) -> UseRequest:
        """Store an approved request whose database login was delivered, and return the request."""
        request = self.ask(requester, at, APPROVE, DeliveryForm.LOGIN)
        self._record(request, at, login_name(request.id, "a1"), SERVER, b"address")
        return request

    def _record(
        self, request: UseRequest, at: datetime, key: str, store: str, content: bytes
    ) -> None:
        with self.state.begin() as conn:
            grants.grant_request(conn, request, approvals=[1], department="d", approved_at=at)
            grants.begin_delivery(
                conn, request.id, attempt="a1", object_key=key, store=store, now=at
            )
            is_delivered = grants.record_delivery(
                conn, request.id, attempt="a1", delivered_at=at, snapshot_at=at, records=12,
                size=len(content), file_sha256=hashlib.sha256(content).hexdigest(),
            )  # fmt: skip
        assert is_delivered

    def ask(
        self,
        requester: str,
        at: datetime,
        decision: str = "",
        form: DeliveryForm = DeliveryForm.ZIP,
    ) -> UseRequest:
        """Store a request that waits for its approval, or one that the supervisor decided."""
        request = self._request(requester, at, form)
        run = Run("use_information", f"manual__use {request.id} {self.words}")
        with self.state.begin() as conn:
            attach_run(conn, request, run, requester, at)
            approval = registry.create_request(
                conn, FixedClock(at), kind=FIRST, subject=f"request {request.id}",
                sha256=request.sha256, requested_by=[requester], dag_id=run.dag_id,
                run_id=run.run_id, deadline=at + timedelta(days=1),
            )  # fmt: skip
            if decision:
                registry.decide(
                    conn, approval, decision=decision, reason=f"too many fields {self.words}",
                    decided_by="management", decided_at=at, may_decide=["management"],
                    content=approval.content,
                )  # fmt: skip
        return request

    def _request(
        self, requester: str, at: datetime, form: DeliveryForm = DeliveryForm.ZIP
    ) -> UseRequest:
        with self.state.begin() as conn:
            return store_request(conn, self._content(requester, form), PLAN, frozenset(), at)

    def _content(self, requester: str, form: DeliveryForm) -> RequestContent:
        values = {
            "requester": requester,
            "purpose": "delivery",
            "database": "courier",
            "collection": "waybill",
            "fields": ["number", "receiver_name"],
            "filters": [{"column": "status", "kind": "code", "values": [self.words]}],
            "days": DAYS,
            "case": f"C-17 {self.words}",
            "form": str(form),
        }
        return make_content(values, frozenset())

    def _end(self, request: UseRequest) -> UseRequest:
        at = request.requested_at + timedelta(hours=1)
        with self.state.begin() as conn:
            grants.record_opening(
                conn, request, person=request.requester, channel="command", now=at
            )
            grants.end_access(conn, request.id, EndReason.ENDED_BY_PERSON, at, by="management")
            grants.record_end(conn, request.id, at)
        return request


PLAN = UsePlan(
    columns=(
        PlannedColumn(name="number", mask="show"),
        PlannedColumn(name="receiver_name", mask="name"),
    ),
    records=12,
    people=20,
    minors=0,
    needs_second_approval=False,
)


def extract_of(number: int) -> bytes:
    """Return the content of the encrypted file of a request."""
    return f"extract of request {number}".encode() * 50_000


def openings_of(conn: Connection, number: int) -> list[tuple[str, str]]:
    """Return person and channel of each opening of an extract."""
    return [(person, channel) for person, _at, channel in grants.openings(conn, number)]
