"""The pack that this process read last, for as long as its files say the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from include.policy.document import DocumentError, read_bytes
from include.policy.loader import DATAMAP, QUALITY, SHIPPED, Sections, load_pack
from include.policy.model import PolicyPack

_YAML = (".yaml", ".yml")
_last: PolicyPack | None = None


def kept_pack(folder: Path, sections: Sections) -> PolicyPack:
    """Read a policy pack as `load_pack` does, or return the last one if no file changed.

    A DAG file asks for the pack at each of its schedules and timeouts, and a run in one process at
    each of its steps. Reading it takes forty times as long as seeing that each file still has the
    bytes that were read, that none is gone and that none was added.

    Args:
        folder: the pack.
        sections: files of single workflows, the same in each call.

    Raises:
        PackError: as ``load_pack``.
    """
    global _last
    folder = folder.absolute()
    last = _last
    if last is not None and last.folder == folder and _unchanged(last):
        return last
    _last = load_pack(folder, sections)
    return _last


def _unchanged(pack: PolicyPack) -> bool:
    own = {one.path: one.sha256 for one in pack.files if not one.shipped}
    try:
        return set(_names(pack.folder)) == set(own) and all(
            _digest((SHIPPED if one.shipped else pack.folder) / one.path) == one.sha256
            for one in pack.files
        )
    except (OSError, DocumentError):
        return False  # the loader says what is wrong


def _names(folder: Path) -> Iterator[str]:
    """What a pack has under a name of YAML, wherever the loader would look."""
    for at, folders, files in os.walk(folder):
        folders[:] = [one for one in folders if not one.startswith(".")]
        yield from (_name(Path(at) / one, folder) for one in (*files, *folders) if _is_yaml(one))
    for each in (DATAMAP, QUALITY):  # may be links, into which walking does not go
        if (folder / each).is_symlink():
            yield from (
                _name(one, folder) for one in (folder / each).iterdir() if _is_yaml(one.name)
            )


def _is_yaml(name: str) -> bool:
    return name.lower().endswith(_YAML) and not name.startswith(".")


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _digest(path: Path) -> str:
    return hashlib.sha256(read_bytes(path, path.name)).hexdigest()
