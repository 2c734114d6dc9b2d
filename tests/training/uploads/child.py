"""An upload in a process of its own: prints what it stored, its peak memory and its base, in KiB.

``python -m tests.training.uploads.child CONNINFO KIND FILE [wait]``; with ``wait`` it says so once
all is stored, and never commits.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from include.state.connect import engine
from include.training.uploads import storing
from include.training.uploads.reading import Kind, Upload


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(conninfo: str, kind: str, file: str, *wait: str) -> None:
    with engine(conninfo).begin() as conn, Path(file).open("rb") as stream:
        base, begun = peak(), time.monotonic()
        upload = Upload(Kind(kind), "file.csv", stream)
        done = storing.store(conn, upload, by="chen", at=datetime(2026, 3, 2, tzinfo=UTC))
        if wait:
            sys.stdout.write("stored\n")
            sys.stdout.flush()
            signal.pause()
    told = {"added": done.added, "base": base, "peak": peak()}
    sys.stdout.write(json.dumps(told | {"seconds": time.monotonic() - begun}))


if __name__ == "__main__":
    main(*sys.argv[1:])
