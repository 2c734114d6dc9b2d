"""Keep secrets in files for programs that cannot read them otherwise.

Only this user can read the files, and they are removed when the process ends. They are in memory
where the system has a file system there: what a killed process leaves is gone after a restart.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache, partial
from hashlib import sha256
from pathlib import Path

from include.services import stopping

_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of mode 0700 is made there


def private_file(content: bytes) -> str:
    """Return the path of a file of mode 0600 with that content; the same for the same content."""
    path = _folder(os.getpid()) / sha256(content).hexdigest()
    if not path.exists():
        unfinished = path.with_suffix(".new")
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        unfinished.replace(path)
    return str(path)


@cache
def _folder(process: int) -> Path:
    """Make the folder of a process, which a process that is forked from it leaves alone."""
    parent = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-", dir=parent))
    atexit.register(_remove, folder, process)
    stopping.at_sudden_exit(partial(_remove, folder, process))
    return folder


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
