"""List the YAML files in a policy pack's folder, and calculate the digest of a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from include.policy.document import read_bytes

DATAMAP, QUALITY = "datamap", "quality"
_YAML = (".yaml", ".yml")


def yaml_names(folder: Path) -> Iterator[str]:
    """Yield the relative paths of all YAML files in a pack's folder and its subfolders.

    The paths of folders whose names end in ``.yaml`` or ``.yml`` are yielded as well. Hidden files
    and folders are skipped.
    """
    for at, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        subfolder = at[len(str(folder)) :].lstrip(os.sep).replace(os.sep, "/")
        prefix = f"{subfolder}/" if subfolder else ""
        yield from (prefix + name for name in (*files, *folders) if _is_yaml(name))
    for name in (DATAMAP, QUALITY):  # os.walk does not follow links
        if (folder / name).is_symlink():
            paths = (folder / name).iterdir()
            yield from (f"{name}/{path.name}" for path in paths if _is_yaml(path.name))


def file_digest(path: Path) -> str:
    """Return the SHA-256 digest of a file of a pack, in hexadecimal.

    Raises:
        DocumentError: the path cannot be read, is not a regular file or is larger than 5 MiB.
    """
    return hashlib.sha256(read_bytes(path, path.name)).hexdigest()


def _is_yaml(name: str) -> bool:
    return name.lower().endswith(_YAML) and not name.startswith(".")
