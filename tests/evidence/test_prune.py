"""Pruning deletes the files of bundles past their retention period; it keeps their ledger rows."""

from __future__ import annotations

import shutil
import subprocess
import time
from datetime import date, timedelta
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import Connection, update

from include.evidence import ledger
from include.evidence.bundle_reader import BundleReader, refuse_sealed
from include.evidence.checkpoint import Checkpoint, checkpoints, unpruned_gaps
from include.evidence.ledger import LedgerRow
from include.evidence.prune import KEPT, LONGEST_PAUSE, KeptBecause, Pruned
from include.evidence.signing import Signer, TrustedKeys, generate_key
from include.evidence.unrecorded import search_unrecorded
from include.evidence.verify import verify_one
from include.holds import registry
from include.holds.registry import HoldKind
from include.services.clock import FixedClock
from include.services.errors import ControlFailed
from include.services.objectstore.base import ObjectLocked
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from include.state.tables import evidence_checkpoint, evidence_ledger
from tests.evidence.support import CLOCK, START, Evidence

LATER = timedelta(days=36500)


def place_hold(conn: Connection) -> int:
    hold = registry.add(
        conn,
        CLOCK,
        kind=HoldKind.CASE,
        value="CL-1",
        reason="claim pending",
        owner="legal",
        case_ref="C-1",
        review_on=date(2099, 1, 1),
    )
    conn.commit()
    return hold.id


def release(conn: Connection, hold: int) -> None:
    registry.release(conn, CLOCK, hold, released_by="counsel", reason="settled")
    conn.commit()


def names_in(chain: Evidence, bundle: str) -> set[str]:
    folder = chain.root / bundle
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def rows_of(chain: Evidence) -> list[LedgerRow]:
    rows = ledger.rows(chain.conn)
    chain.conn.commit()
    return rows


def marks_of(chain: Evidence) -> list[int]:
    numbers = [mark.up_to_seq for mark in checkpoints(chain.conn)]
    chain.conn.commit()
    return numbers


def test_chain_of_bundles_is_valid_after_pruning_and_further_bundles_can_be_sealed(
    chain: Evidence,
) -> None:
    """ParcelSeal and `sha256sum` accept the chain.

    A second pruning deletes the files of a pruned bundle that the first pruning kept.
    """
    first, second, third = before = rows_of(chain)
    assert chain.prune(3) == Pruned((first.bundle, second.bundle))
    assert not (chain.root / first.bundle).exists()
    assert names_in(chain, second.bundle) == KEPT
    assert rows_of(chain) == before
    verified = chain.verify()
    assert (verified.verified, verified.bundles, verified.remarks) == (True, 1, [])
    trusted = [chain.signer.public_pem]
    assert verify_one(chain.store, third.bundle, trusted, chain.conn).verified
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=chain.root / third.bundle, check=True)
    assert chain.seal(11).seq == 4
    assert chain.prune(4).bundles == (third.bundle,)
    assert not (chain.root / second.bundle).exists()
    assert names_in(chain, third.bundle) == KEPT
    assert marks_of(chain) == [3]
    assert chain.verify().verified


def test_run_is_still_sealed_after_its_bundle_was_pruned(chain: Evidence) -> None:
    """A cleared task of the run is refused, a second seal writes nothing, and the row is no gap."""
    first = rows_of(chain)[0]
    chain.prune(3)
    with pytest.raises(ControlFailed, match="sealed"):
        refuse_sealed(chain.conn, first.dag_id, first.run_id)
    chain.conn.commit()
    assert chain.seal(1).seq == 1
    assert len(rows_of(chain)) == 3
    keys = TrustedKeys([chain.signer.public_pem])
    assert unpruned_gaps(chain.conn, keys) == ()
    assert search_unrecorded(chain.store, chain.conn, keys, [""], object_limit=None).bundles == ()
    assert BundleReader(chain.store, [chain.signer.public_pem]).pruned_up_to(chain.conn) == 2
    trusted = [chain.signer.public_pem]
    verification = verify_one(chain.store, first.bundle, trusted, chain.conn)
    assert not verification.verified
    assert (
        verification.reason
        == "the files of the bundle were removed at the end of their retention period"
    )
    assert chain.verify().verified


LAST_PRUNED = update(evidence_ledger).where(evidence_ledger.c.seq == 2)
TOMBSTONES: dict[str, Any] = {
    "outcome": update(evidence_ledger).where(evidence_ledger.c.seq == 1).values(outcome="pass"),
    "sums_sha256": LAST_PRUNED.values(sums_sha256="0"),
    "bundle": LAST_PRUNED.values(bundle="x"),
}


@pytest.mark.parametrize("change", TOMBSTONES)
def test_changed_ledger_row_of_pruned_bundle_fails_verification(
    chain: Evidence, change: str
) -> None:
    chain.prune(3)
    chain.tamper(TOMBSTONES[change])
    assert not chain.verify().verified


@pytest.mark.parametrize("lost", [[1], [2], [1, 2]])
def test_verification_passes_with_a_remark_if_ledger_rows_of_pruned_bundles_are_missing(
    chain: Evidence, lost: list[int]
) -> None:
    """After a loss of the state database, no bundle can restore the rows of pruned bundles."""
    chain.prune(3)
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq.in_(lost)))
    verification = chain.verify()
    assert verification.verified
    assert [remark.values for remark in verification.remarks] == [{"count": len(lost)}]
    assert chain.seal(11).seq == 4
    assert chain.verify().verified


@pytest.mark.parametrize("column", [item.name for item in evidence_checkpoint.c])
def test_changed_checkpoint_fails_verification(chain: Evidence, column: str) -> None:
    """The signature of a checkpoint covers every column."""
    chain.prune(3)
    values = {"up_to_seq": 1, "signed_at": START, "signature": b"\0" * 64}
    chain.execute(update(evidence_checkpoint).values({column: values.get(column, "x")}))
    assert not chain.verify().verified


def test_verification_fails_if_checkpoint_or_sha256sums_of_pruned_bundle_was_deleted(
    chain: Evidence,
) -> None:
    """The first bundle that was not pruned links to the last pruned bundle."""
    first, second, third = rows_of(chain)
    chain.prune(3)
    bundle = second.bundle
    (chain.root / bundle / "SHA256SUMS").rename(chain.root / "aside")
    assert chain.verify().first_bad == bundle
    (chain.root / "aside").rename(chain.root / bundle / "SHA256SUMS")
    assert chain.verify().verified
    other = chain.root / third.bundle
    for name in KEPT:  # signed by the right key, but another bundle's
        shutil.copy(other / name, chain.root / bundle / name)
    assert chain.verify().first_bad == bundle
    chain.execute(evidence_checkpoint.delete())
    assert chain.verify().first_bad == first.bundle


def test_verification_fails_if_a_forged_checkpoint_covers_deleted_bundles(chain: Evidence) -> None:
    """An intruder deletes rows and folders, and inserts a checkpoint that another key signed."""
    second = rows_of(chain)[1]
    forger = Signer.from_pem(generate_key())
    draft = Checkpoint(2, second.bundle, second.sums_sha256, START, forger.fingerprint)
    forged = vars(draft) | {"signature": forger.sign(draft.signed_content())}
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq < 3))
    chain.execute(evidence_checkpoint.insert().values(forged))
    assert chain.verify().first_bad == second.bundle


def test_pruning_replaces_forged_checkpoint_with_same_sequence_number(chain: Evidence) -> None:
    """Otherwise no genuine checkpoint would explain why the files of a bundle are missing."""
    first = rows_of(chain)[0]
    forged = vars(Checkpoint(1, first.bundle, "0", START, "x", b"x"))
    chain.execute(evidence_checkpoint.insert().values(forged))
    assert chain.prune(2).bundles == (first.bundle,)
    assert chain.verify().verified


# --- What stays.


def test_active_legal_hold_prevents_pruning(chain: Evidence) -> None:
    """A legal hold does not name bundles, so it keeps all evidence until it is released."""
    first, second, _third = rows_of(chain)
    hold = place_hold(chain.conn)
    before = set(chain.root.rglob("*"))
    assert chain.prune(3) == Pruned((), KeptBecause.HELD, first.bundle)
    assert set(chain.root.rglob("*")) == before
    assert marks_of(chain) == []
    release(chain.conn, hold)
    assert chain.prune(3).bundles == (first.bundle, second.bundle)


class HoldingStore(DirectoryStore):
    """A store that places a legal hold in another session while the first file is deleted."""

    thread: Thread | None = None
    database = ""
    held_after: list[int]

    def delete(self, key: str) -> None:
        if self.thread is None:

            def hold() -> None:
                with engine(self.database).connect() as conn:
                    place_hold(conn)
                self.held_after.append(len(list(self._root.rglob("result.json"))))

            self.thread = Thread(target=hold)
            self.thread.start()
            time.sleep(0.2)
            assert not self.held_after, "a hold was placed while evidence was being removed"
        super().delete(key)


def test_legal_hold_placed_during_pruning_keeps_the_next_bundle(chain: Evidence) -> None:
    """The hold waits until the current bundle is pruned.

    Pruning reads the hold before the next bundle.
    """
    first, second, _third = rows_of(chain)
    store = HoldingStore(chain.root)
    store.database, store.held_after = chain.database, []
    assert chain.prune(3, store=store) == Pruned((first.bundle,), KeptBecause.HELD, second.bundle)
    assert store.thread is not None
    store.thread.join(20)
    assert store.held_after == [2]
    assert "result.json" in names_in(chain, second.bundle)
    assert chain.verify().verified


def test_locked_evidence_is_not_pruned(chain: Evidence) -> None:
    """A locked object keeps its complete bundle, and all bundles after it."""
    first, second, _third = rows_of(chain)
    chain.store.lock(f"{second.bundle}/result.json", CLOCK.now() + LATER)
    assert chain.prune(3) == Pruned((first.bundle,), KeptBecause.LOCKED, second.bundle)
    assert "result.json" in names_in(chain, second.bundle)
    assert marks_of(chain) == [1]
    assert chain.verify().verified
    unlocked = FixedClock(CLOCK.now() + LATER + timedelta(days=1))
    store = DirectoryStore(chain.root, clock=unlocked)
    assert chain.prune(3, store=store) == Pruned((), KeptBecause.LOCKED, second.bundle)
    chain.seal(11, clock=unlocked)
    assert chain.prune(3, store=store, clock=unlocked).bundles == (second.bundle,)


class LateLockStore(DirectoryStore):
    """A store that refuses a deletion because of a lock that neither `list` nor `stat` shows."""

    refuses = True

    def delete(self, key: str) -> None:
        if self.refuses and key.endswith("report.en.html"):
            raise ObjectLocked(f"{key} is locked.")
        super().delete(key)


def test_pruning_is_continued_later_if_store_refuses_to_delete_a_locked_file(
    chain: Evidence,
) -> None:
    """Until the lock ends, the chain is valid and no further bundle is pruned."""
    first, second, _third = rows_of(chain)
    store = LateLockStore(chain.root)
    assert chain.prune(3, store=store) == Pruned((first.bundle,), KeptBecause.LOCKED, first.bundle)
    assert chain.prune(3, store=store) == Pruned((), KeptBecause.LOCKED, first.bundle)
    assert "result.json" in names_in(chain, second.bundle)
    assert chain.verify().verified
    store.refuses = False
    assert chain.prune(3, store=store).bundles == (second.bundle,)
    assert not (chain.root / first.bundle).exists()


def test_invalid_bundle_is_not_pruned(chain: Evidence) -> None:
    """Otherwise pruning could remove the traces of a manipulation."""
    first, second, _third = rows_of(chain)
    (chain.root / second.bundle / "report.en.html").write_bytes(b"")
    done = chain.prune(3)
    assert (done.bundles, done.kept_because, done.next_bundle) == (
        (first.bundle,),
        KeptBecause.CHANGED,
        second.bundle,
    )
    assert done.problem is not None
    assert "result.json" in names_in(chain, second.bundle)
    chain.tamper(update(evidence_ledger).where(evidence_ledger.c.seq == 2).values(outcome="pass"))
    assert chain.prune(3).kept_because is KeptBecause.CHANGED


@pytest.mark.parametrize("before_seq", [-1, 0, 1])
def test_evidence_within_its_retention_period_is_kept(chain: Evidence, before_seq: int) -> None:
    assert chain.prune(before_seq) == Pruned()
    assert marks_of(chain) == []


@pytest.mark.parametrize("newest", [1, 2, 3, 30])
def test_newest_bundles_are_never_pruned(chain: Evidence, newest: int) -> None:
    """The next bundle links to the last bundle. Registers are compared with the newest bundles."""
    done = chain.prune(100, newest=newest)
    assert len(done.bundles) == max(0, 3 - newest)
    assert done.kept_because is None


def test_pruning_removes_no_bundle_if_the_clock_is_far_ahead_of_the_newest_seals(
    chain: Evidence,
) -> None:
    """The clock may be years ahead, and other workflows may already have sealed with this clock."""
    first = rows_of(chain)[0]
    ahead = FixedClock(CLOCK.now() + LONGEST_PAUSE + timedelta(seconds=1))
    assert chain.prune(3, clock=ahead, newest=2) == Pruned((), KeptBecause.CLOCK, first.bundle)
    chain.seal(11, clock=ahead)
    assert chain.prune(3, clock=ahead, newest=2) == Pruned((), KeptBecause.CLOCK, first.bundle)
    chain.seal(12, clock=ahead)
    assert len(chain.prune(3, clock=ahead, newest=2).bundles) == 2


def test_single_call_prunes_limited_number_of_bundles(chain: Evidence) -> None:
    first, second, _third = rows_of(chain)
    assert chain.prune(3, most=1) == Pruned((first.bundle,), KeptBecause.MORE, second.bundle)
    assert chain.prune(3, most=1) == Pruned((second.bundle,))
