"""The file ``.env`` beside `docker-compose.yaml`: what Docker Compose has to know, no secret."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from include.services.errors import UsageError

FILE = ".env"
REVISION = "PARCELSEAL_REVISION"  # of the code that images are built of; evidence names it
USER = 10001  # of containers, where `compose init` runs as root; else they run as who ran it


def wanted(private: str, *, sample: bool) -> dict[str, str]:
    """Return the settings of a deployment that nobody has made yet.

    Args:
        private: the private folder, as Compose finds it from its own.
        sample: whether the sample customer database is part of the stack.
    """
    uid, gid = container_user()
    return {
        "PARCELSEAL_UID": str(uid),
        "PARCELSEAL_GID": str(gid),
        "PARCELSEAL_PRIVATE": private,
        "PARCELSEAL_TAG": "latest",
        "COMPOSE_PROFILES": "sample" if sample else "",
    }


def container_user() -> tuple[int, int]:
    """Return user and group that containers run as: never root."""
    uid, gid = os.geteuid(), os.getegid()
    return (uid, gid) if uid else (USER, USER)


def add_missing(path: Path, settings: Mapping[str, str]) -> list[str]:
    """Add settings that a file lacks; what it says stays as it is.

    Returns:
        Names of what was added.

    Raises:
        UsageError: the file cannot be read or written.
    """
    try:
        there = path.read_text(encoding="utf-8") if path.exists() else ""
        kept = {
            line.partition("=")[0].strip()
            for line in there.splitlines()
            if "=" in line and not line.lstrip().startswith("#")
        }
        missing = {key: value for key, value in settings.items() if key not in kept}
        if missing:
            lines = [f"{key}={value}\n" for key, value in missing.items()]
            gap = "" if not there or there.endswith("\n") else "\n"
            path.touch(mode=0o600)
            path.write_text(there + gap + "".join(lines), encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"{path} cannot be used: {reason}.") from None
    return list(missing)


def follow(path: Path, name: str, value: str) -> bool:
    """Set what follows the code and is nobody's choice; says whether it changed.

    Raises:
        UsageError: the file cannot be read or written.
    """
    if add_missing(path, {name: value}):
        return True
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    said = [one.partition("=")[0].strip() == name for one in lines]
    changed = [f"{name}={value}\n" if of else one for of, one in zip(said, lines, strict=True)]
    if changed != lines:
        path.write_text("".join(changed), encoding="utf-8")
    return changed != lines


def read(path: Path) -> dict[str, str]:
    """Return the settings of a file, as Compose reads plain ones."""
    pairs = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines())
    return {key.strip(): value.strip() for key, sign, value in pairs if sign and key[:1] != "#"}
