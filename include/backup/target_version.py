"""Refuse servers whose version of PostgreSQL is too old for a restore."""

from __future__ import annotations

import re

from include.services.database import DatabaseAddress, connected
from include.services.errors import UsageError
from include.services.programs import pg_version

# Since version 17, pg_restore begins each session with SET transaction_timeout. An older server
# does not know that parameter, and --exit-on-error would end the restore there.
OLDEST_SERVER = 17
SINCE_CLIENT = 17


def require_supported_version(target: DatabaseAddress, action: str = "") -> None:
    """Ask a server for its version, and refuse one that our pg_restore cannot load into.

    Args:
        target: a database of the server.
        action: what the reader can do; by default, restore into a newer server.

    Raises:
        UsageError: the server is too old, or refuses the login.
        ServiceError: the server cannot be reached.
    """
    with connected(target) as connection:
        version = connection.info.server_version
    refuse_old_version(
        version,
        pg_version("pg_restore"),
        action
        or f"Create the new database on a server of PostgreSQL {OLDEST_SERVER} or newer, and "
        "restore into that one. Nothing was loaded.",
    )


def refuse_old_version(server_version: int, pg_restore_version: str, action: str) -> None:
    """Refuse a server that a version of pg_restore cannot load into.

    Args:
        server_version: as libpq counts, 150004 is PostgreSQL 15.4.
        pg_restore_version: as the program prints it, ``18.4``.
        action: what the reader can do.

    Raises:
        UsageError: the server is too old.
    """
    client = re.match(r"\d+", pg_restore_version)
    if client and int(client.group()) < SINCE_CLIENT:
        return
    major = server_version // 10_000
    if major < OLDEST_SERVER:
        raise UsageError(
            f"The target runs PostgreSQL {major}; restores need {OLDEST_SERVER} or newer.", action
        )
