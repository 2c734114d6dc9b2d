"""Clear the left-overs of killed runs, unless a lock, a hold or an unknown origin forbids it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from sqlalchemy import Engine

from include.backup import begun
from include.backup import manifest as manifests
from include.backup.begun import Ending, Work
from include.backup.point_folder import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    ManifestRefused,
    NoRestorePoint,
    PointFolder,
    folder,
    folders,
)
from include.holds.records import RestorePointGuard
from include.services.errors import ParcelSealError
from include.services.objectstore.base import ObjectLocked, ObjectStore
from include.services.objectstore.keys import key_problem

CLEARED, LOCKED, HELD, UNKNOWN = "cleared", "locked", "held", "unknown"
UNCOMPARED = "uncompared"


@dataclass(frozen=True)
class Cleared:
    """The left-overs of killed runs, by outcome.

    Attributes:
        uploads: unfinished uploads that were removed.
        folders: prefixes of the folders that were removed.
        locked: prefixes of folders that the store keeps until a lock ends.
        held: prefixes of folders that a legal hold keeps.
        unknown: prefixes of folders without an entry in the ledger of begun work.
        uncompared: prefixes of folders that are kept because the hold register lacks holds that
            were sealed, or cannot be compared with the evidence.
    """

    uploads: int
    folders: tuple[str, ...]
    locked: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    uncompared: tuple[str, ...] = ()


def clear_unfinished(
    store: ObjectStore,
    state: Engine,
    database: str,
    trusted: Sequence[bytes],
    now: datetime,
    require_holds: Callable[[], None] | None = None,
) -> Cleared:
    """Complete the work of killed runs; call it under the database's lock.

    Removes unfinished uploads, and folders on which work of this installation has begun and not
    ended, unless a legal hold or a lock keeps them. A folder with a signature was published. It is
    cleared only if its removal had begun and it is no longer a valid restore point.

    Args:
        store: the off-site store.
        state: the state database, with the ledger of begun folders and the holds.
        database: name of the database in the data map.
        trusted: public keys (PEM) whose signatures count.
        now: the moment at which locks are compared.
        require_holds: raises ParcelSealError if the hold register is not complete; called at most
            once, before the first folder is removed. No folder is removed then.

    Raises:
        StoreError, ServiceError: store or state database failed.
    """
    with state.connect() as conn:
        works = begun.unfinished(conn, database)
        begun_here = begun.unfinished(conn, database, store.description)
        published = begun.published(conn, database, store.description)
    uploads = store.clear_abandoned(folder(database))
    listed = list(folders(store, database))
    gone = begun_here.keys() - {each.id for each in listed}
    begun.end(state, database, gone, Ending.CLEARED, now)
    outcomes = (CLEARED, LOCKED, HELD, UNKNOWN, UNCOMPARED)
    prefixes: dict[str, list[str]] = {name: [] for name in outcomes}

    @cache
    def has_complete_holds() -> bool:
        try:
            if require_holds:
                require_holds()
        except ParcelSealError:
            return False
        return True

    with RestorePointGuard(state, database) as guard:
        for each in listed:
            work = works.get(each.id)
            if work is None:
                is_point = each.has(SIGNATURE_NAME) or each.has(MANIFEST_NAME)
                if not is_point and each.id not in published:  # pruning reports lost points
                    prefixes[UNKNOWN].append(_printable(each))
                continue
            ending = _ending(store, database, each, work, trusted)
            if ending is Ending.CLEARED:
                outcome = UNCOMPARED
                if has_complete_holds():
                    outcome = _clear(store, guard, each, now)
                prefixes[outcome].append(each.prefix)
                if outcome != CLEARED:
                    continue
            begun.end(state, database, [each.id], ending, now)
    return Cleared(
        uploads,
        tuple(prefixes[CLEARED]),
        tuple(prefixes[LOCKED]),
        tuple(prefixes[HELD]),
        tuple(prefixes[UNKNOWN]),
        tuple(prefixes[UNCOMPARED]),
    )


def _ending(
    store: ObjectStore,
    database: str,
    listed: PointFolder,
    work: Collection[Work],
    trusted: Sequence[bytes],
) -> Ending:
    """Return how unfinished work on a folder ends: the folder is kept, or is cleared."""
    if not listed.has(SIGNATURE_NAME):
        return Ending.CLEARED
    if Work.REMOVE not in work:
        return Ending.PUBLISHED  # the signature is written last
    try:
        manifests.load(store, database, listed.id, trusted)
    except (ManifestRefused, NoRestorePoint):
        return Ending.CLEARED
    return Ending.KEPT


def _clear(store: ObjectStore, guard: RestorePointGuard, listed: PointFolder, now: datetime) -> str:
    """Remove a folder's objects; return CLEARED, or HELD or LOCKED where it is kept."""
    with guard.removing(listed.id) as is_held:
        if is_held:
            return HELD
        try:
            manifests.remove_objects(store, listed.prefix, now, guard.confirm)
        except ObjectLocked:
            return LOCKED
    return CLEARED


def _printable(listed: PointFolder) -> str:
    """Return a folder's prefix, escaped if no run could have written such a name."""
    is_odd = key_problem(listed.prefix + MANIFEST_NAME)
    return ascii(listed.prefix) if is_odd else listed.prefix
