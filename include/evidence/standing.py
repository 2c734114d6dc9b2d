"""The state of each control of the policy pack: outcome and age of its newest evidence.

Evidence that is missing, altered or too old never counts as held, also if earlier evidence held.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from include.evidence import index
from include.evidence.check import Refused
from include.evidence.ledger import LedgerRow
from include.evidence.model import ControlState, ControlStatus, Finding, Outcome, Result
from include.evidence.shelf import Shelf
from include.evidence.verify import link_before
from include.messages import Message, _
from include.policy.period import later, utc
from include.policy.rules import Control

AHEAD = timedelta(minutes=5)  # the clocks of two machines may differ by so much
# A run may take longer than the run before by the cadence divided by this: 2 hours of a day.
GRACE_DIVISOR = 12
_MOST_GRACE = timedelta(days=1)
TREND = 14  # newest outcomes that are shown
_LOOKED_AT = 20  # newest bundles of a workflow that are searched for evidence of its controls


SEALED_AHEAD = _("it was sealed in the future, so its age is unknown: a clock was wrong")


class Age(StrEnum):
    """The age of a control's newest evidence against the cadence that the pack asks for."""

    IN_TIME = "in_time"
    LATE = "late"  # older than one cadence and its grace
    STALE = "stale"  # older than two cadences
    NEVER = "never"  # there is none


@dataclass(frozen=True)
class Standing:
    """The state of a control.

    Attributes:
        control: of the policy pack.
        row: ledger row of its newest evidence; None without evidence or if its files are pruned.
        status: of the control in that bundle; None if the bundle does not verify or lacks it.
        problem: why the bundle cannot be believed; None when it can.
        due_at: by when the next evidence is due, in UTC; None where there is none.
        age: against the cadence. It counts from `finished_at`; from the ledger's own time where
            the bundle cannot be believed.
        trend: outcomes of the newest bundles that are evidence for it, the oldest first.
        findings: all of the newest bundle, of whatever clause.
        finished_at: when the checks of the newest evidence ended, as its signature states; None
            where it cannot be believed.
        is_checked: whether the content of every file was checked; a large bundle is not.
    """

    control: Control
    row: LedgerRow | None
    status: ControlStatus | None
    problem: Message | None
    due_at: datetime | None
    age: Age
    trend: tuple[Outcome, ...] = ()
    findings: tuple[Finding, ...] = ()
    finished_at: datetime | None = None
    is_checked: bool = True

    @property
    def outcome(self) -> Outcome:
        """Return whether the control is shown to hold now; see `Outcome`.

        A control needs attention when its newest run did not show it, or when its evidence is late
        or too large to be checked. Evidence that is missing, stale or not as it was sealed fails.
        """
        if self.status is None or self.age in (Age.STALE, Age.NEVER):
            return Outcome.FAIL
        if self.status.state is ControlState.NOT_HELD:
            return Outcome.FAIL
        if self.status.state is ControlState.NOT_SHOWN or self.age is Age.LATE:
            return Outcome.ATTENTION
        return Outcome.PASS if self.is_checked else Outcome.ATTENTION


def standings(
    conn: Connection,
    shelf: Shelf,
    controls: Sequence[Control],
    now: datetime,
    zone: ZoneInfo,
    pruned: int = 0,
) -> list[Standing]:
    """Return the states of controls, in their order.

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
    newest = index.newest_of(conn, {control.workflow for control in controls}, _LOOKED_AT)
    states = []
    for control in controls:
        rows = [row for row in newest.get(control.workflow, []) if control.id in row.controls]
        if not rows and len(newest.get(control.workflow, [])) == _LOOKED_AT:
            older = index.newest_of(conn, {control.workflow}, TREND, {control.id})
            rows = older.get(control.workflow, [])
        states.append(_standing(conn, shelf, control, rows[:TREND], now, zone, pruned))
    return states


def _standing(
    conn: Connection,
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
    trend = tuple(Outcome(row.outcome) for row in reversed(rows))

    def unbelieved(problem: Message) -> Standing:
        due_at = later(newest.sealed_at, control.cadence, zone)
        age = _age(now, newest.sealed_at, control, zone)
        return Standing(control, newest, None, problem, due_at, age, trend)

    if newest.seq <= pruned:
        return unbelieved(_("its files were removed at the end of their retention period"))
    try:
        result = shelf.result(newest)
        check = shelf.checked(newest, lambda: link_before(conn, newest))
    except Refused as refusal:
        return unbelieved(refusal.message)
    if check.problem is not None:
        return unbelieved(check.problem)
    if is_ahead(newest, result, now):
        return unbelieved(SEALED_AHEAD)
    status = next((each for each in result.controls if each.id == control.id), None)
    return Standing(
        control,
        newest,
        status,
        None if status else _("it has no result for this control"),
        later(result.finished_at, control.cadence, zone),
        _age(now, result.finished_at, control, zone),
        trend,
        tuple(result.findings),
        finished_at=result.finished_at,
        is_checked=check.complete,
    )


def is_ahead(row: LedgerRow, result: Result, now: datetime) -> bool:
    """Return whether a bundle was sealed in the future, so that its age is unknown."""
    return max(utc(row.sealed_at), utc(result.finished_at)) > utc(now) + AHEAD


def _age(now: datetime, finished_at: datetime, control: Control, zone: ZoneInfo) -> Age:
    """Return the age of evidence whose checks ended at a moment that its signature states.

    The ledger's own time is not that: a row that is entered again later is younger than its bundle.
    """
    due_at = later(finished_at, control.cadence, zone)
    if utc(now) <= due_at + min((due_at - utc(finished_at)) / GRACE_DIVISOR, _MOST_GRACE):
        return Age.IN_TIME
    return Age.LATE if utc(now) <= later(due_at, control.cadence, zone) else Age.STALE


@dataclass(frozen=True)
class ClauseFindings:
    """The findings of a bundle against a clause.

    Attributes:
        row: of the bundle.
        findings: at least one.
    """

    row: LedgerRow
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class ClauseStanding:
    """A clause of the policy: its controls, and the findings of any bundle against it.

    Attributes:
        clause: its number.
        controls: as they stand; none where only a workflow of another clause found something.
        found: by bundle, the newest first; each counts once, however many controls it shows.
    """

    clause: str
    controls: tuple[Standing, ...]
    found: tuple[ClauseFindings, ...]

    @property
    def known(self) -> bool:
        """Return whether the newest bundle of each of its controls could be read."""
        return all(control.status is not None for control in self.controls)

    @property
    def outcome(self) -> Outcome:
        """Return the worst outcome of its controls and of the findings."""
        severities = [each.severity for bundle in self.found for each in bundle.findings]
        return Outcome.worst([*(control.outcome for control in self.controls), *severities])


def by_clause(standings: Collection[Standing]) -> list[ClauseStanding]:
    """Return the clauses of controls and of the findings of their newest bundles, in order."""
    bundles: dict[int, Standing] = {}
    for standing in standings:
        if standing.row is not None:
            bundles.setdefault(standing.row.seq, standing)
    newest_first = [bundles[seq] for seq in sorted(bundles, reverse=True)]
    clauses = {standing.control.clause for standing in standings} | {
        _clause_of(finding, bundle) for bundle in newest_first for finding in bundle.findings
    }
    return [
        ClauseStanding(
            clause,
            tuple(each for each in standings if each.control.clause == clause),
            tuple(_found_against(clause, newest_first)),
        )
        for clause in sorted(clauses, key=_as_numbers)
    ]


def _found_against(clause: str, bundles: Sequence[Standing]) -> Iterator[ClauseFindings]:
    for bundle in bundles:
        findings = tuple(each for each in bundle.findings if _clause_of(each, bundle) == clause)
        if findings and bundle.row is not None:
            yield ClauseFindings(bundle.row, findings)


def _clause_of(finding: Finding, bundle: Standing) -> str:
    """Return the clause of a finding; without its own, that of the first control of its bundle."""
    return finding.clause or bundle.control.clause


def _as_numbers(clause: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part) if part.isdecimal() else 0, part) for part in clause.split("."))
