"""The state of an execution: database sessions, plan, limits, and batches in the erasure ledger.

A batch in the ledger contains the keys of the records that a single transaction erases. The batch
is written before this transaction commits. After the commit, the batch is settled: the ledger
records that the transaction committed. After a rollback, the batch is withdrawn from the ledger.
"""

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
from include.retention.planning.subjects import search_requests, store_search
from include.retention.postgres.session import ONE_CORE, open_snapshot
from include.retention.postgres.transaction_counters import TransactionCounters
from include.services.clock import Clock
from include.services.errors import ServiceError

Progress = Callable[[str], None]
Key = tuple[str, ...]


@dataclass
class ExecutionState:
    """The state of one execution of a disposition plan.

    Attributes:
        database: the mapped database.
        connection: connection with the login that may delete, in autocommit, set up by
            `session.prepare_session`.
        ledger: connection to the state database, which contains the erasure ledger.
        guard: lock with which a batch prevents new legal holds until it ends.
        schedule: record classes, legal holds and erasure requests.
        graph: the collections and the foreign keys between them.
        plan: the plan to execute.
        allowed: record classes that are approved or need no approval.
        budget_end: time at which the execution has to stop.
        server: text that identifies the database server. The ledger stores it with the transaction
            numbers, which are valid only on this server.
        key_types: collection -> types of its primary key, as stored in the ledger.
        confirm_alone: function that is called before each commit; it raises an error if another
            execution may have begun.
        progress: function that is called at each stage of a batch with the name of the stage; for
            tests.
        counts: numbers of records that the execution changed or did not change.
        refused_ctids: (record class, oid of the table) -> ctids of records that the database
            refused to change.
        dropped: oids of the partitions that the execution dropped.
        refused_cycles: foreign-key cycles whose records the database refused to delete, each as the
            names of its collections.
        searched_requests: ids of the erasure requests for which this execution has already searched
            for records and stored their keys.
        requesting_subjects: keys of the data subjects with an open erasure request, including
            requests that were entered after the plan was made.
    """

    database: RetentionDatabase
    connection: psycopg.Connection[Any]
    ledger: StateConnection
    guard: HoldGuard
    schedule: Schedule
    graph: Graph
    plan: Plan
    allowed: frozenset[str]
    budget_end: datetime
    server: str
    key_types: Mapping[str, str | None]
    confirm_alone: Callable[[], None]
    progress: Progress
    counts: ExecutionCounts = field(default_factory=ExecutionCounts)
    refused_ctids: dict[tuple[str, int], list[str]] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    refused_cycles: set[tuple[str, ...]] = field(default_factory=set)
    searched_requests: set[int] = field(default_factory=set)
    requesting_subjects: frozenset[str] = frozenset()
    _unsettled: list[int] = field(default_factory=list)
    _writing: Future[int] | None = None
    _ledger_thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    @property
    def clock(self) -> Clock:
        """The clock that returns the current time; tests replace it."""
        return self.database.run.clock

    @property
    def batch_rules(self) -> Batch:
        """The settings for batches in disposition.yaml, such as their size and duration."""
        return self.database.disposition.batch

    def is_stopped(self) -> bool:
        """Return whether the execution has to stop because its time limit or daily window ended.

        The reason is recorded in `ExecutionCounts.stopped`.
        """
        now, window = self.clock.now(), self.database.disposition.window
        if now >= self.budget_end:
            self.counts.stopped = "budget"
        elif window and not window.has(now.astimezone(self.database.run.zone).time()):
            self.counts.stopped = "window"
        return self.counts.stopped is not None

    def refresh_graph(self, holds: RecordHolds) -> Graph:
        """Return the graph with the current legal holds and erasure requests.

        The graph is a new object if holds or requests changed. The caller has to call this function
        within a batch, since no hold can be placed and no request can be withdrawn until the batch
        ends.

        A request that was entered after the plan was made is executed by the next plan. But this
        run may erase records that are needed to find the records of the request. The keys of the
        request's records are therefore stored at once.

        Args:
            holds: the current legal holds.
        """
        with self.ledger.begin():
            open_requests = requests.open_requests(self.ledger, self.plan.database)
        self.requesting_subjects = frozenset(request.subject for request in open_requests)
        if not self.searched_requests.issuperset(request.id for request in open_requests):
            self.store_request_records()
        subjects = frozenset(
            request.subject
            for request in open_requests
            if request.id in self.plan.requests and request.oversized_at is None
        )
        if (self.graph.holds.fingerprint, self.graph.subjects) != (holds.fingerprint, subjects):
            self.graph = self.graph.with_holds(holds, subjects, self.graph.records)
        return self.graph

    def may_make_untraceable(self, record_class: RecordClass) -> bool:
        """Return whether erasing records of a record class may make other records untraceable.

        For example, the address of a customer may be found only through the customer record. The
        deletion of customer records then makes addresses untraceable. Without an open erasure
        request, the function returns False.

        Args:
            record_class: the record class whose records are erased.
        """
        return bool(self.requesting_subjects) and self.graph.may_make_untraceable(
            record_class.rule.collection
        )

    def store_request_records(self) -> None:
        """Find the current records of all open erasure requests, and store the records' keys.

        The caller has to call this function outside of a transaction, and before the run erases
        records through which other records are found.
        """
        with self.ledger.begin():
            open_requests = requests.open_requests(self.ledger, self.plan.database)
            stored = request_records.load_records(self.ledger, self.plan.database)
        self.searched_requests.update(request.id for request in open_requests)
        if not open_requests:
            return
        database, names = self.schedule.database, frozenset(record.name for _, record in stored)
        with open_snapshot(self.connection, database, ONE_CORE):
            searched = search_requests(
                self.connection, database, self.schedule.keys, self.graph, open_requests, names
            )
        with self.ledger.begin():
            store_search(self.ledger, self.clock, searched)
        records = self.graph.records.merged_with(searched.records)
        if records != self.graph.records:
            self.graph = self.graph.with_holds(self.graph.holds, self.graph.subjects, records)

    def remaining_allowance(self, name: str) -> int:
        """Return how many more records of a record class this run may erase according to the plan.

        Args:
            name: name of the record class.
        """
        if name not in self.allowed:
            return 0
        planned = self.plan.of(name)
        left = planned.planned - self._done(name)
        if planned.to_delete:  # a record of several classes counts once in the plan of the table
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
    def refused_ctids_by_table(self) -> dict[int, list[str]]:
        """The ctids of records that the database refused to change: oid of the table -> ctids."""
        refused: dict[int, list[str]] = {}
        for (_name, oid), ctids in self.refused_ctids.items():
            refused.setdefault(oid, []).extend(ctids)
        return refused

    def count_refused(self, name: str) -> int:
        """Return how many records of a record class the database refused to change.

        Records of foreign-key cycles that the database refused to delete are not included.

        Args:
            name: name of the record class.
        """
        return sum(len(ctids) for (own, _), ctids in self.refused_ctids.items() if own == name)

    def unapproved_classes(self, record_class: RecordClass) -> tuple[RecordClass, ...]:
        """Return the collection's other record classes whose planned deletion was not approved.

        A record that belongs to one of these record classes is kept, even if `record_class` would
        delete it. A record class without planned records needs no approval and is left out.

        Args:
            record_class: a record class of the collection. The result does not contain it.
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
        """Return new counters for the changes of the open transaction.

        The caller has to call this function before the transaction changes a record.

        Args:
            classes: record classes whose records the transaction deletes or masks.
            dropped: oids of the partitions that the transaction drops.
        """
        relations = self.graph.relations
        updatable = {
            relations.by_collection[name].oid
            for record_class in classes
            for name in record_class.rule.triggers_update
            if name in relations.by_collection  # the table may be missing
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

    def enter_batch(
        self, record_class: RecordClass, keys: list[Key], transaction: str | None = None
    ) -> int:
        """Write to the erasure ledger the keys of the records that the open transaction erases.

        The batch is committed to the ledger before the erasing transaction commits. Earlier batches
        whose erasing transactions committed are settled.

        Args:
            record_class: class of the records.
            keys: keys of the records.
            transaction: number of the erasing transaction; None to read it from the connection.

        Returns:
            Id of the batch in the ledger.
        """
        try:
            number = transaction or transaction_of(self.connection)
            entered = self._write(record_class, keys, number)
            self.commit_batch()
        finally:
            self.ledger.rollback()  # no effect after a commit
        return entered

    @contextmanager
    def transaction(self, *, may_block_others: bool = True) -> Iterator[list[int]]:
        """Open a transaction of the mapped database.

        The context manager yields an empty list. The caller has to add to this list the ids of the
        batches that it writes to the ledger. If the transaction is rolled back, these batches are
        withdrawn. If the outcome of the transaction is unknown, the batches stay open, and
        `include.erasure.resolve` settles or withdraws them later.

        Args:
            may_block_others: whether other sessions may have to wait for this transaction.
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
                if may_block_others:
                    self.counts.record_duration(begun)
        except Exception as error:
            # An error of PostgreSQL means that COMMIT failed; another error may follow a COMMIT.
            is_rolled_back = not is_committing or isinstance(error, psycopg.Error)
            if is_rolled_back and not self.connection.broken:
                for batch in entered:
                    self.withdraw(batch)
            raise

    @contextmanager
    def write_ahead(self, record_class: RecordClass, keys: list[Key]) -> Iterator[LedgerEntry]:
        """Write a batch to the ledger in a thread, while the mapped database erases the records.

        The batch is committed only if the caller calls `LedgerEntry.commit` on the yielded object.

        Args:
            record_class: record class of the records.
            keys: keys of the locked records that are to be erased.
        """
        number = transaction_of(self.connection)
        self._writing = self._ledger_thread.submit(self._write, record_class, keys, number)
        try:
            yield LedgerEntry(self, record_class, keys, number, self._writing)
        finally:  # roll back a batch that was not committed, after the thread has ended
            wait([self._writing])
            self.ledger.rollback()

    def await_ledger(self, seconds: float) -> None:
        """Wait, for at most `seconds`, until the current batch is written to the ledger."""
        if seconds and self._writing is not None and not self._writing.done():
            wait([self._writing], timeout=seconds)

    def _write(self, record_class: RecordClass, keys: list[Key], number: str) -> int:
        """Write a new batch in a transaction of the ledger, and leave this transaction open.

        Earlier batches whose erasing transactions committed are settled.

        Args:
            record_class: class of the records.
            keys: keys of the records that are to be erased.
            number: number of the erasing transaction of the mapped database.

        Returns:
            Id of the new batch.

        Raises:
            ServiceError: the connection to the state database was lost, the state database refused
                a statement, or another session keeps the ledger locked.
        """
        at = self.clock.now()
        self.ledger.begin()
        try:
            ledger.settle_batches(self.ledger, self._unsettled, at)
            return ledger.open_batch(
                self.ledger,
                self.schedule.keys,
                self._origin(record_class.rule),
                keys,
                transaction=number,
                server=self.server,
                at=at,
            )
        except (psycopg.Error, DBAPIError) as error:  # not an error of the mapped database
            code = getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlstate", None)
            raise ServiceError(
                f"The erasure ledger could not be written (SQLSTATE {code or 'none'}): the state "
                "database was lost, keeps the ledger locked, or refuses the entry.",
                "Completed deletions are in the erasure ledger. Airflow retries the task. The log "
                "of the server has the details.",
            ) from None

    def commit_batch(self) -> None:
        """Commit the ledger transaction that contains a new batch."""
        self.ledger.commit()
        self._unsettled.clear()
        self.progress("intended")

    def confirm(self) -> None:
        """Check that no legal hold was placed during the batch and that no other execution began.

        The caller has to call this function directly before the erasing transaction commits.

        Raises:
            ServiceError: a hold may have been placed, or another execution may have begun.
        """
        self.guard.confirm()
        self.confirm_alone()
        self.progress("confirmed")

    def mark_committed(self, batch: int) -> None:
        """Store in this object that the erasing transaction of a batch committed.

        A later call of `settle` records this in the erasure ledger.

        Args:
            batch: id of the batch in the ledger.
        """
        self._unsettled.append(batch)
        self.progress("committed")

    def withdraw(self, batch: int) -> None:
        """Delete a batch from the ledger, because its erasing transaction was rolled back.

        Args:
            batch: id of the batch in the ledger.
        """
        with self.ledger.begin():
            ledger.withdraw_batch(self.ledger, batch)

    def settle(self) -> None:
        """Record in the erasure ledger which erasing transactions committed.

        These are the transactions of the batches for which `mark_committed` was called.
        """
        if self._unsettled:
            with self.ledger.begin():
                ledger.settle_batches(self.ledger, self._unsettled, self.clock.now())
            self._unsettled.clear()
        self.progress("settled")


@dataclass(frozen=True)
class LedgerEntry:
    """A batch that a thread is writing to the ledger.

    Attributes:
        state: the execution.
        record_class: class of the records.
        keys: keys of the locked records that are to be erased.
        transaction: number of the transaction that erases the records in the mapped database.
        written: Future of the thread; its result is the id of the batch.
    """

    state: ExecutionState
    record_class: RecordClass
    keys: list[Key]
    transaction: str
    written: Future[int]

    def commit(self, erased: list[Key]) -> int:
        """Commit the batch to the ledger with exactly the records that were erased.

        Args:
            erased: keys of the records that were erased, which may be fewer than the locked
                records.

        Returns:
            Id of the batch in the ledger.
        """
        entered = self.written.result()
        if len(erased) == len(self.keys) and set(erased) == set(self.keys):
            self.state.commit_batch()
            return entered
        self.state.ledger.rollback()
        return self.state.enter_batch(self.record_class, erased, self.transaction)
