"""Readers of a store or folder neither hang nor run out of memory, whatever is written there."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from include.evidence import ledger
from include.evidence.adopt import recover_ledger
from include.evidence.check import Refused, check_bundle
from include.evidence.folder import LARGEST_SUMS, MOST_FILES, MOST_LISTED, DiskFolder, StoreFolder
from include.evidence.shelf import Shelf
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
    """Fail when the block allocates more bytes at a time."""
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
def test_large_file_is_refused_before_it_is_read_whole(chain: Evidence, name: str) -> None:
    """By verification, by the pages, and where the ledger is recovered."""
    row = ledger.rows(chain.conn)[-1]
    grow(chain.root / row.bundle / name)
    keys = TrustedKeys([chain.signer.public_pem])
    with little_memory():
        with pytest.raises(Refused):
            check_bundle(StoreFolder(chain.store, row.bundle), keys)
        assert not verify_path(chain.root / row.bundle).verified
        shelf = Shelf(chain.store, [chain.signer.public_pem])
        assert shelf.check(row, None).problem is not None
        if name != "signer.pem":
            with pytest.raises(Refused):
                shelf.result(row)
        chain.conn.rollback()
        unsigned = f"x/2026/11/{name}"
        chain.store.put(f"{unsigned}/SHA256SUMS.sig", b"x" * 64)
        for other in ("SHA256SUMS", "result.json"):
            chain.store.put(f"{unsigned}/{other}", b"")
        if name != "signer.pem":
            grow(chain.root / unsigned / name)
        chain.execute(evidence_intent.insert().values(bundle=unsigned, begun_at=CLOCK.now()))
        assert recover_ledger(chain.store, chain.conn, chain.signer, keys, CLOCK) == []


def test_signed_list_of_a_full_bundle_is_read(evidence: Evidence) -> None:
    """What a seal may write is within what readers accept."""
    files = {f"{'f' * 110}/{'g' * 110}/{'h' * 110}/{number:05}": b"" for number in range(300)}
    sealed = evidence.seal(files=files)
    assert evidence.verify().verified
    size = (evidence.root / sealed.path / "SHA256SUMS").stat().st_size
    assert size / 302 * MOST_FILES < LARGEST_SUMS
    assert MOST_LISTED > MOST_FILES  # a file too many is still noticed


def test_more_files_than_a_bundle_may_have_are_refused(evidence: Evidence) -> None:
    """Before anything is written."""
    with pytest.raises(UsageError, match="at most 10000 files"):
        evidence.seal(files={f"{number}.txt": b"" for number in range(MOST_FILES)})
    assert not any(evidence.root.iterdir())


def pipe(file: Path) -> None:
    os.mkfifo(file)


def link(file: Path) -> None:
    """To the very content, elsewhere."""
    file.symlink_to(file.parent.parent / "elsewhere" / file.name)


def device(file: Path) -> None:
    """A link to an endless one; only root can make a node."""
    try:
        os.mknod(file, 0o020666, os.makedev(1, 5))
    except PermissionError:
        file.symlink_to("/dev/zero")


@pytest.fixture
def copied(chain: Evidence, tmp_path: Path) -> Path:
    """A bundle that was handed over, and its files again elsewhere."""
    folder = tmp_path / "handed over" / "bundle"
    source = chain.root / ledger.rows(chain.conn)[0].bundle
    shutil.copytree(source, folder)
    shutil.copytree(source, folder.parent / "elsewhere")
    return folder


@pytest.mark.parametrize("make", [pipe, link, device])
@pytest.mark.parametrize("name", [*NAMES, "report.en.html"])
def test_file_that_is_no_regular_file_is_refused(
    copied: Path, chain: Evidence, make: Callable[[Path], None], name: str
) -> None:
    """A pipe does not keep `verify PATH` waiting, and no link is followed."""
    trusted = [chain.signer.public_pem]
    intact = verify_path(copied, trusted)
    assert (intact.verified, intact.bundles) == (True, 1)
    (copied / name).unlink()
    make(copied / name)
    for keys in (trusted, None):
        assert not verify_path(copied, keys).verified


@pytest.mark.parametrize("make", [pipe, link, device])
def test_link_or_pipe_that_was_added_is_named(
    copied: Path, chain: Evidence, make: Callable[[Path], None]
) -> None:
    """As any other file that was added after the seal."""
    make(copied / "added")
    reason = verify_path(copied, [chain.signer.public_pem]).reason
    assert reason == "the file added was added after the seal"


def test_linked_folder_of_a_bundle_is_not_followed(copied: Path, chain: Evidence) -> None:
    """Its files may be changed by somebody else after the check."""
    plans = copied / "plans"
    shutil.rmtree(plans)
    plans.symlink_to(copied.parent / "elsewhere" / "plans")
    assert DiskFolder(copied).names() & {"plans", "plans/plan one.csv"} == {"plans"}
    assert not verify_path(copied, [chain.signer.public_pem]).verified


def test_bundle_before_it_that_is_a_pipe_is_refused(chain: Evidence, tmp_path: Path) -> None:
    """The link to it is followed on the disk."""
    first, second, _third = ledger.rows(chain.conn)
    copy = tmp_path / "copy"
    shutil.copytree(chain.root, copy)
    before = copy / first.bundle / "SHA256SUMS"
    before.unlink()
    os.mkfifo(before)
    reason = verify_path(copy / second.bundle, [chain.signer.public_pem]).reason
    assert reason == f"the bundle before it, {first.bundle}, was changed"
