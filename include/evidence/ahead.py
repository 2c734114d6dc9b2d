"""Files that are too large for the state database: written into a run's bundle ahead of its seal.

The folder has no signature yet and is no bundle; the seal takes in what its run names, after it has
read it again, and clears away everything else.
"""

from __future__ import annotations

from dataclasses import dataclass

from include.evidence.folder import StoreFolder
from include.evidence.names import check_file_names
from include.services.objectstore.base import ObjectMissing, ObjectReader, ObjectStore, ObjectWriter


@dataclass(frozen=True)
class FolderAhead:
    """The folder of a bundle that is yet to be sealed.

    Attributes:
        store: the evidence store.
        bundle: its folder, relative to the store.
    """

    store: ObjectStore
    bundle: str

    def writer(self, name: str) -> ObjectWriter:
        """Open a new file, in place of one that an earlier try left.

        Raises:
            UsageError: the name cannot be a file of a bundle.
        """
        check_file_names([name])
        return self.store.open_writer(f"{self.bundle}/{name}")

    def sha256(self, name: str) -> str | None:
        """Return the hex digest of a file as it is now; None when it is gone."""
        try:
            return StoreFolder(self.store, self.bundle).sha256(name)
        except ObjectMissing:
            return None

    def reader(self, name: str) -> ObjectReader:
        """Open a file; raises ObjectMissing."""
        return self.store.open_reader(f"{self.bundle}/{name}")
