"""What only a directory does: temporary files, sidecar locks, devices, disks that fail."""

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


def test_replacing_a_locked_object_is_refused(tmp_path: Path) -> None:
    """By put, by a writer opened later and by one opened before the lock; the old bytes stay."""
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


def test_a_lock_ends(tmp_path: Path) -> None:
    """Afterwards the object can be replaced, which takes the lock away, and deleted."""
    at(tmp_path, NOON).put("x", b"old", locked_until=NOON + timedelta(hours=1))
    later = at(tmp_path, NOON + timedelta(hours=1))
    later.put("x", b"new")
    assert later.stat("x").locked_until is None
    at(tmp_path, NOON).put("x", b"new", locked_until=NOON + timedelta(hours=1))
    later.delete("x")
    assert files(tmp_path) == []


def test_a_lock_in_the_past_is_refused(tmp_path: Path) -> None:
    """As S3 does, and before anything is written."""
    store = at(tmp_path, NOON)
    with pytest.raises(StoreError, match="passed"):
        store.put("x", b"1", locked_until=NOON)
    assert files(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"locked_until": 5}', '{"locked_until": "x"}'])
def test_an_unreadable_lock_holds(tmp_path: Path, text: str) -> None:
    """A damaged lock file never opens the object to deletion."""
    store = at(tmp_path, NOON)
    store.put("x", b"1")
    (tmp_path / ".x.lock.json").write_text(text)
    with pytest.raises(StoreError, match="lock"):
        store.delete("x")
    assert store.get("x") == b"1"


def test_deleting_tidies_empty_directories_up_to_the_root(tmp_path: Path) -> None:
    """Other objects' directories stay, the store's own too."""
    store = DirectoryStore(tmp_path)
    store.put("a/b/c/x", b"1")
    store.put("a/y", b"1")
    store.delete("a/b/c/x")
    assert not (tmp_path / "a/b").exists()
    store.delete("a/y")
    assert tmp_path.exists()
    assert list(tmp_path.iterdir()) == []


def test_clearing_takes_only_our_temporary_files(tmp_path: Path) -> None:
    """Files that merely look alike are not ours to remove."""
    for name in ("x.partial-00ff", ".x.partial-zz", ".x.swp"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / ".x.partial-00ff").write_bytes(b"1")
    assert DirectoryStore(tmp_path).clear_abandoned() == 1
    assert files(tmp_path) == [".x.partial-zz", ".x.swp", "x.partial-00ff"]


def test_symbolic_links_are_not_listed(tmp_path: Path) -> None:
    """What lies outside the store is not offered as its object."""
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
def test_irregular_files_are_not_objects(tmp_path: Path, create: Callable[[Path], object]) -> None:
    """A FIFO does not hang its readers, and a link does not lead them elsewhere."""
    store = DirectoryStore(tmp_path)
    create(tmp_path / "x")
    for call in (store.get, store.open_reader, store.stat):
        with pytest.raises(ObjectMissing, match="'x'"):
            call("x")
    assert "x" not in [stored.key for stored in store.list()]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("create", NOT_REGULAR)
def test_irregular_lock_file_counts_as_a_lock(
    tmp_path: Path, create: Callable[[Path], object]
) -> None:
    """Reading the lock does not hang, and the object cannot be deleted."""
    store = DirectoryStore(tmp_path)
    store.put("x", b"1")
    create(tmp_path / ".x.lock.json")
    for call in (store.stat, store.delete, lambda key: store.put(key, b"2")):
        with pytest.raises(ObjectDamaged, match="lock of 'x'"):
            call("x")
    assert store.get("x") == b"1"


@pytest.mark.parametrize("length", [4000, 40_000_000])
def test_a_long_lock_is_not_read_whole(tmp_path: Path, length: int) -> None:
    """Reading takes bounded memory, whatever an intruder writes into the file."""
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


def test_linked_folders_are_not_followed(tmp_path: Path) -> None:
    """Nothing outside the store is read, written, locked or deleted through a link in it."""
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


def test_the_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    """The path of a store may be a link to a mounted disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "disk")
    store = DirectoryStore(tmp_path / "store")
    store.put("a/x", b"1")
    assert store.get("a/x") == b"1"
    assert [stored.key for stored in store.list()] == ["a/x"]


def test_folders_too_deep_for_any_key_do_not_end_a_listing(tmp_path: Path) -> None:
    """Endlessly nested folders do not hide the objects beside them."""
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


def test_an_unmounted_disk_is_no_empty_store(tmp_path: Path) -> None:
    """Nothing is silently created, listed as empty or deleted when the directory is missing."""
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


def test_preflight_creates_the_directory_and_admits_what_it_cannot_do(tmp_path: Path) -> None:
    """A fit directory still says that it cannot enforce a lock; no probe stays."""
    store = DirectoryStore(tmp_path / "new")
    assert [problem.code for problem in store.preflight()] == ["no_object_lock"]
    assert list((tmp_path / "new").iterdir()) == []


def test_preflight_sees_the_same_device(tmp_path: Path) -> None:
    """A copy beside the original is no off-site copy; another device is fine."""
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
def test_preflight_sees_what_cannot_be_used(root: str, codes: list[str]) -> None:
    """A place without write access, a file in the directory's place."""
    assert [problem.code for problem in DirectoryStore(Path(root)).preflight()] == codes


def test_an_object_in_the_way_is_named(tmp_path: Path) -> None:
    """A directory cannot hold ``a`` and ``a/b`` at once, and says so."""
    store = DirectoryStore(tmp_path)
    store.put("a", b"1")
    with pytest.raises(StoreError, match="'a/b'"):
        store.put("a/b", b"1")
    store.put("c/d", b"1")
    with pytest.raises(StoreError, match="'c'"):
        store.put("c", b"1")
    assert files(tmp_path) == ["a", "c/d"]


@pytest.mark.fault
def test_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    """The write that fails says why; commit is then refused and nothing stays.

    A limit on file sizes stands in for the full disk: write(2) fails in the same way.
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
    """The files below a folder that this process has open; others are none of the store's."""
    found = []
    for one in Path("/proc/self/fd").iterdir():
        try:
            target = str(one.readlink())
        except FileNotFoundError:  # it was the listing's own
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return sorted(found)


def test_no_file_stays_open(tmp_path: Path) -> None:
    """Writers, readers and listings give their descriptors back, also after errors."""
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


def test_bytes_are_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File first, then the rename, then every directory up to the store: safe from power cuts."""
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
