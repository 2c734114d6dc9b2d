"""Secrets and ports of containers. Imports nothing: each health check reads it."""

from __future__ import annotations

from pathlib import PurePosixPath

SECRETS = PurePosixPath("/run/secrets")  # where Docker puts them in a container
STORE_PORT, REDIS_PORT, MAIL_PORT = 9000, 6379, 2525


def mounted(name: str) -> str:
    """Return the path of a secret in a container."""
    return str(SECRETS / name)
