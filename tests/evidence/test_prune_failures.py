"""Pruning that is killed, that runs twice at once, or that follows a loss of the state database."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Thread

import pytest
from sqlalchemy import text

from include.evidence.checkpoint import STORED, Checkpoint, checkpoints, store_checkpoint
from include.evidence.ledger_recovery import recover_ledger
from include.evidence.prune import KEPT, KeptBecause, Pruned
from include.evidence.signing import Signer, TrustedKeys, generate_key
from include.services.errors import ServiceError
from include.services.objectstore.base import StoredObject
from include.services.objectstore.directory import DirectoryReader, DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.state.connect import engine
from include.state.tables import evidence_checkpoint, evidence_ledger
from tests.evidence.support import CLOCK, FORK, START, Evidence
from tests.evidence.test_prune import LATER, marks_of, names_in, place_hold, release, rows_of
from tests.support.s3 import client_for, new_bucket


class DyingStore(DirectoryStore):
    """A store that kills its process after a given number of deletions."""

    deletions = 0

    def delete(self, key: str) -> None:
        if self.deletions == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.deletions -= 1
        super().delete(key)


@pytest.fixture
def long_chain(chain: Evidence) -> Evidence:
    """Return a chain of five bundles. The first is pruned."""
    chain.prune(2)
    chain.seal(11)
    chain.seal(12)
    return chain


@pytest.mark.fault
@pytest.mark.parametrize("deletions", [0, 1, 3, 5, 7, 9])
def test_chain_is_valid_after_pruning_was_killed_and_a_second_call_completes_the_pruning(
    long_chain: Evidence, deletions: int
) -> None:
    """The chain is valid after each deletion, and the next call completes the work."""
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
    verification = chain.verify()
    assert verification.verified, verification
    assert verification.remarks == []
    assert len(list(chain.root.glob("*/*/*/*"))) == 3


class _Unused:
    """A placeholder in a child process for a connection that only the parent process uses."""

    def commit(self) -> None:
        """Do nothing."""


class OvertakenStore(DirectoryStore):
    """A store that calls a function, once, before a given call that reads files of bundles.

    The checkpoint is not counted: it is read under a lock, for which a second call would wait.
    """

    calls = 0
    overtake: Callable[[], object]

    def count(self, key: str) -> None:
        if key != STORED:
            self.calls -= 1
            if self.calls == 0:
                self.overtake()

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        self.count(prefix)
        return super().list(prefix)

    def stat(self, key: str, *, version_id: str = "") -> StoredObject:
        self.count(key)
        return super().stat(key, version_id=version_id)

    def open_reader(self, key: str, *, version_id: str = "") -> DirectoryReader:
        self.count(key)
        return super().open_reader(key, version_id=version_id)


class LosingStore(DirectoryStore):
    """A store that, after the first deletion, ends the database session that blocks new holds."""

    deletions = 0
    lose: Callable[[], object]

    def delete(self, key: str) -> None:
        super().delete(key)
        self.deletions += 1
        if self.deletions == 1:
            self.lose()


@pytest.mark.fault
def test_pruning_stops_if_it_loses_the_lock_on_legal_holds(
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
def test_legal_hold_placed_after_killed_pruning_keeps_the_remaining_files(
    long_chain: Evidence, deletions: int
) -> None:
    """The checkpoint already covers the bundle.

    The remaining files of this bundle are kept until the hold is released.
    """
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
    assert chain.prune(4).kept_because is KeptBecause.HELD
    assert names_in(chain, second.bundle) == left
    release(chain.conn, hold)
    assert len(chain.prune(4).bundles) == 1
    assert not (chain.root / second.bundle).exists()


@pytest.mark.parametrize("calls", range(1, 25))
def test_pruning_continues_if_another_process_prunes_the_bundle_during_a_check(
    long_chain: Evidence, calls: int
) -> None:
    chain = long_chain
    results: list[Pruned] = []
    store = OvertakenStore(chain.root)
    store.calls = calls
    store.overtake = lambda: results.append(
        replace(chain, engine=engine(chain.database), conn=_Unused()).prune(5)
    )
    results.append(chain.prune(5, store=store))
    assert len(results) == 2
    assert {result.kept_because for result in results} == {None}
    removed = [bundle for result in results for bundle in result.bundles]
    assert sorted(removed) == sorted(row.bundle for row in rows_of(chain)[1:4])
    assert chain.verify().verified


def test_concurrent_calls_prune_each_bundle_once(long_chain: Evidence) -> None:
    chain = long_chain
    results: list[Pruned] = []

    def work() -> None:
        process_evidence = replace(chain, engine=engine(chain.database), conn=_Unused())
        results.append(process_evidence.prune(5))

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
    """Delete all ledger rows and checkpoints, as after the loss of the state database."""
    chain.tamper(evidence_ledger.delete())
    chain.execute(evidence_checkpoint.delete())


def recover(chain: Evidence) -> list[str]:
    keys = TrustedKeys([chain.signer.public_pem])
    return recover_ledger(chain.store, chain.conn, chain.signer, keys, CLOCK)


def sealed_again(chain: Evidence) -> list[str]:
    return [chain.seal(13).path]


@pytest.mark.parametrize("go_on", [recover, sealed_again])
def test_lost_ledger_is_recovered_from_the_checkpoint_in_the_evidence_store_after_pruning(
    long_chain: Evidence, go_on: Callable[[Evidence], list[str]]
) -> None:
    """The checkpoint in the store gives the number of the first bundle in the chain."""
    chain = long_chain
    chain.prune(3)
    before = rows_of(chain)
    lose_state(chain)
    go_on(chain)
    rows = rows_of(chain)
    assert [(row.seq, row.bundle) for row in rows[:3]] == [(r.seq, r.bundle) for r in before[2:]]
    assert marks_of(chain) == [2]
    assert chain.verify().verified


def test_pruning_copies_newest_checkpoint_from_store_to_restored_state_database(
    long_chain: Evidence,
) -> None:
    """The checkpoint of the restored database is older than that of the store.

    The next prune writes the newer checkpoint to the restored database.
    """
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
def test_stored_checkpoint_without_trusted_signature_is_ignored(
    chain: Evidence, content: bytes
) -> None:
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


def test_pruning_deletes_all_s3_versions_of_unlocked_bundle_and_keeps_locked_bundle(
    evidence: Evidence, endpoint: str
) -> None:
    """All versions are deleted. A locked bundle is kept until a later call."""
    client = client_for(endpoint)
    bucket = new_bucket(client)
    store = S3Store(client, bucket, "evidence")
    in_s3 = replace(evidence, store=store)
    until = CLOCK.now() + LATER
    first = in_s3.seal(1)
    second = in_s3.seal(2, lock_until=until)
    in_s3.seal(3)
    store.put(f"{first.path}/report.en.html", store.get(f"{first.path}/report.en.html"))
    assert in_s3.prune(3) == Pruned((first.path,), KeptBecause.LOCKED, second.path)
    versions = client.list_object_versions(Bucket=bucket, Prefix=f"evidence/{first.path}/")
    keys = {version["Key"].rpartition("/")[2] for version in versions["Versions"]}
    assert keys == KEPT
    assert "DeleteMarkers" not in versions
    assert in_s3.verify().verified
    assert in_s3.prune(3).kept_because is KeptBecause.LOCKED
