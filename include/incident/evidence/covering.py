"""Which rows of a log an extract has to hold: at least all those that any count counted.

Later counts say again what is affected, and somebody may leave out what was said before; figures
never get less, so an extract that knew the newest words only could lack rows that were counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from include.incident.selection import Selection

BEFORE = timedelta(days=183)  # Cybersecurity Law (2026-01-01) 23(3): logs of six months at least


@dataclass(frozen=True)
class Wanted:
    """Rows of a log.

    Attributes:
        since: from then on; None where nothing limits it.
        until: before then.
        whose: accounts or partners, sorted; everybody's where it is empty.
    """

    since: datetime | None
    until: datetime | None
    whose: tuple[str, ...]


def accesses(said: Sequence[Selection], begun: datetime) -> Wanted:
    """Rows of the log of accesses.

    Whoever names accounts and no time means all time, and is counted by that; who names no account
    gets everybody's rows, of half a year before the leak and all since.

    Args:
        said: what is affected, by every count.
        begun: when the leak began, or when the company became aware of it.
    """
    windows = [(one.since or (None if one.accounts else begun - BEFORE), one.until) for one in said]
    everybody = any(not one.accounts for one in said)
    names = {name for one in said for name in one.accounts}
    return _wanted(windows, set() if everybody else names)


def shares(said: Sequence[Selection]) -> Wanted | None:
    """Rows of the log of sharing: all that were given to the partners; None where none is named.

    Args:
        said: what is affected, by every count.
    """
    naming = [one for one in said if one.partner is not None]
    if not naming:
        return None
    names = {one.partner for one in naming if one.partner is not None}
    return _wanted([(one.since, one.until) for one in naming], names)


def _wanted(windows: Sequence[tuple[datetime | None, datetime | None]], whose: set[str]) -> Wanted:
    sinces = [since for since, _until in windows if since is not None]
    untils = [until for _since, until in windows if until is not None]
    return Wanted(
        since=min(sinces) if len(sinces) == len(windows) else None,
        until=max(untils) if len(untils) == len(windows) else None,
        whose=tuple(sorted(whose)),
    )
