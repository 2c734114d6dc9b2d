"""Cache the policy pack that this process read last, until one of its files changes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from include.policy.compiled import load_compiled_pack
from include.policy.document import DocumentError
from include.policy.files import file_digest, yaml_names
from include.policy.loader import SHIPPED, SectionsOf, load_pack
from include.policy.model import PackFile, PolicyPack

_SETTLED = 2_000_000_000  # ns; file times have a resolution of up to a second on some file systems

_Stamp = tuple[int, int, int, int, int]


@dataclass
class _CachedPack:
    """A loaded pack, and the file stamps that show whether its files have changed since.

    Attributes:
        pack: the loaded pack.
        stamps: path of a file -> its stamp (device, inode, size and times), and the time at which
            its bytes were read, in nanoseconds.
    """

    pack: PolicyPack
    stamps: dict[str, tuple[_Stamp, int]] = field(default_factory=dict)

    def is_current(self) -> bool:
        """Return whether the pack's folder has exactly the loaded files, with the same content."""
        own_files = {file.path for file in self.pack.files if not file.shipped}
        try:
            return set(yaml_names(self.pack.folder)) == own_files and all(
                self._is_unchanged(file) for file in self.pack.files
            )
        except (OSError, DocumentError):
            return False  # loading raises an error that lists the problems

    def _is_unchanged(self, file: PackFile) -> bool:
        """Return whether a file still has the content that was loaded.

        The content is read only in two cases: the stamp of the file changed, or the last change was
        so recent that a further change could leave the stamp as it is.
        """
        path = (SHIPPED if file.shipped else self.pack.folder) / file.path
        now, stamp = time.time_ns(), _stamp(path)
        before, read_at = self.stamps.get(file.path, (None, 0))
        if stamp == before and max(stamp[-2:]) < read_at - _SETTLED:
            return True
        if file_digest(path) != file.sha256:
            return False
        self.stamps[file.path] = (stamp, now)
        return True


_last: _CachedPack | None = None


def cached_pack(folder: Path, sections: SectionsOf, cache_folder: Path | None = None) -> PolicyPack:
    """Return the cached policy pack if none of its files changed; otherwise read the pack.

    A DAG file reads the pack for each of its schedules and timeouts, and a local run reads it in
    each step. Checking whether files changed is much faster than reading the pack.

    Args:
        folder: folder of the pack.
        sections: function that returns the declarations of those pack files that only a single
            workflow reads. It must be the same in each call.
        cache_folder: folder of compiled packs, see `include.policy.compiled`. If None, the YAML
            files are read directly, and a pack with any fault is refused.

    Raises:
        PackError: the pack has problems, as in ``load_pack``, or as in ``read_pack`` if
            `cache_folder` is given.
    """
    global _last
    folder = folder.absolute()
    last = _last
    if last is not None and last.pack.folder == folder and last.is_current():
        return last.pack
    pack = (
        load_pack(folder, sections())
        if cache_folder is None
        else load_compiled_pack(folder, sections, cache_folder)
    )
    _last = _CachedPack(pack)
    return pack


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
