"""How each control of the policy pack stands: what its newest evidence says, and how old that is.

Evidence that is missing, altered or too old never counts as held, whatever was sealed before.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from include.evidence import index
from include.evidence.check import Refused
from include.evidence.ledger import LedgerRow
from include.evidence.model import ControlState, ControlStatus, Finding, Outcome
from include.evidence.shelf import Shelf
from include.messages import Message, _
from include.policy.rules import Control
from include.policy.spans import later, utc

AHEAD = timedelta(minutes=5)  # by which the clocks of two machines may differ
TREND = 14  # newest outcomes that are shown
_LOOKED_AT = 20  # newest bundles of a workflow among which its controls' evidence is looked for


class Age(StrEnum):
    """The age of a control's newest evidence against the cadence that the pack asks for."""

    IN_TIME = "in_time"
    LATE = "late"  # older than one cadence
    STALE = "stale"  # older than two
    NEVER = "never"  # there is none


@dataclass(frozen=True)
class Standing:
    """One control as it stands.

    Attributes:
        control: of the policy pack.
        row: ledger row of its newest evidence; None where there is none, or no file is kept of it.
        status: what that bundle says of the control; None where it does not hold or says nothing.
        problem: why the bundle cannot be believed; None when it can.
        due_at: by when the next evidence is due, in UTC; None where there is none.
        age: against the cadence.
        trend: outcomes of the newest bundles that are evidence for it, the oldest first.
        findings: of the newest bundle, those of the control's clause.
    """

    control: Control
    row: LedgerRow | None
    status: ControlStatus | None
    problem: Message | None
    due_at: datetime | None
    age: Age
    trend: tuple[Outcome, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def outcome(self) -> Outcome:
        """Whether the control is shown to hold now; see `Outcome`.

        A control that its newest run did not show, or whose evidence is late, asks to be looked at.
        Evidence that is missing, stale or not as it was sealed shows nothing.
        """
        if self.status is None or self.age in (Age.STALE, Age.NEVER):
            return Outcome.FAIL
        if self.status.state is ControlState.NOT_HELD:
            return Outcome.FAIL
        if self.status.state is ControlState.NOT_SHOWN or self.age is Age.LATE:
            return Outcome.ATTENTION
        return Outcome.PASS


def standings(
    conn: Connection,
    shelf: Shelf,
    controls: Sequence[Control],
    now: datetime,
    zone: ZoneInfo,
    pruned: int = 0,
) -> list[Standing]:
    """Return how controls stand, in their order.

    Args:
        conn: the state database.
        shelf: reads the bundles.
        controls: of the policy pack.
        now: the moment.
        zone: of the pack, by whose calendar a cadence of days or months counts.
        pruned: number of the last bundle whose files are not kept any more.

    Raises:
        StoreError: the evidence store cannot be read.
    """
    newest = index.newest_of(conn, {one.workflow for one in controls}, _LOOKED_AT)
    found = []
    for control in controls:
        rows = [one for one in newest.get(control.workflow, []) if control.id in one.controls]
        if not rows and len(newest.get(control.workflow, [])) == _LOOKED_AT:
            older = index.newest_of(conn, {control.workflow}, TREND, {control.id})
            rows = older.get(control.workflow, [])
        found.append(_standing(shelf, control, rows[:TREND], now, zone, pruned))
    return found


def _standing(
    shelf: Shelf,
    control: Control,
    rows: Sequence[LedgerRow],
    now: datetime,
    zone: ZoneInfo,
    pruned: int,
) -> Standing:
    if not rows:
        return Standing(control, None, None, None, None, Age.NEVER)
    newest = rows[0]
    trend = tuple(Outcome(one.outcome) for one in reversed(rows))
    due_at = later(newest.sealed_at, control.cadence, zone)
    age = _age(now, due_at, control, zone)
    if newest.seq <= pruned:
        gone = _("its files were removed when their time was over")
        return Standing(control, newest, None, gone, due_at, age, trend)
    if utc(newest.sealed_at) > utc(now) + AHEAD:
        future = _("it was sealed in the future, so its age says nothing: a clock was wrong")
        return Standing(control, newest, None, future, due_at, age, trend)
    try:
        result = shelf.result(newest)
    except Refused as bad:
        return Standing(control, newest, None, bad.message, due_at, age, trend)
    status = next((one for one in result.controls if one.id == control.id), None)
    findings = tuple(one for one in result.findings if one.clause == control.clause)
    problem = None if status else _("it says nothing of this control")
    return Standing(control, newest, status, problem, due_at, age, trend, findings)


def _age(now: datetime, due_at: datetime, control: Control, zone: ZoneInfo) -> Age:
    if utc(now) <= due_at:
        return Age.IN_TIME
    return Age.LATE if utc(now) <= later(due_at, control.cadence, zone) else Age.STALE


def worst(found: Collection[Standing]) -> Outcome:
    """Return the worst outcome of some controls; none at all show nothing."""
    return Outcome.worst([one.outcome for one in found])
