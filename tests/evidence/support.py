"""Helpers of the evidence tests: results, stores that stop during a seal, sealed bundles."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine

from include.evidence.bundle import SealedBundle, seal
from include.evidence.model import (
    ControlState,
    ControlStatus,
    Finding,
    Metric,
    Outcome,
    Result,
    RunContext,
)
from include.evidence.prune import Pruned, Pruning
from include.evidence.signing import Signer
from include.evidence.verify import Verification, verify_all
from include.messages import Message, _
from include.services.clock import FixedClock
from include.services.objectstore.base import ObjectStore, StoredObject
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from tests.support.registers import unguarded

FORK = multiprocessing.get_context("fork")  # quick; the child makes its own connection
ROOT = Path(__file__).parents[2]
START = datetime(2026, 11, 24, 14, 10, 19, 123456, tzinfo=UTC)
CLOCK = FixedClock(START + timedelta(minutes=5))
FILES = {"report.en.html": b"<p>report</p>\n", "plans/plan one.csv": "编号,1\n".encode()}


def control(name: str, clause: str, title: Message) -> ControlStatus:
    """Return the status of a control that passed."""
    return ControlStatus(
        id=name,
        clause=clause,
        title=title,
        indicator="missing",
        target="= 0",
        value=0,
        state=ControlState.PASSED,
    )


def result_of(dag_id: str = "backup_offsite", number: int = 1) -> Result:
    started = START + timedelta(days=number)
    return Result(
        run=RunContext(
            dag_id=dag_id,
            run_id=f"manual__{started.isoformat()}",
            started_at=started,
            code_version="abc",
            policy_hash="def",
            policy_name="sample",
            clock_source="fixed clock",
        ),
        controls=[
            control("BK-1", "6.1", _("Back up")),
            control("BK-2", "6.2", _("Keep off site")),
        ],
        outcome=Outcome.ATTENTION,
        finished_at=started + timedelta(minutes=3),
        metrics=[Metric(name="backup.rows", value=12, unit="rows")],
        findings=[
            Finding(
                code="x.y",
                severity=Outcome.ATTENTION,
                subject="courier",
                message=_("Seen at {at} in {name}", at=started, name="5"),
                action=_("Look"),
            )
        ],
    )


@dataclass
class Evidence:
    """An evidence store, its state database and a signing key."""

    store: ObjectStore
    root: Path
    engine: Engine
    conn: Connection
    signer: Signer
    database: str

    def seal(
        self,
        number: int = 1,
        dag_id: str = "backup_offsite",
        files: Mapping[str, bytes] = FILES,
        **more: Any,
    ) -> SealedBundle:
        arguments = {"signer": self.signer, "store": self.store, "clock": CLOCK} | more
        return seal(conn=self.conn, result=result_of(dag_id, number), files=files, **arguments)

    def verify(self) -> Verification:
        return verify_all(self.store, self.conn, [self.signer.public_pem])

    def prune(self, before_seq: int, most: int = 100, **more: Any) -> Pruned:
        """Prune the bundles before a sequence number, as if their retention period had passed."""
        self.conn.commit()
        arguments = {"store": self.store, "state": self.engine, "clock": CLOCK, "newest": 1} | more
        pruning = Pruning(signer=self.signer, trusted=(), **arguments)
        return pruning.prune(lambda row: row.seq < before_seq, most)

    def execute(self, statement: Any) -> None:
        self.conn.execute(statement)
        self.conn.commit()

    def tamper(self, statement: Any) -> None:
        """Run an SQL statement that changes the ledger, without the triggers of the ledger.

        The statement is committed. The owner of the table has the rights to do the same.
        """
        with unguarded(self.conn, "evidence_ledger"):
            self.conn.execute(statement)
        self.conn.commit()


class BlockingStore(DirectoryStore):
    """A directory store that stops before a given operation. It sets an event and waits forever.

    Args:
        root: folder of the store.
        block_before: the operation, such as ``put result.json`` or ``lock result.json``.
        blocked: the event.
    """

    def __init__(self, root: Path, block_before: str, blocked: Event) -> None:
        super().__init__(root)
        self._block_before = block_before
        self._blocked = blocked

    def put(self, key: str, data: bytes, *, locked_until: datetime | None = None) -> StoredObject:
        self._wait_at(f"put {Path(key).name}")
        return super().put(key, data, locked_until=locked_until)

    def lock(self, key: str, until: datetime, *, version_id: str = "") -> None:
        self._wait_at(f"lock {Path(key).name}")
        super().lock(key, until, version_id=version_id)

    def _wait_at(self, step: str) -> None:
        if step == self._block_before:
            self._blocked.set()
            signal.pause()


@dataclass
class SealingProcess:
    """Another process, which seals a run and stops before a given operation."""

    evidence: Evidence
    number: int
    dag_id: str = "backup_offsite"
    block_before: str = ""

    def __post_init__(self) -> None:
        self.blocked = FORK.Event()
        self.process = FORK.Process(target=self._seal)
        self.process.start()

    def kill_when_blocked(self) -> None:
        assert self.blocked.wait(300)
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.join(10)

    def _seal(self) -> None:
        store = BlockingStore(self.evidence.root, self.block_before, self.blocked)
        until = CLOCK.now() + timedelta(days=36500) if "lock" in self.block_before else None
        with engine(self.evidence.database).connect() as conn:
            seal(
                store,
                conn,
                self.evidence.signer,
                result=result_of(self.dag_id, self.number),
                files=FILES | {"only-in-the-child.txt": b"x"},
                clock=CLOCK,
                lock_until=until,
            )
