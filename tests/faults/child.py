"""Run an operation in a separate process that tests kill, and print its progress."""

from __future__ import annotations

import json
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from include.evidence.bundle import seal
from include.services.objectstore import directory
from include.services.objectstore.base import StoredObject
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.directory_files import write_lock
from tests.evidence.support import CLOCK, FILES, result_of
from tests.faults.support import Keys, Rig, StoreLocation


def say(stage: str) -> None:
    sys.stdout.write(f"{stage}\n")
    sys.stdout.flush()


def pause(stage: str) -> None:
    say(f"before {stage}")
    signal.pause()


class PausingStore(DirectoryStore):
    """A store that pauses before it writes an object, or after it wrote the lock of an object.

    Attributes:
        pause_at: name of the object, or ``lock of`` and its name; empty for no pause.
    """

    pause_at = ""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        directory.write_lock = self.write_lock

    def write_lock(self, path: Path, end: datetime) -> None:
        write_lock(path, end)
        if f"lock of {path.name}" == self.pause_at:
            pause(self.pause_at)

    def put(self, key: str, data: bytes, *, locked_until: datetime | None = None) -> StoredObject:
        if Path(key).name == self.pause_at:
            pause(self.pause_at)
        return super().put(key, data, locked_until=locked_until)


def main() -> None:
    task: dict[str, Any] = json.loads(sys.argv[1])
    rig = Rig(**task["rig"], keys=Keys(Path(task["keys"])))
    store = StoreLocation(**task["store"]).open()
    if pause_at := task.get("pause_at"):
        store = PausingStore(Path(task["store"]["address"]), "beijing")
        store.pause_at = pause_at
    if task["operation"] == "backup":
        back_up(rig, store, task)
    elif task["operation"] == "drill":
        rig.drill(store, progress=say)
    elif task["operation"] == "seal":
        with rig.engine().connect() as conn:
            seal(
                store,
                conn,
                rig.keys.offsite(store).signer,
                result=result_of(number=task["number"]),
                files=FILES,
                clock=CLOCK,
                lock_until=datetime.fromisoformat(task["lock_until"]),
            )
    say("done")


def back_up(rig: Rig, store: Any, task: dict[str, Any]) -> None:
    is_reported = False

    def progress(_: str, dumped: int) -> None:
        nonlocal is_reported
        if not is_reported and dumped > task.get("pause_after", 1 << 60):
            is_reported = True
            say("dumping")
            sys.stdin.readline()  # until the test tells it to continue

    rig.back_up(store, progress=progress)
