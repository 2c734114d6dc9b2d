"""Pruning: old bundles go, a signed checkpoint stays, and the chain verifies at every moment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from datetime import timedelta

import pytest
from sqlalchemy import update

from include.evidence import ledger
from include.evidence.checkpoint import Checkpoint, checkpoints
from include.evidence.prune import KEPT, prune_to_checkpoint
from include.evidence.signing import Signer, generate_key
from include.evidence.verify import verify_one
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.base import ObjectLocked
from include.services.objectstore.directory import DirectoryStore
from include.state.connect import engine
from include.state.tables import evidence_checkpoint, evidence_ledger
from tests.evidence.support import CLOCK, FORK, START, Evidence


def prune(chain: Evidence, before_seq: int, **more: object) -> Checkpoint:
    arguments = {"store": chain.store, "conn": chain.conn, "clock": CLOCK} | more
    return prune_to_checkpoint(
        signer=chain.signer,
        before_seq=before_seq,
        trusted=[chain.signer.public_pem],
        **arguments,  # type: ignore[arg-type]
    )


def names_in(chain: Evidence, bundle: str) -> set[str]:
    folder = chain.root / bundle
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_the_chain_verifies_after_pruning_and_goes_on(chain: Evidence) -> None:
    """By our own check and by hand; then a second prune clears the first one's remains."""
    first, second, third = ledger.rows(chain.conn)
    checkpoint = prune(chain, 3)
    assert (checkpoint.up_to_seq, checkpoint.bundle) == (2, second.bundle)
    assert not (chain.root / first.bundle).exists()
    assert names_in(chain, second.bundle) == KEPT
    assert [row.seq for row in ledger.rows(chain.conn)] == [3]
    assert chain.verify().verified
    assert chain.verify().bundles == 1
    trusted = [chain.signer.public_pem]
    assert verify_one(chain.store, third.bundle, trusted, chain.conn).verified
    subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=chain.root / third.bundle, check=True)
    assert chain.seal(11).seq == 4
    prune(chain, 4)
    assert not (chain.root / second.bundle).exists()
    assert names_in(chain, third.bundle) == KEPT
    assert [one.up_to_seq for one in checkpoints(chain.conn)] == [3]
    assert chain.verify().verified


@pytest.mark.parametrize("column", [one.name for one in evidence_checkpoint.c])
def test_a_changed_checkpoint_is_noticed(chain: Evidence, column: str) -> None:
    """Every column is covered by its signature."""
    prune(chain, 3)
    values = {"up_to_seq": 1, "signed_at": START, "signature": b"\0" * 64}
    chain.execute(update(evidence_checkpoint).values({column: values.get(column, "x")}))
    assert not chain.verify().verified


def test_a_deleted_checkpoint_or_link_is_noticed(chain: Evidence) -> None:
    """The first kept row names what is missing before it."""
    bundle = prune(chain, 3).bundle
    (chain.root / bundle / "SHA256SUMS").rename(chain.root / "aside")
    assert chain.verify().first_bad == bundle
    (chain.root / "aside").rename(chain.root / bundle / "SHA256SUMS")
    assert chain.verify().verified
    other = chain.root / ledger.rows(chain.conn)[0].bundle
    for name in KEPT:  # signed by the right key, but another bundle's
        shutil.copy(other / name, chain.root / bundle / name)
    assert chain.verify().first_bad == bundle
    chain.execute(evidence_checkpoint.delete())
    assert chain.verify().first_bad == bundle


def test_a_forged_checkpoint_hides_nothing(chain: Evidence) -> None:
    """Rows and folders deleted, and a checkpoint of another key put in their place."""
    second = ledger.rows(chain.conn)[1]
    forger = Signer.from_pem(generate_key())
    draft = Checkpoint(2, second.bundle, second.sums_sha256, START, forger.fingerprint)
    forged = vars(draft) | {"signature": forger.sign(draft.signed_content())}
    chain.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq < 3))
    chain.execute(evidence_checkpoint.insert().values(forged))
    assert chain.verify().first_bad == second.bundle


def test_locked_evidence_is_not_pruned(chain: Evidence) -> None:
    """One locked object keeps everything; nothing is deleted before all were asked."""
    second = ledger.rows(chain.conn)[1]
    chain.store.lock(f"{second.bundle}/result.json", CLOCK.now() + timedelta(days=36500))
    before = set(chain.root.rglob("*"))
    with pytest.raises(ObjectLocked, match="nothing was pruned"):
        prune(chain, 3)
    assert set(chain.root.rglob("*")) == before
    assert checkpoints(chain.conn) == []
    chain.conn.rollback()
    assert prune(chain, 2).up_to_seq == 1


def test_evidence_that_does_not_verify_is_not_pruned(chain: Evidence) -> None:
    """Pruning must not be the way to get rid of a bundle that was tampered with."""
    bundle = ledger.rows(chain.conn)[0].bundle
    (chain.root / bundle / "report.en.html").write_bytes(b"")
    with pytest.raises(ControlFailed, match=bundle):
        prune(chain, 3)
    assert len(ledger.rows(chain.conn)) == 3


@pytest.mark.parametrize("before_seq", [-1, 0, 1, 4, 100])
def test_there_must_be_something_to_prune_and_something_to_keep(
    chain: Evidence, before_seq: int
) -> None:
    """The newest bundle always stays: the next one links to it."""
    with pytest.raises(UsageError, match="nothing"):
        prune(chain, before_seq)
    assert len(ledger.rows(chain.conn)) == 3


class DyingStore(DirectoryStore):
    """Kills its process after some deletions."""

    deletions = 0

    def delete(self, key: str) -> None:
        if self.deletions == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.deletions -= 1
        super().delete(key)


@pytest.mark.fault
@pytest.mark.parametrize("deletions", [0, 1, 7, 9])
def test_a_prune_that_was_killed_can_be_repeated(chain: Evidence, deletions: int) -> None:
    """Between any two deletions the chain verifies, and the next prune finishes the work."""
    prune(chain, 2)
    chain.seal(11)
    chain.seal(12)

    def child() -> None:
        store = DyingStore(chain.root)
        store.deletions = deletions
        with engine(chain.database).connect() as conn:
            prune(chain, 4, store=store, conn=conn)

    process = FORK.Process(target=child)
    process.start()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert chain.verify().verified, chain.verify()
    checkpoint = prune(chain, 3)
    assert checkpoint.up_to_seq == 3
    found = chain.verify()
    assert found.verified, found
    assert found.remarks == []
    assert len(list(chain.root.glob("*/*/*/*"))) == 3
