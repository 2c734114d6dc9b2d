"""Expire thousands of accesses in one hour, while a concurrent session approves and opens.

Each grant has a real extract of one delivery in a folder as store, an approval, an opening and the
keyed HMAC of its data subjects. The concurrent session works every 50 milliseconds as employees do:
it opens an extract, or approves and delivers a request. The longest of its transactions bounds the
time for which the run blocked it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection, text

from include.approvals import registry
from include.disclosure import grants
from include.disclosure.absence_proof import PROVE
from include.disclosure.expiry import EXPIRE
from include.disclosure.requests import UseRequest, load_request
from include.disclosure.roster import read_roster
from include.disclosure.use_notifications import queue_delivery
from include.local.postgres import EmbeddedPostgres
from include.notify.outbox import Run
from include.state.connect import engine
from tests.disclosure.use_fixtures import (
    NOW,
    TABLES,
    SettableClock,
    UseCompany,
    new_pack,
    spec_of,
)
from tests.support.databases import migrated, temporary_database

PEOPLE = 100  # data subjects of an extract
PAUSE = 0.05  # seconds between two transactions of the concurrent session
_ENDED = NOW - timedelta(minutes=30)  # end of the accesses that expire
# Copies of a delivered request: the same approval, extract and digest under other numbers.
_COPY = """
WITH copied AS (
    INSERT INTO use_request (requester, requested_at, content, plan, sha256)
    SELECT requester, requested_at, content, plan, sha256
    FROM use_request, generate_series(1, :count) WHERE id = :id RETURNING id
), granted AS (
    INSERT INTO use_grant (request_id, sha256, approvals, department, approved_at, expires_at,
        state, attempt, object_key, store, delivered_at, snapshot_at, records, size, file_sha256)
    SELECT copied.id, g.sha256, g.approvals, g.department, g.approved_at, :ends, 'delivered',
        g.attempt, 'use/' || copied.id || '/' || g.attempt || '.zip', g.store, g.delivered_at,
        g.snapshot_at, g.records, g.size, g.file_sha256
    FROM use_grant g, copied WHERE g.request_id = :id
    RETURNING object_key
)
SELECT object_key FROM granted
"""
_REQUEST = """
INSERT INTO use_request (requester, requested_at, content, plan, sha256)
SELECT requester, :at, content, plan, sha256 FROM use_request WHERE id = :id RETURNING id
"""
_ATTEMPTS = """
INSERT INTO use_attempt (object_key, request_id, begun_at)
SELECT object_key, request_id, delivered_at FROM use_grant
ON CONFLICT DO NOTHING
"""
_OPENINGS = """
INSERT INTO use_opening (request_id, opened_by, opened_at, channel)
SELECT request_id, 'clerk', delivered_at, 'page' FROM use_grant WHERE expires_at = :ends
"""
_SUBJECTS = """
INSERT INTO use_subject (request_id, attempt, key_hmac)
SELECT request_id, attempt, sha256(convert_to(request_id || ':' || n, 'UTF8'))
FROM use_grant, generate_series(1, :people) n WHERE expires_at = :ends
"""


@dataclass
class Latencies:
    """The longest transactions of the concurrent session.

    Attributes:
        longest: name of the transaction -> longest duration in seconds.
        count: number of transactions.
    """

    longest: dict[str, float] = field(default_factory=dict)
    count: int = 0

    def add(self, name: str, seconds: float) -> None:
        """Add the duration of a transaction."""
        self.longest[name] = max(self.longest.get(name, 0), seconds)
        self.count += 1


class ExpiryCompany:
    """A company with expired accesses, and with one access that has not ended.

    Args:
        server: a running PostgreSQL server.
        folder: folder for the store.
        count: number of accesses that expire in the hour before the run.
    """

    def __init__(self, server: EmbeddedPostgres, folder: Path, count: int) -> None:
        self.folder, self.count = folder / "extracts", count
        self.folder.mkdir(exist_ok=True)
        self._stack = ExitStack()
        try:
            self.source = server.conninfo(self._stack.enter_context(temporary_database(server)))
            state = self._stack.enter_context(temporary_database(server, migrated(server)))
            self.state = server.conninfo(state)
            self.company = company_of(self.source, self.state, self.folder)
            self._fill()
        except BaseException:
            self._stack.close()
            raise

    def close(self) -> None:
        """Drop the databases."""
        self._stack.close()

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of `expire` in another process."""
        return {"source": self.source, "state": self.state, "folder": str(self.folder)}

    def _fill(self) -> None:
        company = self.company
        with psycopg.connect(self.source, autocommit=True) as database:
            database.execute(TABLES)
        company.reset()
        company.add_customers(PEOPLE)
        company.clock.at = NOW - timedelta(days=2)
        self.live = int(company.deliver(days=7).parameters["request"])
        company.clock.at = NOW
        [key] = company.objects()
        extract = company.store.get(key)
        with company.state.begin() as conn:
            values = {"id": self.live, "count": self.count, "ends": _ENDED}
            keys = list(conn.scalars(text(_COPY), values))
            for statement in (_ATTEMPTS, _OPENINGS, _SUBJECTS):
                conn.execute(text(statement), {"ends": _ENDED, "people": PEOPLE})
        for key in keys:
            company.store.put(key, extract)
        with psycopg.connect(self.state, autocommit=True) as state:
            state.execute("VACUUM (ANALYZE)")
            state.execute("CHECKPOINT")


def company_of(source: str, state: str, folder: Path) -> UseCompany:
    """Return the company, with the engine that the product uses.

    Args:
        source: connection string of the mapped database.
        state: connection string of the state database.
        folder: folder of the extract store.
    """
    clock = SettableClock()
    return UseCompany(source, engine(state), folder, clock, new_pack(), spec_of(folder))


def expire(parameters: dict[str, Any]) -> dict[str, Any]:
    """Measure a run of `expire_grants` that ends all expired accesses and proves it."""
    company = company_of(parameters["source"], parameters["state"], Path(parameters["folder"]))
    run = company.start("expire_grants", by=None)
    begun = time.monotonic()
    ended = run.step(EXPIRE)
    deleted_at = time.monotonic()
    proof = run.step(PROVE)
    end = time.monotonic()
    return {
        "seconds": end - begun,
        "expire": deleted_at - begun,
        "prove": end - deleted_at,
        "ended": len(ended.data["ended"]),
        "rows": proof.data["proved"],
        "outcomes": [str(ended.outcome), str(proof.outcome)],
    }


class ConcurrentSession:
    """A thread that opens extracts, and approves and delivers requests.

    Use it as a context manager. It works until the end of the block.

    Args:
        company: the company whose accesses end meanwhile.
    """

    def __init__(self, company: ExpiryCompany) -> None:
        self._company = company_of(company.source, company.state, company.folder)
        self._live = company.live
        clerk = read_roster(self._company.context()).find("clerk")
        assert clerk is not None
        self._clerk = clerk
        self.latencies = Latencies()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="concurrent session")
        self._error: BaseException | None = None

    def __enter__(self) -> Latencies:
        self._thread.start()
        return self.latencies

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while True:
                for _transaction in self._transactions():
                    if self._stop.wait(PAUSE):
                        return
        except BaseException as error:  # noqa: BLE001 - raised by the main thread
            self._error = error

    @contextmanager
    def _measured(self, name: str) -> Iterator[Connection]:
        begun = time.monotonic()
        with self._company.state.begin() as conn:
            yield conn
        self.latencies.add(name, time.monotonic() - begun)

    def _transactions(self) -> Iterator[None]:
        """Open an extract, then approve and deliver a request. Yield after each transaction."""
        with self._measured("opening") as conn:
            live = load_request(conn, self._live)
            grants.record_opening(conn, live, person="clerk", channel="page", now=NOW)
        yield
        run = self._company.context(Run("use_information", f"concurrent-{self.latencies.count}"))
        with self._measured("request and approval") as conn:
            values = {"id": self._live, "at": NOW}
            request = load_request(conn, conn.execute(text(_REQUEST), values).scalar_one())
            approval = self._approve(conn, run.run, request)
            grant = grants.grant_request(
                conn, request, approvals=[approval], department="service", approved_at=NOW
            )
        yield
        attempt = run.run.run_id
        with self._measured("begin of a delivery") as conn:
            grants.begin_delivery(
                conn, request.id, attempt=attempt, object_key=f"use/{request.id}/{attempt}.zip",
                store=self._company.store.description, now=NOW,
            )  # fmt: skip
        yield
        with self._measured("data subjects") as conn:
            subjects = (f"{attempt}:{number}".encode() for number in range(PEOPLE))
            grants.store_subjects(conn, request.id, attempt, subjects)
        yield
        with self._measured("delivery with its mail") as conn:
            grants.record_delivery(
                conn, request.id, attempt=attempt, delivered_at=NOW, snapshot_at=NOW,
                records=PEOPLE, size=1, file_sha256="0" * 64,
            )  # fmt: skip
            queue_delivery(run, conn, request, grant, self._clerk)
        yield

    def _approve(self, conn: Connection, run: Run, request: UseRequest) -> int:
        """Let the supervisor approve a request, and return the number of the approval."""
        approval = registry.create_request(
            conn, self._company.clock, kind="use.supervisor", subject=f"request {request.id}",
            sha256=request.sha256, requested_by=[request.content.requester],
            dag_id=run.dag_id, run_id=run.run_id,
        )  # fmt: skip
        registry.decide(
            conn, approval, decision=registry.APPROVE, reason="", decided_by="lead",
            decided_at=NOW, may_decide=["lead"], content=approval.content,
        )  # fmt: skip
        return approval.id
