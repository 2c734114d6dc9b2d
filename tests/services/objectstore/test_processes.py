"""Test writers in separate processes: a killed writer, and the memory that a writer needs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from tests.support.s3 import MotoServer, client_for, new_bucket

MIB = 1024 * 1024

# argv: kind, place (directory, or endpoint), bucket
OPEN_STORE = """
import json, os, sys, time
from pathlib import Path
import psutil
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from tests.support.s3 import client_for
kind, place, bucket = sys.argv[1:]
if kind == "directory":
    store = DirectoryStore(Path(place))
else:
    store = S3Store(client_for(place, read_timeout=120), bucket, "p")
"""

WRITE_FOREVER = """
writer = store.open_writer("killed/客户.dump")
piece = os.urandom(1024 * 1024)
for number in range(100_000):
    writer.write(piece)
    if number == 40:
        print("under way", flush=True)
    if number > 40:
        time.sleep(0.01)
"""

MEASURE = """
store.put("warm", b"1")
before = psutil.Process().memory_info().rss
highest = before
piece = os.urandom(1024 * 1024)
with store.open_writer("big") as writer:
    for number in range(512):
        writer.write(piece)
        if number % 8 == 0:
            highest = max(highest, psutil.Process().memory_info().rss)
    stored = writer.commit()
highest = max(highest, psutil.Process().memory_info().rss)
written = highest - before
before = highest = psutil.Process().memory_info().rss
size = 0
with store.open_reader("big") as reader:
    while size < 128 * 1024 * 1024:
        size += len(reader.read(1024 * 1024))
        if size % (8 * 1024 * 1024) == 0:
            highest = max(highest, psutil.Process().memory_info().rss)
print(json.dumps({"size": stored.size, "read": size, "written": written,
                  "while_reading": highest - before}))
"""

Place = tuple[ObjectStore, list[str]]


@pytest.fixture(params=["directory", "s3"])
def opened_store(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a store, and the command-line arguments with which another process opens it."""
    if request.param == "directory":
        return DirectoryStore(tmp_path), ["directory", str(tmp_path), ""]
    moto: MotoServer = request.getfixturevalue("moto")
    client = client_for(moto.endpoint)
    bucket = new_bucket(client)
    return S3Store(client, bucket, "p"), ["s3", moto.endpoint, bucket]


def start(script: str, arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OPEN_STORE + script, *arguments], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.fault
def test_object_of_killed_writer_is_not_listed_and_clear_abandoned_deletes_its_parts(
    opened_store: Place,
) -> None:
    """After SIGKILL, the object is never listed, and `clear_abandoned` deletes its parts."""
    store, arguments = opened_store
    store.put("killed/before", b"1")
    process = start(WRITE_FOREVER, arguments)
    assert process.stdout is not None
    assert process.stdout.readline() == "under way\n"
    assert [item.key for item in store.list()] == ["killed/before"]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert [item.key for item in store.list()] == ["killed/before"]
    assert store.clear_abandoned("killed/") == 1
    assert store.clear_abandoned() == 0
    assert [item.key for item in store.list()] == ["killed/before"]


def test_writing_and_reading_a_large_object_needs_little_memory(opened_store: Place) -> None:
    """Writing 512 MiB needs less than 112 MiB of memory, and reading 128 MiB less than 20 MiB.

    A writer holds three parts of 16 MiB. While parts are sent, memory may contain each part twice
    (96 MiB).
    """
    _, arguments = opened_store
    process = start(MEASURE, arguments)
    printed, _ = process.communicate()
    figures = json.loads(printed)
    assert (figures["size"], figures["read"]) == (512 * MIB, 128 * MIB)
    assert figures["written"] < 112 * MIB
    assert figures["while_reading"] < 20 * MIB


def test_open_writer_can_commit_after_deletion_of_last_object_in_its_folder(tmp_path: Path) -> None:
    """The deletion of empty directories must keep directories that an open writer needs."""
    store = DirectoryStore(tmp_path)
    store.put("a/b/y", b"1")
    with store.open_writer("a/b/x") as writer:
        store.delete("a/b/y")
        writer.write(b"1")
        writer.commit()
    assert store.get("a/b/x") == b"1"
