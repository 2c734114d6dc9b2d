"""Read from sealed drills which databases and restore points were proved, and how recently.

A manifest says what a restore point should be. Whether its content is that, only a drill has seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from include.evidence import index
from include.evidence.check import Refused
from include.evidence.ledger import LedgerRow
from include.evidence.model import Outcome, Result, StepRecord, StepSummary
from include.evidence.shelf import Shelf
from include.evidence.standing import SEALED_AHEAD, Age, Standing, is_ahead, standings
from include.evidence.step_findings import StepResult
from include.messages import Message
from include.policy.period import later, utc
from include.policy.rules import Control
from include.services.objectstore.base import StoreError

WORKFLOW = "drill_restore"
STEPS = ("choose", "refusals", "drill")  # all of them, before a restore point is proved
LOOKED_AT = 20  # newest bundles of drills; each is read once, the shelf remembers it


class PointResult(StepResult):
    """The result of each step of a drill; it names the restore point."""

    restore_point: str = ""


class State(StrEnum):
    """The drills of a database."""

    HELD = "held"
    FAILED = "failed"
    LATE = "late"  # it held, and is older than the cadence of its control
    UNCHECKED = "unchecked"  # it held, and its bundle is too large to be checked meanwhile
    NEVER = "never"  # none of the newest bundles says anything of the database
    REFUSED = "refused"  # the newest bundle cannot be believed
    UNREAD = "unread"  # the evidence store does not answer


_OUTCOMES = {
    State.HELD: Outcome.PASS,
    State.FAILED: Outcome.FAIL,
    State.LATE: Outcome.ATTENTION,
    State.UNCHECKED: Outcome.ATTENTION,
    State.NEVER: Outcome.ATTENTION,
    State.REFUSED: Outcome.FAIL,
    State.UNREAD: Outcome.ATTENTION,
}


@dataclass(frozen=True)
class Drilled:
    """A database in the bundle of a drill.

    Attributes:
        row: of the bundle.
        point: id of the restore point; empty where the drill came to none.
        held: whether it was restored, is the original, and damage to it would be refused.
        finished_at: when the drill ended, as the bundle's signature states.
    """

    row: LedgerRow
    point: str
    held: bool
    finished_at: datetime


@dataclass(frozen=True)
class Proof:
    """What drills prove of one database.

    Attributes:
        state: as it counts now.
        newest: the newest word on this database that can be believed; None where there is none.
        refused: the newest bundle, where it cannot be believed, and why it cannot.
        points: the newest word on each restore point, by its id.
    """

    state: State
    newest: Drilled | None = None
    refused: tuple[LedgerRow, Message] | None = None
    points: Mapping[str, Drilled] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """At best attention, where no drill is young enough; evidence that was changed fails."""
        return _OUTCOMES[self.state]


def held(steps: Mapping[tuple[str, str], StepRecord | StepSummary], database: str) -> bool:
    """Say whether a drill proved a restore of a database: every step is there, and none failed."""
    of = [steps.get((name, database)) for name in STEPS]
    return all(one is not None and one.outcome is not Outcome.FAIL for one in of)


def proofs(
    conn: Connection,
    shelf: Shelf,
    databases: Collection[str],
    controls: Sequence[Control],
    now: datetime,
    zone: ZoneInfo,
) -> dict[str, Proof]:
    """Return what the newest sealed drills prove, by database.

    Args:
        conn: the state database.
        shelf: reads the bundles.
        databases: of the data map.
        controls: of the policy pack, those that drills are evidence for; their cadence counts.
        now: the moment.
        zone: of the pack, by whose calendar a cadence of days or months counts.
    """
    found: dict[str, list[Drilled]] = {one: [] for one in databases}
    refused: dict[str, tuple[LedgerRow, Message]] = {}
    stand: list[Standing] = []
    answered = True
    try:
        pruned = shelf.pruned_up_to(conn)
        stand = standings(conn, shelf, controls, now, zone, pruned)
        for row, said in _read(conn, shelf, stand, now, pruned):
            for name, drills in found.items():
                if isinstance(said, Message):
                    if not drills:
                        refused.setdefault(name, (row, said))
                elif (drilled := _drilled(row, said, name)) is not None:
                    drills.append(drilled)
    except StoreError:
        answered = False
    made = {}
    for name, drills in found.items():
        newest = drills[0] if drills else None
        doubt = refused.get(name)
        if doubt is not None:
            state = State.REFUSED
        elif newest is None:
            state = State.NEVER if answered else State.UNREAD
        elif not newest.held:
            state = State.FAILED
        elif _is_late(newest, stand, now, zone):
            state = State.LATE
        else:
            state = State.HELD if _is_checked(newest.row, stand) else State.UNCHECKED
        points = {one.point: one for one in reversed(drills) if one.point}
        made[name] = Proof(state, newest, doubt, points)
    return made


def _read(
    conn: Connection, shelf: Shelf, stand: Sequence[Standing], now: datetime, pruned: int
) -> Iterator[tuple[LedgerRow, Result | Message]]:
    """What the newest bundles say, the newest first, or why one cannot be believed."""
    doubted = {one.row.seq: one.problem for one in stand if one.row and one.problem}
    for row in index.newest_of(conn, {WORKFLOW}, LOOKED_AT).get(WORKFLOW, []):
        if row.seq <= pruned:
            return
        if row.seq in doubted:
            yield row, doubted[row.seq]
        else:
            try:
                result = shelf.result(row)
            except Refused as refusal:
                yield row, refusal.message
            else:
                yield row, SEALED_AHEAD if is_ahead(row, result, now) else result


def _is_checked(row: LedgerRow, stand: Sequence[Standing]) -> bool:
    return all(one.is_checked for one in stand if one.row and one.row.seq == row.seq)


def _is_late(drill: Drilled, stand: Sequence[Standing], now: datetime, zone: ZoneInfo) -> bool:
    """Return whether a drill is older than any of its controls asks.

    The newest bundle is as old as `standings` says. If newer drills left out this database, its own
    last drill is due after the cadence, without a grace period.
    """
    ages = [one.age for one in stand if one.row and one.row.seq == drill.row.seq]
    if ages:
        return any(one is not Age.IN_TIME for one in ages)
    return any(utc(now) > later(drill.finished_at, one.control.cadence, zone) for one in stand)


def _drilled(row: LedgerRow, result: Result, database: str) -> Drilled | None:
    """What a bundle says of a database: None where it did not look at it.

    A drill that ended with an error names no restore point itself; the choice before it does.
    """
    steps = {(one.step, one.part): one for one in result.steps}
    of = [step for name in reversed(STEPS) if (step := steps.get((name, database)))]
    failed = any(
        one.subject == database and one.severity is Outcome.FAIL for one in result.findings
    )
    if not of and not failed:  # with a finding alone, it was to be drilled and nothing came of it
        return None
    named = (PointResult.model_validate(step.data).restore_point for step in of)
    point = next((one for one in named if one), "")
    return Drilled(row, point, held(steps, database), result.finished_at)
