"""What an execution works with: sessions, the plan, the patience, and what it is allowed."""

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
from include.policy.retention import Disposition
from include.retention.execution.counts import ExecutionCounts, Stop
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


@dataclass(frozen=True)
class Limits:
    """When an execution stops by itself.

    Attributes:
        until: moment at which its budget is used up.
        rules: window and batches of disposition.yaml.
        clock: the time.
        timezone: of the window.
    """

    until: datetime
    rules: Disposition
    clock: Clock
    timezone: Any

    def reached(self) -> Stop | None:
        """Return why nothing new may be begun, or None."""
        now = self.clock.now()
        if now >= self.until:
            return "budget"
        window = self.rules.window
        if window and not window.has(now.astimezone(self.timezone).time()):
            return "window"
        return None


@dataclass
class ExecutionState:
    """One execution of one plan.

    Attributes:
        connection: writes to the mapped database, autocommit, set up by `session.prepare`.
        ledger: a connection to the state database.
        guard: keeps holds out while a batch goes on.
        schedule: what the plan was made of.
        plan: what was approved.
        allowed: classes that may be executed.
        limits: when to stop.
        server: on which transaction numbers count.
        key_types: collection -> types of its primary key.
        dag_id: of the run.
        run_id: of the run.
        alone: raises where another execution may have begun meanwhile.
        progress: is told each stage of a batch, for tests.
        passed_over: places of records that the database refused, by class and the oid of their
            table.
        dropped: oids of partitions that are gone.
        tied: groups of which the database refused a circle.
        searched: ids of the requests whose records are remembered.
        asking: data subjects with an open request, those who asked after the plan included.
    """

    connection: psycopg.Connection[Any]
    ledger: StateConnection
    guard: HoldGuard
    schedule: Schedule
    graph: Graph
    plan: Plan
    allowed: frozenset[str]
    limits: Limits
    server: str
    key_types: Mapping[str, str | None]
    dag_id: str
    run_id: str
    alone: Callable[[], None] = lambda: None
    progress: Progress = lambda _stage: None
    tally: ExecutionCounts = field(default_factory=ExecutionCounts)
    passed_over: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    tied: set[tuple[str, ...]] = field(default_factory=set)
    searched: set[int] = field(default_factory=set)
    asking: frozenset[str] = frozenset()
    _unsettled: list[int] = field(default_factory=list)
    _writing: Future[int] | None = None
    _beside: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def current(self, holds: RecordHolds) -> Graph:
        """The graph under what counts now; the same object as long as that does not change.

        Call it inside of a batch: then neither hold nor withdrawal of a request can come in before
        the batch ends. A request that came after the plan waits for the next one; its records are
        remembered at once, since this run may erase that by which they are found.
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
        database, names = self.schedule.database, frozenset(one.name for _, one in known)
        with one_view(self.connection, database, ONE_CORE):
            searched = search(
                self.connection, database, self.schedule.keys, self.graph, asked, names
            )
        with self.ledger.begin():
            enter(self.ledger, self.limits.clock, searched)
        records = self.graph.records.joined(searched.records)
        if records != self.graph.records:
            self.graph = self.graph.under(self.graph.holds, self.graph.subjects, records)

    def left(self, name: str) -> int:
        """How many records of a class the plan still allows."""
        if name not in self.allowed:
            return 0
        planned = self.plan.of(name)
        left = planned.planned - self._done(name)
        if planned.to_delete:  # a record of several classes is planned once, whichever deletes it
            table = self.plan.table(planned.collection)
            deleting = [one.name for one in self.plan.classes if one.to_delete]
            same = [one for one in deleting if self.plan.of(one).collection == planned.collection]
            left = min(left, table.to_delete - sum(self._done(one) for one in same))
        return max(0, left)

    def _done(self, name: str) -> int:
        return self.tally.done.get(name, 0) + self.tally.before.get(name, 0)

    @property
    def refused_places(self) -> dict[int, list[str]]:
        """Places of records that the database refused, by the oid of their table."""
        found: dict[int, list[str]] = {}
        for (_name, oid), places in self.passed_over.items():
            found.setdefault(oid, []).extend(places)
        return found

    def refused(self, name: str) -> int:
        """How many records of a class the database refused, one by one."""
        return sum(len(places) for (one, _), places in self.passed_over.items() if one == name)

    def unapproved(self, one: RecordClass) -> tuple[RecordClass, ...]:
        """Other classes of the same records that the plan deletes from and that may not go.

        A record of theirs stays, though this class would let it go too.
        """
        return tuple(
            other
            for other in self.graph.classes[one.rule.collection]
            if other is not one
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

    def origin(self, one: RecordClass) -> Origin:
        """What the ledger says of a batch of a class."""
        return Origin(
            database=self.schedule.database.name,
            collection=one.rule.collection,
            action="mask" if one.rule.action == "mask" else "delete",
            record_class=one.name,
            rule=rule_digest(one.rule),
            dag_id=self.dag_id,
            run_id=self.run_id,
            key_types=self.key_types[one.rule.collection],
        )

    def intend(self, one: RecordClass, keys: list[Key], transaction: str | None = None) -> int:
        """Enter what the open transaction erases, and settle the batches before it."""
        try:
            entered = self._write(one, keys, transaction or transaction_of(self.connection))
            self.written()
        finally:
            self.ledger.rollback()  # nothing, once it is committed
        return entered

    @contextmanager
    def transaction(self, *, keeps_others: bool = True) -> Iterator[list[int]]:
        """One transaction of the mapped database.

        Yields a list for the batches of the ledger that are entered meanwhile: when the transaction
        is rolled back, for whatever reason, they are taken back too. Where nobody knows how it
        ended they stay open, for `include.erasure.resolve`.

        Args:
            keeps_others: whether others may wait for it from its beginning.
        """
        entered: list[int] = []
        committing = False
        try:
            with self._counted(keeps_others), self.connection.transaction():
                yield entered
                committing = True
        except Exception as error:
            # What PostgreSQL says of COMMIT is sure; another error may have come after it.
            rolled_back = not committing or isinstance(error, psycopg.Error)
            if rolled_back and not self.connection.broken:
                for batch in entered:
                    self.withdraw(batch)
            raise

    @contextmanager
    def _counted(self, keeps_others: bool) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            if keeps_others:
                self.tally.took(begun)

    @contextmanager
    def entering(self, one: RecordClass, keys: list[Key]) -> Iterator[Entering]:
        """Write to the ledger while the other database erases, and commit there when it has.

        Args:
            one: the class.
            keys: of records that are locked and about to go.
        """
        number = transaction_of(self.connection)
        self._writing = self._beside.submit(self._write, one, keys, number)
        made = Entering(self, one, keys, number, self._writing)
        try:
            yield made
        finally:
            made.end()

    def await_ledger(self, seconds: float) -> None:
        """Wait until the batch that is being written beside is, and so long at the most."""
        if seconds and self._writing is not None and not self._writing.done():
            wait([self._writing], timeout=seconds)

    def _write(self, one: RecordClass, keys: list[Key], number: str) -> int:
        """Settle the batches before this one and enter it, in a transaction that stays open.

        Raises:
            ServiceError: the state database was lost, refuses, or others keep the ledger locked.
        """
        at = self.limits.clock.now()
        self.ledger.begin()
        try:
            ledger.settle(self.ledger, self._unsettled, at)
            return ledger.intend(
                self.ledger,
                self.schedule.keys,
                self.origin(one),
                keys,
                transaction=number,
                server=self.server,
                at=at,
            )
        except (psycopg.Error, DBAPIError) as error:  # never taken for the mapped database's
            code = getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlstate", None)
            raise ServiceError(
                f"The ledger could not be written (SQLSTATE {code or 'none'}): the state database "
                "was lost, keeps it locked, or refuses.",
                "What was done stays done and is in the ledger; the task is repeated. See the log "
                "of its server.",
            ) from None

    def written(self) -> None:
        """Commit what was entered."""
        self.ledger.commit()
        self._unsettled.clear()
        self.progress("intended")

    def confirm(self) -> None:
        """See that no hold and no other execution came in between; what follows is the commit.

        Raises:
            ServiceError: one may have.
        """
        self.guard.confirm()
        self.alone()
        self.progress("confirmed")

    def committed(self, batch: int) -> None:
        """Note that the transaction of a batch committed."""
        self._unsettled.append(batch)
        self.progress("committed")

    def withdraw(self, batch: int) -> None:
        """Take a batch back whose transaction was rolled back."""
        with self.ledger.begin():
            ledger.withdraw(self.ledger, batch)

    def settle(self) -> None:
        """Settle what is not settled yet."""
        if self._unsettled:
            with self.ledger.begin():
                ledger.settle(self.ledger, self._unsettled, self.limits.clock.now())
            self._unsettled.clear()
        self.progress("settled")


@dataclass(frozen=True)
class Entering:
    """A batch that is being written to the ledger, on a thread of its own."""

    work: ExecutionState
    one: RecordClass
    keys: list[Key]
    transaction: str
    written: Future[int]

    def commit(self, gone: list[Key]) -> int:
        """Commit the ledger's transaction, with the records that went and no others.

        Returns:
            The batch's id in the ledger.
        """
        entered = self.written.result()
        if len(gone) == len(self.keys) and set(gone) == set(self.keys):
            self.work.written()
            return entered
        self.work.ledger.rollback()
        return self.work.intend(self.one, gone, self.transaction)

    def end(self) -> None:
        """Take back what was not committed; the thread is at its end then."""
        wait([self.written])
        self.work.ledger.rollback()
