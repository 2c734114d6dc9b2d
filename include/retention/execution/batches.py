"""Deleting and masking in short transactions, along the table as it lies on disk.

A batch takes the next pages of a table, locks the records there that may go (those that somebody
else has locked are passed over), looks at them once more, enters their keys in the ledger and
commits. Batches are sized by the time that they take, so that nobody waits long for a lock.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Composable, Identifier

from include.erasure.ledger import STRIDE
from include.erasure.places import key_texts
from include.holds.records import RecordHolds
from include.policy.fragments import fixed, negated
from include.retention.execution.batch_actions import Act, Kept, as_array
from include.retention.execution.state import ExecutionState, Key
from include.retention.planning.classes import RecordClass, is_attached
from include.retention.planning.graph import Graph
from include.retention.postgres.relations import Leaf
from include.retention.postgres.session import WRITE_AT_ONCE, set_locally

TRIES = 5  # of a batch that meets somebody else's locks
PAUSE = 0.2  # seconds before the next try; doubled each time
MOST_REFUSED = 100  # records of a class that the database may refuse before it is left alone
FIRST_PAGES, MOST_PAGES = 16, 2**17
LONGEST_LOOK = 0.002  # seconds that one statement looks for records
FEWEST_BARREN = 16  # pages of a look where there is nothing, unless it takes ten times as long
IDLE_MS = 10_000  # that a batch's locks may be kept while the ledger is written
FULL = 0.9  # of the records that a batch may have; pages differ
PASSES = 3  # over a table: what others had locked, or moved, is met by the next
LOST_TO_OTHERS = (
    errors.LockNotAvailable,
    errors.DeadlockDetected,
    errors.SerializationFailure,
    errors.QueryCanceled,
)
# Classes of SQLSTATE that are of the session, the statement or the server, and of no record.
OF_NO_RECORD = frozenset(
    ("08", "25", "26", "28", "34", "3D", "40", "42", "53", "57", "58", "F0", "XX")
)


def refuses(error: psycopg.Error) -> bool:
    """Whether an error says that the database does not let a record go.

    A trigger in PL/pgSQL may raise whatever code it likes, "permission denied" for one;
    constraints, rules and triggers in other languages have those that are of a record.
    """
    if _is_raised(error):
        return True
    return error.sqlstate is not None and error.sqlstate[:2] not in OF_NO_RECORD


def lost_to_others(error: psycopg.Error) -> bool:
    """Whether another session was in the way, or a statement took too long; no trigger says so."""
    return isinstance(error, LOST_TO_OTHERS) and not _is_raised(error)


def _is_raised(error: psycopg.Error) -> bool:
    return error.diag.source_function == "exec_stmt_raise"  # PL/pgSQL's RAISE


def walk(work: ExecutionState, one: RecordClass, act: Act, passes: int = PASSES) -> int:
    """Do something to every record of a class that fits, batch by batch.

    Stops when the plan allows no more, or a limit is reached (`ExecutionCounts.stopped`).

    Args:
        work: the execution.
        one: the class.
        act: what is done to its records.
        passes: over the table at most, while there is less done than planned: what somebody else
            had locked, or moved to a page behind, is met by the next.

    Returns:
        How many records it was done to.

    Raises:
        ServiceError: a database was lost, or a hold was being placed for too long.
    """
    before = work.tally.done.get(one.name, 0)
    there = [leaf for leaf in one.relation.leaves if leaf.oid not in work.dropped]
    walks = [_Walk(work, one, act, leaf) for leaf in there]
    for _pass in range(passes):
        if not all(each.go() for each in walks):
            break
    work.settle()
    return work.tally.done.get(one.name, 0) - before


def count_locked(work: ExecutionState, one: RecordClass, act: Act) -> None:
    """Count what fits still after the last pass: others kept it locked, or it took too long."""
    refused = work.refused(one.name)
    if refused >= MOST_REFUSED:
        work.tally.given_up.add(one.name)
    if work.tally.stopped or refused >= MOST_REFUSED or not work.left(one.name):
        return
    query = SQL("SELECT count(*) FROM {} AS t WHERE {}").format(
        one.relation.identifier, act.condition(work.graph)
    )
    with work.connection.transaction():
        set_locally(work.connection, work.schedule.database, {})
        row = work.connection.execute(query, {}).fetchone()
    if row is not None and row[0] > refused:
        work.tally.locked[one.name] = row[0] - refused


class _Detached(Exception):
    """An application detached the partition: its records are the table's no more."""


@dataclass
class _Walk:
    work: ExecutionState
    one: RecordClass
    act: Act
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

    @property
    def passed_over(self) -> list[str]:
        """Records that the database refused; later rounds pass them over too."""
        return self.work.passed_over.setdefault((self.one.name, self.leaf.oid), [])

    def go(self) -> bool:
        """Walk along one leaf; False when there is nothing more to do in any."""
        work = self.work
        if work.refused(self.one.name) >= MOST_REFUSED:
            return True
        self.pages, self.rows = FIRST_PAGES, work.limits.rules.batch.rows
        row = work.connection.execute(
            "SELECT pg_relation_size(%s::oid) / current_setting('block_size')::bigint",
            [self.leaf.oid],
        ).fetchone()
        assert row is not None
        page, last, failures = 0, int(row[0] or 0), 0  # a partition that was dropped has no size
        while page < last:
            work.tally.stopped = work.limits.reached() or work.tally.stopped
            if work.tally.stopped or not work.left(self.one.name):
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
                        work.tally.slow.add(self.one.name)
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
        """One transaction; True when the pages may hold more that fits."""
        work, name = self.work, self.one.name
        most = min(self.rows, work.left(name))
        with work.guard.batch() as holds:
            which = self._condition(holds)
            if work.may_lose_subjects(self.one) and self._has_requested(first, end, which):
                work.remember_requests()
                which = self._condition(holds)
            begun = time.monotonic()
            with work.transaction() as entered:
                set_limits(work, self.one, self.leaf)
                self.tried = None
                places, keys = self._locked(first, end, most, which)
                self.tried = places
                if keys and not self._is_attached():
                    raise _Detached
                if keys:
                    counters = work.counters([self.one])
                    with work.entering(self.one, keys) as entering:
                        gone = self.act.apply(work, counters, self.leaf, places, which)
                        self._require_gone(places, keys, gone, which)
                        by_triggers = counters.require_recorded()
                        work.progress("changed")
                        if gone:
                            entered.append(entering.commit(gone))
                            work.confirm()
        self.seconds = time.monotonic() - begun  # without waiting for a hold that is placed
        for batch in entered:
            work.tally.add(name, len(gone))
            work.tally.react(by_triggers)
            work.committed(batch)
        self.found = len(keys)
        return len(keys) == most

    def _locked(
        self, first: int, end: int, most: int, which: Composable
    ) -> tuple[list[str], list[Key]]:
        """Lock the next rows; returns where they are, and their keys.

        Pages before `reached` are done with, unless the rows are all that a batch may have.
        """
        query = SQL(
            "SELECT t.ctid::text, {keys} FROM {leaf} AS t "
            "WHERE t.ctid >= %(first)s::tid AND t.ctid < %(end)s::tid AND {which} "
            "AND t.ctid <> ALL (%(passed)s::tid[]) LIMIT %(most)s FOR UPDATE OF t SKIP LOCKED"
        ).format(
            keys=fixed(key_texts(self.one.relation.key)), leaf=self.leaf.identifier, which=which
        )
        text = query.as_bytes(self.work.connection)
        places: list[str] = []
        keys: list[Key] = []
        # Deleting takes about as long again: without an index on what refers, for one.
        until = time.monotonic() + self.work.limits.rules.batch.milliseconds / 2000
        while first < end and len(keys) < most:
            if keys and time.monotonic() > until:
                break
            behind = min(end, first + max(1, int(self.pages_of_stride)))
            given = {
                "first": f"({first},0)",
                "end": f"({behind},0)",
                "passed": self.passed_over,
                "most": most - len(keys),
            }
            begun = time.monotonic()
            found = self.work.connection.execute(text, given).fetchall()
            took = time.monotonic() - begun
            places += [row[0] for row in found]
            keys += [row[1:] for row in found]
            # The quickest says what any takes whatever it reads: the way there and back, for one.
            self.quickest = min(self.quickest, took)
            reading = max(took - self.quickest, 0.0001)
            # As many pages next time as have the records of one statement, or are read in a while.
            factor = min(STRIDE / max(1, len(found)), LONGEST_LOOK / reading)
            self.pages_of_stride *= min(2.0, max(0.5, factor))
            barren = not found and reading < 10 * LONGEST_LOOK
            fewest = FEWEST_BARREN if barren else 1.0
            self.pages_of_stride = min(MOST_PAGES, max(fewest, self.pages_of_stride))
            if not found:  # barren pages come one after the other: others get the core between them
                time.sleep(min(reading, LONGEST_LOOK))
            first = behind
        self.reached = first
        return places, keys

    def _is_attached(self) -> bool:
        return is_attached(self.work.connection, self.one.relation, self.leaf)

    def _has_requested(self, first: int, end: int, which: Composable) -> bool:
        """Return whether pages have records that fit and are of somebody who asks to be erased.

        A class that no request erases is not looked at: what its records lead to was remembered
        when the execution began with the class.
        """
        work = self.work
        if not self.one.rule.on_request:
            return False
        query = SQL(
            "SELECT EXISTS (SELECT FROM {leaf} AS t WHERE t.ctid >= %(first)s::tid "
            "AND t.ctid < %(end)s::tid AND {which} AND {requested})"
        ).format(
            leaf=self.leaf.identifier,
            which=which,
            requested=work.graph.of_subjects(self.one, work.asking),
        )
        with work.connection.transaction():
            set_limits(work, self.one, self.leaf)
            pages = {"first": f"({first},0)", "end": f"({end},0)"}
            row = work.connection.execute(query, pages).fetchone()
        return row is not None and bool(row[0])

    def _require_gone(
        self, places: list[str], keys: list[Key], gone: list[Key], which: Composable
    ) -> None:
        """Every locked record went, or does not fit any more since something came in between."""
        went = set(gone)
        if not went <= set(keys):
            raise Kept  # a trigger gave a masked record another key
        if len(gone) == len(keys):
            return
        left = [place for place, key in zip(places, keys, strict=True) if key not in went]
        query = SQL(
            "SELECT count(*) FROM {} AS t WHERE t.ctid = ANY (%(rows)s::tid[]) AND {}"
        ).format(self.leaf.identifier, negated(which))
        row = self.work.connection.execute(query, {"rows": as_array(left)}).fetchone()
        if row is None or row[0] < len(left):
            raise Kept

    def _condition(self, holds: RecordHolds) -> Composable:
        """What fits under the holds that count now."""
        graph = self.work.current(holds)
        if self.conditions is None or self.conditions[0] is not graph:
            self.conditions = graph, self.act.condition(graph)
        return self.conditions[1]

    def _resize(self, seconds: float) -> None:
        """Take more or fewer pages next time, so that a batch takes as long as it is meant to.

        And no more than have the records of one batch: pages that hold more are read again.
        """
        meant = self.work.limits.rules.batch.milliseconds / 1000
        factor = min(2.0, max(0.25, meant / max(seconds, 0.001)))
        factor = min(factor, max(0.25, FULL * self.rows / max(self.found, 1)))
        self.pages = max(1, min(MOST_PAGES, int(self.pages * factor)))
        if seconds > 2 * meant:
            self.rows = max(1, self.rows // 2)
        else:
            self.rows = min(self.work.limits.rules.batch.rows, self.rows * 2)

    def _back_off(self, failures: int) -> None:
        busy = self.work.tally.busy
        busy[self.one.name] = busy.get(self.one.name, 0) + 1
        self.rows = max(1, self.rows // 4)
        time.sleep(PAUSE * 2 ** (failures - 1))

    def _single_out(self, error: psycopg.DatabaseError) -> bool:
        """Find the record that the database refuses, and pass it over; False after too many.

        A trigger, a check of a table that refers, or a key that came in between refuses one record
        and with it the batch: batches are halved until only that one is left.
        """
        if self.rows > 1:
            self.rows = max(1, min(self.rows, 64) // 2)
            return True
        if not self.tried:
            raise error  # no record's fault: the condition fails
        # The very one, and not looked for again: another might be found first.
        self.passed_over.extend(self.tried)
        self.work.tally.refuse(self.one.name, error)
        return self.work.refused(self.one.name) < MOST_REFUSED


def set_limits(
    work: ExecutionState, one: RecordClass, leaf: Leaf | None = None, idle_ms: int | None = None
) -> None:
    """Set a transaction up with its patience, and become the owner where the partition asks for it.

    Args:
        work: the execution.
        one: the class that is disposed of.
        leaf: the table or partition that will be named; None when it is the whole table.
        idle_ms: how long it may wait for the ledger before the server ends its session;
            `IDLE_MS` if not said.
    """
    batch = work.limits.rules.batch
    idle = IDLE_MS if idle_ms is None else idle_ms
    patience = {
        "lock_timeout": f"{batch.lock_timeout_ms}ms",
        "statement_timeout": f"{batch.statement_timeout_s}s",
        "idle_in_transaction_session_timeout": f"{idle}ms",
    }
    set_locally(work.connection, work.schedule.database, patience)
    work.connection.execute(WRITE_AT_ONCE, {"is_local": True})
    if leaf is not None and not leaf.ours and one.relation.can_become_owner:
        become_owner(work, one)


def become_owner(work: ExecutionState, one: RecordClass) -> None:
    """Act as the owner of a table until the transaction ends."""
    work.connection.execute(SQL("SET LOCAL ROLE {}").format(Identifier(one.relation.owner)))
