"""The encrypted object of a restore point, as its manifest records it."""

from __future__ import annotations

from include.encryption.records import Frozen


class ObjectRecord(Frozen):
    """The encrypted dump in the store."""

    key: str
    size: int
    sha256: str
    checksum: str
    version_id: str = ""
