"""Remove the files of bundles past their term, and the step records of sealed runs.

The ledger row of a pruned bundle stays as its tombstone: a cleared task of the run is still
refused, and the run does not look missing. A signed checkpoint says up to which number files may be
missing; the last pruned bundle keeps what the next bundle links to.

Bundles are pruned one by one, the oldest first. The checkpoint is committed first, then the files
are removed, so that the chain verifies at every moment, and the next call finishes what a killed
one left.

Only the steps and the seal of a run read what its steps left, and no step works in a sealed run. So
these rows are of no use once the bundle verifies in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice, pairwise

from sqlalchemy import Connection, Engine, select, tuple_, union

from include.evidence import ledger
from include.evidence.adopt import evidence_transaction
from include.evidence.check import Refused, check_bundle, check_row
from include.evidence.checkpoint import (
    Checkpoint,
    adopt_checkpoint,
    keep_checkpoint,
    newest_checkpoint,
    store_checkpoint,
)
from include.evidence.folder import MOST_LISTED, SIGNATURE, SIGNER, SUMS, Link, StoreFolder
from include.evidence.ledger import LedgerRow
from include.evidence.signing import Signer, TrustedKeys
from include.evidence.verify import link_before
from include.holds import registry
from include.holds.records import HoldGuard
from include.messages import Message, _
from include.services.clock import Clock
from include.services.objectstore.base import ObjectLocked, ObjectStore
from include.state.connect import StateLock, lock_for_transaction
from include.state.tables import evidence_ledger, run_artifact, run_step

RUNS = 2  # verified by a call: each seal adds the rows of a run
CANDIDATES = 100  # runs from which a call chooses
LARGEST = 64 * 1024 * 1024  # bytes of a bundle that a call reads


@dataclass(frozen=True)
class Forgotten:
    """The result of one call.

    Attributes:
        runs: number of runs whose rows were removed.
        refused: bundles that do not verify; the rows of their runs stay.
    """

    runs: int
    refused: tuple[str, ...] = ()


def forget_sealed_runs(
    store: ObjectStore,
    state: Engine,
    trusted: Collection[bytes],
    *,
    besides: tuple[str, str] = ("", ""),
    most: int = RUNS,
    largest: int | None = LARGEST,
) -> Forgotten:
    """Remove the rows of sealed runs whose bundles verify in the store, the newest runs first.

    Safe to repeat, after a kill, and in several processes at once: each run is a transaction. A
    bundle that does not verify is checked again by later calls, after the bundles of newer runs.

    Args:
        store: the evidence store.
        state: the state database.
        trusted: public keys (PEM) whose seals count.
        besides: dag id and run id of a run that is left alone.
        most: runs whose rows are removed, and bundles that may be refused.
        largest: bytes of a bundle; a larger bundle is left to a call with a higher limit. None for
            no limit.

    Raises:
        StoreError: the store cannot be read.
    """
    keys = TrustedKeys(trusted)
    runs = 0
    refused: list[str] = []
    with state.connect() as conn:
        for row in _sealed_with_rows(conn, besides):
            if most in (runs, len(refused)):
                break
            if largest is not None and _size(store, row) > largest:
                continue
            if _problem_of(store, keys, row, link_before(conn, row)) is None:
                _forget(conn, row)
                runs += 1
            else:
                refused.append(row.bundle)
            conn.commit()
    return Forgotten(runs, tuple(refused))


def _sealed_with_rows(conn: Connection, besides: tuple[str, str]) -> list[LedgerRow]:
    """Return the ledger rows of runs that still have steps or artifacts, the newest first.

    The newest first, so that bundles that do not verify keep no other run waiting.
    """
    runs = union(
        select(run_step.c.dag_id, run_step.c.run_id),
        select(run_artifact.c.dag_id, run_artifact.c.run_id),
    ).subquery()
    entry = evidence_ledger.c
    query = (
        select(evidence_ledger)
        .join(runs, (runs.c.dag_id == entry.dag_id) & (runs.c.run_id == entry.run_id))
        .where(tuple_(entry.dag_id, entry.run_id) != besides)
        .order_by(entry.seq.desc())
        .limit(CANDIDATES)
    )
    rows = [LedgerRow.of(columns) for columns in conn.execute(query).mappings()]
    conn.commit()
    return rows


def _size(store: ObjectStore, row: LedgerRow) -> int:
    """Return the bytes of a bundle, as far as a listing of `MOST_LISTED` files tells."""
    return sum(stored.size for stored in islice(store.list(f"{row.bundle}/"), MOST_LISTED))


def _forget(conn: Connection, row: LedgerRow) -> None:
    for table in (run_step, run_artifact):
        of_run = (table.c.dag_id == row.dag_id) & (table.c.run_id == row.run_id)
        conn.execute(table.delete().where(of_run))


def _problem_of(
    store: ObjectStore, keys: TrustedKeys, row: LedgerRow, previous: Link | None
) -> Message | None:
    """Return why the store lacks the whole bundle of a row, as it was sealed; None if it has it."""
    if not row.is_authentic(keys):
        return _("its ledger row was changed")
    folder = StoreFolder(store, row.bundle)
    try:
        check_row(row, check_bundle(folder, keys), folder, previous)
    except Refused as refusal:
        return refusal.message
    return None


KEPT = {SUMS, SIGNATURE, SIGNER}  # of the last pruned bundle: the next one links to it
MOST = 100  # bundles that a call removes: more than a day's
NEWEST = 30  # bundles of the ledger that always stay: registers are compared with them
LONGEST_PAUSE = timedelta(days=31)  # between two seals; a longer one may be a wrong clock


class Waits(StrEnum):
    """The reason why a bundle past its term is not pruned."""

    HELD = "held"  # a legal hold is active
    LOCKED = "locked"  # the store's lock has not ended
    CHANGED = "changed"  # the bundle does not verify
    CLOCK = "clock"  # no bundle was sealed for so long that the clock may be wrong
    MORE = "more"  # the next call goes on


@dataclass(frozen=True)
class Pruned:
    """The result of one call.

    Attributes:
        bundles: the bundles whose files were removed, the oldest first.
        waits: why the next bundle past its term stays; None if there is none.
        next_bundle: that bundle; empty if there is none.
        problem: why it does not verify, if it does not.
    """

    bundles: tuple[str, ...] = ()
    waits: Waits | None = None
    next_bundle: str = ""
    problem: Message | None = None


@dataclass(frozen=True)
class Pruning:
    """The evidence that is pruned.

    Attributes:
        store: the evidence store.
        state: the state database.
        signer: signs checkpoints.
        trusted: further public keys (PEM) whose seals count.
        clock: the time.
        lock_until: as for `seal`, where a killed seal is finished.
        newest: bundles of the ledger that always stay, at least one.
    """

    store: ObjectStore
    state: Engine
    signer: Signer
    trusted: Collection[bytes]
    clock: Clock
    lock_until: datetime | None = None
    newest: int = NEWEST

    @property
    def keys(self) -> TrustedKeys:
        """The public keys that count."""
        return TrustedKeys([self.signer.public_pem, *self.trusted])

    def prune(self, is_expired: Callable[[LedgerRow], bool], most: int = MOST) -> Pruned:
        """Prune the bundles past their term; no bundle while any legal hold is active.

        A hold names no bundle, and the evidence that its case needs is unknown, so it keeps all.
        Holds are read again for each bundle, under the lock that `hold add` waits for. Safe to
        repeat, after a kill, and in several processes at once.

        Args:
            is_expired: whether the term of a ledger row's bundle is over.
            most: bundles that are removed at most.

        Raises:
            ServiceError: a hold is being placed for too long, or the state database was lost.
            StoreError: the evidence store cannot be read or written.
        """
        removed: list[str] = []
        with self.state.connect() as conn, HoldGuard(self.state, "") as guard:
            mark = self._prepared(conn)
            result = self._finish(conn, guard, mark) if mark else None
            while result is None:
                row = self._next(conn, mark)
                if row is None or not is_expired(row):
                    result = Pruned()
                elif len(removed) == most:
                    result = Pruned(waits=Waits.MORE, next_bundle=row.bundle)
                elif self._is_held(conn):  # before its files are read
                    result = Pruned(waits=Waits.HELD, next_bundle=row.bundle)
                elif (result := self._refusal(conn, row)) is None:
                    is_removed, result = self._remove(conn, guard, row, mark)
                    removed += [row.bundle] if is_removed else []
                mark = newest_checkpoint(conn, self.keys)
                conn.commit()
            if mark is not None:
                store_checkpoint(self.store, mark)
        return Pruned(tuple(removed), result.waits, result.next_bundle, result.problem)

    def _prepared(self, conn: Connection) -> Checkpoint | None:
        """Finish killed seals, and return the newest checkpoint of state database and store."""
        with evidence_transaction(self.store, conn, self.keys, self.lock_until):
            return adopt_checkpoint(self.store, conn, self.keys)

    def _next(self, conn: Connection, mark: Checkpoint | None) -> LedgerRow | None:
        """Return the row after the last pruned one, or None if its bundle has to stay."""
        seq = mark.up_to_seq + 1 if mark else 1
        last = ledger.head(conn)
        return ledger.at(conn, seq) if last and last.seq - seq >= self.newest else None

    def _refusal(self, conn: Connection, row: LedgerRow) -> Pruned | None:
        """Return why a bundle has to stay, as far as its own content and the clock tell.

        Pruning must not be the way to get rid of a bundle that was changed. And under a clock that
        is years ahead every bundle would be past its term.
        """
        if self._is_clock_doubtful(conn):
            return Pruned(waits=Waits.CLOCK, next_bundle=row.bundle)
        previous = link_before(conn, row)
        conn.commit()
        if (problem := _problem_of(self.store, self.keys, row, previous)) is not None:
            return Pruned(waits=Waits.CHANGED, next_bundle=row.bundle, problem=problem)
        return self._locked(row)

    def _is_clock_doubtful(self, conn: Connection) -> bool:
        """Return whether the time jumped ahead since the bundles that always stay.

        Other workflows also seal under a wrong clock, so the newest bundle alone proves nothing.
        """
        sealed = (row.sealed_at for row in ledger.newest(conn, self.newest))
        moments = [self.clock.now(), *sealed]
        pauses = (later - earlier for later, earlier in pairwise(moments))
        return len(moments) == 1 or any(pause > LONGEST_PAUSE for pause in pauses)

    def _locked(self, row: LedgerRow) -> Pruned | None:
        for stored in self.store.list(f"{row.bundle}/"):
            until = self.store.stat(stored.key).locked_until
            if until and until > self.clock.now():
                return Pruned(waits=Waits.LOCKED, next_bundle=row.bundle)
        return None

    def _remove(
        self, conn: Connection, guard: HoldGuard, row: LedgerRow, mark: Checkpoint | None
    ) -> tuple[bool, Pruned | None]:
        """Sign that a bundle is pruned, then remove its files, unless a hold was placed.

        Returns:
            Whether the bundle is pruned, and why pruning cannot go on.
        """
        with guard.batch():
            if self._is_held(conn):
                return False, Pruned(waits=Waits.HELD, next_bundle=row.bundle)
            with conn.begin():
                lock_for_transaction(conn, StateLock.EVIDENCE)
                newest = newest_checkpoint(conn, self.keys)
                if newest != mark or ledger.at(conn, row.seq) != row:
                    return False, None  # another process prunes too: read the next row again
                guard.confirm()
                checkpoint = Checkpoint(
                    row.seq,
                    row.bundle,
                    row.sums_sha256,
                    self.clock.now(),
                    self.signer.fingerprint,
                )
                keep_checkpoint(conn, self.signer, checkpoint)
            return True, self._clear(conn, guard, checkpoint)

    def _finish(self, conn: Connection, guard: HoldGuard, mark: Checkpoint) -> Pruned | None:
        """Remove what a killed call, or a lock of the store, left of pruned bundles."""
        with guard.batch():
            if self._is_held(conn):
                return None  # the loop says so of the next bundle, if there is one
            return self._clear(conn, guard, mark)

    def _clear(self, conn: Connection, guard: HoldGuard, mark: Checkpoint) -> Pruned | None:
        """Remove the last pruned bundle's files except `KEPT`, and all of its predecessor."""
        before = ledger.at(conn, mark.up_to_seq - 1)
        conn.commit()
        folders = [(mark.bundle, KEPT)]
        if before is not None:
            folders.append((before.bundle, set()))
        for bundle, kept in folders:
            for stored in list(self.store.list(f"{bundle}/")):
                if stored.key.removeprefix(f"{bundle}/") in kept:
                    continue
                guard.confirm()
                try:
                    self.store.delete(stored.key)
                except ObjectLocked:  # by a lock that a stat does not tell
                    return Pruned(waits=Waits.LOCKED, next_bundle=bundle)
        return None

    def _is_held(self, conn: Connection) -> bool:
        held = bool(registry.active(conn))
        conn.commit()
        return held
