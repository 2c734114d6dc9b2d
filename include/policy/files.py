"""The YAML files of a pack's folder, and the digests of their bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from include.policy.document import read_bytes

DATAMAP, QUALITY = "datamap", "quality"
_YAML = (".yaml", ".yml")


def yaml_names(folder: Path) -> Iterator[str]:
    """Yield what a pack has under a name of YAML, wherever the loader would look."""
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = at[len(str(folder)) :].lstrip(os.sep).replace(os.sep, "/")
        prefix = f"{inside}/" if inside else ""
        yield from (prefix + name for name in (*files, *folders) if _is_yaml(name))
    for each in (DATAMAP, QUALITY):  # may be links, into which walking does not go
        if (folder / each).is_symlink():
            paths = (folder / each).iterdir()
            yield from (f"{each}/{path.name}" for path in paths if _is_yaml(path.name))


def digest(path: Path) -> str:
    """Return the SHA-256 of a file of a pack, in hex.

    Raises:
        DocumentError: it cannot be read, is no plain file or too large.
    """
    return hashlib.sha256(read_bytes(path, path.name)).hexdigest()


def _is_yaml(name: str) -> bool:
    return name.lower().endswith(_YAML) and not name.startswith(".")
