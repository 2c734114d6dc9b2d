"""Read from sealed drills which databases and restore points were proved, and how recently.

A manifest describes a restore point. Only a drill compares its content with that.
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
    """The proof of a database by drills.

    Attributes:
        state: as it counts now.
        newest: the newest drill of this database that can be believed; None without one.
        refused: the newest bundle, where it cannot be believed, and why it cannot.
        points: the newest drill of each restore point, by its id.
    """

    state: State
    newest: Drilled | None = None
    refused: tuple[LedgerRow, Message] | None = None
    points: Mapping[str, Drilled] = field(default_factory=dict)

    @property
    def outcome(self) -> Outcome:
        """Return the outcome: attention without a recent drill; evidence that was changed fails."""
        return _OUTCOMES[self.state]


def held(steps: Mapping[tuple[str, str], StepRecord | StepSummary], database: str) -> bool:
    """Return whether a drill proved a restore of a database: it has every step, and none failed."""
    records = [steps.get((name, database)) for name in STEPS]
    return all(record is not None and record.outcome is not Outcome.FAIL for record in records)


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
    drills_of: dict[str, list[Drilled]] = {database: [] for database in databases}
    refused: dict[str, tuple[LedgerRow, Message]] = {}
    controls_now: list[Standing] = []
    has_answered = True
    try:
        pruned = shelf.pruned_up_to(conn)
        controls_now = standings(conn, shelf, controls, now, zone, pruned)
        for row, result in _read(conn, shelf, controls_now, now, pruned):
            for name, drills in drills_of.items():
                if isinstance(result, Message):
                    if not drills:
                        refused.setdefault(name, (row, result))
                elif (drilled := _drilled(row, result, name)) is not None:
                    drills.append(drilled)
    except StoreError:
        has_answered = False
    proofs = {}
    for name, drills in drills_of.items():
        newest = drills[0] if drills else None
        doubt = refused.get(name)
        if doubt is not None:
            state = State.REFUSED
        elif newest is None:
            state = State.NEVER if has_answered else State.UNREAD
        elif not newest.held:
            state = State.FAILED
        elif _is_late(newest, controls_now, now, zone):
            state = State.LATE
        else:
            shown_by = [
                each for each in controls_now if each.row and each.row.seq == newest.row.seq
            ]
            is_checked = all(each.is_checked for each in shown_by)
            state = State.HELD if is_checked else State.UNCHECKED
        points = {drill.point: drill for drill in reversed(drills) if drill.point}
        proofs[name] = Proof(state, newest, doubt, points)
    return proofs


def _read(
    conn: Connection, shelf: Shelf, controls: Sequence[Standing], now: datetime, pruned: int
) -> Iterator[tuple[LedgerRow, Result | Message]]:
    """Yield the newest bundles, the newest first, with their result or why they are refused."""
    doubted = {each.row.seq: each.problem for each in controls if each.row and each.problem}
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


def _is_late(drill: Drilled, controls: Sequence[Standing], now: datetime, zone: ZoneInfo) -> bool:
    """Return whether a drill is older than any of its controls asks.

    The newest bundle is as old as `standings` says. If newer drills left out this database, its own
    last drill is due after the cadence, without a grace period.
    """
    ages = [each.age for each in controls if each.row and each.row.seq == drill.row.seq]
    if ages:
        return any(age is not Age.IN_TIME for age in ages)
    cadences = [each.control.cadence for each in controls]
    return any(utc(now) > later(drill.finished_at, cadence, zone) for cadence in cadences)


def _drilled(row: LedgerRow, result: Result, database: str) -> Drilled | None:
    """Return the drill of a database in a bundle; None if the bundle is not about the database.

    A drill that ended with an error names no restore point itself; the choice before it does.
    """
    steps = {(step.step, step.part): step for step in result.steps}
    own = [step for name in reversed(STEPS) if (step := steps.get((name, database)))]
    failed = any(
        each.subject == database and each.severity is Outcome.FAIL for each in result.findings
    )
    if not own and not failed:  # with a finding alone, the drill failed before its first step
        return None
    ids = (PointResult.model_validate(step.data).restore_point for step in own)
    point = next(filter(None, ids), "")
    return Drilled(row, point, held(steps, database), result.finished_at)
