"""Whether what was queued is still wanted, asked just before it is sent.

Between queueing and sending lie minutes, or days where the mail server was down. Whoever took the
course meanwhile, left, or went on leave, is not told of it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from include.training import waivers
from include.training.desk import Desk
from include.training.keys import Told, read, read_weekly
from include.training.names import DEPARTMENT
from include.training.standing import reached_by
from include.training.weeks import week_of

T = TypeVar("T")


def still_wanted(desk: Desk, kind: str, keys: Sequence[str]) -> set[str]:
    """Return those of the notices that are still to be told.

    One whose key cannot be read is none of today's: an older release wrote it, or somebody's hand.

    Args:
        desk: of the run that sends.
        kind: of the notices.
        keys: theirs.
    """
    if kind != DEPARTMENT:
        return _standing(desk, _read(keys, read))
    now = week_of(desk.today)
    lines = {key: told for key, (week, told) in _read(keys, read_weekly).items() if week == now}
    named = {key: told for key, told in lines.items() if told is not None}
    return (lines.keys() - named.keys()) | _standing(desk, named)


def _read(keys: Sequence[str], reader: Callable[[str], T]) -> dict[str, T]:
    found = {}
    for key in keys:
        with suppress(ValueError):
            found[key] = reader(key)
    return found


def _standing(desk: Desk, about: dict[str, Told]) -> set[str]:
    """Those whose obligation stands on the same rung as when they were queued."""
    if not about:
        return set()
    people = sorted({one.person for one in about.values()})
    with desk.state.connect() as conn:
        waived = waivers.current(conn, desk.today)
    with desk.sources(people) as sources:
        standing = reached_by(desk, sources, people, waived)
    return {key for key, told in about.items() if told.key in standing}
