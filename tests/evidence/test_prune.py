"""Pruning: files past their term go, rows and a signed checkpoint stay, the chain verifies."""

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
from include.evidence.checkpoint import Checkpoint, checkpoints, unpruned_gaps
from include.evidence.ledger import LedgerRow
from include.evidence.prune import KEPT, LONGEST_PAUSE, Pruned, Waits
from include.evidence.shelf import Shelf, refuse_sealed
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


def test_chain_verifies_after_pruning_and_goes_on(chain: Evidence) -> None:
    """By our own check and by hand; then a second prune clears the first one's remains."""
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


def test_row_of_a_pruned_run_is_its_tombstone(chain: Evidence) -> None:
    """Its cleared step is refused, its seal repeats nothing, and it does not look missing."""
    first = rows_of(chain)[0]
    chain.prune(3)
    with pytest.raises(ControlFailed, match="sealed"):
        refuse_sealed(chain.conn, first.dag_id, first.run_id)
    chain.conn.commit()
    assert chain.seal(1).seq == 1
    assert len(rows_of(chain)) == 3
    keys = TrustedKeys([chain.signer.public_pem])
    assert unpruned_gaps(chain.conn, keys) == ()
    assert search_unrecorded(chain.store, chain.conn, keys, [""], most_forged=None).bundles == ()
    assert Shelf(chain.store, [chain.signer.public_pem]).pruned_up_to(chain.conn) == 2
    trusted = [chain.signer.public_pem]
    found = verify_one(chain.store, first.bundle, trusted, chain.conn)
    assert not found.verified
    assert found.reason == "its files were removed at the end of their retention period"
    assert chain.verify().verified


LAST_PRUNED = update(evidence_ledger).where(evidence_ledger.c.seq == 2)
TOMBSTONES: dict[str, Any] = {
    "outcome": update(evidence_ledger).where(evidence_ledger.c.seq == 1).values(outcome="pass"),
    "sums_sha256": LAST_PRUNED.values(sums_sha256="0"),
    "bundle": LAST_PRUNED.values(bundle="x"),
}


@pytest.mark.parametrize("change", TOMBSTONES)
def test_changed_tombstone_is_noticed(chain: Evidence, change: str) -> None:
    chain.prune(3)
    chain.tamper(TOMBSTONES[change])
    assert not chain.verify().verified


@pytest.mark.parametrize("lost", [[1], [2], [1, 2]])
def test_tombstones_that_are_lost_are_remarked(chain: Evidence, lost: list[int]) -> None:
    """They may be, after the state database was lost: no bundle can bring them back."""
    chain.prune(3)
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq.in_(lost)))
    found = chain.verify()
    assert found.verified
    assert [remark.values for remark in found.remarks] == [{"count": len(lost)}]
    assert chain.seal(11).seq == 4
    assert chain.verify().verified


@pytest.mark.parametrize("column", [one.name for one in evidence_checkpoint.c])
def test_a_changed_checkpoint_is_noticed(chain: Evidence, column: str) -> None:
    """Every column is covered by its signature."""
    chain.prune(3)
    values = {"up_to_seq": 1, "signed_at": START, "signature": b"\0" * 64}
    chain.execute(update(evidence_checkpoint).values({column: values.get(column, "x")}))
    assert not chain.verify().verified


def test_a_deleted_checkpoint_or_link_is_noticed(chain: Evidence) -> None:
    """The first kept bundle names what is missing before it."""
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


def test_a_forged_checkpoint_hides_nothing(chain: Evidence) -> None:
    """Rows and folders deleted, and a checkpoint of another key put in their place."""
    second = rows_of(chain)[1]
    forger = Signer.from_pem(generate_key())
    draft = Checkpoint(2, second.bundle, second.sums_sha256, START, forger.fingerprint)
    forged = vars(draft) | {"signature": forger.sign(draft.signed_content())}
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq < 3))
    chain.execute(evidence_checkpoint.insert().values(forged))
    assert chain.verify().first_bad == second.bundle


def test_checkpoint_replaces_a_forged_one_of_its_number(chain: Evidence) -> None:
    """Else the files of a bundle would be gone, and no genuine checkpoint would say why."""
    first = rows_of(chain)[0]
    forged = vars(Checkpoint(1, first.bundle, "0", START, "x", b"x"))
    chain.execute(evidence_checkpoint.insert().values(forged))
    assert chain.prune(2).bundles == (first.bundle,)
    assert chain.verify().verified


# --- What stays.


def test_no_evidence_is_pruned_while_a_hold_is_active(chain: Evidence) -> None:
    """A hold names no bundle: it keeps all evidence, and its release lets pruning go on."""
    first, second, _third = rows_of(chain)
    hold = place_hold(chain.conn)
    before = set(chain.root.rglob("*"))
    assert chain.prune(3) == Pruned((), Waits.HELD, first.bundle)
    assert set(chain.root.rglob("*")) == before
    assert marks_of(chain) == []
    release(chain.conn, hold)
    assert chain.prune(3).bundles == (first.bundle, second.bundle)


class HoldingStore(DirectoryStore):
    """Places a hold in another session while the first file of a bundle is removed."""

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


def test_hold_that_is_placed_meanwhile_keeps_the_next_bundle(chain: Evidence) -> None:
    """It waits for the bundle at hand; the next one sees it, though it was past its term too."""
    first, second, _third = rows_of(chain)
    store = HoldingStore(chain.root)
    store.database, store.held_after = chain.database, []
    assert chain.prune(3, store=store) == Pruned((first.bundle,), Waits.HELD, second.bundle)
    assert store.thread is not None
    store.thread.join(20)
    assert store.held_after == [2]
    assert "result.json" in names_in(chain, second.bundle)
    assert chain.verify().verified


def test_locked_evidence_is_not_pruned(chain: Evidence) -> None:
    """One locked object keeps the whole bundle, and those after it."""
    first, second, _third = rows_of(chain)
    chain.store.lock(f"{second.bundle}/result.json", CLOCK.now() + LATER)
    assert chain.prune(3) == Pruned((first.bundle,), Waits.LOCKED, second.bundle)
    assert "result.json" in names_in(chain, second.bundle)
    assert marks_of(chain) == [1]
    assert chain.verify().verified
    unlocked = FixedClock(CLOCK.now() + LATER + timedelta(days=1))
    store = DirectoryStore(chain.root, clock=unlocked)
    assert chain.prune(3, store=store) == Pruned((), Waits.LOCKED, second.bundle)
    chain.seal(11, clock=unlocked)
    assert chain.prune(3, store=store, clock=unlocked).bundles == (second.bundle,)


class LateLockStore(DirectoryStore):
    """Refuses one deletion by a lock that no listing and no stat tells."""

    refuses = True

    def delete(self, key: str) -> None:
        if self.refuses and key.endswith("report.en.html"):
            raise ObjectLocked(f"{key} is locked.")
        super().delete(key)


def test_lock_that_only_a_deletion_meets_is_retried_later(chain: Evidence) -> None:
    """The chain verifies meanwhile, and no further bundle is touched before it ended."""
    first, second, _third = rows_of(chain)
    store = LateLockStore(chain.root)
    assert chain.prune(3, store=store) == Pruned((first.bundle,), Waits.LOCKED, first.bundle)
    assert chain.prune(3, store=store) == Pruned((), Waits.LOCKED, first.bundle)
    assert "result.json" in names_in(chain, second.bundle)
    assert chain.verify().verified
    store.refuses = False
    assert chain.prune(3, store=store).bundles == (second.bundle,)
    assert not (chain.root / first.bundle).exists()


def test_evidence_that_does_not_verify_is_not_pruned(chain: Evidence) -> None:
    """Pruning must not be the way to get rid of a bundle that was tampered with."""
    first, second, _third = rows_of(chain)
    (chain.root / second.bundle / "report.en.html").write_bytes(b"")
    done = chain.prune(3)
    assert (done.bundles, done.waits, done.next_bundle) == (
        (first.bundle,),
        Waits.CHANGED,
        second.bundle,
    )
    assert done.problem is not None
    assert "result.json" in names_in(chain, second.bundle)
    chain.tamper(update(evidence_ledger).where(evidence_ledger.c.seq == 2).values(outcome="pass"))
    assert chain.prune(3).waits is Waits.CHANGED


@pytest.mark.parametrize("before_seq", [-1, 0, 1])
def test_evidence_within_its_term_stays(chain: Evidence, before_seq: int) -> None:
    assert chain.prune(before_seq) == Pruned()
    assert marks_of(chain) == []


@pytest.mark.parametrize("newest", [1, 2, 3, 30])
def test_newest_bundles_stay_however_old(chain: Evidence, newest: int) -> None:
    """The next bundle links to the last one, and registers are compared with the newest ones."""
    done = chain.prune(100, newest=newest)
    assert len(done.bundles) == max(0, 3 - newest)
    assert done.waits is None


def test_nothing_is_pruned_long_after_the_newest_seal(chain: Evidence) -> None:
    """The clock may be years ahead, also for the workflows that sealed since."""
    first = rows_of(chain)[0]
    ahead = FixedClock(CLOCK.now() + LONGEST_PAUSE + timedelta(seconds=1))
    assert chain.prune(3, clock=ahead, newest=2) == Pruned((), Waits.CLOCK, first.bundle)
    chain.seal(11, clock=ahead)
    assert chain.prune(3, clock=ahead, newest=2) == Pruned((), Waits.CLOCK, first.bundle)
    chain.seal(12, clock=ahead)
    assert len(chain.prune(3, clock=ahead, newest=2).bundles) == 2


def test_one_call_removes_a_bounded_number(chain: Evidence) -> None:
    first, second, _third = rows_of(chain)
    assert chain.prune(3, most=1) == Pruned((first.bundle,), Waits.MORE, second.bundle)
    assert chain.prune(3, most=1) == Pruned((second.bundle,))
