"""Delete and mask records in short transactions, in the order of the table's pages.

A batch reads the next pages of a table and locks the records to dispose of, except those that other
sessions have locked. The batch changes the locked records, writes their keys to the erasure ledger
and commits. If a batch took long, the next batch is smaller, so no other session waits long for a
lock.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable, Identifier

from include.erasure.ledger import STRIDE
from include.holds.records import RecordHolds
from include.policy.fragments import is_not_true
from include.retention.execution.batch_actions import (
    BatchAction,
    KeptByTrigger,
    LockedRecords,
    tid_array,
)
from include.retention.execution.state import ExecutionState, Key
from include.retention.planning.classes import RecordClass, is_attached
from include.retention.planning.graph import Graph
from include.retention.postgres.relations import Leaf
from include.retention.postgres.session import WRITE_AT_ONCE, set_for_transaction
from include.services.database import scalar

TRIES = 5  # attempts of a batch that fails because of other sessions' locks
PAUSE = 0.2  # seconds before the next attempt; doubled after each attempt
MAX_REFUSED = 100  # records that the database may refuse before the run skips their class
FIRST_PAGES, MAX_PAGES = 16, 2**17
MAX_SEARCH_SECONDS = 0.002  # for one statement that searches records
MIN_EMPTY_PAGES = 16  # pages to search at once after an empty result, unless the search was slow
IDLE_MS = 10_000  # maximum wait of a batch for the ledger, while it keeps its locks
FILL_RATIO = 0.9  # intended share of a batch's maximum size, since the density of pages varies
PASSES = 3  # passes over a table; later passes reach records that were locked or moved before
LOCK_CONFLICTS = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.QueryCanceled,
)
# Classes of SQLSTATE that concern the session, the statement or the server, and never a record.
SESSION_ERRORS = frozenset(
    ("08", "25", "26", "28", "34", "3D", "40", "42", "53", "57", "58", "F0", "XX")
)


def is_refusal(error: psycopg.Error) -> bool:
    """Return whether an error means that the database refuses to change a certain record.

    Errors of the session, the statement or the server are not refusals. But if a trigger in
    PL/pgSQL raised the error, it is a refusal in any case. Such a trigger may use any SQLSTATE,
    even the SQLSTATE of "permission denied".
    """
    if _is_raised(error):
        return True
    return error.sqlstate is not None and error.sqlstate[:2] not in SESSION_ERRORS


def is_lock_conflict(error: psycopg.Error) -> bool:
    """Return whether a statement failed because of a timeout or a lock of another session."""
    return isinstance(error, LOCK_CONFLICTS) and not _is_raised(error)


def _is_raised(error: psycopg.Error) -> bool:
    return error.diag.source_function == "exec_stmt_raise"  # PL/pgSQL's RAISE


def process_class(state: ExecutionState, action: BatchAction, passes: int = PASSES) -> int:
    """Delete or mask all records of a record class that meet the action's condition.

    The records are processed batch by batch. The function stops early when the planned number of
    records is reached, or when the execution has to stop (`ExecutionCounts.stopped`).

    Args:
        state: the execution.
        action: the disposition of the records.
        passes: maximum number of passes over the table. Another pass starts only if fewer records
            than planned were deleted or masked.

    Returns:
        The number of records that were deleted or masked.

    Raises:
        ServiceError: the connection to a database was lost, or another session takes too long to
            place a legal hold.
    """
    record_class = action.record_class
    before = state.counts.done[record_class.name]
    leaves = [leaf for leaf in record_class.relation.leaves if leaf.oid not in state.dropped]
    walks = [_TableWalk(state, action, leaf) for leaf in leaves]
    for _pass in range(passes):
        if not all(walk.run() for walk in walks):
            break
    state.settle()
    return state.counts.done[record_class.name] - before


def count_locked(state: ExecutionState, action: BatchAction) -> None:
    """Count the records of a record class that locks or timeouts kept from being changed.

    The caller has to call this function after the last pass over the table. The number is stored in
    `ExecutionCounts.locked`.

    Args:
        state: the execution.
        action: the disposition of the records of the record class.
    """
    name, counts = action.record_class.name, state.counts
    refused = state.count_refused(name)
    if refused >= MAX_REFUSED:
        counts.given_up.add(name)
    if counts.stopped or refused >= MAX_REFUSED or not state.remaining_allowance(name):
        return
    query = SQL("SELECT count(*) FROM {} AS t WHERE {}").format(
        action.record_class.relation.identifier, action.condition(state.graph)
    )
    with state.connection.transaction():
        set_for_transaction(state.connection, state.schedule.database, {})
        records = scalar(state.connection, query, {})
    if records > refused:
        counts.locked[name] = records - refused


class _Detached(Exception):
    """Raised if an application detached a partition from its table during the execution.

    The execution then changes no further records of the partition.
    """


@dataclass
class _TableWalk:
    """The execution of an action on one table or partition, batch by batch in the order of pages.

    Attributes:
        state: the execution.
        action: the disposition of the records.
        leaf: the table or partition.
        pages: number of pages that the next batch reads.
        rows: maximum number of records that the next batch changes.
        found_rows: number of records that the last batch locked.
        seconds: duration of the last batch in seconds.
        next_page: page after the last page that the last batch searched. If the batch reached its
            maximum number of records, the pages before it may contain more records to change.
        tried_ctids: ctids of the records that the current batch locked; None as long as it has
            locked no records.
        pages_per_statement: number of pages that the next SELECT statement reads when it searches
            for records.
        fastest_seconds: duration of the fastest of these SELECT statements in seconds.
        conditions: cached SQL condition of the action, with the graph for which it was computed.
    """

    state: ExecutionState
    action: BatchAction
    leaf: Leaf
    pages: int = FIRST_PAGES
    rows: int = 0
    found_rows: int = 0
    seconds: float = 0.0
    next_page: int = 0
    tried_ctids: list[str] | None = None
    pages_per_statement: float = 1.0
    fastest_seconds: float = math.inf
    conditions: tuple[Graph, Composable] | None = None

    def __post_init__(self) -> None:
        self.record_class = self.action.record_class
        self.name = self.record_class.name

    @property
    def refused_ctids(self) -> list[str]:
        """The ctids of records that the database refused to change. Later searches skip them."""
        return self.state.refused_ctids.setdefault((self.name, self.leaf.oid), [])

    def run(self) -> bool:
        """Process all pages of the table or partition once, batch by batch.

        Returns:
            Whether the next table or partition of the record class may be processed. False means
            that the execution has to stop (`ExecutionState.is_stopped`), or that the planned number
            of records is reached.
        """
        state, counts = self.state, self.state.counts
        if state.count_refused(self.name) >= MAX_REFUSED:
            return True
        self.pages, self.rows = FIRST_PAGES, state.batch_rules.rows
        pages = scalar(
            state.connection,
            "SELECT pg_relation_size(%s::oid) / current_setting('block_size')::bigint",
            [self.leaf.oid],
        )
        page, last, failures = 0, int(pages or 0), 0  # NULL for a dropped partition
        while page < last:
            if state.is_stopped() or not state.remaining_allowance(self.name):
                return False
            try:
                full = self._batch(page, min(page + self.pages, last))
            except _Detached:
                return True
            except psycopg.DatabaseError as error:
                if isinstance(error, errors.UndefinedTable) and not self._is_attached():
                    return True  # the application dropped the partition
                if is_lock_conflict(error):
                    if isinstance(error, errors.QueryCanceled):
                        counts.slow.add(self.name)
                    failures += 1
                    self._back_off(failures)
                    if failures >= TRIES:
                        page, failures = page + self.pages, 0
                elif not is_refusal(error):
                    raise
                elif not self._single_out(error):
                    return True
                continue
            failures = 0
            if not full:
                page = self.next_page
            self._resize(self.seconds)
        return True

    def _batch(self, first: int, end: int) -> bool:
        """Process one batch: delete or mask records on some pages in one transaction.

        Args:
            first: first page of the batch.
            end: page after the last page of the batch.

        Returns:
            True if the batch reached its maximum number of records. In this case, the pages may
            contain more records to change.
        """
        state, name = self.state, self.name
        most = min(self.rows, state.remaining_allowance(name))
        with state.guard.batch() as holds:
            which = self._condition(holds)
            if state.may_make_untraceable(self.record_class) and self._has_requested(
                first, end, which
            ):
                state.store_request_records()
                which = self._condition(holds)
            begun = time.monotonic()
            with state.transaction() as entered:
                set_timeouts(state, self.record_class, self.leaf)
                self.tried_ctids = None
                ctids, keys = self._lock_records(first, end, most, which)
                self.tried_ctids = ctids
                if keys and not self._is_attached():
                    raise _Detached
                if keys:
                    counters = state.counters([self.record_class])
                    with state.write_ahead(self.record_class, keys) as entering:
                        locked = LockedRecords(self.leaf, ctids, which)
                        changed = self.action.apply(state, counters, locked)
                        self._require_changed(ctids, keys, changed, which)
                        by_triggers = counters.require_recorded()
                        state.progress("changed")
                        if changed:
                            entered.append(entering.commit(changed))
                            state.confirm()
        self.seconds = time.monotonic() - begun  # without the wait for a legal hold
        for batch in entered:
            state.counts.done[name] += len(changed)
            state.counts.count_trigger_changes(by_triggers)
            state.mark_committed(batch)
        self.found_rows = len(keys)
        return len(keys) == most

    def _lock_records(
        self, first: int, end: int, most: int, which: Composable
    ) -> tuple[list[str], list[Key]]:
        """Lock the next records to change, and return their ctids and keys.

        The function sets `next_page` to the page after the last page that it searched. If it locked
        fewer than `most` records, it has searched all pages before `next_page` completely.
        Otherwise these pages may contain more records to change.

        Args:
            first: first page to search.
            end: page after the last page to search.
            most: maximum number of records to lock.
            which: SQL condition that selects the records to change; it refers to the table as
                ``t``.
        """
        query = SQL(
            "SELECT t.ctid::text, {keys} FROM {leaf} AS t "
            "WHERE t.ctid >= %(first)s::tid AND t.ctid < %(end)s::tid AND {which} "
            "AND t.ctid <> ALL (%(passed)s::tid[]) LIMIT %(most)s FOR UPDATE OF t SKIP LOCKED"
        ).format(keys=self.record_class.relation.key_texts, leaf=self.leaf.identifier, which=which)
        text = query.as_bytes(self.state.connection)
        ctids: list[str] = []
        keys: list[Key] = []
        # Half of the time is left for the deletion, which is slow without indexes on foreign keys.
        until = time.monotonic() + self.state.batch_rules.milliseconds / 2000
        while first < end and len(keys) < most:
            if keys and time.monotonic() > until:
                break
            next_first = min(end, first + max(1, int(self.pages_per_statement)))
            parameters = {
                "first": f"({first},0)",
                "end": f"({next_first},0)",
                "passed": self.refused_ctids,
                "most": most - len(keys),
            }
            begun = time.monotonic()
            rows = self.state.connection.execute(text, parameters).fetchall()
            took = time.monotonic() - begun
            ctids += [row[0] for row in rows]
            keys += [row[1:] for row in rows]
            # The fastest statement shows the constant time of a statement (network).
            self.fastest_seconds = min(self.fastest_seconds, took)
            reading = max(took - self.fastest_seconds, 0.0001)
            # The next search reads pages with STRIDE records, or as many as its time allows.
            factor = min(STRIDE / max(1, len(rows)), MAX_SEARCH_SECONDS / reading)
            self.pages_per_statement *= min(2.0, max(0.5, factor))
            is_empty = not rows and reading < 10 * MAX_SEARCH_SECONDS
            fewest = MIN_EMPTY_PAGES if is_empty else 1.0
            self.pages_per_statement = min(MAX_PAGES, max(fewest, self.pages_per_statement))
            if not rows:  # many empty pages may follow; let other sessions use the core
                time.sleep(min(reading, MAX_SEARCH_SECONDS))
            first = next_first
        self.next_page = first
        return ctids, keys

    def _is_attached(self) -> bool:
        return is_attached(self.state.connection, self.record_class.relation, self.leaf)

    def _has_requested(self, first: int, end: int, which: Composable) -> bool:
        """Return whether any record to change on certain pages belongs to an open erasure request.

        If the record class is not erased on request, the function returns False. In this case,
        `ExecutionState.store_request_records` was called before the first batch of the record
        class.

        Args:
            first: first page to search.
            end: page after the last page to search.
            which: SQL condition that selects the records to change; it refers to the table as
                ``t``.
        """
        state = self.state
        if not self.record_class.rule.on_request:
            return False
        query = SQL(
            "SELECT EXISTS (SELECT FROM {leaf} AS t WHERE t.ctid >= %(first)s::tid "
            "AND t.ctid < %(end)s::tid AND {which} AND {requested})"
        ).format(
            leaf=self.leaf.identifier,
            which=which,
            requested=state.graph.of_subjects(self.record_class, state.requesting_subjects),
        )
        with state.connection.transaction():
            set_timeouts(state, self.record_class, self.leaf)
            pages = {"first": f"({first},0)", "end": f"({end},0)"}
            return bool(scalar(state.connection, query, pages))

    def _require_changed(
        self, ctids: list[str], keys: list[Key], changed: list[Key], which: Composable
    ) -> None:
        """Check that the batch changed each locked record that still meets the condition `which`.

        Args:
            ctids: ctids of the locked records.
            keys: keys of the locked records, in the same order.
            changed: keys of the records that the batch deleted or masked.
            which: SQL condition that selects the records to change; it refers to the table as
                ``t``. Each locked record met the condition when it was locked.

        Raises:
            KeptByTrigger: a trigger prevented the change of a record, or changed the key of a
                record.
        """
        changed_keys = set(changed)
        if not changed_keys <= set(keys):
            raise KeptByTrigger  # a trigger changed the key of a masked record
        if len(changed) == len(keys):
            return
        left = [ctid for ctid, key in zip(ctids, keys, strict=True) if key not in changed_keys]
        query = SQL(
            "SELECT count(*) FROM {} AS t WHERE t.ctid = ANY (%(rows)s::tid[]) AND {}"
        ).format(self.leaf.identifier, is_not_true(which))
        if scalar(self.state.connection, query, {"rows": tid_array(left)}) < len(left):
            raise KeptByTrigger

    def _condition(self, holds: RecordHolds) -> Composable:
        """Return the SQL condition of the action, with the current legal holds."""
        graph = self.state.refresh_graph(holds)
        if self.conditions is None or self.conditions[0] is not graph:
            self.conditions = graph, self.action.condition(graph)
        return self.conditions[1]

    def _resize(self, seconds: float) -> None:
        """Adapt the size of the next batch to the duration that disposition.yaml sets for a batch.

        The size is a number of table pages. It stays small enough that these pages contain fewer
        records to change than a batch may change; otherwise the next batch would have to read the
        same pages again.

        Args:
            seconds: duration of the last batch.
        """
        intended_seconds = self.state.batch_rules.milliseconds / 1000
        factor = min(2.0, max(0.25, intended_seconds / max(seconds, 0.001)))
        factor = min(factor, max(0.25, FILL_RATIO * self.rows / max(self.found_rows, 1)))
        self.pages = max(1, min(MAX_PAGES, int(self.pages * factor)))
        if seconds > 2 * intended_seconds:
            self.rows = max(1, self.rows // 2)
        else:
            self.rows = min(self.state.batch_rules.rows, self.rows * 2)

    def _back_off(self, failures: int) -> None:
        self.state.counts.busy[self.name] += 1
        self.rows = max(1, self.rows // 4)
        time.sleep(PAUSE * 2 ** (failures - 1))

    def _single_out(self, error: psycopg.DatabaseError) -> bool:
        """Reduce the batch size until a single refused record is left, then skip this record.

        If the database refuses one record, the whole batch is rolled back. Each call therefore
        halves the number of records of the next batch. Once a batch of one record is refused, later
        searches skip this record.

        Args:
            error: error of the last batch.

        Returns:
            False if the database has refused too many records of the record class.
        """
        if self.rows > 1:
            self.rows = max(1, min(self.rows, 64) // 2)
            return True
        if not self.tried_ctids:
            raise error  # the condition itself fails, before records are locked
        # Skip exactly these records; another search might return others.
        self.refused_ctids.extend(self.tried_ctids)
        self.state.counts.refuse(self.name, error)
        return self.state.count_refused(self.name) < MAX_REFUSED


def set_timeouts(
    state: ExecutionState,
    record_class: RecordClass,
    leaf: Leaf | None = None,
    idle_ms: int | None = None,
) -> None:
    """Set the timeouts of the open transaction.

    If the current role has no rights on `leaf` but may become the owner of its table, the session
    also gets the rights of the owner until the transaction ends.

    Args:
        state: the execution.
        record_class: record class of the table.
        leaf: the table or partition that the next statements name; None if they name the
            partitioned table.
        idle_ms: longest time in milliseconds for which the transaction may be idle while the
            erasure ledger is written; `IDLE_MS` by default.
    """
    batch = state.batch_rules
    timeouts = {
        "lock_timeout": f"{batch.lock_timeout_ms}ms",
        "statement_timeout": f"{batch.statement_timeout_s}s",
        "idle_in_transaction_session_timeout": f"{idle_ms or IDLE_MS}ms",
    }
    set_for_transaction(state.connection, state.schedule.database, timeouts)
    state.connection.execute(WRITE_AT_ONCE, {"is_local": True})
    if leaf is not None and not leaf.ours and record_class.relation.can_become_owner:
        become_owner(state, record_class)


def become_owner(state: ExecutionState, record_class: RecordClass) -> None:
    """Give the session the rights of a table's owner until the transaction ends.

    Args:
        state: the execution.
        record_class: record class of the table.
    """
    state.connection.execute(
        SQL("SET LOCAL ROLE {}").format(Identifier(record_class.relation.owner))
    )
