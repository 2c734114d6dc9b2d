"""Test the special features of directory stores: temporary files, lock files, devices, disks."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from include.services.clock import FixedClock
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectLocked,
    ObjectMissing,
    StoreError,
)
from include.services.objectstore.directory import DirectoryStore

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def at(root: Path, moment: datetime) -> DirectoryStore:
    return DirectoryStore(root, clock=FixedClock(moment))


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_put_and_commit_raise_object_locked_if_existing_object_is_locked(tmp_path: Path) -> None:
    """`put` is refused, and also a writer that was opened before or after the object was locked."""
    store = at(tmp_path, NOON)
    early = store.open_writer("x")
    early.write(b"new")
    store.put("x", b"old", locked_until=NOON + timedelta(hours=1))
    with pytest.raises(ObjectLocked, match="13:00"):
        store.put("x", b"new")
    with pytest.raises(ObjectLocked):
        store.open_writer("x")
    with pytest.raises(ObjectLocked):
        early.commit()
    early.abort()
    assert store.get("x") == b"old"
    assert files(tmp_path) == [".x.lock.json", "x"]
    assert (tmp_path / "x").stat().st_mode & 0o222 == 0


def test_object_can_be_replaced_and_deleted_after_its_lock_ended(tmp_path: Path) -> None:
    """Replacing the object also removes the lock that has ended."""
    at(tmp_path, NOON).put("x", b"old", locked_until=NOON + timedelta(hours=1))
    later = at(tmp_path, NOON + timedelta(hours=1))
    later.put("x", b"new")
    assert later.stat("x").locked_until is None
    at(tmp_path, NOON).put("x", b"new", locked_until=NOON + timedelta(hours=1))
    later.delete("x")
    assert files(tmp_path) == []


def test_put_raises_store_error_and_writes_nothing_if_lock_end_is_in_the_past(
    tmp_path: Path,
) -> None:
    """As in S3, such a lock is refused before the object is written."""
    store = at(tmp_path, NOON)
    with pytest.raises(StoreError, match="passed"):
        store.put("x", b"1", locked_until=NOON)
    assert files(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"locked_until": 5}', '{"locked_until": "x"}'])
def test_object_whose_lock_file_has_invalid_content_cannot_be_deleted(
    tmp_path: Path, text: str
) -> None:
    """A damaged lock file must not permit deletion."""
    store = at(tmp_path, NOON)
    store.put("x", b"1")
    (tmp_path / ".x.lock.json").write_text(text)
    with pytest.raises(StoreError, match="lock"):
        store.delete("x")
    assert store.get("x") == b"1"


def test_delete_removes_empty_directories_below_the_store(tmp_path: Path) -> None:
    """The store's own directory and directories with other objects are kept."""
    store = DirectoryStore(tmp_path)
    store.put("a/b/c/x", b"1")
    store.put("a/y", b"1")
    store.delete("a/b/c/x")
    assert not (tmp_path / "a/b").exists()
    store.delete("a/y")
    assert tmp_path.exists()
    assert list(tmp_path.iterdir()) == []


def test_clear_abandoned_removes_only_temporary_files_of_the_store(tmp_path: Path) -> None:
    """Files with similar names are kept."""
    for name in ("x.partial-00ff", ".x.partial-zz", ".x.swp"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / ".x.partial-00ff").write_bytes(b"1")
    assert DirectoryStore(tmp_path).clear_abandoned() == 1
    assert files(tmp_path) == [".x.partial-zz", ".x.swp", "x.partial-00ff"]


def test_symbolic_links_are_not_listed(tmp_path: Path) -> None:
    """Files outside the store are not objects of the store."""
    root = tmp_path / "store"
    root.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"1")
    (root / "file").symlink_to(tmp_path / "outside/secret")
    (root / "folder").symlink_to(tmp_path / "outside")
    assert list(DirectoryStore(root).list()) == []


def fifo(path: Path) -> None:
    os.mkfifo(path)


def socket_file(path: Path) -> None:
    # An address of a socket has at most 107 bytes; the path of a test may have more.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def link_to_a_file(path: Path) -> None:
    (path.parent / "target").write_bytes(b"outside")
    path.symlink_to(path.parent / "target")


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


NOT_REGULAR = [fifo, socket_file, link_to_a_file, dangling_link, link_to_itself, Path.mkdir]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("create", NOT_REGULAR)
def test_fifos_sockets_links_and_directories_are_neither_listed_nor_read_as_objects(
    tmp_path: Path, create: Callable[[Path], object]
) -> None:
    """A FIFO must not block readers, and links must not be followed."""
    store = DirectoryStore(tmp_path)
    create(tmp_path / "x")
    for call in (store.get, store.open_reader, store.stat):
        with pytest.raises(ObjectMissing, match="'x'"):
            call("x")
    assert "x" not in [stored.key for stored in store.list()]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("create", NOT_REGULAR)
def test_object_stays_locked_if_its_lock_file_is_a_fifo_link_or_directory(
    tmp_path: Path, create: Callable[[Path], object]
) -> None:
    """The lock file may be a FIFO or a link.

    Reading it must not block, and the object stays locked.
    """
    store = DirectoryStore(tmp_path)
    store.put("x", b"1")
    create(tmp_path / ".x.lock.json")
    for call in (store.stat, store.delete, lambda key: store.put(key, b"2")):
        with pytest.raises(ObjectDamaged, match="lock of 'x'"):
            call("x")
    assert store.get("x") == b"1"


@pytest.mark.parametrize("length", [4000, 40_000_000])
def test_large_invalid_lock_file_raises_object_damaged_and_needs_little_memory(
    tmp_path: Path, length: int
) -> None:
    """An intruder may write any content into the lock file."""
    store = DirectoryStore(tmp_path)
    store.put("x", b"1")
    (tmp_path / ".x.lock.json").write_bytes(b"[" * length)
    tracemalloc.start()
    try:
        with pytest.raises(ObjectDamaged, match="lock of 'x'"):
            store.stat("x")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_objects_below_a_symbolic_link_can_be_neither_read_nor_changed(tmp_path: Path) -> None:
    """A link in the store must not allow access to anything outside of it."""
    root, outside = tmp_path / "store", tmp_path / "outside"
    root.mkdir()
    (outside / "deep").mkdir(parents=True)
    (outside / "deep/x").write_bytes(b"1")
    (root / "folder").symlink_to(outside)
    store = at(root, NOON)
    for key in ("folder/deep/x", "folder/deep"):
        for read in (store.get, store.open_reader, store.stat):
            with pytest.raises(ObjectMissing):
                read(key)
    for change in (
        lambda: store.put("folder/y", b"2"),
        lambda: store.delete("folder/deep/x"),
        lambda: store.lock("folder/deep/x", NOON + timedelta(days=1)),
        lambda: store.require_deletable("folder/deep/x", NOON),
    ):
        with pytest.raises(StoreError):
            change()
    assert files(outside) == ["deep/x"]


def test_store_whose_directory_is_a_symbolic_link_can_be_read_and_written(tmp_path: Path) -> None:
    """The path of a store may be a link to a mounted disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    store = DirectoryStore(tmp_path / "store")
    store.put("a/x", b"1")
    assert store.get("a/x") == b"1"
    assert [stored.key for stored in store.list()] == ["a/x"]


def test_listing_skips_folders_that_are_too_deeply_nested_and_returns_other_objects(
    tmp_path: Path,
) -> None:
    """Deeply nested folders must not hide the objects beside them."""
    DirectoryStore(tmp_path).put("x", b"1")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):  # longer than a path that the system opens
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    store = DirectoryStore(tmp_path)
    assert [stored.key for stored in store.list()] == ["x"]
    assert store.clear_abandoned() == 0


def test_store_operations_raise_store_error_if_store_directory_is_missing(tmp_path: Path) -> None:
    """The disk with the directory may not be mounted.

    Therefore, a missing directory must not count as an empty store.
    """
    store = DirectoryStore(tmp_path / "mount/store")
    calls = [
        lambda: store.put("x", b"1"),
        lambda: store.get("x"),
        lambda: store.delete("x"),
        lambda: list(store.list()),
        lambda: store.clear_abandoned(),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="mount") as caught:
            call()
        assert not isinstance(caught.value, ObjectMissing)
    assert [problem.code for problem in store.preflight()] == ["missing"]
    assert list(tmp_path.iterdir()) == []


def test_preflight_creates_store_directory_and_reports_that_object_locks_are_missing(
    tmp_path: Path,
) -> None:
    """Every directory store reports that it cannot enforce locks.

    The test file is deleted again.
    """
    store = DirectoryStore(tmp_path / "new")
    assert [problem.code for problem in store.preflight()] == ["no_object_lock"]
    assert list((tmp_path / "new").iterdir()) == []


def test_preflight_reports_store_on_the_same_device_as_the_database(tmp_path: Path) -> None:
    """A backup on the device of the live data is not off-site."""
    live, other = tmp_path / "data", Path("/proc")
    live.mkdir()
    store = DirectoryStore(tmp_path, live_paths=[other, live, tmp_path / "absent"])
    problems = store.preflight()
    assert [problem.code for problem in problems] == ["same_device", "no_object_lock"]
    assert str(live) in problems[0].detail


@pytest.mark.parametrize(
    ("root", "codes"),
    [("/proc", ["not_writable", "no_object_lock"]), ("/dev/null", ["missing"])],
)
def test_preflight_reports_path_that_is_not_writable_or_not_a_directory(
    root: str, codes: list[str]
) -> None:
    """Cases: a directory without write permission, and a path that leads to a file."""
    assert [problem.code for problem in DirectoryStore(Path(root)).preflight()] == codes


def test_put_raises_error_with_the_key_if_a_key_would_be_both_object_and_folder(
    tmp_path: Path,
) -> None:
    """A directory cannot contain ``a`` and ``a/b`` at once."""
    store = DirectoryStore(tmp_path)
    store.put("a", b"1")
    with pytest.raises(StoreError, match="'a/b'"):
        store.put("a/b", b"1")
    store.put("c/d", b"1")
    with pytest.raises(StoreError, match="'c'"):
        store.put("c", b"1")
    assert files(tmp_path) == ["a", "c/d"]


@pytest.mark.fault
def test_write_to_full_disk_raises_error_with_reason_and_leaves_no_file(tmp_path: Path) -> None:
    """The failed `write` raises the error. Then `commit` is refused, and no file remains.

    A limit on file sizes simulates the full disk, because write(2) fails in the same way.
    """
    limit = 3_000_000
    script = f"""
import resource, sys
from pathlib import Path
from include.services.objectstore.base import StoreError
from include.services.objectstore.directory import DirectoryStore
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
with DirectoryStore(Path(sys.argv[1])).open_writer("x") as writer:
    for step in (lambda: [writer.write(bytes(1_000_000)) for _ in range(9)], writer.commit):
        try:
            step()
        except StoreError as error:
            print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert f"Cannot write 'x' in {tmp_path}: File too large." in first
    assert "closed or failed" in second
    assert files(tmp_path) == []


def open_below(folder: Path) -> list[str]:
    """Return the files below a folder that this process has opened and not closed."""
    files = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            target = str(path.readlink())
        except FileNotFoundError:  # it was the listing's own
            continue
        if target.startswith(str(folder)):
            files.append(target)
    return sorted(files)


def test_all_files_are_closed_after_writing_reading_and_listing(tmp_path: Path) -> None:
    """Files are also closed after errors."""
    store = DirectoryStore(tmp_path)
    before = open_below(tmp_path)
    for _ in range(20):
        store.put("a/x", b"1")
        store.get("a/x")
        list(store.list())
        store.open_writer("y").abort()
        with pytest.raises(ObjectMissing):
            store.get("z")
    assert open_below(tmp_path) == before


def test_file_is_flushed_to_disk_before_the_object_becomes_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power loss, an object must be either complete or missing.

    Therefore, the file is written to the disk before it is renamed.
    """
    events: list[str] = []
    fsync = os.fsync

    def recorded(fd: int) -> None:
        path = Path(f"/proc/self/fd/{fd}").readlink()
        name = "partial" if ".partial-" in path.name else str(path.relative_to(tmp_path))
        events.append(f"{name}, visible: {(tmp_path / 'a/b/x').exists()}")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", recorded)
    DirectoryStore(tmp_path).put("a/b/x", b"1")
    assert events == [
        "partial, visible: False",
        "a/b, visible: True",
        "a, visible: True",
        "., visible: True",
    ]
