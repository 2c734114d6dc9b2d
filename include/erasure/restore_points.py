"""Restore points, which may hold records that were erased since."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class StoredRestorePoint:
    """A restore point in the off-site store.

    Attributes:
        id: of the restore point, or the key of an object that its signature does not fit.
        taken_at: moment of its snapshot; None if its manifest is refused, so that it is unknown.
        expires_at: from when on pruning may delete it; None likewise.
        held: whether a legal hold keeps it beyond that.
    """

    id: str
    taken_at: datetime | None = None
    expires_at: datetime | None = None
    held: bool = False
