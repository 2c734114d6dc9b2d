"""The state of an execution: sessions, plan, limits, and its batches in the erasure ledger."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from sqlalchemy import Connection as StateConnection
from sqlalchemy.exc import DBAPIError

from include.erasure import ledger, request_records, requests
from include.erasure.ledger import Origin
from include.erasure.resolve import transaction_of
from include.holds.records import HoldGuard, RecordHolds
from include.policy.retention import Batch, RetentionRule
from include.retention.database import RetentionDatabase
from include.retention.execution.counts import ExecutionCounts
from include.retention.planning.classes import RecordClass
from include.retention.planning.graph import Graph
from include.retention.planning.plan import Plan, rule_digest
from include.retention.planning.schedule import Schedule
from include.retention.planning.subjects import enter, search
from include.retention.postgres.session import ONE_CORE, one_view
from include.retention.postgres.transaction_counters import TransactionCounters
from include.services.clock import Clock
from include.services.errors import ServiceError

Progress = Callable[[str], None]
Key = tuple[str, ...]


@dataclass
class ExecutionState:
    """One execution of one plan.

    Attributes:
        database: the mapped database.
        connection: writes to the mapped database, autocommit, set up by `session.prepare`.
        ledger: a connection to the state database.
        guard: keeps new holds out of a batch.
        schedule: record classes, holds and requests.
        graph: the collections and what refers to them.
        plan: the approved plan.
        allowed: classes that may be executed.
        until: moment at which the budget is used up.
        server: identifies the server whose transaction numbers the ledger records.
        key_types: collection -> types of its primary key.
        alone: raises if another execution may have begun meanwhile.
        progress: called with each stage of a batch, for tests.
        passed_over: ctids of records that the database refused, by class and the oid of their
            table.
        dropped: oids of dropped partitions.
        refused_cycles: groups of collections in which the database refused to delete a cycle.
        searched: ids of the requests whose records are remembered.
        asking: data subjects with an open request, also requests that came after the plan.
    """

    database: RetentionDatabase
    connection: psycopg.Connection[Any]
    ledger: StateConnection
    guard: HoldGuard
    schedule: Schedule
    graph: Graph
    plan: Plan
    allowed: frozenset[str]
    until: datetime
    server: str
    key_types: Mapping[str, str | None]
    alone: Callable[[], None]
    progress: Progress
    counts: ExecutionCounts = field(default_factory=ExecutionCounts)
    passed_over: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    refused_cycles: set[tuple[str, ...]] = field(default_factory=set)
    searched: set[int] = field(default_factory=set)
    asking: frozenset[str] = frozenset()
    _unsettled: list[int] = field(default_factory=list)
    _writing: Future[int] | None = None
    _ledger_thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    @property
    def clock(self) -> Clock:
        """The time."""
        return self.database.run.clock

    @property
    def batch_rules(self) -> Batch:
        """The rules for batches in disposition.yaml."""
        return self.database.disposition.batch

    def is_stopped(self) -> bool:
        """Return whether nothing new may begin; the counts keep the reason."""
        now, window = self.clock.now(), self.database.disposition.window
        if now >= self.until:
            self.counts.stopped = "budget"
        elif window and not window.has(now.astimezone(self.database.run.zone).time()):
            self.counts.stopped = "window"
        return self.counts.stopped is not None

    def current(self, holds: RecordHolds) -> Graph:
        """Return the graph under the current holds and requests; the same object if these are.

        Call it inside of a batch: then no hold or withdrawal of a request can be entered before
        the batch ends. A request that came after the plan waits for the next plan. Its records are
        remembered at once, since this run may erase the records that lead to them.
        """
        with self.ledger.begin():
            asked = requests.open_requests(self.ledger, self.plan.database)
        self.asking = frozenset(request.subject for request in asked)
        if not self.searched.issuperset(request.id for request in asked):
            self.remember_requests()
        subjects = frozenset(
            request.subject
            for request in asked
            if request.id in self.plan.requests and request.oversized_at is None
        )
        known = self.graph.holds.fingerprint, self.graph.subjects
        if known != (holds.fingerprint, subjects):
            self.graph = self.graph.under(holds, subjects, self.graph.records)
        return self.graph

    def may_lose_subjects(self, record_class: RecordClass) -> bool:
        """Return whether erasing records of a class may lose whose other records are."""
        return bool(self.asking) and self.graph.loses_subjects(record_class.rule.collection)

    def remember_requests(self) -> None:
        """Find and remember the records of all open requests, as the database has them now.

        Call it outside of a transaction, before anything is erased by which others are found.
        """
        with self.ledger.begin():
            asked = requests.open_requests(self.ledger, self.plan.database)
            known = request_records.remembered(self.ledger, self.plan.database)
        self.searched.update(request.id for request in asked)
        if not asked:
            return
        database, names = self.schedule.database, frozenset(record.name for _, record in known)
        with one_view(self.connection, database, ONE_CORE):
            searched = search(
                self.connection, database, self.schedule.keys, self.graph, asked, names
            )
        with self.ledger.begin():
            enter(self.ledger, self.clock, searched)
        records = self.graph.records.joined(searched.records)
        if records != self.graph.records:
            self.graph = self.graph.under(self.graph.holds, self.graph.subjects, records)

    def left(self, name: str) -> int:
        """Return how many records of a class the plan still allows."""
        if name not in self.allowed:
            return 0
        planned = self.plan.of(name)
        left = planned.planned - self._done(name)
        if planned.to_delete:  # a record of several classes is planned once, whichever deletes it
            done = sum(
                self._done(other.name)
                for other in self.plan.classes
                if other.to_delete and other.collection == planned.collection
            )
            left = min(left, self.plan.table(planned.collection).to_delete - done)
        return max(0, left)

    def _done(self, name: str) -> int:
        return self.counts.done[name] + self.counts.before.get(name, 0)

    @property
    def refused_places(self) -> dict[int, list[str]]:
        """Ctids of records that the database refused, by the oid of their table."""
        refused: dict[int, list[str]] = {}
        for (_name, oid), ctids in self.passed_over.items():
            refused.setdefault(oid, []).extend(ctids)
        return refused

    def refused(self, name: str) -> int:
        """Return how many records of a class the database refused one by one."""
        return sum(len(ctids) for (own, _), ctids in self.passed_over.items() if own == name)

    def unapproved(self, record_class: RecordClass) -> tuple[RecordClass, ...]:
        """Return other classes of the same records whose planned deletion nobody approved.

        A record of these classes stays, although this class would delete it too.
        """
        return tuple(
            other
            for other in self.graph.classes[record_class.rule.collection]
            if other is not record_class
            and other.rule.deletes
            and other.name not in self.allowed
            and self.plan.of(other.name).planned
        )

    def counters(
        self, classes: Iterable[RecordClass], dropped: Collection[int] = ()
    ) -> TransactionCounters:
        """Read the counters of the open transaction, before it changes anything.

        Args:
            classes: whose records it will delete or mask.
            dropped: oids of partitions that it will drop.
        """
        relations = self.graph.relations
        updatable = {
            relations.by_collection[name].oid
            for record_class in classes
            for name in record_class.rule.triggers_update
            if name in relations.by_collection  # the database may lack the table
        }
        return TransactionCounters(
            self.connection, relations, frozenset(dropped), frozenset(updatable)
        )

    def _origin(self, rule: RetentionRule) -> Origin:
        dag_id, run_id = self.database.run_key
        return Origin(
            database=self.database.name,
            collection=rule.collection,
            action="mask" if rule.action == "mask" else "delete",
            record_class=rule.record_class,
            rule=rule_digest(rule),
            dag_id=dag_id,
            run_id=run_id,
            key_types=self.key_types[rule.collection],
        )

    def intend(
        self, record_class: RecordClass, keys: list[Key], transaction: str | None = None
    ) -> int:
        """Enter the keys that the open transaction erases, and settle the batches before it."""
        try:
            number = transaction or transaction_of(self.connection)
            entered = self._write(record_class, keys, number)
            self.written()
        finally:
            self.ledger.rollback()  # nothing, once it is committed
        return entered

    @contextmanager
    def transaction(self, *, keeps_others: bool = True) -> Iterator[list[int]]:
        """Open a transaction of the mapped database.

        Yields a list for the batches of the ledger that the caller enters. If the transaction is
        rolled back, for whatever reason, they are withdrawn. If its end is unknown they stay open,
        for `include.erasure.resolve`.

        Args:
            keeps_others: whether other sessions may wait for it from its beginning.
        """
        entered: list[int] = []
        is_committing = False
        begun = time.monotonic()
        try:
            try:
                with self.connection.transaction():
                    yield entered
                    is_committing = True
            finally:
                if keeps_others:
                    self.counts.took(begun)
        except Exception as error:
            # An error of PostgreSQL on COMMIT is certain; another error may have come after it.
            is_rolled_back = not is_committing or isinstance(error, psycopg.Error)
            if is_rolled_back and not self.connection.broken:
                for batch in entered:
                    self.withdraw(batch)
            raise

    @contextmanager
    def entering(self, record_class: RecordClass, keys: list[Key]) -> Iterator[LedgerEntry]:
        """Write to the ledger while the mapped database erases; `LedgerEntry.commit` commits.

        Args:
            record_class: the class.
            keys: of records that are locked and about to be erased.
        """
        number = transaction_of(self.connection)
        self._writing = self._ledger_thread.submit(self._write, record_class, keys, number)
        try:
            yield LedgerEntry(self, record_class, keys, number, self._writing)
        finally:  # roll back an entry that was not committed; the thread has ended then
            wait([self._writing])
            self.ledger.rollback()

    def await_ledger(self, seconds: float) -> None:
        """Wait until the ledger has the current batch, but not longer than some seconds."""
        if seconds and self._writing is not None and not self._writing.done():
            wait([self._writing], timeout=seconds)

    def _write(self, record_class: RecordClass, keys: list[Key], number: str) -> int:
        """Settle the batches before this one and enter it, in a transaction that stays open.

        Raises:
            ServiceError: the state database was lost, refuses, or others keep the ledger locked.
        """
        at = self.clock.now()
        self.ledger.begin()
        try:
            ledger.settle(self.ledger, self._unsettled, at)
            return ledger.intend(
                self.ledger,
                self.schedule.keys,
                self._origin(record_class.rule),
                keys,
                transaction=number,
                server=self.server,
                at=at,
            )
        except (psycopg.Error, DBAPIError) as error:  # must not look like the mapped database's
            code = getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlstate", None)
            raise ServiceError(
                f"The ledger could not be written (SQLSTATE {code or 'none'}): the state database "
                "was lost, keeps it locked, or refuses.",
                "What was done stays done and is in the ledger; the task is repeated. See the log "
                "of its server.",
            ) from None

    def written(self) -> None:
        """Commit the entered batch."""
        self.ledger.commit()
        self._unsettled.clear()
        self.progress("intended")

    def confirm(self) -> None:
        """Check before the commit that no hold was placed and no other execution began.

        Raises:
            ServiceError: a hold may have been placed, or an execution may have begun.
        """
        self.guard.confirm()
        self.alone()
        self.progress("confirmed")

    def committed(self, batch: int) -> None:
        """Note that the transaction of a batch committed."""
        self._unsettled.append(batch)
        self.progress("committed")

    def withdraw(self, batch: int) -> None:
        """Withdraw a batch whose transaction was rolled back."""
        with self.ledger.begin():
            ledger.withdraw(self.ledger, batch)

    def settle(self) -> None:
        """Settle the batches that are not settled yet."""
        if self._unsettled:
            with self.ledger.begin():
                ledger.settle(self.ledger, self._unsettled, self.clock.now())
            self._unsettled.clear()
        self.progress("settled")


@dataclass(frozen=True)
class LedgerEntry:
    """A batch that a thread writes to the ledger."""

    state: ExecutionState
    record_class: RecordClass
    keys: list[Key]
    transaction: str
    written: Future[int]

    def commit(self, erased: list[Key]) -> int:
        """Commit the ledger's transaction, with exactly the records that were erased.

        Returns:
            The batch's id in the ledger.
        """
        entered = self.written.result()
        if len(erased) == len(self.keys) and set(erased) == set(self.keys):
            self.state.written()
            return entered
        self.state.ledger.rollback()
        return self.state.intend(self.record_class, erased, self.transaction)
