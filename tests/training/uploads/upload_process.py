"""Upload a file in a separate process; print the number of stored rows and the memory use.

Run ``python -m tests.training.uploads.upload_process CONNINFO KIND FILE [wait]``. With ``wait``,
the process prints ``stored`` after the insert and never commits. The output has the memory before
the upload and at its peak, in KiB.
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


def peak_memory_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(conninfo: str, kind: str, file: str, *wait: str) -> None:
    with engine(conninfo).begin() as conn, Path(file).open("rb") as stream:
        base, started = peak_memory_kib(), time.monotonic()
        upload = Upload(Kind(kind), "file.csv", stream)
        stored = storing.store_upload(conn, upload, by="chen", at=datetime(2026, 3, 2, tzinfo=UTC))
        if wait:
            sys.stdout.write("stored\n")
            sys.stdout.flush()
            signal.pause()
    result = {"added": stored.added, "base": base, "peak": peak_memory_kib()}
    sys.stdout.write(json.dumps(result | {"seconds": time.monotonic() - started}))


if __name__ == "__main__":
    main(*sys.argv[1:])
