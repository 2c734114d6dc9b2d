"""Readers of bundle folders do not hang or run out of memory if an intruder wrote the files."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from include.evidence import ledger
from include.evidence.bundle_reader import BundleReader
from include.evidence.check import EvidenceRefused, check_bundle
from include.evidence.folder import LARGEST_SUMS, MOST_FILES, MOST_LISTED, DiskFolder, StoreFolder
from include.evidence.ledger_recovery import recover_ledger
from include.evidence.signing import TrustedKeys
from include.evidence.verify import verify_path
from include.services.errors import UsageError
from include.state.tables import evidence_intent
from tests.evidence.support import CLOCK, Evidence

LARGE = 300 * 1024 * 1024  # bytes; a sparse file, so that nothing is written
NAMES = ("SHA256SUMS", "SHA256SUMS.sig", "signer.pem", "result.json")
pytestmark = pytest.mark.timeout(60)


@contextmanager
def little_memory(most: int = 128 * 1024 * 1024) -> Iterator[None]:
    """Fail if the code in a ``with`` block ever has more than `most` bytes allocated."""
    tracemalloc.start()
    try:
        yield
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


def grow(file: Path) -> None:
    file.write_bytes(b"")
    os.truncate(file, LARGE)


@pytest.mark.parametrize("name", NAMES)
def test_verification_fails_for_bundle_file_above_size_limit_without_reading_it_completely(
    chain: Evidence, name: str
) -> None:
    """This holds for verification, for the compliance pages and for the recovery of the ledger."""
    row = ledger.rows(chain.conn)[-1]
    grow(chain.root / row.bundle / name)
    keys = TrustedKeys([chain.signer.public_pem])
    with little_memory():
        with pytest.raises(EvidenceRefused):
            check_bundle(StoreFolder(chain.store, row.bundle), keys)
        assert not verify_path(chain.root / row.bundle).verified
        bundle_reader = BundleReader(chain.store, [chain.signer.public_pem])
        assert bundle_reader.check(row, None).problem is not None
        if name != "signer.pem":
            with pytest.raises(EvidenceRefused):
                bundle_reader.result(row)
        chain.conn.rollback()
        unsigned = f"x/2026/11/{name}"
        chain.store.put(f"{unsigned}/SHA256SUMS.sig", b"x" * 64)
        for other in ("SHA256SUMS", "result.json"):
            chain.store.put(f"{unsigned}/{other}", b"")
        if name != "signer.pem":
            grow(chain.root / unsigned / name)
        chain.execute(evidence_intent.insert().values(bundle=unsigned, started_at=CLOCK.now()))
        assert recover_ledger(chain.store, chain.conn, chain.signer, keys, CLOCK) == []


def test_sha256sums_of_largest_possible_bundle_is_within_size_limit(evidence: Evidence) -> None:
    """The size limits of readers allow everything that a seal may write."""
    files = {f"{'f' * 110}/{'g' * 110}/{'h' * 110}/{number:05}": b"" for number in range(300)}
    sealed = evidence.seal(files=files)
    assert evidence.verify().verified
    size = (evidence.root / sealed.path / "SHA256SUMS").stat().st_size
    assert size / 302 * MOST_FILES < LARGEST_SUMS
    assert MOST_LISTED > MOST_FILES  # a file too many is still noticed


def test_seal_raises_usage_error_if_bundle_would_have_more_than_10000_files(
    evidence: Evidence,
) -> None:
    """The seal refuses the files before it writes anything."""
    with pytest.raises(UsageError, match="at most 10000 files"):
        evidence.seal(files={f"{number}.txt": b"" for number in range(MOST_FILES)})
    assert not any(evidence.root.iterdir())


def pipe(file: Path) -> None:
    os.mkfifo(file)


def link(file: Path) -> None:
    """Make a symbolic link to a file with the same content in another folder."""
    file.symlink_to(file.parent.parent / "elsewhere" / file.name)


def device(file: Path) -> None:
    """Replace a file by a device that can be read without end.

    A user other than root makes a link to such a device.
    """
    try:
        os.mknod(file, 0o020666, os.makedev(1, 5))
    except PermissionError:
        file.symlink_to("/dev/zero")


@pytest.fixture
def copied(chain: Evidence, tmp_path: Path) -> Path:
    """Copy a bundle twice: into the returned folder, and into the folder `elsewhere` next to it."""
    folder = tmp_path / "handed over" / "bundle"
    source = chain.root / ledger.rows(chain.conn)[0].bundle
    shutil.copytree(source, folder)
    shutil.copytree(source, folder.parent / "elsewhere")
    return folder


@pytest.mark.parametrize("make", [pipe, link, device])
@pytest.mark.parametrize("name", [*NAMES, "report.en.html"])
def test_verification_fails_if_bundle_file_was_replaced_by_symbolic_link_pipe_or_device(
    copied: Path, chain: Evidence, make: Callable[[Path], None], name: str
) -> None:
    """`verify PATH` does not wait at a pipe until a process writes to it, and follows no link."""
    trusted = [chain.signer.public_pem]
    intact = verify_path(copied, trusted)
    assert (intact.verified, intact.bundles) == (True, 1)
    (copied / name).unlink()
    make(copied / name)
    for keys in (trusted, None):
        assert not verify_path(copied, keys).verified


@pytest.mark.parametrize("make", [pipe, link, device])
def test_verification_reports_link_pipe_or_device_in_bundle_folder_as_added_file(
    copied: Path, chain: Evidence, make: Callable[[Path], None]
) -> None:
    """The link or pipe is reported like any other file that was added after the seal."""
    make(copied / "added")
    reason = verify_path(copied, [chain.signer.public_pem]).reason
    assert reason == "the file added was added after the bundle was sealed"


def test_symbolic_link_to_folder_is_not_followed(copied: Path, chain: Evidence) -> None:
    """The files in the linked folder could be changed after the check."""
    plans = copied / "plans"
    shutil.rmtree(plans)
    plans.symlink_to(copied.parent / "elsewhere" / "plans")
    assert DiskFolder(copied).names() & {"plans", "plans/plan one.csv"} == {"plans"}
    assert not verify_path(copied, [chain.signer.public_pem]).verified


def test_verification_fails_if_sha256sums_of_previous_bundle_is_a_pipe(
    chain: Evidence, tmp_path: Path
) -> None:
    """Verification of a folder on a disk reads SHA256SUMS of the previous bundle."""
    first, second, _third = ledger.rows(chain.conn)
    copy = tmp_path / "copy"
    shutil.copytree(chain.root, copy)
    before = copy / first.bundle / "SHA256SUMS"
    before.unlink()
    os.mkfifo(before)
    reason = verify_path(copy / second.bundle, [chain.signer.public_pem]).reason
    assert reason == f"the previous bundle, {first.bundle}, was changed"
