"""Pruning that is killed, that meets another one, or that follows a loss of the state database."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from threading import Thread

import pytest
from sqlalchemy import text

from include.evidence.adopt import recover_ledger
from include.evidence.checkpoint import STORED, Checkpoint, checkpoints, store_checkpoint
from include.evidence.prune import KEPT, Pruned, Waits
from include.evidence.signing import Signer, TrustedKeys, generate_key
from include.services.errors import ServiceError
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.state.connect import engine
from include.state.tables import evidence_checkpoint, evidence_ledger
from tests.evidence.support import CLOCK, FORK, START, Evidence
from tests.evidence.test_prune import LATER, marks_of, names_in, place_hold, release, rows_of
from tests.support.s3 import client_for, new_bucket


class DyingStore(DirectoryStore):
    """Kills its process after some deletions."""

    deletions = 0

    def delete(self, key: str) -> None:
        if self.deletions == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.deletions -= 1
        super().delete(key)


@pytest.fixture
def long_chain(chain: Evidence) -> Evidence:
    """One bundle that is pruned, and four others."""
    chain.prune(2)
    chain.seal(11)
    chain.seal(12)
    return chain


@pytest.mark.fault
@pytest.mark.parametrize("deletions", [0, 1, 3, 5, 7, 9])
def test_a_prune_that_was_killed_can_be_repeated(long_chain: Evidence, deletions: int) -> None:
    """Between any two deletions the chain verifies, and the next prune finishes the work."""
    chain = long_chain

    def child() -> None:
        store = DyingStore(chain.root)
        store.deletions = deletions
        replace(chain, engine=engine(chain.database), conn=_Unused()).prune(4, store=store)

    process = FORK.Process(target=child)
    process.start()
    process.join(20)
    assert process.exitcode == -signal.SIGKILL
    assert chain.verify().verified, chain.verify()
    chain.prune(4)
    assert marks_of(chain) == [3]
    found = chain.verify()
    assert found.verified, found
    assert found.remarks == []
    assert len(list(chain.root.glob("*/*/*/*"))) == 3


class _Unused:
    """Stands for a connection that the parent process uses."""

    def commit(self) -> None:
        """Do nothing."""


class LosingStore(DirectoryStore):
    """Ends the session that keeps holds out, after the first deletion."""

    deletions = 0
    lose: Callable[[], object]

    def delete(self, key: str) -> None:
        super().delete(key)
        self.deletions += 1
        if self.deletions == 1:
            self.lose()


@pytest.mark.fault
def test_prune_deletes_nothing_more_without_the_lock_that_keeps_holds_out(
    chain: Evidence,
) -> None:
    store = LosingStore(chain.root)
    query = text(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks JOIN pg_database ON oid = database "
        "WHERE locktype = 'advisory' AND datname = current_database()"
    )

    def lose() -> None:
        with chain.engine.connect() as conn:
            assert conn.execute(query).all()

    store.lose = lose
    with pytest.raises(ServiceError):
        chain.prune(3, store=store)
    assert store.deletions == 1
    assert chain.verify().verified


@pytest.mark.fault
@pytest.mark.parametrize("deletions", [0, 1])
def test_hold_after_a_killed_prune_keeps_what_is_left(long_chain: Evidence, deletions: int) -> None:
    """The checkpoint covers the bundle already; its remaining files stay until the release."""
    chain = long_chain
    second = rows_of(chain)[1]

    def child() -> None:
        store = DyingStore(chain.root)
        store.deletions = deletions
        replace(chain, engine=engine(chain.database), conn=_Unused()).prune(3, store=store)

    process = FORK.Process(target=child)
    process.start()
    process.join(20)
    hold = place_hold(chain.conn)
    left = names_in(chain, second.bundle)
    assert left > KEPT
    assert chain.prune(4).waits is Waits.HELD
    assert names_in(chain, second.bundle) == left
    release(chain.conn, hold)
    assert len(chain.prune(4).bundles) == 1
    assert not (chain.root / second.bundle).exists()


def test_two_prunes_at_once_remove_each_bundle_once(long_chain: Evidence) -> None:
    chain = long_chain
    results: list[Pruned] = []

    def work() -> None:
        one = replace(chain, engine=engine(chain.database), conn=_Unused())
        results.append(one.prune(5))

    threads = [Thread(target=work) for _number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 3
    removed = [bundle for result in results for bundle in result.bundles]
    assert sorted(removed) == sorted(row.bundle for row in rows_of(chain)[1:4])
    assert chain.verify().verified


def lose_state(chain: Evidence) -> None:
    """Empty ledger and checkpoints, as after the loss of the state database."""
    chain.tamper(evidence_ledger.delete())
    chain.execute(evidence_checkpoint.delete())


def recover(chain: Evidence) -> list[str]:
    keys = TrustedKeys([chain.signer.public_pem])
    return recover_ledger(chain.store, chain.conn, chain.signer, keys, CLOCK)


def sealed_again(chain: Evidence) -> list[str]:
    return [chain.seal(13).path]


@pytest.mark.parametrize("go_on", [recover, sealed_again])
def test_ledger_is_recovered_after_pruning(
    long_chain: Evidence, go_on: Callable[[Evidence], list[str]]
) -> None:
    """The store has the checkpoint too, so that the chain has a begin, with its numbers."""
    chain = long_chain
    chain.prune(3)
    before = rows_of(chain)
    lose_state(chain)
    go_on(chain)
    rows = rows_of(chain)
    assert [(row.seq, row.bundle) for row in rows[:3]] == [(r.seq, r.bundle) for r in before[2:]]
    assert marks_of(chain) == [2]
    assert chain.verify().verified


def test_restored_state_database_adopts_the_newest_checkpoint(long_chain: Evidence) -> None:
    """Its checkpoint is older than that of the store: the next prune enters that."""
    chain = long_chain
    [old] = checkpoints(chain.conn)
    chain.prune(4)
    chain.execute(evidence_checkpoint.delete())
    chain.execute(evidence_checkpoint.insert().values(vars(old)))
    assert not chain.verify().verified
    assert chain.prune(4) == Pruned()
    assert marks_of(chain) == [3]
    assert chain.verify().verified


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b'{"up_to_seq": 9}', b"x" * 100_000, b"null", b'"1"']
)
def test_stored_checkpoint_that_nobody_signed_is_ignored(chain: Evidence, content: bytes) -> None:
    chain.prune(2)
    chain.store.put(STORED, content)
    assert chain.prune(2) == Pruned()
    assert marks_of(chain) == [1]
    forger = Signer.from_pem(generate_key())
    third = rows_of(chain)[2]
    draft = Checkpoint(3, third.bundle, third.sums_sha256, START, forger.fingerprint)
    store_checkpoint(chain.store, replace(draft, signature=forger.sign(draft.signed_content())))
    chain.prune(2)
    assert marks_of(chain) == [1]


def test_evidence_in_s3_is_pruned_after_its_lock(evidence: Evidence, endpoint: str) -> None:
    """Every version goes; a lock of the bucket keeps a bundle, and the next call tries again."""
    client = client_for(endpoint)
    bucket = new_bucket(client)
    store = S3Store(client, bucket, "evidence")
    in_s3 = replace(evidence, store=store)
    until = CLOCK.now() + LATER
    first = in_s3.seal(1)
    second = in_s3.seal(2, lock_until=until)
    in_s3.seal(3)
    store.put(f"{first.path}/report.en.html", store.get(f"{first.path}/report.en.html"))
    assert in_s3.prune(3) == Pruned((first.path,), Waits.LOCKED, second.path)
    versions = client.list_object_versions(Bucket=bucket, Prefix=f"evidence/{first.path}/")
    keys = {one["Key"].rpartition("/")[2] for one in versions["Versions"]}
    assert keys == KEPT
    assert "DeleteMarkers" not in versions
    assert in_s3.verify().verified
    assert in_s3.prune(3).waits is Waits.LOCKED
