"""Whether what was queued is still wanted, asked just before it is sent.

Between queueing and sending lie minutes, or days where the mail server was down. Whoever took the
course meanwhile, left, or went on leave, is not told of it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from include.training import waivers
from include.training.keys import Told, read, read_weekly
from include.training.names import DEPARTMENT
from include.training.rules import TrainingRules
from include.training.sources import open_sources
from include.training.standing import reached_by
from include.training.weeks import week_of
from include.workflow.run_context import RunContext

T = TypeVar("T")


def still_due(run: RunContext[TrainingRules], keys: Sequence[str], kind: str) -> set[str]:
    """Return the keys of notifications that are still due.

    A key that cannot be read is not due: an older release or a person wrote it.

    Args:
        run: the run that sends.
        keys: of the notifications.
        kind: of the notifications.
    """
    if kind != DEPARTMENT:
        return _standing(run, _read(keys, read))
    now = week_of(run.today)
    lines = {key: told for key, (week, told) in _read(keys, read_weekly).items() if week == now}
    named = {key: told for key, told in lines.items() if told is not None}
    return (lines.keys() - named.keys()) | _standing(run, named)


def _read(keys: Sequence[str], reader: Callable[[str], T]) -> dict[str, T]:
    found = {}
    for key in keys:
        with suppress(ValueError):
            found[key] = reader(key)
    return found


def _standing(run: RunContext[TrainingRules], about: dict[str, Told]) -> set[str]:
    """Those whose obligation stands on the same rung as when they were queued."""
    if not about:
        return set()
    people = sorted({one.person for one in about.values()})
    with run.state.connect() as conn:
        waived = waivers.current(conn, run.today)
    with open_sources(run, people) as sources:
        standing = reached_by(run, sources, people, waived)
    return {key for key, told in about.items() if told.key in standing}
