"""A run in a process of its own, for the tests that kill it; says on stdout how far it is."""

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
from tests.faults.support import Keys, Rig, StorePlace


def say(stage: str) -> None:
    sys.stdout.write(f"{stage}\n")
    sys.stdout.flush()


def pause(stage: str) -> None:
    say(f"before {stage}")
    signal.pause()


class PausingStore(DirectoryStore):
    """Pauses before an object of that name is put, or after its lock is written."""

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
    told: dict[str, Any] = json.loads(sys.argv[1])
    rig = Rig(**told["rig"], keys=Keys(Path(told["keys"])))
    store = StorePlace(**told["store"]).open()
    if pause_at := told.get("pause_at"):
        store = PausingStore(Path(told["store"]["place"]), "beijing")
        store.pause_at = pause_at
    if told["what"] == "backup":
        back_up(rig, store, told)
    elif told["what"] == "drill":
        rig.drill(store, progress=say)
    elif told["what"] == "seal":
        with rig.engine().connect() as conn:
            seal(
                store,
                conn,
                rig.keys.offsite(store).signer,
                result=result_of(number=told["number"]),
                files=FILES,
                clock=CLOCK,
                lock_until=datetime.fromisoformat(told["lock_until"]),
            )
    say("done")


def back_up(rig: Rig, store: Any, told: dict[str, Any]) -> None:
    told_so = False

    def progress(_: str, dumped: int) -> None:
        nonlocal told_so
        if not told_so and dumped > told.get("pause_after", 1 << 60):
            told_so = True
            say("dumping")
            sys.stdin.readline()  # until told to go on

    rig.back_up(store, progress=progress)
