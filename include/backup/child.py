"""PostgreSQL's programs as children that do not outlive us."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from include.services.database import DatabaseAddress
from include.services.programs import program


def pg_dump_command(address: DatabaseAddress, *more: str) -> list[str]:
    """Return pg_dump's command; original and copy are dumped alike, or checksums say nothing."""
    return ending_with_us(
        [
            program("pg_dump"),
            "--format=custom",
            "--compress=none",
            "--no-password",
            f"--dbname={address.public_conninfo()}",
            *more,
        ]
    )


def ending_with_us(command: Sequence[str]) -> list[str]:
    """Return the command so that it gets SIGTERM when the thread that starts it ends.

    Without that, a `pg_restore` whose parent was killed goes on building indexes. SIGTERM makes it
    (and `pg_dump`) cancel what its server is doing and end its own workers. The kernel watches the
    starting thread, not the process, so start and wait in one thread. `setpriv` belongs to
    util-linux; where it is missing the command runs as it is. (A `preexec_fn` could do the same,
    and can deadlock in a process with threads.)
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else list(command)
