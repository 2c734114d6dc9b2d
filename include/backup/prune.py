"""Plan which restore points are removed, and clear the left-overs of killed runs.

Restore points are kept by days, weeks and months, with a floor. A lock, a hold or an unknown origin
keeps a left-over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from include.backup import listing
from include.backup import manifest as manifests
from include.backup.listing import Ending, Work
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
class Age:
    """The moments of a restore point on which pruning depends."""

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
        """The reason in the words of a report."""
        return _WORDS[self]


_WORDS = {
    Reason.DAILY: _("daily"),
    Reason.WEEKLY: _("weekly"),
    Reason.MONTHLY: _("monthly"),
    Reason.FLOOR: _("one of the latest, always kept"),
    Reason.LOCKED: _("locked against deletion"),
    Reason.LEGAL_HOLD: _("legal hold"),
    Reason.EXPIRED: _("expired"),
    Reason.SUPERSEDED: _("superseded"),
}


@dataclass(frozen=True)
class Verdict:
    """The decision to keep or remove a restore point, with its reason."""

    id: str
    remove: bool
    reason: Reason


def plan_pruning(
    points: Sequence[Age],
    rules: Keep,
    held: Collection[str],
    now: datetime,
    zone: ZoneInfo,
) -> list[Verdict]:
    """Decide on every restore point of one database, newest first.

    The newest of each of the last ``daily`` days, ``weekly`` ISO weeks and ``monthly`` months that
    have one is kept until it expires. Kept whatever its age: the newest ``floor`` points, those
    under a legal hold, and those that Object Lock still holds.

    Args:
        points: all of them, in any order.
        rules: what the pack's backup.yaml keeps.
        held: ids under a legal hold.
        now: the moment of the decision.
        zone: in which days begin.
    """
    ordered = sorted(points, key=lambda point: (point.taken_at, point.id), reverse=True)
    floor = {point.id for point in ordered[: rules.floor]}
    kept_by_rule: dict[str, Reason] = {}
    for name, count, period in _periods(rules, zone):
        for point in _newest_of_each(ordered, period)[:count]:
            kept_by_rule.setdefault(point.id, name)

    def verdict(point: Age) -> Verdict:
        if point.id in held:
            return Verdict(point.id, remove=False, reason=Reason.LEGAL_HOLD)
        if point.locked_until and point.locked_until > now:
            return Verdict(point.id, remove=False, reason=Reason.LOCKED)
        if point.id in floor:
            return Verdict(point.id, remove=False, reason=Reason.FLOOR)
        if point.expires_at <= now:
            return Verdict(point.id, remove=True, reason=Reason.EXPIRED)
        if point.id in kept_by_rule:
            return Verdict(point.id, remove=False, reason=kept_by_rule[point.id])
        return Verdict(point.id, remove=True, reason=Reason.SUPERSEDED)

    return [verdict(point) for point in ordered]


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
    ordered: Sequence[Age], period: Callable[[datetime], tuple[int, ...]]
) -> list[Age]:
    newest: dict[tuple[int, ...], Age] = {}
    for point in ordered:
        newest.setdefault(period(point.taken_at), point)
    return list(newest.values())


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
        works = listing.unfinished_work(conn, database)
        begun_here = listing.unfinished_work(conn, database, store.description)
        published = listing.published_points(conn, database, store.description)
    uploads = store.clear_abandoned(folder(database))
    listed = list(folders(store, database))
    gone = begun_here.keys() - {each.id for each in listed}
    listing.end_work(state, database, gone, Ending.CLEARED, now)
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
        for each in listed:
            work = works.get(each.id)
            if work is None:
                is_point = each.has(SIGNATURE_NAME) or each.has(MANIFEST_NAME)
                if not is_point and each.id not in published:  # pruning reports lost points
                    prefixes.setdefault("unknown", []).append(_printable(each))
                continue
            ending = _ending(store, database, each, work, trusted)
            if ending is Ending.CLEARED:
                outcome = "uncompared"
                if has_complete_holds():
                    outcome = _clear(store, guard, each, now)
                prefixes.setdefault(outcome, []).append(each.prefix)
                if outcome != "folders":
                    continue
            listing.end_work(state, database, [each.id], ending, now)
    return Cleared(uploads, **{outcome: tuple(names) for outcome, names in prefixes.items()})


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
    """Remove a folder's objects unless they are kept; return the attribute of `Cleared`."""
    with guard.removing(listed.id) as is_held:
        if is_held:
            return "held"
        try:
            manifests.remove(store, listed.prefix, now, guard.confirm)
        except ObjectLocked:
            return "locked"
    return "folders"


def _printable(listed: PointFolder) -> str:
    """Return a folder's prefix, escaped if no run could have written such a name."""
    is_odd = key_problem(listed.prefix + MANIFEST_NAME)
    return ascii(listed.prefix) if is_odd else listed.prefix
