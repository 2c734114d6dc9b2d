"""Refuse a restore into an older server, or by programs that cannot read the backup."""

from __future__ import annotations

from include.backup.manifest import Manifest
from include.services.database import DatabaseAddress, connected
from include.services.errors import UsageError
from include.services.programs import CLIENT_VARIABLE, pg_version
from include.services.server_versions import (
    SUPPORTED,
    listed,
    major_version,
    require_fitting_client,
    require_fitting_server,
)

READS_ALL_ARCHIVES = 17  # versions 17 and 18 write archives of one layout


def require_fitting_target(manifest: Manifest, target: DatabaseAddress, action: str = "") -> None:
    """Refuse a target that is too old for a backup. Call this before anything is loaded.

    An older server refuses some statements of a newer server, or gives them another meaning.

    Args:
        manifest: of the backup.
        target: a database of the target's server.
        action: what the reader can do if the server is too old; by default, use another server.

    Raises:
        UsageError: the server is older than the one that was backed up, or refuses the login; or
            this machine's pg_restore is too old.
        ServiceError: the server cannot be reached.
    """
    require_reader(manifest)
    with connected(target) as connection:
        version = major_version(connection.info.server_version)
    original = major_version(manifest.server_version)
    if version < original:
        newer = listed([each for each in SUPPORTED if each >= original] or [original])
        raise UsageError(
            f"The target {target.place} is on PostgreSQL {version}, and the backup is of "
            f"PostgreSQL {original}: it cannot be loaded into an older version. "
            "Nothing was loaded.",
            action or f"Restore into a server of PostgreSQL {newer}.",
        )


def require_dumpable(server: DatabaseAddress) -> None:
    """Refuse a server whose databases this machine's pg_dump cannot read.

    Raises:
        UsageError: the server's version does not fit pg_dump's, or it refuses the login.
        ServiceError: the server cannot be reached.
    """
    with connected(server) as connection:
        require_fitting_server(connection.info.server_version, f"The server of {server.place}")


def require_reader(manifest: Manifest) -> None:
    """Refuse a pg_restore that is too old for the archive.

    Raises:
        UsageError: it is, or the client programs are of a version that is not supported.
    """
    require_fitting_client()
    reader, writer = pg_version("pg_restore"), manifest.tools.get("pg_dump", "")
    if major_version(reader) < min(major_version(writer), READS_ALL_ARCHIVES):
        raise UsageError(
            f"Restore point {manifest.id} was written by pg_dump {writer}, and pg_restore "
            f"{reader} cannot read it.",
            f"Use client programs of version {major_version(writer)}: correct {CLIENT_VARIABLE}, "
            "or unset it to use the included programs.",
        )
