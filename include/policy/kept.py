"""The pack that this process read last, for as long as its files say the same."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from include.policy.compiled import compiled_pack
from include.policy.document import DocumentError
from include.policy.files import digest, yaml_names
from include.policy.loader import SHIPPED, SectionsOf, load_pack
from include.policy.model import PackFile, PolicyPack

_SETTLED = 2_000_000_000  # ns; file systems stamp times with a tick of up to a second

_Stamp = tuple[int, int, int, int, int]


@dataclass
class _KeptPack:
    """A pack, and the stamps of its files when their bytes were last read.

    Attributes:
        pack: as it was loaded.
        stamps: device, inode, size and times of each file, and when its bytes were read.
    """

    pack: PolicyPack
    stamps: dict[str, tuple[_Stamp, int]] = field(default_factory=dict)

    def is_current(self) -> bool:
        """Return whether each file has the bytes that were loaded, and none came or went."""
        own = {file.path for file in self.pack.files if not file.shipped}
        try:
            return set(yaml_names(self.pack.folder)) == own and all(
                self._is_unchanged(file) for file in self.pack.files
            )
        except (OSError, DocumentError):
            return False  # the loader says what is wrong

    def _is_unchanged(self, file: PackFile) -> bool:
        """Compare stamps, and bytes where a change may have left the stamp as it was."""
        path = (SHIPPED if file.shipped else self.pack.folder) / file.path
        now, stamp = time.time_ns(), _stamp(path)
        before, read_at = self.stamps.get(file.path, (None, 0))
        if stamp == before and max(stamp[-2:]) < read_at - _SETTLED:
            return True
        if digest(path) != file.sha256:
            return False
        self.stamps[file.path] = (stamp, now)
        return True


_last: _KeptPack | None = None


def kept_pack(folder: Path, sections: SectionsOf, forms: Path | None = None) -> PolicyPack:
    """Read a policy pack as `load_pack` does, or return the last one if no file changed.

    A DAG file asks for the pack at each of its schedules and timeouts, and a run in one process at
    each of its steps. Reading it takes much longer than seeing that each file still has the bytes
    that were read, that none is gone and that none was added.

    Args:
        folder: the pack.
        sections: returns the files of single workflows, the same in each call.
        forms: folder of compiled packs, see `include.policy.compiled`; None to read the files, and
            to refuse a pack with any fault.

    Raises:
        PackError: as ``load_pack``, or with `forms` as ``read_pack``.
    """
    global _last
    folder = folder.absolute()
    last = _last
    if last is not None and last.pack.folder == folder and last.is_current():
        return last.pack
    pack = (
        load_pack(folder, sections()) if forms is None else compiled_pack(folder, sections, forms)
    )
    _last = _KeptPack(pack)
    return pack


def _stamp(path: Path) -> _Stamp:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
