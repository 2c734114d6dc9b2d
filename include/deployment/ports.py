"""Define the paths of secrets in containers and the ports of servers.

This module imports nothing from the project, because each health check loads it.
"""

from __future__ import annotations

from pathlib import PurePosixPath

SECRETS = PurePosixPath("/run/secrets")  # where Docker puts them in a container
STORE_PORT, REDIS_PORT, MAIL_PORT = 9000, 6379, 2525


def mounted(name: str) -> str:
    """Return the path of a secret inside a container.

    Args:
        name: name of the secret.
    """
    return str(SECRETS / name)
