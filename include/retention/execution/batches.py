"""Delete and mask in short transactions, in the order of the table's pages on disk.

A batch takes the next pages of a table, locks the records that it may dispose of (it skips records
that other sessions have locked), checks them again, enters their keys in the ledger and commits.
Batches are sized by the time that they take, so that no session waits long for a lock.
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
from include.policy.fragments import negated
from include.retention.execution.batch_actions import BatchAction, Kept, LockedRecords, as_array
from include.retention.execution.state import ExecutionState, Key
from include.retention.planning.classes import RecordClass, is_attached
from include.retention.planning.graph import Graph
from include.retention.postgres.relations import Leaf
from include.retention.postgres.session import WRITE_AT_ONCE, set_locally
from include.services.database import scalar

TRIES = 5  # of a batch that meets locks of other sessions
PAUSE = 0.2  # seconds before the next try; doubled each time
MOST_REFUSED = 100  # records that the database may refuse before the run skips their class
FIRST_PAGES, MOST_PAGES = 16, 2**17
LONGEST_LOOK = 0.002  # seconds in which one statement searches records
FEWEST_BARREN = 16  # pages of a search without a result, unless it takes ten times as long
IDLE_MS = 10_000  # in which a batch may keep its locks while it waits for the ledger
FULL = 0.9  # of the records that a batch may have, since pages differ
PASSES = 3  # over a table: the next meets what other sessions had locked or moved
LOST_TO_OTHERS = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.QueryCanceled,
)
# Classes of SQLSTATE of the session, the statement or the server; no record causes them.
OF_NO_RECORD = frozenset(
    ("08", "25", "26", "28", "34", "3D", "40", "42", "53", "57", "58", "F0", "XX")
)


def refuses(error: psycopg.Error) -> bool:
    """Return whether an error means that the database refuses to delete or mask a record.

    A trigger in PL/pgSQL may raise any code, such as "permission denied". Constraints, rules and
    triggers in other languages raise codes that a record causes.
    """
    if _is_raised(error):
        return True
    return error.sqlstate is not None and error.sqlstate[:2] not in OF_NO_RECORD


def lost_to_others(error: psycopg.Error) -> bool:
    """Return whether another session held a lock, or a statement took too long."""
    return isinstance(error, LOST_TO_OTHERS) and not _is_raised(error)


def _is_raised(error: psycopg.Error) -> bool:
    return error.diag.source_function == "exec_stmt_raise"  # PL/pgSQL's RAISE


def walk(state: ExecutionState, action: BatchAction, passes: int = PASSES) -> int:
    """Dispose of every record of a class that meets the action's condition, batch by batch.

    Stops when the plan allows no more, or a limit is reached (`ExecutionCounts.stopped`).

    Args:
        state: the execution.
        action: the disposition of the class's records.
        passes: maximum number of passes over the table, as long as fewer records are done than
            planned: the next pass meets records that other sessions had locked or moved.

    Returns:
        The number of records that were deleted or masked.

    Raises:
        ServiceError: a database was lost, or a hold was being placed for too long.
    """
    record_class = action.record_class
    before = state.counts.done[record_class.name]
    leaves = [leaf for leaf in record_class.relation.leaves if leaf.oid not in state.dropped]
    walks = [_Walk(state, action, leaf) for leaf in leaves]
    for _pass in range(passes):
        if not all(each.go() for each in walks):
            break
    state.settle()
    return state.counts.done[record_class.name] - before


def count_locked(state: ExecutionState, action: BatchAction) -> None:
    """Count the records that remain after the last pass: locked by others, or too slow."""
    name, counts = action.record_class.name, state.counts
    refused = state.refused(name)
    if refused >= MOST_REFUSED:
        counts.given_up.add(name)
    if counts.stopped or refused >= MOST_REFUSED or not state.left(name):
        return
    query = SQL("SELECT count(*) FROM {} AS t WHERE {}").format(
        action.record_class.relation.identifier, action.condition(state.graph)
    )
    with state.connection.transaction():
        set_locally(state.connection, state.schedule.database, {})
        records = scalar(state.connection, query, {})
    if records > refused:
        counts.locked[name] = records - refused


class _Detached(Exception):
    """An application detached the partition from the table."""


@dataclass
class _Walk:
    state: ExecutionState
    action: BatchAction
    leaf: Leaf
    pages: int = FIRST_PAGES
    rows: int = 0
    found: int = 0
    seconds: float = 0.0
    reached: int = 0
    tried: list[str] | None = None
    pages_of_stride: float = 1.0
    quickest: float = math.inf
    conditions: tuple[Graph, Composable] | None = None

    def __post_init__(self) -> None:
        self.record_class = self.action.record_class
        self.name = self.record_class.name

    @property
    def passed_over(self) -> list[str]:
        """Records that the database refused; later passes skip them too."""
        return self.state.passed_over.setdefault((self.name, self.leaf.oid), [])

    def go(self) -> bool:
        """Walk along one leaf; return False if no leaf has anything to do any more."""
        state, counts = self.state, self.state.counts
        if state.refused(self.name) >= MOST_REFUSED:
            return True
        self.pages, self.rows = FIRST_PAGES, state.batch_rules.rows
        pages = scalar(
            state.connection,
            "SELECT pg_relation_size(%s::oid) / current_setting('block_size')::bigint",
            [self.leaf.oid],
        )
        page, last, failures = 0, int(pages or 0), 0  # a partition that was dropped has no size
        while page < last:
            if state.is_stopped() or not state.left(self.name):
                return False
            try:
                full = self._batch(page, min(page + self.pages, last))
            except _Detached:
                return True
            except psycopg.DatabaseError as error:
                if isinstance(error, errors.UndefinedTable) and not self._is_attached():
                    return True  # an application dropped the partition
                if lost_to_others(error):
                    if isinstance(error, errors.QueryCanceled):
                        counts.slow.add(self.name)
                    failures += 1
                    self._back_off(failures)
                    if failures >= TRIES:
                        page, failures = page + self.pages, 0
                elif not refuses(error):
                    raise
                elif not self._single_out(error):
                    return True
                continue
            failures = 0
            if not full:
                page = self.reached
            self._resize(self.seconds)
        return True

    def _batch(self, first: int, end: int) -> bool:
        """Work in one transaction; return True if the pages may hold more records that fit."""
        state, name = self.state, self.name
        most = min(self.rows, state.left(name))
        with state.guard.batch() as holds:
            which = self._condition(holds)
            if state.may_lose_subjects(self.record_class) and self._has_requested(
                first, end, which
            ):
                state.remember_requests()
                which = self._condition(holds)
            begun = time.monotonic()
            with state.transaction() as entered:
                set_limits(state, self.record_class, self.leaf)
                self.tried = None
                places, keys = self._locked(first, end, most, which)
                self.tried = places
                if keys and not self._is_attached():
                    raise _Detached
                if keys:
                    counters = state.counters([self.record_class])
                    with state.entering(self.record_class, keys) as entering:
                        locked = LockedRecords(self.leaf, places, which)
                        gone = self.action.apply(state, counters, locked)
                        self._require_gone(places, keys, gone, which)
                        by_triggers = counters.require_recorded()
                        state.progress("changed")
                        if gone:
                            entered.append(entering.commit(gone))
                            state.confirm()
        self.seconds = time.monotonic() - begun  # without the wait for a hold
        for batch in entered:
            state.counts.done[name] += len(gone)
            state.counts.react(by_triggers)
            state.committed(batch)
        self.found = len(keys)
        return len(keys) == most

    def _locked(
        self, first: int, end: int, most: int, which: Composable
    ) -> tuple[list[str], list[Key]]:
        """Lock the next rows, and return their ctids and keys.

        Pages before `reached` are done, unless the rows are all that a batch may have.
        """
        query = SQL(
            "SELECT t.ctid::text, {keys} FROM {leaf} AS t "
            "WHERE t.ctid >= %(first)s::tid AND t.ctid < %(end)s::tid AND {which} "
            "AND t.ctid <> ALL (%(passed)s::tid[]) LIMIT %(most)s FOR UPDATE OF t SKIP LOCKED"
        ).format(keys=self.record_class.relation.key_texts, leaf=self.leaf.identifier, which=which)
        text = query.as_bytes(self.state.connection)
        places: list[str] = []
        keys: list[Key] = []
        # Deleting may take as long again, for example without an index on a referring column.
        until = time.monotonic() + self.state.batch_rules.milliseconds / 2000
        while first < end and len(keys) < most:
            if keys and time.monotonic() > until:
                break
            behind = min(end, first + max(1, int(self.pages_of_stride)))
            parameters = {
                "first": f"({first},0)",
                "end": f"({behind},0)",
                "passed": self.passed_over,
                "most": most - len(keys),
            }
            begun = time.monotonic()
            rows = self.state.connection.execute(text, parameters).fetchall()
            took = time.monotonic() - begun
            places += [row[0] for row in rows]
            keys += [row[1:] for row in rows]
            # The quickest statement shows the time that each takes whatever it reads (network).
            self.quickest = min(self.quickest, took)
            reading = max(took - self.quickest, 0.0001)
            # Next time take the pages of one statement's records, or of `LONGEST_LOOK`.
            factor = min(STRIDE / max(1, len(rows)), LONGEST_LOOK / reading)
            self.pages_of_stride *= min(2.0, max(0.5, factor))
            barren = not rows and reading < 10 * LONGEST_LOOK
            fewest = FEWEST_BARREN if barren else 1.0
            self.pages_of_stride = min(MOST_PAGES, max(fewest, self.pages_of_stride))
            if not rows:  # many such pages may follow: other sessions get the core meanwhile
                time.sleep(min(reading, LONGEST_LOOK))
            first = behind
        self.reached = first
        return places, keys

    def _is_attached(self) -> bool:
        return is_attached(self.state.connection, self.record_class.relation, self.leaf)

    def _has_requested(self, first: int, end: int, which: Composable) -> bool:
        """Return whether pages have records that fit and belong to an open erasure request.

        Classes that no request erases are not searched: the records to which they lead were
        remembered when the execution began with the class.
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
            requested=state.graph.of_subjects(self.record_class, state.asking),
        )
        with state.connection.transaction():
            set_limits(state, self.record_class, self.leaf)
            pages = {"first": f"({first},0)", "end": f"({end},0)"}
            return bool(scalar(state.connection, query, pages))

    def _require_gone(
        self, places: list[str], keys: list[Key], gone: list[Key], which: Composable
    ) -> None:
        """Check that each locked record was deleted or masked, or no longer meets the condition."""
        changed = set(gone)
        if not changed <= set(keys):
            raise Kept  # a trigger gave a masked record another key
        if len(gone) == len(keys):
            return
        left = [place for place, key in zip(places, keys, strict=True) if key not in changed]
        query = SQL(
            "SELECT count(*) FROM {} AS t WHERE t.ctid = ANY (%(rows)s::tid[]) AND {}"
        ).format(self.leaf.identifier, negated(which))
        if scalar(self.state.connection, query, {"rows": as_array(left)}) < len(left):
            raise Kept

    def _condition(self, holds: RecordHolds) -> Composable:
        """Return the condition of the action under the current holds."""
        graph = self.state.current(holds)
        if self.conditions is None or self.conditions[0] is not graph:
            self.conditions = graph, self.action.condition(graph)
        return self.conditions[1]

    def _resize(self, seconds: float) -> None:
        """Choose the pages of the next batch so that it takes as long as disposition.yaml says.

        They have no more records than one batch may have: pages with more are read again.
        """
        meant = self.state.batch_rules.milliseconds / 1000
        factor = min(2.0, max(0.25, meant / max(seconds, 0.001)))
        factor = min(factor, max(0.25, FULL * self.rows / max(self.found, 1)))
        self.pages = max(1, min(MOST_PAGES, int(self.pages * factor)))
        if seconds > 2 * meant:
            self.rows = max(1, self.rows // 2)
        else:
            self.rows = min(self.state.batch_rules.rows, self.rows * 2)

    def _back_off(self, failures: int) -> None:
        self.state.counts.busy[self.name] += 1
        self.rows = max(1, self.rows // 4)
        time.sleep(PAUSE * 2 ** (failures - 1))

    def _single_out(self, error: psycopg.DatabaseError) -> bool:
        """Find the record that the database refuses, and skip it; return False after too many.

        A trigger, a check of a referring table, or a new key refuses one record and with it the
        batch. Batches are halved until only that record is left.
        """
        if self.rows > 1:
            self.rows = max(1, min(self.rows, 64) // 2)
            return True
        if not self.tried:
            raise error  # no record is the cause: the condition fails
        # These rows, without another search: it might return other rows first.
        self.passed_over.extend(self.tried)
        self.state.counts.refuse(self.name, error)
        return self.state.refused(self.name) < MOST_REFUSED


def set_limits(
    state: ExecutionState,
    record_class: RecordClass,
    leaf: Leaf | None = None,
    idle_ms: int | None = None,
) -> None:
    """Set the timeouts of a transaction, and become the owner if a partition requires it.

    Args:
        state: the execution.
        record_class: the record class.
        leaf: the table or partition that statements name; None for the whole table.
        idle_ms: time to wait for the ledger before the server ends the session; default `IDLE_MS`.
    """
    batch = state.batch_rules
    timeouts = {
        "lock_timeout": f"{batch.lock_timeout_ms}ms",
        "statement_timeout": f"{batch.statement_timeout_s}s",
        "idle_in_transaction_session_timeout": f"{idle_ms or IDLE_MS}ms",
    }
    set_locally(state.connection, state.schedule.database, timeouts)
    state.connection.execute(WRITE_AT_ONCE, {"is_local": True})
    if leaf is not None and not leaf.ours and record_class.relation.can_become_owner:
        become_owner(state, record_class)


def become_owner(state: ExecutionState, record_class: RecordClass) -> None:
    """Act as the owner of a table until the transaction ends."""
    state.connection.execute(
        SQL("SET LOCAL ROLE {}").format(Identifier(record_class.relation.owner))
    )
