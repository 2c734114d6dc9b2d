"""Which restore points go: grandfather, father, son, with a floor that nothing undercuts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from include.messages import Message, _
from include.policy.rules import Keep


@dataclass(frozen=True)
class Age:
    """What pruning needs to know of a restore point."""

    id: str
    taken_at: datetime
    expires_at: datetime
    locked_until: datetime | None = None


class Reason(StrEnum):
    """Why a restore point stays or goes."""

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
    """Whether one restore point goes, and why."""

    id: str
    remove: bool
    reason: Reason


def plan(
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


def held(verdict: Verdict) -> Verdict:
    """Return the verdict on a restore point whose legal hold was placed after the plan."""
    return replace(verdict, remove=False, reason=Reason.LEGAL_HOLD)


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
