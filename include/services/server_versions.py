"""Supported (that is, tested) versions of PostgreSQL servers, and client programs that fit them.

docs/decisions/0041-older-servers.md gives the reasons.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from include.services.errors import UsageError
from include.services.programs import CLIENT_VARIABLE, pg_version

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
