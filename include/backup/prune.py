"""Plan which restore points are removed, and delete the leftovers of killed runs.

Pruning keeps one restore point for each of the latest days, weeks and months, and always keeps a
minimum number. A leftover folder is kept if it has a lock or a legal hold, or if no run recorded
an operation on the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from include.backup import manifest as manifests
from include.backup import operations
from include.backup.operations import Ending, Operation
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
from include.messages import Message, _
from include.policy.rules import Keep
from include.services.errors import ParcelSealError
from include.services.objectstore.base import ObjectLocked, ObjectStore
from include.services.objectstore.keys import key_problem


@dataclass(frozen=True)
class RestorePointTimes:
    """The times of a restore point that decide whether it is pruned.

    Attributes:
        id: id of the restore point.
        taken_at: time at which the backup was taken.
        expires_at: time from which the restore point may be pruned.
        locked_until: end of the dump's lock, which may have passed; None if the dump has no lock.
    """

    id: str
    taken_at: datetime
    expires_at: datetime
    locked_until: datetime | None = None


class Reason(StrEnum):
    """The reason why a restore point is kept or removed."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"
    FLOOR = "floor"
    LOCKED = "locked"
    LEGAL_HOLD = "legal hold"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"

    @property
    def message(self) -> Message:
        """Return the reason in words for reports."""
        return _WORDS[self]


_WORDS = {
    Reason.DAILY: _("daily"),
    Reason.WEEKLY: _("weekly"),
    Reason.MONTHLY: _("monthly"),
    Reason.FLOOR: _("among the newest restore points, which are always kept"),
    Reason.LOCKED: _("its lock period has not ended"),
    Reason.LEGAL_HOLD: _("legal hold"),
    Reason.EXPIRED: _("expired"),
    Reason.SUPERSEDED: _("replaced by newer restore points"),
}


@dataclass(frozen=True)
class PruningDecision:
    """The decision to keep or remove a restore point.

    Attributes:
        id: id of the restore point.
        remove: whether the restore point is removed.
        reason: reason for the decision.
    """

    id: str
    remove: bool
    reason: Reason


def plan_pruning(
    points: Sequence[RestorePointTimes],
    rules: Keep,
    held: Collection[str],
    now: datetime,
    zone: ZoneInfo,
) -> list[PruningDecision]:
    """Decide which restore points of a database to keep, and return the decisions, newest first.

    For each of the last ``daily`` days that have restore points, the newest restore point of the
    day is kept until it expires. The same rule applies to the last ``weekly`` ISO weeks and the
    last ``monthly`` months. Some restore points are kept in any case: the newest ``floor`` restore
    points, those under a legal hold, and those with a lock.

    Args:
        points: all restore points, in any order.
        rules: settings of backup.yaml: ``daily``, ``weekly``, ``monthly`` and ``floor``.
        held: ids of restore points under a legal hold.
        now: time of the decision.
        zone: timezone in which days begin.
    """
    ordered = sorted(points, key=lambda point: (point.taken_at, point.id), reverse=True)
    floor = {point.id for point in ordered[: rules.floor]}
    kept_by_rule: dict[str, Reason] = {}
    for name, count, period in _periods(rules, zone):
        for point in _newest_of_each(ordered, period)[:count]:
            kept_by_rule.setdefault(point.id, name)

    def decide(point: RestorePointTimes) -> PruningDecision:
        if point.id in held:
            return PruningDecision(point.id, remove=False, reason=Reason.LEGAL_HOLD)
        if point.locked_until and point.locked_until > now:
            return PruningDecision(point.id, remove=False, reason=Reason.LOCKED)
        if point.id in floor:
            return PruningDecision(point.id, remove=False, reason=Reason.FLOOR)
        if point.expires_at <= now:
            return PruningDecision(point.id, remove=True, reason=Reason.EXPIRED)
        if point.id in kept_by_rule:
            return PruningDecision(point.id, remove=False, reason=kept_by_rule[point.id])
        return PruningDecision(point.id, remove=True, reason=Reason.SUPERSEDED)

    return [decide(point) for point in ordered]


def _periods(
    rules: Keep, zone: ZoneInfo
) -> list[tuple[Reason, int, Callable[[datetime], tuple[int, ...]]]]:
    def day(moment: datetime) -> tuple[int, ...]:
        local = moment.astimezone(zone)
        return local.year, local.month, local.day

    def week(moment: datetime) -> tuple[int, ...]:
        return tuple(moment.astimezone(zone).isocalendar()[:2])

    def month(moment: datetime) -> tuple[int, ...]:
        return day(moment)[:2]

    return [
        (Reason.DAILY, rules.daily, day),
        (Reason.WEEKLY, rules.weekly, week),
        (Reason.MONTHLY, rules.monthly, month),
    ]


def _newest_of_each(
    ordered: Sequence[RestorePointTimes], period: Callable[[datetime], tuple[int, ...]]
) -> list[RestorePointTimes]:
    newest: dict[tuple[int, ...], RestorePointTimes] = {}
    for point in ordered:
        newest.setdefault(period(point.taken_at), point)
    return list(newest.values())


@dataclass(frozen=True)
class Cleared:
    """The result of deleting the leftovers of killed runs.

    Attributes:
        uploads: number of deleted unfinished uploads.
        folders: prefixes of the deleted folders.
        locked: prefixes of folders that were kept because the store locks them.
        held: prefixes of folders that were kept because of a legal hold.
        unknown: prefixes of folders that were kept because no run recorded an operation on them.
        uncompared: prefixes of folders that were kept because the register of legal holds is
            incomplete or cannot be compared with the evidence.
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
    """Delete the leftovers of killed runs for one database.

    The caller must hold the lock for backups of the database.

    Unfinished uploads are deleted. A folder is deleted if this installation recorded an unfinished
    operation on it, except if a legal hold or a lock protects it. A folder with a signature is a
    published restore point. It is deleted only if its removal had begun and the restore point is no
    longer valid.

    Args:
        store: off-site store.
        state: state database, with the ledger of operations on restore points and the legal holds.
        database: name of the database in the data map.
        trusted: public keys (PEM) whose signatures are accepted.
        now: current time. A lock whose end is later protects a folder.
        require_holds: function that raises ParcelSealError if the register of legal holds is not
            complete. It is called at most once, before the first folder is deleted. If it raises an
            error, no folder is deleted.

    Raises:
        StoreError, ServiceError: the store or the state database failed.
    """
    with state.connect() as conn:
        unfinished = operations.unfinished_operations(conn, database)
        begun_here = operations.unfinished_operations(conn, database, store.description)
        published = operations.published_points(conn, database, store.description)
    uploads = store.clear_abandoned(folder(database))
    listed = list(folders(store, database))
    gone = begun_here.keys() - {point_folder.id for point_folder in listed}
    operations.end_operations(state, database, gone, Ending.CLEARED, now)
    prefixes: dict[str, list[str]] = {"folders": []}  # by attribute of the result

    @cache
    def has_complete_holds() -> bool:
        try:
            if require_holds:
                require_holds()
        except ParcelSealError:
            return False
        return True

    with RestorePointGuard(state, database) as guard:
        for point_folder in listed:
            begun = unfinished.get(point_folder.id)
            if begun is None:
                is_point = point_folder.has(SIGNATURE_NAME) or point_folder.has(MANIFEST_NAME)
                if not is_point and point_folder.id not in published:  # pruning reports lost points
                    prefixes.setdefault("unknown", []).append(_printable(point_folder))
                continue
            ending = _ending(store, database, point_folder, begun, trusted)
            if ending is Ending.CLEARED:
                outcome = "uncompared"
                if has_complete_holds():
                    outcome = _clear(store, guard, point_folder, now)
                prefixes.setdefault(outcome, []).append(point_folder.prefix)
                if outcome != "folders":
                    continue
            operations.end_operations(state, database, [point_folder.id], ending, now)
    return Cleared(uploads, **{outcome: tuple(names) for outcome, names in prefixes.items()})


def _ending(
    store: ObjectStore,
    database: str,
    listed: PointFolder,
    begun: Collection[Operation],
    trusted: Sequence[bytes],
) -> Ending:
    """Return the ending to record for the unfinished operations of a killed run on a folder.

    Args:
        store: off-site store.
        database: name of the database in the data map.
        listed: folder with the versions of its objects.
        begun: unfinished operations on the folder, as the ledger records them.
        trusted: public keys (PEM) whose signatures are accepted.

    Returns:
        `Ending.CLEARED` if the folder has to be deleted. Any other ending means that the folder is
        kept.
    """
    if not listed.has(SIGNATURE_NAME):
        return Ending.CLEARED
    if Operation.REMOVE not in begun:
        return Ending.PUBLISHED  # the signature is written last
    try:
        manifests.load(store, database, listed.id, trusted)
    except (ManifestRefused, NoRestorePoint):
        return Ending.CLEARED
    return Ending.KEPT


def _clear(store: ObjectStore, guard: RestorePointGuard, listed: PointFolder, now: datetime) -> str:
    """Delete the objects of a folder, except if a lock or legal hold protects them.

    Args:
        store: off-site store.
        guard: session of the state database that blocks new legal holds while a restore point is
            removed.
        listed: folder with the versions of its objects.
        now: current time. A lock whose end is later protects the objects.

    Returns:
        Name of the attribute of `Cleared` to which the caller has to add the folder.
    """
    with guard.removing(listed.id) as is_held:
        if is_held:
            return "held"
        try:
            manifests.remove(store, listed.prefix, now, guard.confirm)
        except ObjectLocked:
            return "locked"
    return "folders"


def _printable(listed: PointFolder) -> str:
    """Return the prefix of a folder as display text.

    If the prefix cannot be the beginning of a valid object key, its special characters are escaped,
    so that it is safe to print.

    Args:
        listed: folder with its prefix.
    """
    is_odd = key_problem(listed.prefix + MANIFEST_NAME)
    return ascii(listed.prefix) if is_odd else listed.prefix
