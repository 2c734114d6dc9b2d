"""Delete the files of bundles past their retention period, and the step records of sealed runs.

The ledger row of a pruned bundle is kept and shows that the run was sealed. So if someone clears a
task of the run in Airflow, the task is still refused, and the run is not reported as missing. A
signed checkpoint states the sequence number up to which files may be missing. The last pruned
bundle keeps SHA256SUMS, its signature and signer.pem, because the next bundle links to them.

Bundles are pruned one by one, the oldest first. The checkpoint is committed before the files are
deleted. The chain of bundles can therefore be verified at any time, and if a call is killed, the
next call deletes the remaining files.

Step records are read only by the tasks and the seal of their own run, and no task may work in a
sealed run. So when the bundle in the store is valid, the records are no longer needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice, pairwise

from sqlalchemy import Connection, Engine, select, tuple_, union

from include.evidence import ledger
from include.evidence.check import EvidenceRefused, check_bundle, check_row
from include.evidence.checkpoint import (
    Checkpoint,
    newest_checkpoint,
    sign_checkpoint,
    store_checkpoint,
    synchronize_checkpoint,
)
from include.evidence.folder import MOST_LISTED, SIGNATURE, SIGNER, SUMS, Link, StoreFolder
from include.evidence.ledger import LedgerRow
from include.evidence.ledger_recovery import evidence_transaction
from include.evidence.signing import Signer, TrustedKeys
from include.evidence.verify import link_before
from include.holds import registry
from include.holds.records import HoldGuard
from include.messages import Message, _
from include.services.clock import Clock
from include.services.objectstore.base import ObjectLocked, ObjectMissing, ObjectStore
from include.state.connect import StateLock, lock_for_transaction
from include.state.tables import evidence_ledger, run_artifact, run_step

RUNS = 2  # runs that a call verifies; each seal adds a single run
CANDIDATES = 100  # runs from which a call chooses
LARGEST = 64 * 1024 * 1024  # bytes of a bundle that a call reads


@dataclass(frozen=True)
class DeletedStepRecords:
    """The result of one call of `delete_step_records`.

    Attributes:
        runs: number of runs whose step records and artifacts were deleted.
        refused: folders of bundles that are not valid. The step records of their runs are kept.
    """

    runs: int
    refused: tuple[str, ...] = ()


def delete_step_records(
    store: ObjectStore,
    state: Engine,
    trusted: Collection[bytes],
    *,
    besides: tuple[str, str] = ("", ""),
    most: int = RUNS,
    largest: int | None = LARGEST,
) -> DeletedStepRecords:
    """Delete step records and artifacts of sealed runs from the state database, newest runs first.

    The records of a run are deleted only if its bundle in the store is valid. The call can be
    repeated after a kill, and several processes may call it at once, because each run has its own
    transaction. A later call checks an invalid bundle again, but only after the bundles of all
    newer runs.

    Args:
        store: the evidence store.
        state: the state database.
        trusted: public keys (PEM) whose seals are accepted.
        besides: DAG id and run id of a run whose records are kept.
        most: maximum number of runs whose records are deleted. The call also ends after this number
            of invalid bundles.
        largest: maximum size of a bundle in bytes; None for no limit. The records of runs with
            larger bundles are kept.

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
    return DeletedStepRecords(runs, tuple(refused))


def _sealed_with_rows(conn: Connection, besides: tuple[str, str]) -> list[LedgerRow]:
    """Return the ledger rows of up to 100 sealed runs that still have step records or artifacts.

    The newest runs come first. Otherwise invalid bundles of old runs would delay the deletion for
    newer runs.

    Args:
        conn: connection to the state database.
        besides: DAG id and run id of a run that is left out.
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
    """Return the size of a bundle in bytes.

    If the folder has more files than a bundle can have, some files are not counted.
    """
    return sum(stored.size for stored in islice(store.list(f"{row.bundle}/"), MOST_LISTED))


def _forget(conn: Connection, row: LedgerRow) -> None:
    for table in (run_step, run_artifact):
        of_run = (table.c.dag_id == row.dag_id) & (table.c.run_id == row.run_id)
        conn.execute(table.delete().where(of_run))


def _problem_of(
    store: ObjectStore, keys: TrustedKeys, row: LedgerRow, previous: Link | None
) -> Message | None:
    """Return why a bundle in the store is not valid; None if the bundle is valid.

    Args:
        store: the evidence store.
        keys: public keys whose seals are accepted.
        row: ledger row of the bundle.
        previous: the link that the bundle must have to its predecessor; None for the first bundle.
    """
    if not row.is_authentic(keys):
        return _("the row of this bundle in the evidence ledger was changed")
    folder = StoreFolder(store, row.bundle)
    try:
        check_row(row, check_bundle(folder, keys), folder, previous)
    except EvidenceRefused as refusal:
        return refusal.message
    return None


KEPT = {SUMS, SIGNATURE, SIGNER}  # files of the last pruned bundle: the next bundle links to it
MOST = 100  # bundles that a call prunes: more than are sealed in a day
NEWEST = 30  # newest bundles that are never pruned: registers are compared with them
LONGEST_PAUSE = timedelta(days=31)  # between two seals; a longer one may be a wrong clock


class KeptBecause(StrEnum):
    """The reason why a bundle past its retention period is not pruned.

    Attributes:
        HELD: a legal hold is active.
        LOCKED: the store still locks the files.
        CHANGED: the bundle is not valid.
        CLOCK: no bundle was sealed for so long that the system clock may be wrong.
        MORE: the call reached its limit; the next call continues.
    """

    HELD = "held"  # a legal hold is active
    LOCKED = "locked"  # the store's lock has not ended
    CHANGED = "changed"  # the bundle is not valid
    CLOCK = "clock"  # no bundle was sealed for so long that the clock may be wrong
    MORE = "more"  # the call reached its limit; the next call continues


@dataclass(frozen=True)
class Pruned:
    """The result of one call of `Pruning.prune`.

    Attributes:
        bundles: folders of the bundles whose files were deleted, the oldest first.
        kept_because: why pruning stopped at a bundle past its retention period; None if no further
            bundle could be pruned. The newest bundles of the ledger are never pruned.
        next_bundle: folder of the bundle at which pruning stopped; empty if `kept_because` is None.
        problem: why `next_bundle` is not valid; None if it is valid or was not checked.
    """

    bundles: tuple[str, ...] = ()
    kept_because: KeptBecause | None = None
    next_bundle: str = ""
    problem: Message | None = None


def _changed(row: LedgerRow, problem: Message) -> Pruned:
    return Pruned(kept_because=KeptBecause.CHANGED, next_bundle=row.bundle, problem=problem)


@dataclass(frozen=True)
class Pruning:
    """Deletes the files of bundles past their retention period from an evidence store.

    Attributes:
        store: the evidence store.
        state: the state database.
        signer: signs checkpoints.
        trusted: further public keys (PEM) whose seals are accepted.
        clock: gives the current time.
        lock_until: end of Object Lock for bundles whose interrupted seal is finished before the
            pruning; None for no lock.
        newest: how many of the newest bundles in the ledger are never pruned; at least one.
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
        """Return the public keys whose seals are accepted, including the key of the signer."""
        return TrustedKeys([self.signer.public_pem, *self.trusted])

    def prune(self, is_expired: Callable[[LedgerRow], bool], most: int = MOST) -> Pruned:
        """Delete the files of bundles past their retention period. Do nothing during a legal hold.

        A legal hold does not state which bundles its case needs, so one active hold keeps all
        bundles. Before each bundle is pruned, the holds are read again while a lock keeps the
        command `hold add` waiting. The call can be repeated after a kill, and several processes may
        call it at once.

        Args:
            is_expired: returns whether the retention period of the bundle in a ledger row has
                passed.
            most: maximum number of bundles that this call prunes.

        Raises:
            ServiceError: another process is placing a hold and takes too long, or the connection to
                the state database was lost.
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
                    result = Pruned(kept_because=KeptBecause.MORE, next_bundle=row.bundle)
                elif self._is_held(conn):  # checked before the files of the bundle are read
                    result = Pruned(kept_because=KeptBecause.HELD, next_bundle=row.bundle)
                elif (result := self._reason_to_keep(conn, row)) is None:
                    is_removed, result = self._remove(conn, guard, row, mark)
                    removed += [row.bundle] if is_removed else []
                mark = newest_checkpoint(conn, self.keys)
                conn.commit()
            if mark is not None:
                store_checkpoint(self.store, mark)
        return Pruned(tuple(removed), result.kept_because, result.next_bundle, result.problem)

    def _prepared(self, conn: Connection) -> Checkpoint | None:
        """Finish interrupted seals, and return the newest checkpoint.

        Return None if no bundle was pruned.
        """
        with evidence_transaction(self.store, conn, self.keys, self.lock_until):
            return synchronize_checkpoint(self.store, conn, self.keys)

    def _next(self, conn: Connection, mark: Checkpoint | None) -> LedgerRow | None:
        """Return the ledger row after the row of the last pruned bundle.

        Return None if the ledger ends there, or if the row belongs to one of the newest bundles,
        which are never pruned.

        Args:
            conn: connection to the state database.
            mark: checkpoint of the last pruned bundle; None if no bundle was pruned.
        """
        seq = mark.up_to_seq + 1 if mark else 1
        last = ledger.head(conn)
        return ledger.row_at(conn, seq) if last and last.seq - seq >= self.newest else None

    def _reason_to_keep(self, conn: Connection, row: LedgerRow) -> Pruned | None:
        """Return a result that states why a bundle must be kept; None if it may be pruned.

        A bundle is kept if the system clock may be wrong, if the bundle is not valid, or if its
        files are locked. If the system clock were years ahead, every bundle would seem to be past
        its retention period. An invalid bundle is kept, because pruning would remove the traces of
        a change.

        Return None as well if another process pruned the bundle during the check: its files are
        then missing for a good reason, and `_remove` does nothing.
        """
        if self._is_clock_doubtful(conn):
            return Pruned(kept_because=KeptBecause.CLOCK, next_bundle=row.bundle)
        previous = link_before(conn, row)
        conn.commit()
        try:
            problem = _problem_of(self.store, self.keys, row, previous)
            reason = self._locked(row) if problem is None else _changed(row, problem)
        except ObjectMissing:
            if not self._is_pruned(conn, row):
                raise
            return None
        return None if reason is None or self._is_pruned(conn, row) else reason

    def _is_pruned(self, conn: Connection, row: LedgerRow) -> bool:
        mark = newest_checkpoint(conn, self.keys)
        conn.commit()
        return mark is not None and mark.up_to_seq >= row.seq

    def _is_clock_doubtful(self, conn: Connection) -> bool:
        """Return whether the system clock may be years ahead.

        Return True if more than 31 days passed between the newest seal and now, or between any two
        successive seals of the newest bundles. Return True as well if nothing was sealed. Earlier
        seals are included because another workflow may already have sealed a bundle while the clock
        was wrong.
        """
        sealed = (row.sealed_at for row in ledger.newest(conn, self.newest))
        moments = [self.clock.now(), *sealed]
        pauses = (later - earlier for later, earlier in pairwise(moments))
        return len(moments) == 1 or any(pause > LONGEST_PAUSE for pause in pauses)

    def _locked(self, row: LedgerRow) -> Pruned | None:
        for stored in self.store.list(f"{row.bundle}/"):
            until = self.store.stat(stored.key).locked_until
            if until and until > self.clock.now():
                return Pruned(kept_because=KeptBecause.LOCKED, next_bundle=row.bundle)
        return None

    def _remove(
        self, conn: Connection, guard: HoldGuard, row: LedgerRow, mark: Checkpoint | None
    ) -> tuple[bool, Pruned | None]:
        """Sign a checkpoint for a bundle, then delete the bundle's files.

        Do nothing during a legal hold.

        Args:
            conn: connection to the state database.
            guard: keeps new legal holds from being placed during the deletion.
            row: ledger row of the bundle.
            mark: checkpoint of the last pruned bundle; None if no bundle was pruned.

        Returns:
            Whether the bundle was pruned, and a result with the reason why pruning must stop (None
            if it can continue).
        """
        with guard.batch():
            if self._is_held(conn):
                return False, Pruned(kept_because=KeptBecause.HELD, next_bundle=row.bundle)
            with conn.begin():
                lock_for_transaction(conn, StateLock.EVIDENCE)
                newest = newest_checkpoint(conn, self.keys)
                if newest != mark or ledger.row_at(conn, row.seq) != row:
                    return False, None  # another process prunes too: read the next row again
                guard.confirm()
                checkpoint = Checkpoint(
                    row.seq,
                    row.bundle,
                    row.sums_sha256,
                    self.clock.now(),
                    self.signer.fingerprint,
                )
                sign_checkpoint(conn, self.signer, checkpoint)
            return True, self._clear(conn, guard, checkpoint)

    def _finish(self, conn: Connection, guard: HoldGuard, mark: Checkpoint) -> Pruned | None:
        """Delete remaining files of pruned bundles, unless a legal hold is active.

        Files remain if a call was killed, or if a lock of the store prevented their deletion.

        Args:
            conn: connection to the state database.
            guard: keeps new legal holds from being placed during the deletion.
            mark: checkpoint of the last pruned bundle.

        Returns:
            A result with the reason why pruning must stop. None if it can continue, and also during
            a legal hold, which the caller reports.
        """
        with guard.batch():
            if self._is_held(conn):
                return None  # the loop reports the hold if there is another bundle to prune
            return self._clear(conn, guard, mark)

    def _clear(self, conn: Connection, guard: HoldGuard, mark: Checkpoint) -> Pruned | None:
        """Delete most files of the last pruned bundle, and all files of the bundle before it.

        The last pruned bundle keeps SHA256SUMS, its signature and signer.pem, because the next
        bundle links to them.

        Args:
            conn: connection to the state database.
            guard: keeps new legal holds from being placed during the deletion.
            mark: checkpoint of the last pruned bundle.

        Returns:
            A result with the reason why pruning must stop; None if it can continue.
        """
        before = ledger.row_at(conn, mark.up_to_seq - 1)
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
                except ObjectLocked:  # by a lock that `stat` does not report
                    return Pruned(kept_because=KeptBecause.LOCKED, next_bundle=bundle)
        return None

    def _is_held(self, conn: Connection) -> bool:
        held = bool(registry.active_holds(conn))
        conn.commit()
        return held
