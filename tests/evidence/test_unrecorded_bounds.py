"""Copies and forged folders do not hide a bundle without ledger row or slow down a search."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest

from include.evidence import ledger, ledger_recovery, unrecorded
from include.evidence.check import SignedSums
from include.evidence.folder import SIGNATURE, SUMS, Link, Sums
from include.evidence.registers import EvidenceReader
from include.evidence.signing import TrustedKeys
from include.evidence.unrecorded import UnrecordedBundle, UnrecordedBundles, search_unrecorded
from include.services.errors import ControlFailed
from include.services.objectstore.base import ObjectStore, ObjectVersion
from include.services.objectstore.directory import DirectoryStore
from tests.evidence.register_fixtures import Company
from tests.evidence.support import Evidence
from tests.evidence.test_register_losses import seal_and_forget
from tests.evidence.test_unrecorded import LATER, forge_bundle, restore_older_state

MONTH = "backup_offsite/2026/12"
MORE_THAN_PARAMETERS = 66_000  # PostgreSQL takes 65,535 parameters in a statement


class FloodedStore:
    """A store that lists many signed folders which do not exist."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def folders(self, prefix: str = "") -> Iterator[str]:
        parents = {"": "backup_offsite", "backup_offsite/": "2026", "backup_offsite/2026/": "12"}
        names = {*self._store.folders(prefix), *([parents[prefix]] if prefix in parents else [])}
        yield from sorted(names)

    def list_versions(self, prefix: str = "") -> Iterator[ObjectVersion]:
        yield from self._store.list_versions(prefix)
        if f"{MONTH}/".startswith(prefix):
            for number in range(MORE_THAN_PARAMETERS):
                for name in (SUMS, SIGNATURE):
                    key = f"{MONTH}/x{number}/{name}"
                    yield ObjectVersion(key, "", 64, datetime(2026, 12, 1, tzinfo=UTC))


def reader_of(evidence: Evidence, store: Any = None) -> EvidenceReader:
    keys = [evidence.signer.public_pem]
    return EvidenceReader(store or evidence.store, evidence.engine, keys, {"backup_offsite"})


def keys_of(evidence: Evidence) -> TrustedKeys:
    return TrustedKeys([evidence.signer.public_pem])


@pytest.mark.parametrize("copied", ["recorded", "lost"])
def test_lost_legal_hold_is_detected_although_store_contains_50_copies_of_signed_bundle(
    evidence: Evidence, copied: str
) -> None:
    """The copies are newer, and outnumber the bundles that are read."""
    company = Company(evidence, evidence.engine)
    company.hold()
    company.seal()
    old = ledger.head(evidence.conn)
    assert old is not None
    evidence.conn.rollback()
    bundle = old.bundle if copied == "recorded" else seal_and_forget(company)
    if copied == "lost":
        with company.state.connect() as conn:
            assert ledger.find_bundle(conn, bundle) is None
        company.seal()  # enters it, and is the next to be lost with it
    company.hold()
    seal_and_forget(company)
    if copied == "lost":
        company.harm("DELETE FROM evidence_ledger WHERE seq > 1")
    company.harm("DELETE FROM legal_hold WHERE id = 2")
    folder = evidence.root / bundle
    for number in range(50):
        shutil.copytree(folder, folder.parent / f"copy{number}", copy_function=shutil.copy)
    assert company.lost() == {"legal_hold"}
    with pytest.raises(
        ControlFailed,
        match="1 of 2 legal holds are missing",
    ):
        company.require()
    _state, findings = company.seal()
    assert "evidence.register_lost" in [finding.code for finding in findings]


def test_bundle_that_follows_last_ledger_row_in_chain_is_read_before_newer_bundles(
    evidence: Evidence,
) -> None:
    """Otherwise newer copies of pruned bundles would be read instead of the lost bundle."""
    company = Company(evidence, evidence.engine)
    company.hold()
    for _ in range(3):
        company.seal()
    company.harm("DELETE FROM evidence_ledger WHERE seq < 3")  # as pruning does
    company.hold()
    seal_and_forget(company)
    company.harm("DELETE FROM legal_hold WHERE id = 2")
    for path in sorted(evidence.root.glob("backup_offsite/*/*/*/*")):
        path.touch()  # newer than the lost bundle
    with patch("include.evidence.registers.UNRECORDED_READ", 1):
        assert company.lost() == {"legal_hold"}


def test_copy_of_signed_bundle_counts_towards_limit_on_folders_that_search_reads(
    chain: Evidence,
) -> None:
    """A copy takes as long to read as a forged folder."""
    folder = chain.root / ledger.rows(chain.conn)[1].bundle
    for number in range(6):
        shutil.copytree(folder, folder.parent / f"copy{number}")
    search = search_unrecorded(chain.store, chain.conn, keys_of(chain), [""], object_limit=8)
    assert (search.bundles, search.unchecked) == ((), 2)


@pytest.mark.parametrize("copied", [False, True])
def test_seal_reads_limited_number_of_forged_files_with_and_without_copy_of_signed_bundle(
    chain: Evidence, copied: bool
) -> None:
    *_, head = ledger.rows(chain.conn)
    for number in range(50):
        forge_bundle(chain, f"zzz/2020/01/forged{number}", head)
    if copied:
        genuine = chain.root / ledger.rows(chain.conn)[1].bundle
        shutil.copytree(genuine, genuine.parent / "copy")
    get = DirectoryStore.get
    with (
        patch.object(ledger_recovery, "MOST_FORGED", 8),
        patch.object(DirectoryStore, "get", autospec=True, side_effect=get) as reads,
    ):
        chain.seal(11, clock=LATER)
    assert sum("forged" in call.args[1] for call in reads.call_args_list) <= 8


def test_seal_reads_limited_number_of_forged_files_when_it_searches_whole_store(
    chain: Evidence,
) -> None:
    *_, head = ledger.rows(chain.conn)
    for number in range(50):
        forge_bundle(chain, f"zzz/2020/01/forged{number}", head)
    lost = restore_older_state(chain, 2)
    get = DirectoryStore.get
    with (
        patch.object(ledger_recovery, "MOST_FORGED", 8),
        patch.object(DirectoryStore, "get", autospec=True, side_effect=get) as reads,
    ):
        assert chain.seal(11, clock=LATER).seq == 4
    assert lost[0].bundle in [row.bundle for row in ledger.rows(chain.conn)]
    assert sum("forged" in call.args[1] for call in reads.call_args_list) <= 8


def test_seal_succeeds_if_store_has_more_folders_than_a_query_can_have_parameters(
    chain: Evidence,
) -> None:
    flooded = FloodedStore(chain.store)
    assert chain.seal(11, clock=LATER, store=flooded).seq == 4
    assert reader_of(chain, flooded).sealed_states(LATER.now()).unchecked > 60_000


def test_search_limits_the_bytes_that_it_reads_from_forged_folders(chain: Evidence) -> None:
    """An intruder may store a few large files instead of many small ones."""
    for number in range(4):
        chain.store.put(f"{MONTH}/forged{number}/{SUMS}", b"x" * 1000)
        chain.store.put(f"{MONTH}/forged{number}/{SIGNATURE}", b"x" * 64)
    with patch.object(unrecorded, "MOST_FORGED_BYTES", 2000):
        search = search_unrecorded(chain.store, chain.conn, keys_of(chain), [""], object_limit=100)
    assert search.unchecked == 2


def test_search_counts_folder_with_too_many_object_versions_as_unchecked(chain: Evidence) -> None:
    """A genuine signature may be among the versions that are not read."""
    key = f"{MONTH}/forged/{SIGNATURE}"
    chain.store.put(key, b"x" * 64)
    chain.store.put(f"{MONTH}/forged/{SUMS}", b"x")
    now = datetime(2026, 12, 1, tzinfo=UTC)
    listing = [*chain.store.list_versions()]
    listing += [ObjectVersion(key, f"v{number}", 64, now, False) for number in range(20)]
    with patch.object(DirectoryStore, "list_versions", return_value=listing):
        search = search_unrecorded(chain.store, chain.conn, keys_of(chain), [""], object_limit=100)
    assert search.unchecked == 1


def test_recovery_adds_no_second_ledger_row_for_a_run(chain: Evidence) -> None:
    """A ledger row with a valid signature names the run, but another bundle."""
    second = ledger.rows(chain.conn)[1]
    restore_older_state(chain, 1)
    other = replace(second, seq=0, bundle="backup_offsite/2026/11/x", sums_sha256="0" * 64)
    ledger.append(chain.conn, chain.signer, other)
    chain.conn.commit()
    store, conn, signer = chain.store, chain.conn, chain.signer
    assert ledger_recovery.recover_ledger(store, conn, signer, keys_of(chain), LATER) == []


def test_chain_of_many_bundles_without_ledger_row_is_read_in_linear_time() -> None:
    previous, bundles = None, []
    for number in range(8000):
        signed = SignedSums(Sums({}, previous), f"{number:064x}", "f")
        bundles.append(UnrecordedBundle(f"b/{number}", signed, None))  # type: ignore[arg-type]
        previous = Link(f"b/{number}", signed.sha256)
    begin = time.process_time()
    chain = UnrecordedBundles(tuple(reversed(bundles))).chain_after(None)
    assert chain == bundles
    assert time.process_time() - begin < 3  # seconds; a search of all bundles for each takes 20
